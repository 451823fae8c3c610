//! The command `cognito-authz test-policy`: runs a table of requests against the policy file, and compares the
//! decisions with the expected ones.
//!
//! The command creates a key, gives it to every pool in place of its own keys, and signs the tokens of the table with
//! it. It needs no network, user pool or secret, so it can run in CI. Start from [`run`].

mod table;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

pub use self::table::schema;
use self::table::{ExpectedDecision, Reason, Test, Text, TokenRow};
use crate::authz::answer::Refusal;
use crate::authz::denial::Realm;
use crate::authz::headers::Mutation;
use crate::authz::policy::DEFAULT;
use crate::authz::{Answer, Authorizer, Denial, Ruleset, UnixTime};
use crate::check::TIME_LIMIT;
use crate::config::file::values::Name;
use crate::config::parse::TokenUseOption;
use crate::config::{Config, Request};
use crate::explain::{self, Detached};
use crate::jwks::KeySet;
use crate::nearest::did_you_mean;
use crate::revocation::Keep;
use crate::user_pool::{Clients, UserPool};

/// Result of the command.
#[derive(Debug)]
pub struct Outcome {
    /// Report to print: a line per row, the differences of failed rows, and a summary.
    pub text: String,
    /// Number of failed rows.
    pub failed: usize,
}

/// Runs every row of `table`, a path, at the time `now`.
///
/// # Errors
/// [`ConfigError`](crate::config::ConfigError) if the table cannot be read or is invalid, or a row names an unknown pool.
pub async fn run(mut config: Config, table: &Path, now: UnixTime) -> anyhow::Result<Outcome> {
    let pools: Vec<&UserPool> = config.policy.pools.iter().map(|(pool, _)| pool).collect();
    let tests = table::read(table, &pools)?;
    let signer = Signer::new()?;
    for (_, seed) in &mut config.policy.pools {
        *seed = signer.keys()?;
    }
    let realm = config.realm.clone();
    // The tokens are signed here, so none of them was revoked.
    config.revocation.keep = Keep::Memory;
    let Detached { authorizer, reloader: _reloader, .. } = explain::authorizer(config).await?;
    let mut outcome = Outcome { text: String::new(), failed: 0 };
    for (index, test) in tests.iter().enumerate() {
        let Text(name) = &test.name;
        let place = || format!("{}: tests[{index}] ({name})", table.display());
        let Checked { differences, shadow } =
            check(&authorizer, &realm, test, &signer, now).await.with_context(place)?;
        let word = if differences.is_empty() { "ok  " } else { "FAIL" };
        outcome.text.extend([word, " ", name, "\n"]);
        if let Some(denial) = shadow {
            let note = format!("     allowed in shadow mode; enforced: deny ({})\n", denial.reason());
            outcome.text.push_str(&note);
        }
        outcome.failed += usize::from(!differences.is_empty());
        for difference in differences {
            outcome.text.extend(["     ", &difference, "\n"]);
        }
    }
    outcome.text.push_str(&summary(tests.len(), outcome.failed));
    Ok(outcome)
}

fn summary(tests: usize, failed: usize) -> String {
    format!("{} passed, {failed} failed\n", tests - failed)
}

/// Result of one row.
struct Checked {
    /// Differences from the expected result, one sentence each.
    differences: Vec<String>,
    /// Denial that a policy in shadow mode only reports.
    shadow: Option<Denial>,
}

/// Runs one row.
async fn check(
    authorizer: &Authorizer,
    realm: &Realm,
    test: &Test,
    signer: &Signer,
    now: UnixTime,
) -> anyhow::Result<Checked> {
    let rules = authorizer.rules();
    let row = &test.request;
    let request = Request {
        method: row.method.0.clone(),
        host: row.host.0.clone(),
        path: row.path.0.clone(),
        policy: row.policy.as_ref().map(|Text(policy)| policy.clone()),
        headers: row.headers.iter().map(|(name, Text(value))| (name.to_ascii_lowercase(), value.clone())).collect(),
        body: row.body(),
        json: false,
    };
    let token = test.token.as_ref().map(|token| signer.token(token, &rules, now)).transpose()?;
    let credential = token.map(|token| format!("Bearer {token}"));
    let context = explain::context(&request, credential.as_deref());
    let deadline = Instant::now() + TIME_LIMIT;
    let verdict = authorizer.authorize(&rules, Some(&context), None, now, deadline).await;
    let answer = Answer::new(&verdict, &rules, Some(&context), realm);

    let expected = &test.expect;
    let mut differences = Vec::new();
    let mut compare = |what: &str, expected: Option<String>, got: Option<String>| {
        if let Some(expected) = expected
            && got.as_ref() != Some(&expected)
        {
            let got = got.unwrap_or_else(|| "none".into());
            differences.push(format!("{what}: expected {expected}, got {got}"));
        }
    };
    let (denial, shadow) = match &answer {
        Answer::Pass(pass) => (None, pass.shadow()),
        Answer::Refusal(refusal) => (Some(refusal.denial()), None),
    };
    let requirement = verdict.trace.requirement.as_deref();
    let shadow = shadow.map(Refusal::denial);
    let got = match denial {
        // An unexpected denial is shown with its reason.
        Some(denial) if expected.decision == ExpectedDecision::Allow => {
            format!("{} ({})", answer.decision(), denial.reason())
        }
        _ => answer.decision().to_owned(),
    };
    compare("decision", Some(expected.decision.as_str().into()), Some(got));
    let reason = |Reason(denial): &Reason| denial.reason().to_owned();
    compare("reason", expected.reason.as_ref().map(reason), denial.map(|denial| denial.reason().to_owned()));
    let got = shadow.map(|denial| denial.reason().to_owned());
    compare("shadow_reason", expected.shadow_reason.as_ref().map(reason), got);
    compare("status", expected.status.map(|status| status.to_string()), Some(answer.status().to_string()));
    let location = match &answer {
        Answer::Pass(_) => None,
        Answer::Refusal(refusal) => refusal.location().map(str::to_owned),
    };
    compare("location", expected.location.as_ref().map(|Text(location)| location.clone()), location);
    let policy = verdict.trace.policy.and_then(|policy| rules.policies.get(policy)).map(|p| p.name.to_string());
    compare("policy", expected.policy.as_ref().map(Name::to_string), policy);
    let expected_requirement = expected.requirement.as_ref().map(|Text(requirement)| requirement.clone());
    compare("requirement", expected_requirement, requirement.map(str::to_owned));
    let headers = headers(&answer);
    for (name, value) in &expected.headers {
        let got = headers.get(&name.to_ascii_lowercase()).cloned();
        let none = || "none".to_owned();
        compare(
            &format!("header {name}"),
            Some(value.as_ref().map_or_else(none, |Text(value)| value.clone())),
            Some(got.unwrap_or_else(none)),
        );
    }
    if !differences.is_empty() {
        differences.extend(unknown_names(test, denial, &rules));
    }
    Ok(Checked { differences, shadow })
}

/// Explains names in a failed row that the policy file does not have.
fn unknown_names(test: &Test, denial: Option<Denial>, rules: &Ruleset) -> Vec<String> {
    let policies = || rules.policies.iter().map(|policy| &*policy.name);
    let is_unknown = |name: &&str| *name != DEFAULT && !policies().any(|known| known == *name);
    let given = test.request.policy.as_ref().map(|Text(name)| name.as_str());
    let given = given.filter(|_| denial == Some(Denial::UnknownPolicy));
    let of_policy = given.into_iter().chain(test.expect.policy.as_ref().map(Name::as_str)).filter(is_unknown);
    let of_policy = of_policy.map(|name| format!("there is no policy {name}{}", did_you_mean(name, policies())));
    let of_header = test.expect.headers.iter().filter(|(_, value)| value.is_some()).filter_map(|(name, _)| {
        let lower = name.to_ascii_lowercase();
        let is_set = rules.headers.names().any(|known| known == lower);
        (!is_set).then(|| format!("no header {name} is ever set{}", did_you_mean(&lower, rules.headers.names())))
    });
    of_policy.chain(of_header).collect()
}

/// Returns the headers that the answer sets, by name. Several values of one header are joined with commas, as Envoy
/// does.
fn headers(answer: &Answer<'_>) -> BTreeMap<String, String> {
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    if let Answer::Pass(pass) = answer {
        pass.mutations(&mut |mutation: Mutation<'_>| match mutation {
            Mutation::Set(name, value) => drop(headers.insert(name.into(), value.into())),
            Mutation::Append(name, value) => {
                let values = headers.entry(name.into()).or_default();
                values.push(',');
                values.push_str(value);
            }
            Mutation::Remove(_) => {}
        });
    }
    headers
}

/// Key pair that signs the tokens of the table.
struct Signer {
    pair: KeyPair,
}

const KID: &str = "test-policy";

impl Signer {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { pair: KeyPair::generate(KeySize::Rsa2048).context("the key cannot be generated")? })
    }

    fn keys(&self) -> anyhow::Result<KeySet> {
        let public = self.pair.public_key();
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let n = number(public.modulus().big_endian_without_leading_zero());
        let e = number(public.exponent().big_endian_without_leading_zero());
        let jwks = json!({"keys": [{"kid": KID, "alg": "RS256", "kty": "RSA", "use": "sig", "n": n, "e": e}]});
        Ok(KeySet::parse(jwks.to_string().as_bytes(), &KeySet::default())?)
    }

    /// Signs a token in the form that Cognito issues.
    fn token(&self, row: &TokenRow, rules: &Ruleset, now: UnixTime) -> anyhow::Result<String> {
        let pool = match &row.pool {
            None => rules.pools.iter().next().context("there is no pool")?,
            Some(name) => rules.pools.named(name.as_str()).with_context(|| format!("there is no pool {name}"))?,
        };
        let claims = Value::Object(claims(row, pool, now));
        let header = json!({"alg": "RS256", "kid": KID});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", encode(&header), encode(&claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), input.as_bytes(), &mut signature)
            .context("a token cannot be signed")?;
        if let Some(first) = signature.first_mut().filter(|_| !row.signed) {
            *first ^= 1;
        }
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn claims(row: &TokenRow, pool: &UserPool, now: UnixTime) -> Map<String, Value> {
    let client = match (&row.client_id, &pool.clients) {
        (Some(Text(client)), _) => client.clone(),
        (None, Clients::Only(clients)) => clients.first().map(|client| client.as_str().to_owned()).unwrap_or_default(),
        (None, Clients::Any) => "testclient".to_owned(),
    };
    let is_id = match row.token_use {
        Some(token_use) => matches!(token_use, TokenUseOption::Id),
        None => pool.token_use == crate::user_pool::AcceptedUse::Id,
    };
    let sub = "00000000-0000-4000-8000-000000000000";
    let mut claims = Map::new();
    let mut set = |name: &str, value: Value| drop(claims.insert(name.to_owned(), value));
    set("iss", pool.issuers.first().cloned().unwrap_or_default().into());
    set("sub", sub.into());
    set("exp", (now + row.expires_in.0).into());
    set("iat", now.into());
    set("auth_time", (now - row.auth_age.0).into());
    set("token_use", if is_id { "id" } else { "access" }.into());
    set(if is_id { "aud" } else { "client_id" }, client.into());
    set(if is_id { "cognito:username" } else { "username" }, sub.into());
    if let Some(Text(scope)) = &row.scope {
        set("scope", scope.as_str().into());
    }
    if !row.groups.is_empty() {
        let groups: Vec<&str> = row.groups.iter().map(|Text(group)| group.as_str()).collect();
        set("cognito:groups", groups.into());
    }
    // These come last, so they can change any claim; null removes one.
    for (name, value) in &row.claims {
        if value.is_null() {
            claims.remove(name);
        } else {
            claims.insert(name.clone(), value.clone());
        }
    }
    claims
}
