//! `cognito-authz explain`: one check, step by step, by the very code that serves checks. It never prints the token.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::authz::denial::Realm;
use crate::authz::headers::Mutation;
use crate::authz::token::MAX_TOKEN_BYTES;
use crate::authz::{
    Access, Allowed, Answer, Authorizer, Decision, Decoded, Header, RequestContext, Ruleset, Step, TokenCache,
    UnixTime, Verdict,
};
use crate::config::{Config, Request};
use crate::lifecycle::Readiness;
use crate::metrics::Metrics;
use crate::rulebook::Rulebook;

/// Most time for the check; its keys have been fetched before.
const MAX_CHECK: Duration = Duration::from_secs(5);

/// What is to be printed, and whether the request may pass.
#[derive(Debug)]
pub struct Explanation {
    /// Text or JSON.
    pub text: String,
    /// Whether the request may pass.
    pub allowed: bool,
}

/// Reads a token as people paste it: with or without the scheme, and with line breaks at its edges. Nothing is no token.
/// Other white space than line breaks, spaces and tabs is part of it, as it is for a check.
///
/// # Errors
/// When it cannot be read, or is no text.
pub fn read_token(input: impl Read) -> std::io::Result<Option<String>> {
    let mut text = String::new();
    // One byte more than is allowed is enough to be told that it is too much.
    input.take(MAX_TOKEN_BYTES as u64 + 64).read_to_string(&mut text)?;
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    let token = match text.split_at_checked("bearer ".len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer ") => token.trim_start_matches(' '),
        _ => text,
    };
    Ok((!token.is_empty()).then(|| token.to_owned()))
}

/// Everything that decides, without a port and without a task.
///
/// # Errors
/// When two pools share an issuer.
pub fn decider(config: Config) -> anyhow::Result<(Rulebook, Authorizer)> {
    let metrics = Arc::new(Metrics::new()?);
    let (rulebook, rules) = Rulebook::open(
        config.rules,
        config.rules_source,
        config.jwks_refresh_interval,
        Arc::clone(&metrics),
        &Readiness::default(),
    )?;
    Ok((rulebook, Authorizer::new(rules, TokenCache::new(0, 0, metrics.token_cache.clone()), config.leeway)))
}

/// Goes through one check at the time `now`. The keys of the pool that the credential names, a Bearer token or a browser's
/// session, are fetched as `serve` would.
///
/// # Errors
/// When two pools share an issuer.
pub async fn explain(
    config: Config,
    request: &Request,
    token: Option<&str>,
    now: UnixTime,
) -> anyhow::Result<Explanation> {
    let realm = config.realm.clone();
    let (mut rulebook, authorizer) = decider(config)?;
    let rules = authorizer.rules();
    let bearer = token.map(|token| format!("Bearer {token}"));
    let context = context(request, bearer.as_deref());
    if let Ok(Some(credential)) = rules.credential(&context)
        && let Ok(decoded) = Decoded::new(&credential.token)
        && let Ok(unverified) = decoded.read()
        && let Some((pool, _)) = unverified.pool(&rules.pools)
    {
        rulebook.fetch_keys_of(pool).await;
    }
    let verdict = authorizer.authorize(&rules, Some(&context), now, Instant::now() + MAX_CHECK).await;
    let report = report(&verdict, &rules, &context, &realm);
    let allowed = matches!(verdict.decision, Decision::Allow(_));
    let text = if request.json { format!("{report:#}\n") } else { as_text(&report) };
    Ok(Explanation { text, allowed })
}

/// The request as Envoy would send it.
pub fn context<'r>(request: &'r Request, credential: Option<&'r str>) -> RequestContext<'r> {
    let header = |(name, value): &'r (String, String)| Header { name: name.as_bytes(), value: value.as_bytes() };
    let credential = credential.map(|value| Header { name: b"authorization", value: value.as_bytes() });
    RequestContext {
        policy: request.policy.as_deref().map(str::as_bytes),
        method: request.method.as_bytes(),
        path: request.path.as_bytes(),
        host: request.host.as_bytes(),
        headers: request.headers.iter().map(header).chain(credential).collect(),
    }
}

/// The verdict and how it was reached, as JSON.
fn report(verdict: &Verdict<'_>, rules: &Ruleset, request: &RequestContext<'_>, realm: &Realm) -> Value {
    let trace = &verdict.trace;
    let answer = Answer::new(verdict, rules, Some(request), realm);
    let mut report = json!({
        "policy": trace.policy.and_then(|policy| rules.policies.get(policy)).map(|policy| &*policy.name),
        "policy_by": chosen_by(verdict, rules, request),
        "pool": trace.pool.and_then(|pool| rules.pools.get(pool)).map(|pool| &*pool.name),
        "steps": steps(verdict, rules),
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
            json!({"decision": "allow", "headers": set, "headers_to_remove": removed})
        }
        Answer::Refusal(refusal) => json!({
            "decision": "deny",
            "reason": refusal.denial().reason(),
            "message": refusal.denial().message(),
            "requirement": refusal.requirement(),
            "www_authenticate": refusal.www_authenticate(),
        }),
    };
    if let (Value::Object(report), Value::Object(more)) = (&mut report, more) {
        report.extend(more);
    }
    report
}

/// What chose the policy: Envoy, a route of the file, or the default.
fn chosen_by(verdict: &Verdict<'_>, rules: &Ruleset, request: &RequestContext<'_>) -> String {
    let routes = rules.policies.routes();
    let route = verdict.trace.route.and_then(|place| Some((place, routes.iter().nth(place)?)));
    match (request.policy, route) {
        (Some(_), _) => "the context extension policy".into(),
        (None, Some((place, route))) => format!("routes[{place}]: {route}"),
        (None, None) if routes.iter().len() == 0 => "default: there are no routes".into(),
        (None, None) => "default: no route matches".into(),
    }
}

/// Each step with its result: `passed`, `failed`, `not reached`, or why it was left out.
fn steps(verdict: &Verdict<'_>, rules: &Ruleset) -> Value {
    let trace = &verdict.trace;
    let denial = match &verdict.decision {
        Decision::Deny(denial) => Some(denial),
        Decision::Allow(_) => None,
    };
    let anonymous = matches!(verdict.decision, Decision::Allow(Allowed { token: None, .. }));
    let policy = trace.policy.and_then(|policy| rules.policies.get(policy));
    let why_anonymous = match policy.map(|policy| &policy.access) {
        Some(Access::Public) => "left out: the policy is public",
        Some(Access::Optional) if trace.step == Step::Credential => {
            "left out: there is no credential, and the policy needs none"
        }
        _ => "left out: this is a CORS preflight",
    };
    let result = |step: Step| match denial {
        _ if anonymous && step > Step::Route && step < Step::Identity => why_anonymous.to_owned(),
        Some(denial) if step == trace.step => format!("failed: {}", denial.reason()),
        Some(_) if step > trace.step => "not reached".into(),
        _ if step == Step::Revocation => "left out: nothing is revoked in this version".into(),
        _ => "passed".into(),
    };
    Step::ALL.iter().map(|step| json!({"step": step.name(), "result": result(*step)})).collect()
}

/// The report for people.
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
            && let Some(requirement) = text("requirement")
        {
            result.extend([" (", requirement, ")"]);
        }
        line(of("step"), &result);
    }
    line("", "");
    let status = report.get("status").map(Value::to_string).unwrap_or_default();
    line("decision", &format!("{} ({status})", text("decision").unwrap_or_default()));
    if let Some(message) = text("message") {
        line("", message);
    }
    if let Some(challenge) = text("www_authenticate") {
        line("challenge", challenge);
    }
    for header in report.get("headers").and_then(Value::as_array).into_iter().flatten() {
        let of = |name: &str| header.get(name).and_then(Value::as_str).unwrap_or_default();
        line("sets", &format!("{}: {}", of("name"), of("value")));
    }
    for name in report.get("headers_to_remove").and_then(Value::as_array).into_iter().flatten() {
        line("removes", name.as_str().unwrap_or_default());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_people_paste_them() {
        for (input, expected) in [
            ("", None),
            (" \n", None),
            ("a.b.c\n", Some("a.b.c")),
            ("Bearer a.b.c\r\n", Some("a.b.c")),
            ("bearer   a.b.c", Some("a.b.c")),
            ("Bearer ", Some("Bearer")),
            ("éé.b.c", Some("éé.b.c")),
            ("\t a.b.c \r\n\n", Some("a.b.c")),
            // What a check does not trim stays, and is malformed there and here.
            ("\u{a0}a.b.c", Some("\u{a0}a.b.c")),
            ("a.b.c\x0b\n", Some("a.b.c\x0b")),
            ("Bearer \x0ca.b.c", Some("\x0ca.b.c")),
        ] {
            assert_eq!(read_token(input.as_bytes()).unwrap().as_deref(), expected, "{input:?}");
        }
        assert!(read_token(&b"\xff"[..]).is_err());
    }
}
