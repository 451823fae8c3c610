//! The page `docs/metrics.md`: every metric, made from the registry.

use std::collections::BTreeMap;
use std::fmt::Write;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::open_metrics::unit;
use super::{Metrics, NAMESPACE};

const START: &str = "\
# Metrics

`/metrics` on the admin port returns the metrics in Prometheus' text format or, if the scraper asks
for it (`Accept: application/openmetrics-text`, as Prometheus does), in OpenMetrics 1.0, which has
exemplars. This page lists all of them. [Operations](operations.md#metrics) describes how to use
them, and [alerts](alerts.md) what the alerts mean.

No label value comes from a request: values are from fixed lists, or from your configuration. Series
exist from the start, with the value zero, if the operation, policy or pool can have them with your
configuration. A result that is not expected still counts; its series appears then. With many pools
and policies, so do series of checks with a pool.

`cognito-authz metrics-reference` prints this page.

| metric | type | labels | unit | exists | meaning |
|---|---|---|---|---|---|
";

const LABELS: &str = "
## Labels

| label | of | meaning |
|---|---|---|
";

const VALUES: &str = "
## Values

Values of labels that do not come from your configuration, in a service with all features. Reasons of
denials are [in the README](../README.md#reasons), and codes of the account API
[in its documentation](account-api.md#errors).

| label | of | values |
|---|---|---|
";

const OUTCOMES: &str = "
## Outcomes by operation

`cognito_authz_account_requests_total` has these series from the start, in a service with all features:

| `operation` | `outcome` |
|---|---|
";

/// Family whose series are listed by two labels.
const BY_OPERATION: &str = "account_requests_total";

/// Conditions under which metrics exist, by the start of their names. Other metrics always exist.
const EXISTS: &[(&str, &str)] = &[
    ("account_", "with the account API"),
    ("cognito_", "with the account API"),
    ("rate_limited_", "with the account API"),
    ("tls_", "for listeners with TLS"),
    ("shadow_denials_", "for policies in shadow mode"),
];

/// Meanings of labels, by the start of the family's name. The first row that fits counts, so rows of single families come
/// before those of all.
const MEANINGS: &[(&str, &str, &str)] = &[
    ("", "decision", "Result of the check: `allow`, `deny`, or `error` if the service could not decide (503)"),
    ("connections_refused_", "reason", "Limit that the connection exceeded"),
    (
        "spans_dropped_",
        "reason",
        "`queue_full`, `failed` (the collector did not take them in time), or `rejected` (it refused them)",
    ),
    ("", "reason", "Reason of the denial; empty if the check was allowed"),
    ("", "cause", "`rate` (above `--log-lines-per-second`), or `queue` (standard output did not keep up)"),
    ("", "pool", "Name of the user pool; empty for checks that end before the issuer of the token is known"),
    ("", "policy", "Name of the policy; empty for checks that end before the policy is known"),
    (
        "account_request",
        "operation",
        "Route of the account API, by its `operationId` in the OpenAPI document; `none` for unknown paths",
    ),
    ("", "operation", "Operation of Cognito's API; `OauthToken` is the token endpoint of the hosted pages"),
    ("account_request", "outcome", "`success`, `challenge`, or the `code` of an error"),
    (
        "",
        "outcome",
        "`success`, `refused` (Cognito refused the user, which is no failure), `throttled`, or the kind of the failure",
    ),
    ("jwks_fetches_", "result", "`success`, or the cause of the failure"),
    (
        "revocation_writes_",
        "result",
        "`success`; `unwritten`: the file or the store did not take it; `full`: there is no room",
    ),
    ("", "result", "`success` or `failure`"),
    ("", "limit", "Limit that refused the request"),
    ("", "listener", "`grpc`, `http` (HTTP form of the check), `account` or `admin`"),
    ("", "kind", "Claim that the revocation is about; `token` for a token without these claims"),
    ("", "size", "Size of the message: `small` up to 64 KiB, else `large`"),
    ("", "part", "`policy` is the policy file, or the flags without one; `certificates` are those of the listeners"),
    ("", "worker", "Name of the thread: `check-N` serves checks, `main` everything else"),
    ("", "version", "Version of the program"),
    ("", "revision", "Commit that it was built from, or `unknown`"),
];

/// Labels whose values are names of the operator or of the build, or are documented elsewhere.
const UNLISTED: [&str; 6] = ["pool", "policy", "version", "revision", "worker", "reason"];

/// Name without the prefix of the program.
fn short(family: &MetricFamily) -> &str {
    let name = family.name();
    name.strip_prefix(NAMESPACE).and_then(|name| name.strip_prefix('_')).unwrap_or(name)
}

/// Names of the labels of a family, in the order of its series.
fn labels(family: &MetricFamily) -> Vec<&str> {
    let first = family.get_metric().first();
    first.into_iter().flat_map(Metric::get_label).map(LabelPair::name).collect()
}

/// Values of a label, each once.
fn values<'f>(family: &'f MetricFamily, label: &str) -> Vec<&'f str> {
    let pairs = family.get_metric().iter().flat_map(Metric::get_label);
    let mut values: Vec<_> = pairs.filter(|pair| pair.name() == label).map(LabelPair::value).collect();
    values.sort_unstable();
    values.dedup();
    values
}

fn codes<'v>(values: impl IntoIterator<Item = &'v str>) -> String {
    let mut text = String::new();
    for value in values {
        if !text.is_empty() {
            text.push(' ');
        }
        text.extend(["`", value, "`"]);
    }
    if text.is_empty() { "–".into() } else { text }
}

/// Meaning of a label of a family.
fn meaning(family: &str, label: &str) -> Option<&'static str> {
    let fits = |(start, name, _): &&(&str, &str, _)| family.starts_with(start) && *name == label;
    MEANINGS.iter().find(fits).map(|(_, _, meaning)| *meaning)
}

impl Metrics {
    /// Writes the page about the metrics that exist in this registry. Writing to a text cannot fail, so errors of `write!`
    /// are ignored.
    pub(crate) fn reference(&self) -> String {
        let families = self.registry.gather();
        let mut out = START.to_owned();
        for family in &families {
            let kind = match family.get_field_type() {
                MetricType::COUNTER => "counter",
                MetricType::HISTOGRAM => "histogram",
                _ => "gauge",
            };
            let name = short(family);
            let exists = EXISTS.iter().find(|(start, _)| name.starts_with(start)).map_or("always", |(_, when)| *when);
            let unit = unit(name.strip_suffix("_total").unwrap_or(name)).unwrap_or("–");
            let (labels, help) = (codes(labels(family)), family.help());
            let _ = writeln!(out, "| `{}` | {kind} | {labels} | {unit} | {exists} | {help} |", family.name());
        }
        let mut meanings: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        let mut listed: BTreeMap<(&str, Vec<&str>), Vec<&str>> = BTreeMap::new();
        for family in &families {
            for label in labels(family) {
                let meaning = meaning(short(family), label).unwrap_or("–");
                meanings.entry((label, meaning)).or_default().push(family.name());
                let is_of_route = short(family).starts_with("account_") && ["operation", "outcome"].contains(&label);
                if !UNLISTED.contains(&label) && !is_of_route {
                    listed.entry((label, values(family, label))).or_default().push(family.name());
                }
            }
        }
        out.push_str(LABELS);
        for ((label, meaning), of) in meanings {
            let _ = writeln!(out, "| `{label}` | {} | {meaning} |", codes(of));
        }
        out.push_str(VALUES);
        for ((label, values), of) in listed {
            let _ = writeln!(out, "| `{label}` | {} | {} |", codes(of), codes(values));
        }
        out.push_str(OUTCOMES);
        for family in families.iter().filter(|family| short(family) == BY_OPERATION) {
            let mut by_operation: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for metric in family.get_metric() {
                let value =
                    |name: &str| metric.get_label().iter().find(|pair| pair.name() == name).map(LabelPair::value);
                if let (Some(operation), Some(outcome)) = (value("operation"), value("outcome")) {
                    by_operation.entry(operation).or_default().push(outcome);
                }
            }
            for (operation, outcomes) in by_operation {
                let _ = writeln!(out, "| `{operation}` | {} |", codes(outcomes));
            }
        }
        out
    }
}
