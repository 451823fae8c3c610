//! `options.md`: the options of `serve`, from the definitions of clap.

use clap::{Arg, Command, CommandFactory, Parser};
use cognito_authz::config::options::{Cli, variable};

use super::{assert_names, code, codes, page, plain, source, table};

const ABOUT: &str = "\
Every option of `cognito-authz serve`, which is also the command without a name. `check-config`,
`explain`, `doctor` and `test-policy` take the same options, because they read the same
configuration. The [options of the other commands](commands.md) are on a page of their own.";

const SOURCES: &str = "\
## Precedence

1. the flag: `--leeway 10s`
2. the environment variable: `COGNITO_AUTHZ_LEEWAY=10s`
3. the same variable in the file `.env` in the working directory
4. the default

The [policy file](policy-file.md) (`--config`) has its own members. `GET /config` on the admin port
shows each value in effect and its source.

- **Lists:** an option that is *repeatable* takes several values. Repeat the flag, or separate the
  values by commas in the environment.
- **Switches:** `--account-cookies` is the same as `--account-cookies=true`. A value follows `=`.
- **Durations:** `250ms`, `30s`, `15m`, `1h`, `30d`.
- **Sizes:** `512KiB`, `64MiB`, `1GiB`, or a number of bytes.
- **Rates:** `75/1m` is 75 in each minute.

A dash in place of a default says that the option is unset.
";

/// Topics, by the heading of clap, with a sentence about each.
const TOPICS: [(&str, &str); 10] = [
    (
        "User pool",
        "[Cognito setup](../cognito.md) shows where to find the ids. More pools are configured in the [policy file](policy-file.md).",
    ),
    (
        "Policy",
        "[Policy](../policy.md) describes what the file can do, and the [policy file](policy-file.md) has a page of its own.",
    ),
    (
        "Keys",
        "A check verifies signatures with the key set (JWKS) of the pool. The service fetches it at startup, at this interval, and when a token has an unknown key.",
    ),
    ("Check", "Rules for all policies. The [reasons](reasons.md) say which rule a request breaks."),
    ("gRPC", "The port that Envoy asks."),
    ("HTTP form", "The port that [nginx, Traefik and Caddy](../proxies.md) ask."),
    (
        "Account API",
        "Sign-up, sign-in and sign-out: the [account API](../account-api.md), and [pages without JavaScript](../browsers.md).",
    ),
    (
        "TLS",
        "Certificates of all listeners whose address begins with `tls:` or `mtls:` ([how to set them up](../operations-tls.md#tls)).",
    ),
    (
        "Revocation",
        "[Revocation](../revocation.md) describes what a sign-out ends, and the [shared store](../revocation-store.md) that replicas need.",
    ),
    (
        "Traces",
        "[Traces](../tracing.md) need a collector, which the [variables of OpenTelemetry](#variables-of-opentelemetry) name.",
    ),
];

/// The topic that comes last.
const OPERATIONS: (&str, &str) = (
    "Operations",
    "The [admin port](../operations-admin.md), the [shutdown](../operations.md#shutdown) and the [log](../operations-metrics.md#logs), with [its caps](../operations-metrics.md#log-caps).",
);

/// A value of each option. The test parses them.
const EXAMPLES: &[(&str, &str)] = &[
    ("user-pool-id", "eu-west-1_AbC123xyz"),
    ("client-id", "7example23clientid45abcdefg"),
    ("region", "eu-west-1"),
    ("cognito-endpoint", "https://cognito-idp-fips.us-east-1.amazonaws.com"),
    ("issuer", "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbC123xyz"),
    ("allow-insecure-endpoints", "true"),
    ("config", "/etc/cognito-authz/policy.yaml"),
    ("jwks-url", "https://keys.example.com/jwks.json"),
    ("jwks-file", "/etc/cognito-authz/jwks.json"),
    ("jwks-refresh-interval", "5m"),
    ("token-use", "any"),
    ("leeway", "10s"),
    ("header-prefix", "x-user-"),
    ("realm", "orders"),
    ("token-cache-capacity", "200000"),
    ("token-cache-max-bytes", "256MiB"),
    ("grpc-listen", "unix:/run/cognito-authz/authz.sock"),
    ("grpc-socket-mode", "0600"),
    ("grpc-threads", "2"),
    ("grpc-max-connections", "1000"),
    ("grpc-max-streams", "256"),
    ("grpc-max-message-bytes", "4MiB"),
    ("http-listen", "127.0.0.1:9193"),
    ("http-callers", "10.4.0.0/16"),
    ("account-api", "false"),
    ("account-listen", "[::]:9192"),
    ("account-prefix", "/api/auth"),
    ("account-client-id", "7example23clientid45abcdefg"),
    ("client-secret-file", "/run/secrets/client-secret"),
    ("trusted-hops", "1"),
    ("cors-origins", "https://app.example.com"),
    ("account-attributes", "custom:newsletter"),
    ("client-metadata-keys", "campaign"),
    ("forward-client-address", "true"),
    ("totp-issuer", "Example"),
    ("refresh-flow", "auth"),
    ("cognito-timeout", "3s"),
    ("limit-address", "300/1m"),
    ("limit-user", "10/1m"),
    ("limit-sends", "5/10m"),
    ("account-min-failure-time", "500ms"),
    ("account-hide-users", "true"),
    ("hosted-ui-domain", "example.auth.eu-west-1.amazoncognito.com"),
    ("oauth-redirect-uris", "https://app.example.com/auth/oauth/callback"),
    ("oauth-logout-uris", "https://app.example.com/"),
    ("oauth-scopes", "orders/read"),
    ("oauth-state-key-file", "/run/secrets/oauth-state-key"),
    ("account-cookies", "true"),
    ("account-cookie-max-age", "30d"),
    ("tls-cert-file", "/run/secrets/tls/tls.crt"),
    ("tls-key-file", "/run/secrets/tls/tls.key"),
    ("tls-client-ca-file", "/run/secrets/tls/ca.crt"),
    ("tls-client-names", "spiffe://mesh.example/ns/gateways/sa/envoy"),
    ("revocation-url", "rediss://authz@valkey.example.internal:6379"),
    ("revocation-file", "/var/lib/cognito-authz/revocations"),
    ("revocation-password-file", "/run/secrets/valkey-password"),
    ("revocation-ca-file", "/etc/cognito-authz/valkey-ca.pem"),
    ("revocation-required", "true"),
    ("revocation-capacity", "200000"),
    ("max-token-life", "2h"),
    ("trace-ratio", "0.01"),
    ("trace-trust-headers", "true"),
    ("admin-listen", "[::]:9190"),
    ("admin-token-file", "/run/secrets/admin-token"),
    ("shutdown-delay", "5s"),
    ("shutdown-deadline", "30s"),
    ("log-format", "json"),
    ("log-level", "debug"),
    ("log-lines-per-second", "20"),
    ("log-allowed-ratio", "0.01"),
];

/// Variables of OpenTelemetry, with default and meaning. A name stands for its form with `TRACES_` as well.
const OTEL: &[(&str, &str, &str)] = &[
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "",
        "URL of the collector. Over HTTP, `/v1/traces` is appended, but not to the variable with `TRACES_`",
    ),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "`grpc` or `http/protobuf`"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "", "Headers of the requests: `name=value,name=value`, percent-encoded"),
    (
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        "10000",
        "Time limit for a batch with its retries, in milliseconds. `OTEL_BSP_EXPORT_TIMEOUT` applies as well",
    ),
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", "", "CA certificates of the collector (PEM file). The system's, if unset"),
    ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "", "Certificate for the collector (PEM file)"),
    ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "", "Private key of that certificate (PEM file)"),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "none", "`gzip` is not supported: a warning, and spans are not compressed"),
    ("OTEL_SERVICE_NAME", "cognito-authz", "Attribute `service.name`"),
    (
        "OTEL_RESOURCE_ATTRIBUTES",
        "",
        "More attributes of the process: `name=value,name=value`. `service.instance.id` is random if it is not among them",
    ),
    ("OTEL_SDK_DISABLED", "false", "`true` turns traces off"),
    ("OTEL_TRACES_EXPORTER", "otlp", "`none` turns traces off"),
    (
        "OTEL_TRACES_SAMPLER",
        "",
        "In place of `--trace-ratio`, if that is unset. `parentbased_traceidratio` and `parentbased_always_on` select only work without a context. `traceidratio` and `always_on` also select work that the proxy does not sample. `parentbased_always_off` selects none, and `always_off` turns traces off",
    ),
    ("OTEL_TRACES_SAMPLER_ARG", "", "Ratio of the sampler, from 0 to 1"),
    ("OTEL_BSP_MAX_QUEUE_SIZE", "2048", "Maximum number of spans that wait"),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "512", "Maximum number of spans of a request"),
    ("OTEL_BSP_SCHEDULE_DELAY", "5000", "Maximum time that a span waits for a batch to fill up, in milliseconds"),
    ("OTEL_BSP_EXPORT_TIMEOUT", "30000", "See `OTEL_EXPORTER_OTLP_TIMEOUT`"),
];

const VARIABLES: &str = "\
## Variables without a flag

`COGNITO_CLIENT_SECRET` is the secret of the app client of the account API, if it has one: in the
environment or in `.env`. `--client-secret-file` takes precedence over it. There is no flag for the
secret itself, because other users of the machine can read the flags of a process.

`HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` name the proxy for calls to Cognito and to the collector
of traces.

### Variables of OpenTelemetry

They work as the OpenTelemetry specification describes, for [traces](../tracing.md). Each
`OTEL_EXPORTER_OTLP_…` also exists as `OTEL_EXPORTER_OTLP_TRACES_…`, which takes precedence. They
are read from the environment and from `.env`.
";

const LIMITS: &str = "\
## Fixed limits

These limits of the gRPC port have no option:

- a header list of 64 KiB
- five seconds for a call, its body included, or `grpc-timeout` if that is shorter
- ten seconds from accept to a complete HTTP/2 preface, a TLS handshake included
- a ping every 30 seconds, to be answered within 15

A token of more than 16,384 bytes is refused with [`token_too_large`](reasons.md#token_too_large),
and identity headers of more than 16 KiB with [`identity_too_large`](reasons.md#identity_too_large).
[Rate limits](../account-limits.md#rate-limits) describes the limits of the account API.
";

/// Options of `serve`, in the order of the help.
pub(super) fn of_serve(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| arg.get_long().is_some() && !arg.is_hide_set())
}

/// Splits a help text into the meaning and the default that it describes in words.
pub(super) fn meaning(arg: &Arg) -> (String, Option<String>) {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let (text, default) = match help.split_once(" [default: ") {
        Some((text, default)) => (text, default.strip_suffix(']').map(plain)),
        None => (&*help, None),
    };
    let values: Vec<_> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let mut text = plain(text.trim_end_matches('.'));
    if !values.is_empty() && values != ["true", "false"] {
        text = format!("{text}: {}", codes(values));
    }
    (text, default)
}

/// Default of an option: its value, the description of one, or a dash.
pub(super) fn default(arg: &Arg, described: Option<String>) -> String {
    let values: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if values.iter().all(|value| value.is_empty()) { described.unwrap_or_else(|| "–".into()) } else { codes(values) }
}

fn topic((title, about): (&str, &str), command: &Command) -> String {
    let options = of_serve(command).filter(|arg| arg.get_help_heading() == Some(title));
    let rows = options.map(|arg| {
        let name = arg.get_long().unwrap();
        let (_, example) = EXAMPLES.iter().find(|(known, _)| *known == name).unwrap();
        let (meaning, described) = meaning(arg);
        [
            format!("<a id=\"{name}\"></a>`--{name}`<br>`{}`", variable(arg.get_id().as_str())),
            meaning,
            format!("{}<br>{}", default(arg, described), code(example)),
        ]
    });
    let columns = ["option and variable", "meaning", "default and example"];
    format!("### {title}\n\n{about}\n\n{}\n", table(columns, rows))
}

/// Variables of OpenTelemetry that the program reads, without those with `TRACES_` in the name.
fn of_otel(code: &str) -> Vec<&str> {
    let (_, list) = code.split_once("VARIABLES: [&str; ").unwrap();
    let list = list.split(';').next().unwrap();
    list.split('"').skip(1).step_by(2).filter(|name| !name.contains("_OTLP_TRACES_")).collect()
}

#[test]
fn options() {
    let command = Cli::command();
    let topics = || TOPICS.iter().chain([&OPERATIONS]);
    assert_names(EXAMPLES.iter().map(|(name, _)| *name), of_serve(&command).filter_map(Arg::get_long), "EXAMPLES");
    let headings = of_serve(&command).map(|arg| arg.get_help_heading().unwrap_or_default());
    assert_names(topics().map(|(name, _)| *name), headings.collect::<std::collections::BTreeSet<_>>(), "TOPICS");
    for (name, example) in EXAMPLES {
        let parsed = Cli::try_parse_from(["cognito-authz", &format!("--{name}={example}")]);
        assert!(parsed.is_ok(), "--{name}={example}: {}", parsed.err().unwrap());
    }
    let telemetry = source("config/telemetry.rs");
    assert_names(OTEL.iter().map(|(name, ..)| *name), of_otel(&telemetry), "OTEL");

    let topics: String = topics().map(|one| topic(*one, &command)).collect();
    let otel = OTEL.iter().map(|(name, default, meaning)| [code(name), code(default), plain(meaning)]);
    let otel = table(["variable", "default", "meaning"], otel);
    let body = format!("{SOURCES}\n## Options by topic\n\n{topics}\n{VARIABLES}\n{otel}\n{LIMITS}");
    page("options.md", "Options", ABOUT, &body);
}
