//! The command `cognito-authz explain`: runs one check with the code of the service, and prints the result of each
//! step. For a denial it shows the value that the token has and the accepted ones. It never prints the token or its
//! signature, and masks e-mail addresses in the reason.

mod because;
mod requirement;
mod shown;
mod text;

use std::io::Read;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::time::Instant;

use self::because::{Because, Findings, because};
use crate::authz::answer::Refusal;
use crate::authz::denial::Realm;
use crate::authz::headers::Mutation;
use crate::authz::request::Body;
use crate::authz::token::MAX_TOKEN_BYTES;
use crate::authz::{
    Access, Allowed, Answer, Authorizer, Decision, Decoded, Denial, Header, Policy, RequestContext, Ruleset, Step,
    TokenCache, UnixTime, Verdict,
};
use crate::check::TIME_LIMIT;
use crate::config::{Config, Request};
use crate::lifecycle::Readiness;
use crate::metrics::Metrics;
use crate::reload::Reloader;
use crate::revocation::Revocations;

/// Result of the command.
#[derive(Debug)]
pub struct Explanation {
    /// Report to print, as text or JSON.
    pub text: String,
    /// `true` if the request is allowed.
    pub allowed: bool,
}

/// Reads a token, with or without `Bearer` before it. Trims spaces, tabs and line breaks; as in a check, other white
/// space is part of the token. Returns `None` if nothing is left.
///
/// # Errors
/// If the input cannot be read or is not UTF-8.
pub fn read_token(input: impl Read) -> std::io::Result<Option<String>> {
    let mut text = String::new();
    // Longer input is cut. What remains is still too long for a token, so the check rejects it.
    input.take(MAX_TOKEN_BYTES as u64 + 64).read_to_string(&mut text)?;
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    let token = match text.split_at_checked("bearer ".len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer ") => token.trim_start_matches(' '),
        _ => text,
    };
    Ok((!token.is_empty()).then(|| token.to_owned()))
}

/// An authorizer as the service has it, without ports and tasks.
pub(crate) struct Detached {
    pub(crate) authorizer: Authorizer,
    /// The authorizer's keys live as long as this.
    pub(crate) reloader: Reloader,
    /// Revocations that the authorizer knows.
    known: Arc<Revocations>,
    /// Says why it is not known which tokens are revoked, if so.
    pub(crate) revocations: Result<(), String>,
}

/// Creates an authorizer, and reads the revocations that are kept.
///
/// # Errors
/// If two pools share an issuer.
pub(crate) async fn authorizer(config: Config) -> anyhow::Result<Detached> {
    let metrics = Arc::new(Metrics::new()?);
    let (reloader, rules) = Reloader::open(
        config.policy,
        config.policy_source,
        config.jwks_refresh_interval,
        Arc::clone(&metrics),
        &Readiness::default(),
    )?;
    let (known, revocations) = Revocations::read(config.revocation, metrics.revocation()?).await;
    let cache = TokenCache::new(0, 0, metrics.token_cache.clone());
    let known = Arc::new(known);
    let authorizer = Authorizer::new(rules, cache, Arc::clone(&known), config.limits);
    Ok(Detached { authorizer, reloader, known, revocations })
}

/// Runs one check at the time `now` and reports its steps. Fetches the keys of the pool that issued the credential, a
/// Bearer token or the session of a browser, as the service would.
///
/// # Errors
/// If two pools share an issuer.
pub async fn explain(
    config: Config,
    request: &Request,
    request_token: Option<&str>,
    now: UnixTime,
) -> anyhow::Result<Explanation> {
    let (realm, limits) = (config.realm.clone(), config.limits);
    let Detached { authorizer, mut reloader, known, revocations } = self::authorizer(config).await?;
    let rules = authorizer.rules();
    let bearer = request_token.map(|token| format!("Bearer {token}"));
    let context = context(request, bearer.as_deref());
    let chosen = rules.policies.choose(&context).ok();
    let credential = chosen.and_then(|chosen| rules.credential(&context, chosen.policy).ok().flatten());
    let token = credential.as_ref().map(|credential| &*credential.token);
    let decoded = token.and_then(|token| Decoded::new(token).ok());
    let unverified = decoded.as_ref().and_then(|decoded| decoded.read().ok());
    let pool = unverified.as_ref().and_then(|unverified| unverified.pool(&rules.pools));
    if let Some((pool, _)) = pool {
        reloader.fetch_keys_of(pool).await;
    }
    let verdict = authorizer.authorize(&rules, Some(&context), None, now, Instant::now() + TIME_LIMIT).await;
    let denial = denial(&verdict);
    let failed = pool.filter(|_| denial == Some(Denial::KeysUnavailable));
    let failure = failed.and_then(|(index, _)| rules.keys.failure(index));
    let fetch = failure.map(|failure| (failure.error.to_string(), failure.hint.clone()));
    let marks = pool.and_then(|(_, pool)| unverified.as_ref()?.marks(&pool.id));
    let findings = Findings {
        rules: &rules,
        request: &context,
        trace: &verdict.trace,
        // The credential of a request that is refused for it is not known here, but the token is.
        token: token.or(request_token),
        now,
        limits,
        fetch,
        revoked: marks.filter(|_| denial == Some(Denial::Revoked)).and_then(|marks| known.entry_of(&marks)),
    };
    let because = denial.and_then(|denial| because(denial, &findings));
    let report = report(&verdict, &rules, &context, &realm, &revocations, because.as_ref());
    let allowed = matches!(verdict.decision, Decision::Allow(_));
    let text = if request.json { format!("{report:#}\n") } else { text::of(&report) };
    Ok(Explanation { text, allowed })
}

/// Builds the context that Envoy would send for a request. `credential` is the value of `Authorization`. A body without
/// `content-type` is JSON.
pub(crate) fn context<'r>(request: &'r Request, credential: Option<&'r str>) -> RequestContext<'r> {
    let header = |(name, value): &'r (String, String)| Header { name: name.as_bytes(), value: value.as_bytes() };
    let credential = credential.map(|value| Header { name: b"authorization", value: value.as_bytes() });
    let is_untyped = request.body.is_some() && !request.headers.iter().any(|(name, _)| name == "content-type");
    let content_type = is_untyped.then_some(Header { name: b"content-type", value: b"application/json" });
    RequestContext {
        policy: request.policy.as_deref().map(str::as_bytes),
        method: request.method.as_bytes(),
        path: request.path.as_bytes(),
        host: request.host.as_bytes(),
        headers: request.headers.iter().map(header).chain(credential).chain(content_type).collect(),
        body: request.body.as_deref().map_or(Body::Absent, Body::Bytes),
    }
}

/// Describes the verdict and its steps as JSON.
fn report(
    verdict: &Verdict<'_>,
    rules: &Ruleset,
    request: &RequestContext<'_>,
    realm: &Realm,
    revocations: &Result<(), String>,
    because: Option<&Because>,
) -> Value {
    let trace = &verdict.trace;
    let answer = Answer::new(verdict, rules, Some(request), realm);
    let report = json!({
        "policy": trace.policy.and_then(|policy| rules.policies.get(policy)).map(|policy| &*policy.name),
        "policy_by": chosen_by(verdict, rules, request),
        "pool": trace.pool.and_then(|pool| rules.pools.get(pool)).map(|pool| &*pool.name),
        "steps": steps(verdict, rules, revocations),
        "decision": answer.decision(),
        "status": answer.status(),
    });
    let more = match &answer {
        Answer::Pass(pass) => {
            let (mut set, mut removed) = (Vec::new(), Vec::new());
            pass.mutations(&mut |mutation: Mutation<'_>| match mutation {
                Mutation::Set(name, value) | Mutation::Append(name, value) => {
                    set.push(json!({"name": name, "value": value}));
                }
                Mutation::Remove(name) => removed.push(Value::from(name)),
            });
            let parameters = pass.query_parameters_to_remove();
            let more = json!({"headers": set, "headers_to_remove": removed});
            let parameters = (!parameters.is_empty()).then(|| json!({"query_parameters_to_remove": parameters}));
            let enforced = pass.shadow().map(|refusal| {
                let decision = json!({"decision": "deny", "status": refusal.status()});
                json!({"enforced": joined([Some(decision), Some(refused(refusal))])})
            });
            joined([Some(more), parameters, enforced])
        }
        Answer::Refusal(refusal) => refused(refusal),
    };
    let is_shadow = trace.chosen().and_then(|policy| rules.policies.get(policy)).is_some_and(Policy::is_shadow);
    let shadow = is_shadow.then(|| json!({"mode": "shadow"}));
    let because = because.map(|because| json!({"because": because.to_value()}));
    joined([Some(report), shadow, Some(more), because])
}

/// Denial of the verdict, also one that is only reported because the policy is in shadow mode.
fn denial(verdict: &Verdict<'_>) -> Option<Denial> {
    match &verdict.decision {
        Decision::Deny(denial) | Decision::Allow(Allowed { shadow: Some(denial), .. }) => Some(*denial),
        Decision::Allow(_) => None,
    }
}

/// Joins the members of JSON objects.
fn joined<const N: usize>(parts: [Option<Value>; N]) -> Value {
    let members = parts.into_iter().flatten().filter_map(|part| match part {
        Value::Object(members) => Some(members),
        _ => None,
    });
    Value::Object(members.flatten().collect())
}

/// Describes a refusal as JSON.
fn refused(refusal: &Refusal<'_>) -> Value {
    json!({
        "reason": refusal.denial().reason(),
        "message": refusal.denial().message(),
        "requirement": refusal.requirement(),
        "www_authenticate": refusal.www_authenticate(),
        "location": refusal.location(),
    })
}

/// Describes what selected the policy: Envoy, a route of the file, the default, or a call in the body.
fn chosen_by(verdict: &Verdict<'_>, rules: &Ruleset, request: &RequestContext<'_>) -> String {
    let routes = rules.policies.routes();
    let route = verdict.trace.route.and_then(|place| Some((place, routes.iter().nth(place)?)));
    let by = match (request.policy, route) {
        (Some(_), _) => "the context extension policy".into(),
        (None, Some((place, route))) => format!("routes[{place}]: {route}"),
        (None, None) if routes.iter().len() == 0 => "default: there are no routes".into(),
        (None, None) => "default: no route matches".into(),
    };
    match verdict.trace.call.and_then(|call| Some((call.index, rules.policies.get(call.of)?))) {
        Some((index, policy)) => format!("json_rpc.calls[{index}] of the policy {}, by {by}", policy.name),
        None => by,
    }
}

/// Lists each step with its result: `passed`, `failed`, `not reached`, or `skipped` with the reason.
fn steps(verdict: &Verdict<'_>, rules: &Ruleset, revocations: &Result<(), String>) -> Value {
    let trace = &verdict.trace;
    let denial = denial(verdict);
    let anonymous = matches!(verdict.decision, Decision::Allow(Allowed { token: None, shadow: None, .. }));
    let policy = trace.policy.and_then(|policy| rules.policies.get(policy));
    let why_anonymous = match policy.map(|policy| &policy.access) {
        Some(Access::Public) => "skipped: the policy is public",
        Some(Access::Optional) if trace.step == Step::Credential => {
            "skipped: there is no credential, and the policy needs none"
        }
        _ => "skipped: this is a CORS preflight",
    };
    let result = |step: Step| match denial {
        _ if anonymous && step > Step::Route && step < Step::Identity => why_anonymous.to_owned(),
        Some(denial) if step == trace.step => format!("failed: {}", denial.reason()),
        Some(_) if step > trace.step => "not reached".into(),
        _ => match revocations {
            Err(why) if step == Step::Revocation => format!("skipped: {why}"),
            _ => "passed".into(),
        },
    };
    Step::ALL.iter().map(|step| json!({"step": step.name(), "result": result(*step)})).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_trimmed_and_may_have_a_scheme() {
        for (input, expected) in [
            ("", None),
            (" \n", None),
            ("a.b.c\n", Some("a.b.c")),
            ("Bearer a.b.c\r\n", Some("a.b.c")),
            ("bearer   a.b.c", Some("a.b.c")),
            ("Bearer ", Some("Bearer")),
            ("éé.b.c", Some("éé.b.c")),
            ("\t a.b.c \r\n\n", Some("a.b.c")),
            // A check does not trim these characters either, so the token is malformed.
            ("\u{a0}a.b.c", Some("\u{a0}a.b.c")),
            ("a.b.c\x0b\n", Some("a.b.c\x0b")),
            ("Bearer \x0ca.b.c", Some("\x0ca.b.c")),
        ] {
            assert_eq!(read_token(input.as_bytes()).unwrap().as_deref(), expected, "{input:?}");
        }
        assert!(read_token(&b"\xff"[..]).is_err());
    }
}
