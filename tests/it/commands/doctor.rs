//! `doctor`: the shipped Envoy configurations fit, each deliberate fault is found, and so is what Cognito says otherwise.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::support::certificates::Authority;
use crate::support::emulator::Emulator;
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::policy_file::PolicyFile;
use crate::support::service::{Program, run};
use crate::support::token::{CLIENT, POOL, SigningKey, jwks};

/// Policy file that fits deploy/envoy.
const POLICIES: &str = "default: members\npolicies: {members: {}, admin: {groups: {any: [admins]}}}\n";

fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs `doctor --json` with the test pool, and returns the exit code and the findings.
fn doctor(more: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, Vec<Value>) {
    let pool = ["--user-pool-id", POOL, "--client-id", CLIENT];
    let own_pool = if more.contains(&"--user-pool-id") { &[][..] } else { &pool };
    let (code, stdout, stderr) = run(&[&["doctor", "--json"], own_pool, more].concat(), environment);
    assert_eq!(stderr, "", "{stdout}");
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stdout}"));
    let findings = report["findings"].as_array().unwrap().clone();
    let count = |severity: &str| findings.iter().filter(|finding| finding["severity"] == severity).count();
    assert_eq!((&report["errors"], &report["warnings"]), (&json!(count("error")), &json!(count("warning"))));
    assert_eq!(code, Some(i32::from(count("error") > 0)), "{report:#}");
    for finding in findings.iter().filter(|finding| finding["severity"] != "ok") {
        assert!(finding["what"].as_str().unwrap().ends_with(['.', '?']), "a sentence: {finding:#}");
    }
    (code, findings)
}

/// Findings that are not `ok`, as `severity place: what`.
fn complaints(findings: &[Value]) -> Vec<String> {
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    let of = |finding: &Value| {
        format!("{} {}: {}", text(finding, "severity"), text(finding, "place"), text(finding, "what"))
    };
    findings.iter().filter(|finding| finding["severity"] != "ok").map(of).collect()
}

#[test]
fn the_shipped_envoy_configurations_fit() {
    let policy = PolicyFile::new(POLICIES);
    let cookies = ["--account-cookies", "--cors-origins", "https://app.example.com"];
    for file in ["deploy/envoy/envoy.yaml", "deploy/istio/envoy-filter.yaml", "deploy/istio/sidecar/envoy-filter.yaml"]
    {
        let file = shipped(file);
        let path = policy.path();
        let common = ["--config", &path, "--envoy", file.to_str().unwrap()];
        for more in [&[][..], &cookies] {
            let (code, findings) = doctor(&[&common, more].concat(), &[]);
            assert_eq!((code, complaints(&findings)), (Some(0), Vec::new()), "{}", file.display());
            let examined =
                findings.iter().filter(|finding| finding["what"].as_str().unwrap().contains("ext_authz filter fits"));
            assert!(examined.count() > 0, "{}: {findings:#?}", file.display());
        }
    }
}

/// Comment before the last route of deploy/envoy/envoy.yaml.
const UNASKED: &str = "              # All other routes need a token";
/// A route that does not ask the service, in front of [`UNASKED`].
const OPEN_ROUTE: &str = "              - name: open\n                match: { prefix: /open }\n                route: { cluster: app }\n                typed_per_filter_config:\n                  envoy.filters.http.ext_authz:\n                    \"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute\n                    disabled: true\n              # All other routes need a token";

/// Change of deploy/envoy/envoy.yaml, further options, and the only complaint about it.
type Fault = (&'static [(&'static str, &'static str)], &'static [&'static str], &'static str);

#[test]
fn each_fault_of_envoys_configuration_is_found() {
    let original = fs::read_to_string(shipped("deploy/envoy/envoy.yaml")).unwrap();
    let policy = PolicyFile::new(POLICIES);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("envoy.yaml");
    let identity = Authority::new("test").issue(&["localhost"]);
    let (certificate, key) = (directory.path().join("tls.crt"), directory.path().join("tls.key"));
    fs::write(&certificate, identity.certificate).unwrap();
    fs::write(&key, identity.key).unwrap();
    let faults: &[Fault] = &[
        (
            &[("failure_mode_allow: false  ", "failure_mode_allow: true  ")],
            &[],
            "error {uds}: failure_mode_allow is true.",
        ),
        (&[("status_on_error: { code: ServiceUnavailable }  ", "")], &[], "warning {uds}: status_on_error is not set."),
        (
            &[("{ code: ServiceUnavailable }  ", "{ code: Forbidden }  ")],
            &[],
            "warning {uds}: status_on_error is Forbidden.",
        ),
        (
            &[("timeout: 0.250s\n              failure_mode", "timeout: 0.050s\n              failure_mode")],
            &[],
            "warning {uds}: grpc_service.timeout is 50ms.",
        ),
        (
            &[("timeout: 0.250s\n              failure_mode", "timeout: 600s\n              failure_mode")],
            &[],
            "warning {uds}: grpc_service.timeout is 10m.",
        ),
        (
            &[("- { exact: authorization, ignore_case: true }", "")],
            &[],
            "error {both}: Envoy does not send authorization to the service.",
        ),
        (
            &[("- { exact: cookie, ignore_case: true }", "")],
            &["--account-cookies"],
            "error {both}: Envoy does not send cookie to the service.",
        ),
        (&[("- { exact: cookie, ignore_case: true }", "")], &[], ""),
        (
            &[("- { exact: x-request-id, ignore_case: true }", "")],
            &[],
            "warning {both}: Envoy does not send x-request-id to the service.",
        ),
        (
            &[("^(x[-_.]auth[-_.].*|authorization|cookie)$", "^(x-auth-sub|authorization|cookie)$")],
            &[],
            "error {both}: Envoy drops what the service does to x-auth-username, x-auth-client-id, x-auth-token-use, x-auth-scope, x-auth-groups, x-auth-email.",
        ),
        (
            &[("|authorization|cookie)$", ")$")],
            &["--account-cookies"],
            "error {both}: Envoy drops what the service does to cookie.",
        ),
        (
            &[(UNASKED, OPEN_ROUTE), ("(?i)x[-_.]auth[-_.].*\" } } }", "x-none\" } } }")],
            &[],
            "error {both}: Routes that do not ask the service (open) pass on a client's x-auth-sub.",
        ),
        (&[(UNASKED, OPEN_ROUTE)], &[], ""),
        (
            &[
                ("(?i)x[-_.]auth[-_.].*\" } } }", "x-none\" } } }"),
                ("- { safe_regex: { regex: \"(?i)x[-_.]auth[-_.].*\" } }", "- { prefix: x-auth- }"),
                ("headers_with_underscores_action: REJECT_REQUEST", "headers_with_underscores_action: ALLOW"),
            ],
            &[],
            "warning {both}: A client's x_auth-sub reaches the application.",
        ),
        (
            &[("context_extensions: { policy: admin }", "context_extensions: { policy: admins }")],
            &[],
            "error {both}: The route admin names the policy admins, which does not exist; did you mean admin?",
        ),
        (
            &[("          http2_protocol_options:\n            #", "          http_protocol_options:\n            #")],
            &[],
            "error {both}: The cluster {cluster} has no http2_protocol_options.",
        ),
        (
            &[],
            &["--grpc-listen", "tls:127.0.0.1:9191"],
            "error {tcp}: The cluster cognito_authz_tcp speaks plaintext, and the listener tls:127.0.0.1:9191 expects TLS.",
        ),
        (
            &[("cognito_authz_", "authz_"), ("/run/cognito-authz/authz.sock", "/run/authz.sock")],
            &["--grpc-listen", "127.0.0.1:9999"],
            "warning {file}: No ext_authz filter leads to a listener of this service; they lead to authz_uds (/run/authz.sock), authz_tcp (localhost:9191).",
        ),
        (
            &[("http.ext_authz.v3.ExtAuthz\n", "http.other.v3.Other\n")],
            &[],
            "warning {file}: The file has no ext_authz filter.",
        ),
    ];
    for (changes, more, expected) in faults {
        let text = changes.iter().fold(original.clone(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        fs::write(&file, text).unwrap();
        let path = policy.path();
        let mut args = vec!["--config", &path, "--envoy", file.to_str().unwrap()];
        args.extend(*more);
        if more.iter().any(|value| value.starts_with("tls:")) {
            args.extend(["--tls-cert-file", certificate.to_str().unwrap(), "--tls-key-file", key.to_str().unwrap()]);
        }
        let (_, findings) = doctor(&args, &[]);
        let found: Vec<String> =
            complaints(&findings).into_iter().filter(|found| found.contains("envoy.yaml")).collect();
        let expected: Vec<String> = match *expected {
            "" => Vec::new(),
            line => {
                let at = |place: &str| {
                    line.replace("{uds}", place)
                        .replace("{both}", place)
                        .replace("{tcp}", place)
                        .replace("{file}", "envoy.yaml")
                };
                let (uds, tcp) = (
                    at("envoy.yaml, ingress_uds").replace("{cluster}", "cognito_authz_uds"),
                    at("envoy.yaml, ingress_tcp").replace("{cluster}", "cognito_authz_tcp"),
                );
                if line.contains("{both}") {
                    vec![uds, tcp]
                } else if line.contains("{tcp}") {
                    vec![tcp]
                } else {
                    vec![uds]
                }
            }
        };
        assert_eq!(found, expected, "{changes:?} {more:?}");
    }
}

#[test]
fn a_policy_needs_its_headers_and_bodies_from_envoy() {
    let file = shipped("deploy/envoy/envoy.yaml");
    for (policy, expected) in [
        ("{headers: {x-gate: orders}}", &["Envoy drops what the service does to x-gate."][..]),
        ("{from: {header: x-api-token}}", &["Envoy does not send x-api-token to the service."]),
        (
            "{from: {websocket_protocol: bearer}}",
            &[
                "Envoy does not send sec-websocket-protocol to the service.",
                "Envoy drops what the service does to sec-websocket-protocol.",
            ],
        ),
        (
            "{json_rpc: {max_body: 64KiB, calls: [{method: tools/call, policy: admin}]}}",
            &["The policy members reads bodies (`json_rpc`), and no with_request_body sends them."],
        ),
    ] {
        let policy = PolicyFile::new(&POLICIES.replace("members: {}", &format!("members: {policy}")));
        let (code, findings) = doctor(&["--config", &policy.path(), "--envoy", file.to_str().unwrap()], &[]);
        let found = complaints(&findings);
        let at =
            |at: &str| expected.iter().map(move |what| format!("error envoy.yaml, {at}: {what}")).collect::<Vec<_>>();
        assert_eq!((code, found), (Some(1), [at("ingress_uds"), at("ingress_tcp")].concat()));
    }
}

#[test]
fn variables_that_nothing_reads_are_found_and_no_value_is_printed() {
    let directory = tempfile::tempdir().unwrap();
    let dot_env = "AWS_REGON=secret-value-1\nCOGNITO_USER_POOL=secret-value-2\nOTHER=1\n# COGNITO_AUTHZ_COMMENT\nexport COGNITO_CLIENT_ID=c\n";
    fs::write(directory.path().join(".env"), dot_env).unwrap();
    let args = ["doctor", "--user-pool-id", POOL].map(OsString::from);
    let output = Program::command(&args)
        .current_dir(directory.path())
        .envs([
            ("COGNITO_AUTHZ_LEWAY", "secret-value-3"),
            ("COGNITO_AUTHZ_CLIENT_SECRET", "secret-value-4"),
            ("COGNITO_CLIENT_SECRET", "secret-value-5-abcdefghijklmnop"),
            ("COGNITO_AUTHZ_SERVICE_HOST", "10.0.0.1"),
            ("COGNITO_AUTHZ_SERVICE_PORT_GRPC", "9191"),
            ("COGNITO_AUTHZ_PORT", "tcp://10.0.0.1:9191"),
            ("COGNITO_AUTHZ_PORT_9191_TCP_ADDR", "10.0.0.1"),
        ])
        .output()
        .unwrap();
    let (text, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!((output.status.code(), &*errors), (Some(0), ""), "{text}");
    let found: Vec<&str> = text.lines().filter(|line| line.contains("environment: ")).collect();
    let line = |name: &str, source: &str, nearest: &str| {
        format!(
            "warning  environment: Nothing reads {name} ({source}). Its value has no effect. Rename it to {nearest}, or remove it."
        )
    };
    let expected = [
        line("AWS_REGON", "line 1 of .env", "AWS_REGION"),
        line("COGNITO_AUTHZ_CLIENT_SECRET", "environment", "COGNITO_CLIENT_SECRET"),
        line("COGNITO_AUTHZ_LEWAY", "environment", "COGNITO_AUTHZ_LEEWAY"),
        line("COGNITO_USER_POOL", "line 2 of .env", "COGNITO_USER_POOL_ID"),
    ];
    assert_eq!(found, expected);
    assert!(!text.contains("secret-value"), "{text}");
    assert!(text.ends_with("0 errors, 4 warnings\n"), "{text}");
}

#[test]
fn a_configuration_with_an_error_is_reported_like_by_other_commands() {
    let (code, stdout, stderr) = run(&["doctor", "--user-pool-id", "nonsense"], &[]);
    assert_eq!((code, &*stdout, stderr.lines().count()), (Some(64), "", 1), "{stderr}");
    let (code, findings) = doctor(&["--envoy", "/nonexistent/envoy.yaml", "--region", "eu-west-1"], &[]);
    assert_eq!(code, Some(1));
    assert!(complaints(&findings)[0].starts_with("error envoy.yaml: /nonexistent/envoy.yaml "), "{findings:#?}");
    // What `serve` only logs.
    let (code, findings) = doctor(&["--client-id", "any", "--user-pool-id", POOL, "--account-api=false"], &[]);
    assert_eq!(code, Some(0));
    assert!(complaints(&findings)[0].contains("--client-id any"), "{findings:#?}");
}

/// Pool and app client of an emulator.
struct Cognito {
    emulator: Emulator,
    pool: String,
    client: String,
}

const CALLBACK: &str = "https://app.example.com/auth/oauth/callback";

impl Cognito {
    async fn start() -> Self {
        let emulator = Emulator::start().await;
        let pool = emulator.create_pool().await;
        let client = json!({
            "UserPoolId": pool,
            "ClientName": "web",
            "ExplicitAuthFlows": ["ALLOW_REFRESH_TOKEN_AUTH"],
            "AllowedOAuthFlows": ["code"],
            "AllowedOAuthFlowsUserPoolClient": true,
            "AllowedOAuthScopes": ["openid", "email"],
            "CallbackURLs": [CALLBACK],
            "SupportedIdentityProviders": ["COGNITO"],
        });
        let client = emulator.call("CreateUserPoolClient", client).await;
        let client = client["UserPoolClient"]["ClientId"].as_str().unwrap().to_owned();
        Self { emulator, pool, client }
    }

    fn doctor(&self, pool: &str, client: &str, more: &[&str]) -> (Option<i32>, Vec<Value>) {
        let url = &self.emulator.url;
        let common = ["--online", "--user-pool-id", pool, "--client-id", client, "--cognito-endpoint", url];
        doctor(&[&common, more].concat(), &[])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cognito_says_what_does_not_fit() {
    let mut cognito = Cognito::start().await;
    let (pool, client) = (cognito.pool.clone(), cognito.client.clone());
    let url = cognito.emulator.url.clone();
    let hosted = ["--hosted-ui-domain", &*url, "--oauth-scopes", "openid", "--oauth-redirect-uris"];
    let state_key = tempfile::NamedTempFile::new().unwrap();
    fs::write(state_key.path(), "k".repeat(64)).unwrap();
    let state_key = ["--oauth-state-key-file", state_key.path().to_str().unwrap()];

    let (code, findings) = cognito.doctor(&pool, &client, &[&hosted[..], &[CALLBACK], &state_key].concat());
    assert_eq!((code, complaints(&findings)), (Some(0), Vec::new()));
    let seen: Vec<&str> = findings.iter().map(|finding| finding["what"].as_str().unwrap()).collect();
    for part in [
        "2 keys from ",
        "tokens are issued by https://cognito-idp.",
        "exists in us-east-1",
        "signs users in",
        "the clock of this machine is ",
    ] {
        assert!(seen.iter().any(|what| what.contains(part)), "{part}: {seen:#?}");
    }

    let other = pool.replace("us-east-1_", "us-east-1_0");
    let (_, findings) = cognito.doctor(&other, &client, &[]);
    let found = complaints(&findings);
    assert!(found[0].starts_with("error pool default: The keys cannot be fetched from "), "{found:#?}");
    assert!(found[1].starts_with("error pool default: There is no OpenID document at "), "{found:#?}");
    let hint = format!("Is there a pool {other} in us-east-1?");
    assert!(findings.iter().any(|finding| finding["fix"].as_str().unwrap().starts_with(&hint)), "{findings:#?}");

    // Every process that names a pool can be wrong about its issuer.
    let (_, findings) = cognito.doctor(&pool, &client, &["--issuer", "https://issuer.example.com"]);
    let found = complaints(&findings);
    assert!(found[0].contains("accepted are https://issuer.example.com."), "{found:#?}");

    let (_, findings) = cognito.doctor(&pool, "nosuchclient", &[]);
    assert_eq!(complaints(&findings), ["error pool default: The app client nosuchclient does not exist in us-east-1."]);

    let wrong = "https://app.example.com/elsewhere";
    let (_, findings) = cognito.doctor(&pool, &client, &[&hosted[..], &[wrong], &state_key].concat());
    let found = complaints(&findings);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].contains(&format!("refuses a sign-in for the app client {client} and {wrong}: invalid_request.")),
        "{found:#?}"
    );

    let dead = ["--hosted-ui-domain", "http://127.0.0.1:1", "--oauth-redirect-uris", CALLBACK];
    let (_, findings) = cognito.doctor(&pool, &client, &[&dead[..], &state_key].concat());
    let found = complaints(&findings);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].starts_with("error hosted pages: 127.0.0.1 does not answer: the connection was refused"),
        "{found:#?}"
    );

    cognito.emulator.stop().await;
    let (_, findings) = cognito.doctor(&pool, &client, &[]);
    let found = complaints(&findings);
    assert!(found[0].contains("the connection was refused"), "{found:#?}");
    assert_eq!(found[1..], ["warning clock: No server told the time."]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_wrong_is_found_and_a_server_that_hangs_does_not_hold_the_command() {
    let keys = JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await;
    let endpoint = ["--online", "--account-api=false", "--cognito-endpoint", &keys.url];
    for (distance, side, expected) in [(120, "behind", true), (10, "behind", false), (-120, "ahead of", true)] {
        let now = SystemTime::now();
        let shift = Duration::from_secs(i64::unsigned_abs(distance));
        let date = httpdate::fmt_http_date(if distance < 0 { now - shift } else { now + shift });
        keys.answers(Reply { headers: vec![("date", date)], ..Reply::ok(jwks(&[SigningKey::shared()])) });
        let (_, findings) = doctor(&endpoint, &[]);
        let found: Vec<String> = complaints(&findings).into_iter().filter(|found| found.contains("clock")).collect();
        assert_eq!(found.len(), usize::from(expected), "{findings:#?}");
        if expected {
            assert!(found[0].contains(&format!(" s {side} that of 127.0.0.1; the leeway is 30 s.")), "{found:#?}");
        }
    }
    keys.answers(Reply { delay: Duration::from_secs(60), ..Reply::ok("") });
    let start = Instant::now();
    let (_, findings) = doctor(&endpoint, &[]);
    assert!(complaints(&findings)[0].contains("no response in time"), "{findings:#?}");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_online_there_is_no_request() {
    let keys = JwksServer::start(Reply::ok("")).await;
    let (code, findings) = doctor(&["--cognito-endpoint", &keys.url], &[]);
    assert_eq!((code, keys.requests()), (Some(0), 0));
    assert!(findings.iter().any(|finding| finding["place"] == "network"), "{findings:#?}");
}
