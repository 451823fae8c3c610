//! Text form of a report of `explain`. Its lines are for readers; programs read the JSON.

use serde_json::Value;

/// Formats the report.
pub(super) fn of(report: &Value) -> String {
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
    } else if text("mode") == Some("shadow") && text("decision") == Some("allow") {
        line("enforced", "allow: the policy is in shadow mode, and would otherwise allow this as well");
    }
    if let Some(message) = text("message").or_else(|| of_enforced(report, "message")) {
        line("", message);
    }
    if let Some(because) = report.get("because") {
        let of = |name: &str| because.get(name).unwrap_or(&Value::Null);
        let what = of("what").as_str().unwrap_or_default();
        let has = of("has");
        let has = match has {
            Value::Null => format!("{what} is absent"),
            Value::String(text) => format!("{what} is {text}"),
            other => format!("{what} is {other}"),
        };
        line("because", &has);
        line("accepted", &plain(of("accepted")));
        if let Some(hint) = of("hint").as_str() {
            line("hint", hint);
        }
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

/// Formats a value for a reader: a text as it is, a requirement in words, and anything else as JSON.
fn plain(value: &Value) -> String {
    let member = |(name, value): (&String, &Value)| {
        let words = match name.as_str() {
            "any" => "one of",
            "all" => "all of",
            "equals" => "equal to",
            "contains" => "a list with",
            other => other,
        };
        format!("{words} {}", if value.is_object() { plain(value) } else { value.to_string() })
    };
    match value {
        Value::String(text) => text.clone(),
        Value::Object(members) => members.iter().map(member).collect::<Vec<_>>().join(", "),
        Value::Array(members) if members.is_empty() => "nothing".into(),
        Value::Array(members) => members.iter().map(Value::to_string).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Returns a text of the refusal that a policy in shadow mode only reports.
fn of_enforced<'v>(report: &'v Value, name: &str) -> Option<&'v str> {
    report.get("enforced")?.get(name)?.as_str()
}
