//! The command `cognito-authz test-policy`: runs a table of requests against the policy file, and compares the
//! decisions with the expected ones.
//!
//! The command creates a key, gives it to every pool in place of its own keys, and signs the tokens of the table with
//! it. It needs no network, user pool or secret, so it can run in CI. Start from [`run`].

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use anyhow::Context;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::authz::answer::Refusal;
use crate::authz::denial::Realm;
use crate::authz::headers::Mutation;
use crate::authz::{Answer, Authorizer, Denial, Ruleset, UnixTime};
use crate::check::TIME_LIMIT;
use crate::config::file::text::Parsed;
use crate::config::file::values::Name;
use crate::config::parse::{TokenUseOption, long_duration};
use crate::config::{Config, Request};
use crate::explain::{self, Detached};
use crate::files::{self, MAX_TEXT_BYTES};
use crate::jwks::KeySet;
use crate::revocation::Keep;
use crate::user_pool::{Clients, UserPool};

/// Content of the table's file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    tests: Vec<Test>,
}

/// Row of the table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Test {
    name: String,
    #[serde(default)]
    request: RequestRow,
    /// `None` for a request without a token.
    token: Option<TokenRow>,
    expect: Expected,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RequestRow {
    method: String,
    host: String,
    path: String,
    /// Policy that the Envoy route names (context extension `policy`).
    policy: Option<String>,
    headers: BTreeMap<String, String>,
    /// Body: text, or a value that is sent as JSON.
    body: Option<Value>,
}

impl Default for RequestRow {
    fn default() -> Self {
        Self {
            method: "GET".into(),
            host: String::new(),
            path: "/".into(),
            policy: None,
            headers: BTreeMap::new(),
            body: None,
        }
    }
}

impl RequestRow {
    /// Bytes of the body.
    fn body(&self) -> Option<Vec<u8>> {
        self.body.as_ref().map(|body| match body {
            Value::String(text) => text.clone().into_bytes(),
            value => value.to_string().into_bytes(),
        })
    }
}

/// Differences from the default token: one that the first pool has just issued to a user.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TokenRow {
    pool: Option<Name>,
    token_use: Option<TokenUseOption>,
    client_id: Option<String>,
    scope: Option<String>,
    groups: Vec<String>,
    /// Time until the token expires; negative if it has expired.
    expires_in: Offset,
    /// Time since the user signed in.
    auth_age: Offset,
    claims: Map<String, Value>,
    /// `false` for a token with a wrong signature.
    signed: bool,
}

impl Default for TokenRow {
    fn default() -> Self {
        Self {
            pool: None,
            token_use: None,
            client_id: None,
            scope: None,
            groups: Vec::new(),
            expires_in: Offset(3600),
            auth_age: Offset(0),
            claims: Map::new(),
            signed: true,
        }
    }
}

/// Seconds, written as a duration with an optional `-` before it.
#[derive(Clone, Copy, Debug)]
struct Offset(i64);

impl<'de> Deserialize<'de> for Offset {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Parsed::deserialize(deserializer).map(|Parsed(offset)| offset)
    }
}

impl FromStr for Offset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (sign, rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
        i64::try_from(long_duration(rest)?.as_secs()).map(|seconds| Self(sign * seconds)).map_err(|_| "too long".into())
    }
}

/// Expected result. Unset members are not compared.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    decision: ExpectedDecision,
    reason: Option<Parsed<Reason>>,
    /// Reason for which a policy in shadow mode would deny the request.
    shadow_reason: Option<Parsed<Reason>>,
    status: Option<u16>,
    /// Address of the sign-in to which the browser is redirected.
    location: Option<String>,
    policy: Option<Name>,
    requirement: Option<String>,
    /// Headers that the upstream receives, by name; null for a header that it must not receive.
    #[serde(default)]
    headers: BTreeMap<String, Option<String>>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum ExpectedDecision {
    Allow,
    Deny,
}

impl ExpectedDecision {
    fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// Denial, written as its reason.
#[derive(Debug)]
struct Reason(Denial);

impl FromStr for Reason {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Denial::ALL.iter().find(|denial| denial.reason() == text).copied().map(Self).ok_or("not the reason of a denial")
    }
}

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
/// If the table cannot be read or is invalid, or a row names an unknown pool.
pub async fn run(mut config: Config, table: &Path, now: UnixTime) -> anyhow::Result<Outcome> {
    let of_table = || table.display().to_string();
    let text = files::read_text(table, MAX_TEXT_BYTES).with_context(of_table)?;
    let Table { tests } = yaml_serde::from_str(&text).with_context(of_table)?;
    anyhow::ensure!(!tests.is_empty(), "{}: there are no tests in it", of_table());
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
        let place = || format!("{}: tests[{index}] ({})", of_table(), test.name);
        let Checked { differences, shadow } =
            check(&authorizer, &realm, test, &signer, now).await.with_context(place)?;
        let word = if differences.is_empty() { "ok  " } else { "FAIL" };
        outcome.text.extend([word, " ", &test.name, "\n"]);
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
        method: row.method.clone(),
        host: row.host.clone(),
        path: row.path.clone(),
        policy: row.policy.clone(),
        headers: row.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect(),
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
    let reason = |Parsed(Reason(denial)): &Parsed<Reason>| denial.reason().to_owned();
    compare("reason", expected.reason.as_ref().map(reason), denial.map(|denial| denial.reason().to_owned()));
    let got = shadow.map(|denial| denial.reason().to_owned());
    compare("shadow_reason", expected.shadow_reason.as_ref().map(reason), got);
    compare("status", expected.status.map(|status| status.to_string()), Some(answer.status().to_string()));
    let location = match &answer {
        Answer::Pass(_) => None,
        Answer::Refusal(refusal) => refusal.location().map(str::to_owned),
    };
    compare("location", expected.location.clone(), location);
    let policy = verdict.trace.policy.and_then(|policy| rules.policies.get(policy)).map(|p| p.name.to_string());
    compare("policy", expected.policy.as_ref().map(Name::to_string), policy);
    compare("requirement", expected.requirement.clone(), requirement.map(str::to_owned));
    let headers = headers(&answer);
    for (name, value) in &expected.headers {
        let got = headers.get(&name.to_ascii_lowercase()).cloned();
        let none = || "none".to_owned();
        compare(&format!("header {name}"), Some(value.clone().unwrap_or_else(none)), Some(got.unwrap_or_else(none)));
    }
    Ok(Checked { differences, shadow })
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
        (Some(client), _) => client.clone(),
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
    if let Some(scope) = &row.scope {
        set("scope", scope.as_str().into());
    }
    if !row.groups.is_empty() {
        set("cognito:groups", row.groups.clone().into());
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
