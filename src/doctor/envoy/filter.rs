//! Settings of one `ext_authz` filter.

use std::time::Duration;

use serde_json::Value;

use super::matcher::{any_matches, may_change};
use super::needs::Needs;
use super::places::Filter;
use super::{Report, at, get};
use crate::check::TIME_LIMIT;
use crate::jwks::store::MAX_WAIT;

/// Envoy's timeout of a gRPC check without `timeout`.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(200);

/// Examines the settings of a filter.
pub(super) fn examine(place: &str, filter: &Filter<'_>, needs: &Needs, report: &mut Report) {
    failure_mode(place, filter, report);
    timeout(place, filter, report);
    received_headers(place, filter, needs, report);
    changed_headers(place, filter, needs, report);
}

fn failure_mode(place: &str, filter: &Filter<'_>, report: &mut Report) {
    let config = filter.config;
    if get(config, "failure_mode_allow").and_then(Value::as_bool) == Some(true) {
        report.error(
            place,
            "failure_mode_allow is true.",
            "While this service is down or slow, requests pass unchecked.",
            "Remove failure_mode_allow.",
        );
    }
    match at(config, &["status_on_error", "code"]) {
        None if filter.is_partial => {}
        None => report.warning(
            place,
            "status_on_error is not set.",
            "While this service is down, Envoy answers 403, so that an outage looks like a refusal.",
            "Add status_on_error: { code: ServiceUnavailable }.",
        ),
        Some(code) if is_refusal(code) => report.warning(
            place,
            format!("status_on_error is {}.", plain(code)),
            "While this service is down, an outage looks like a refusal.",
            "Set status_on_error: { code: ServiceUnavailable }.",
        ),
        Some(_) => {}
    }
    if let Some(fraction) = at(config, &["filter_enabled", "default_value"]) {
        let numerator = get(fraction, "numerator").and_then(Value::as_u64).unwrap_or(0);
        let denominator = match get(fraction, "denominator").and_then(Value::as_str) {
            Some("TEN_THOUSAND") => 10_000,
            Some("MILLION") => 1_000_000,
            _ => 100,
        };
        if numerator < denominator {
            report.error(
                place,
                format!("filter_enabled checks {numerator} of {denominator} requests."),
                "The others pass unchecked.",
                "Remove filter_enabled, or set it to all requests.",
            );
        }
    }
}

/// `true` for a status below 500, by its number or its name in the Envoy API.
fn is_refusal(code: &Value) -> bool {
    match code {
        Value::Number(number) => number.as_u64().is_some_and(|status| status < 500),
        Value::String(name) => ["Empty", "Unauthorized", "Forbidden", "NotFound"].contains(&&**name),
        _ => false,
    }
}

fn timeout(place: &str, filter: &Filter<'_>, report: &mut Report) {
    let (written, member) = if filter.is_http() {
        (at(filter.config, &["http_service", "server_uri", "timeout"]), "server_uri.timeout")
    } else {
        (at(filter.config, &["grpc_service", "timeout"]), "grpc_service.timeout")
    };
    let timeout = match written {
        None if filter.is_partial => return,
        None => DEFAULT_TIMEOUT,
        Some(written) => match duration(written) {
            Some(timeout) => timeout,
            None => return,
        },
    };
    let shown = humantime::format_duration(timeout);
    if timeout.is_zero() || timeout > TIME_LIMIT {
        report.warning(
            place,
            format!(
                "{member} is {}.",
                if timeout.is_zero() { "0, that is, unlimited".into() } else { shown.to_string() }
            ),
            format!(
                "The service gives up after {} s; while it cannot be reached, clients wait longer.",
                TIME_LIMIT.as_secs()
            ),
            format!("Set {member} to 0.250s."),
        );
    } else if timeout <= MAX_WAIT {
        report.warning(
            place,
            format!("{member} is {shown}."),
            format!(
                "A check of a token with a new key waits up to {} ms; Envoy gives up before, and fails the request.",
                MAX_WAIT.as_millis()
            ),
            format!("Set {member} to 0.250s."),
        );
    }
}

/// Reads a duration of Protocol Buffers: `0.250s`, or seconds and nanoseconds.
fn duration(value: &Value) -> Option<Duration> {
    match value {
        Value::String(text) => Duration::try_from_secs_f64(text.strip_suffix('s')?.parse().ok()?).ok(),
        Value::Object(_) => {
            let part = |name: &str| get(value, name).and_then(Value::as_u64).unwrap_or(0);
            Some(Duration::new(part("seconds"), u32::try_from(part("nanos")).ok()?))
        }
        _ => None,
    }
}

/// Without `allowed_headers`, Envoy sends all headers over gRPC, and over HTTP `Authorization` only.
fn received_headers(place: &str, filter: &Filter<'_>, needs: &Needs, report: &mut Report) {
    let of_http = at(filter.config, &["http_service", "authorization_request", "allowed_headers"]);
    let allowed = get(filter.config, "allowed_headers").or(of_http);
    let disallowed = get(filter.config, "disallowed_headers");
    let is_sent = |name: &str| {
        let is_allowed = match allowed {
            Some(allowed) => any_matches(allowed, name),
            None => !filter.is_http() || filter.is_partial,
        };
        let always = filter.is_http() && matches!(name, "authorization" | "content-length");
        (is_allowed || always) && !disallowed.is_some_and(|disallowed| any_matches(disallowed, name))
    };
    let mut by_use: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, used_for) in needs.received.iter().filter(|(name, _)| !is_sent(name)) {
        match by_use.iter_mut().find(|(known, _)| *known == *used_for) {
            Some((_, names)) => names.push(name),
            None => by_use.push((*used_for, vec![name.as_str()])),
        }
    }
    for (used_for, names) in by_use {
        report.error(
            place,
            format!("Envoy does not send {} to the service.", names.join(", ")),
            format!("The service needs it for {used_for}."),
            "Add it to allowed_headers.patterns: { exact: NAME, ignore_case: true }.",
        );
    }
    if !is_sent("x-request-id") && !filter.is_partial {
        report.warning(
            place,
            "Envoy does not send x-request-id to the service.",
            "A refusal in the log of the service cannot be found in the log of Envoy.",
            "Add it to allowed_headers.patterns: { exact: x-request-id, ignore_case: true }.",
        );
    }
}

fn changed_headers(place: &str, filter: &Filter<'_>, needs: &Needs, report: &mut Report) {
    let rules = get(filter.config, "decoder_header_mutation_rules");
    let copied = at(filter.config, &["http_service", "authorization_response", "allowed_upstream_headers"]);
    let is_dropped = |name: &&String| {
        let is_copied = match copied {
            Some(copied) => any_matches(copied, name),
            None => !filter.is_http() || filter.is_partial,
        };
        !is_copied || rules.is_some_and(|rules| !may_change(rules, name))
    };
    let dropped: Vec<&str> = needs.changed.iter().filter(is_dropped).map(String::as_str).collect();
    if dropped.is_empty() {
        return;
    }
    let is_error = rules.and_then(|rules| get(rules, "disallow_is_error")).and_then(Value::as_bool) == Some(true);
    report.error(
        place,
        format!("Envoy drops what the service does to {}.", dropped.join(", ")),
        if is_error { "Envoy answers 500 to every request that the service allows." } else { "The application gets the client's own copies instead." },
        "Add the names to allow_expression of decoder_header_mutation_rules (over HTTP, also to allowed_upstream_headers).",
    );
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_of_protocol_buffers_are_read() {
        assert_eq!(duration(&json!("0.250s")), Some(Duration::from_millis(250)));
        assert_eq!(duration(&json!({"seconds": 1, "nanos": 500_000_000})), Some(Duration::from_millis(1500)));
        for wrong in [json!("250ms"), json!("s"), json!(5), json!("-1s")] {
            assert_eq!(duration(&wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_status_below_500_is_a_refusal() {
        for (code, expected) in
            [(json!("Forbidden"), true), (json!(403), true), (json!("ServiceUnavailable"), false), (json!(503), false)]
        {
            assert_eq!(is_refusal(&code), expected, "{code}");
        }
    }
}
