//! The command `cognito-authz explain`: runs one check with the code of the service, and prints the result of each
//! step. It never prints the token.

use std::io::Read;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::authz::answer::Refusal;
use crate::authz::denial::Realm;
use crate::authz::headers::Mutation;
use crate::authz::request::Body;
use crate::authz::token::MAX_TOKEN_BYTES;
use crate::authz::{
    Access, Allowed, Answer, Authorizer, Decision, Decoded, Header, RequestContext, Ruleset, Step, TokenCache,
    UnixTime, Verdict,
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
    let authorizer = Authorizer::new(rules, cache, Arc::new(known), config.limits);
    Ok(Detached { authorizer, reloader, revocations })
}

/// Runs one check at the time `now` and reports its steps. Fetches the keys of the pool that issued the credential, a
/// Bearer token or the session of a browser, as the service would.
///
/// # Errors
/// If two pools share an issuer.
pub async fn explain(
    config: Config,
    request: &Request,
    token: Option<&str>,
    now: UnixTime,
) -> anyhow::Result<Explanation> {
    let realm = config.realm.clone();
    let Detached { authorizer, mut reloader, revocations } = self::authorizer(config).await?;
    let rules = authorizer.rules();
    let bearer = token.map(|token| format!("Bearer {token}"));
    let context = context(request, bearer.as_deref());
    if let Ok(chosen) = rules.policies.choose(&context)
        && let Ok(Some(credential)) = rules.credential(&context, chosen.policy)
        && let Ok(decoded) = Decoded::new(&credential.token)
        && let Ok(unverified) = decoded.read()
        && let Some((pool, _)) = unverified.pool(&rules.pools)
    {
        reloader.fetch_keys_of(pool).await;
    }
    let verdict = authorizer.authorize(&rules, Some(&context), None, now, Instant::now() + TIME_LIMIT).await;
    let report = report(&verdict, &rules, &context, &realm, &revocations);
    let allowed = matches!(verdict.decision, Decision::Allow(_));
    let text = if request.json { format!("{report:#}\n") } else { as_text(&report) };
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
    joined([Some(report), Some(more)])
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
    let denial = match &verdict.decision {
        Decision::Deny(denial) | Decision::Allow(Allowed { shadow: Some(denial), .. }) => Some(denial),
        Decision::Allow(_) => None,
    };
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

/// Formats the report as text.
fn as_text(report: &Value) -> String {
    let text = |name: &str| report.get(name).and_then(Value::as_str);
    let mut out = String::new();
    let mut line = |label: &str, value: &str| out.extend([format!("{label:<12} {value}").trim_end(), "\n"]);
    for step in report.get("steps").and_then(Value::as_array).into_iter().flatten() {
        let of = |name: &str| step.get(name).and_then(Value::as_str).unwrap_or_default();
        let mut result = of("result").to_owned();
        if of("step") == "route"
            && let Some(by) = text("policy_by")
            && let Some(policy) = text("policy")
        {
            result.extend([" (policy ", policy, ", by ", by, ")"]);
        }
        if of("step") == "iss"
            && result == "passed"
            && let Some(pool) = text("pool")
        {
            result.extend([" (pool ", pool, ")"]);
        }
        if result.starts_with("failed")
            && let Some(requirement) = text("requirement").or_else(|| of_enforced(report, "requirement"))
        {
            result.extend([" (", requirement, ")"]);
        }
        line(of("step"), &result);
    }
    line("", "");
    let status = report.get("status").map(Value::to_string).unwrap_or_default();
    line("decision", &format!("{} ({status})", text("decision").unwrap_or_default()));
    if let Some(enforced) = report.get("enforced") {
        let status = enforced.get("status").map(Value::to_string).unwrap_or_default();
        line("enforced", &format!("deny ({status}): the policy is in shadow mode, and would otherwise deny this"));
    }
    if let Some(message) = text("message").or_else(|| of_enforced(report, "message")) {
        line("", message);
    }
    if let Some(challenge) = text("www_authenticate").or_else(|| of_enforced(report, "www_authenticate")) {
        line("challenge", challenge);
    }
    if let Some(location) = text("location").or_else(|| of_enforced(report, "location")) {
        line("location", location);
    }
    for header in report.get("headers").and_then(Value::as_array).into_iter().flatten() {
        let of = |name: &str| header.get(name).and_then(Value::as_str).unwrap_or_default();
        line("sets", &format!("{}: {}", of("name"), of("value")));
    }
    for name in report.get("headers_to_remove").and_then(Value::as_array).into_iter().flatten() {
        line("removes", name.as_str().unwrap_or_default());
    }
    for name in report.get("query_parameters_to_remove").and_then(Value::as_array).into_iter().flatten() {
        line("removes", &format!("the query parameter {}", name.as_str().unwrap_or_default()));
    }
    out
}

/// Returns a text of the refusal that a policy in shadow mode only reports.
fn of_enforced<'v>(report: &'v Value, name: &str) -> Option<&'v str> {
    report.get("enforced")?.get(name)?.as_str()
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
