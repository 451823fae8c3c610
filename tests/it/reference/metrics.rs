//! `metrics.md`: every metric of a running service that has all features, as its `/metrics` describes them.

use std::collections::{BTreeMap, BTreeSet};

use super::{code, codes, page, table};
use crate::support::certificates::Authority;
use crate::support::client::get;
use crate::support::policy_file::PolicyFile;
use crate::support::service::{SIGN_IN, TestApp};
use crate::support::tls::{SERVICE, TlsClient, TlsFiles};

const ABOUT: &str = "\
Every metric, with type, labels and meaning. `/metrics` on the admin port returns them in
Prometheus' text format or, if the scraper asks for it (`Accept: application/openmetrics-text`, as
Prometheus does), in OpenMetrics 1.0, which has exemplars.";

const SERIES: &str = "\
[Metrics and logs](../operations-metrics.md#metrics) describes how to use them, and [alerts](../alerts.md) what
the alerts mean.

No label value comes from a request: values are from fixed lists, or from your configuration. Series
exist from the start, with the value zero, if the operation, policy or pool can have them with your
configuration. A result that is not expected still counts; its series appears then. With many pools
and policies, so do series of checks with a pool. If a metric exists only with a feature, its first
column names the feature.
";

const VALUES: &str = "\
## Values

Values of labels that do not come from your configuration, in a service with all features. The label
`reason` of checks has the [reasons](reasons.md), and the label `outcome` of account requests the
[codes of the account API](account-errors.md#codes-by-route), `success` and `challenge`.
";

/// First part of the names of all metrics except those of the process.
const PREFIX: &str = "cognito_authz_";

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
    ("", "reason", "[Reason](reasons.md) of the denial; empty if the check was allowed"),
    ("", "cause", "`rate` (above `--log-lines-per-second`), or `queue` (standard output did not keep up)"),
    ("", "pool", "Name of the user pool; empty for checks that end before the issuer of the token is known"),
    ("", "policy", "Name of the policy; empty for checks that end before the policy is known"),
    (
        "account_request",
        "operation",
        "Route of the account API, by its `operationId` in the OpenAPI document; `none` for unknown paths",
    ),
    ("", "operation", "Operation of Cognito's API; `OauthToken` is the token endpoint of the hosted pages"),
    ("account_request", "outcome", "`success`, `challenge`, or the [code](account-errors.md) of an error"),
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

/// A metric: type, meaning, and the values of its labels.
#[derive(Debug, Default)]
pub(super) struct Family {
    kind: String,
    help: String,
    /// Series, as the names and values of their labels.
    pub(super) series: Vec<Vec<(String, String)>>,
}

impl Family {
    fn labels(&self) -> Vec<&str> {
        self.series.first().into_iter().flatten().map(|(name, _)| &**name).collect()
    }

    fn values(&self, label: &str) -> BTreeSet<&str> {
        self.series.iter().flatten().filter(|(name, _)| name == label).map(|(_, value)| &**value).collect()
    }
}

/// Reads Prometheus' text format.
pub(super) fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name.to_owned()).or_default().help = help.into();
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            families.entry(name.to_owned()).or_default().kind = kind.into();
        } else if let Some((name, rest)) = line.split_once('{') {
            // Values of labels contain no quotes and no commas.
            let labels = rest.split('}').next().unwrap().split(',').filter_map(|label| label.split_once("=\""));
            let labels = labels.map(|(name, value)| (name.to_owned(), value.trim_end_matches('"').to_owned()));
            let labels: Vec<_> = labels.filter(|(name, _)| name != "le").collect();
            let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let name = of_histogram.filter(|name| families.contains_key(*name)).unwrap_or(name);
            let series = &mut families.get_mut(name).unwrap().series;
            if !series.contains(&labels) {
                series.push(labels);
            }
        }
    }
    families
}

/// Name without the prefix of the program.
fn short(name: &str) -> &str {
    name.strip_prefix(PREFIX).unwrap_or(name)
}

fn exists(name: &str) -> &'static str {
    EXISTS.iter().find(|(start, _)| short(name).starts_with(start)).map_or("", |(_, when)| *when)
}

fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(&format!("_{unit}"))).unwrap_or_default()
}

fn meaning(family: &str, label: &str) -> &'static str {
    let fits = |(start, name, _): &&(&str, &str, &str)| short(family).starts_with(start) && *name == label;
    MEANINGS.iter().find(fits).unwrap_or_else(|| panic!("MEANINGS has no text for the label {label} of {family}")).2
}

/// Metrics of a service with every feature.
pub(super) async fn of_all_features() -> BTreeMap<String, Family> {
    let authority = Authority::new("test");
    let files = TlsFiles::new(&authority.issue(&[SERVICE]), &authority.certificate());
    let file = PolicyFile::new("policies: {default: {mode: shadow}}\n");
    let (policy, certificate) = (file.path(), files.flags());
    let listeners = ["--grpc-listen", "--http-listen", "--account-listen", "--admin-listen"];
    let listeners: Vec<&str> = listeners.into_iter().flat_map(|flag| [flag, "tls:127.0.0.1:0"]).collect();
    let mut flags: Vec<&str> = vec!["--jwks-url", "http://127.0.0.1:9/", "--config", &policy];
    flags.extend(certificate.iter().map(String::as_str).chain(listeners).chain(SIGN_IN));
    let app = TestApp::start(&flags);
    let (status, text) = TlsClient::http(&[&authority], None).get(&app.admin, "/metrics").await.unwrap();
    assert_eq!(status, 200);
    parse(&text)
}

#[tokio::test]
async fn metrics() {
    let families = of_all_features().await;
    for (name, family) in &families {
        assert!(!family.help.is_empty() && !family.kind.is_empty(), "{name}: {family:?}");
    }
    let rows = families.iter().map(|(name, family)| {
        let about: Vec<&str> =
            [&*family.kind, unit(name), exists(name)].into_iter().filter(|text| !text.is_empty()).collect();
        let labels = family.labels();
        let by = if labels.is_empty() { String::new() } else { format!("<br>by {}", codes(labels)) };
        [format!("{}<br>{}{by}", code(name), about.join(", ")), family.help.clone()]
    });
    let overview = table(["metric, type, unit and labels", "meaning"], rows);

    let mut meanings: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    let mut listed: BTreeMap<(&str, Vec<&str>), Vec<&str>> = BTreeMap::new();
    for (name, family) in &families {
        for label in family.labels() {
            meanings.entry((label, meaning(name, label))).or_default().push(name);
            let is_of_route = short(name).starts_with("account_") && ["operation", "outcome"].contains(&label);
            if !UNLISTED.contains(&label) && !is_of_route {
                listed.entry((label, family.values(label).into_iter().collect())).or_default().push(name);
            }
        }
    }
    let unused = MEANINGS.iter().find(|(_, label, text)| !meanings.contains_key(&(*label, *text)));
    assert_eq!(unused, None, "no metric has this label");
    let rows = meanings.into_iter().map(|((label, meaning), of)| [code(label), codes(of), meaning.into()]);
    let labels = table(["label", "of", "meaning"], rows);
    let rows = listed.into_iter().map(|((label, values), of)| [code(label), codes(of), codes(values)]);
    let values = table(["label", "of", "values"], rows);
    let body = format!("{SERIES}\n{overview}\n## Labels\n\n{labels}\n{VALUES}\n{values}");
    page("metrics.md", "Metrics", ABOUT, &body);
}

/// A service without the features has exactly the metrics that always exist.
#[tokio::test]
async fn metrics_exist_when_the_page_says() {
    let app = TestApp::start(&["--jwks-url", "http://127.0.0.1:9/", "--account-api=false"]);
    let (_, text) = get(&app.admin, "/metrics").await;
    let found: Vec<String> = parse(&text).into_keys().collect();
    let expected = of_all_features().await.into_keys().filter(|name| exists(name).is_empty());
    assert_eq!(found, expected.collect::<Vec<_>>());
}
