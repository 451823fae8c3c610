//! Spans of checks and of key fetches.

use super::{SPAN, TRACE, check, end, start, traceparent};
use crate::support::client::{Ask, connect};
use crate::support::collector::{Collected, Collector, Protocol};
use crate::support::http1::fetch;
use crate::support::jwks_server::Reply;
use crate::support::service::Program;
use crate::support::token::{POOL, SigningKey, TokenBuilder, jwks};

const CHECK: &str = "envoy.service.auth.v3.Authorization/Check";

fn good() -> Ask {
    Ask::get("/orders?q=secret-of-the-path").bearer(&TokenBuilder::access().sign(SigningKey::shared()))
}

fn checks(collector: &Collector) -> Vec<Collected> {
    collector.spans().into_iter().filter(|collected| collected.span.name == CHECK).collect()
}

#[tokio::test]
async fn a_check_continues_the_trace_of_its_caller() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let collector = Collector::start(protocol).await;
        let more = [("OTEL_SERVICE_NAME", "authz"), ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=a%20b")];
        let more = more.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let (app, _keys) = start(&[&collector.variables()[..], &more].concat(), &[]).await;
        let channel = connect(&app.grpc[0]).await;
        let metadata = [("traceparent", &*traceparent("01")), ("tracestate", "congo=t61rcWkgMzE")];
        let id = "4a8f0f61-2f5b-4c0e-9d53-0d3f6f5b7c11";
        assert_eq!(check(&channel, good().header("x-request-id", id), &metadata).await.unwrap().status, 200);

        let allowed = collector.named(CHECK).await;
        assert_eq!((allowed.trace(), allowed.parent()), (TRACE.into(), SPAN.into()), "{protocol:?}");
        assert_eq!((&*allowed.service, &*allowed.span.trace_state), ("authz", "congo=t61rcWkgMzE"));
        assert_eq!((allowed.span.kind, allowed.status()), (2, 0));
        assert!(allowed.span.end_time_unix_nano > allowed.span.start_time_unix_nano);
        let rpc = [
            "rpc.grpc.status_code=0",
            "rpc.method=Check",
            "rpc.service=envoy.service.auth.v3.Authorization",
            "rpc.system=grpc",
        ];
        assert_eq!(allowed.attributes("rpc."), rpc);
        let request_id = format!("cognito_authz.request_id={id}");
        let own =
            ["cognito_authz.decision=allow", "cognito_authz.policy=default", "cognito_authz.pool=default", &request_id];
        assert_eq!(allowed.attributes("cognito_authz."), own);
        assert_eq!(collector.headers()["x-tenant"], "a b");

        let metadata = [("traceparent", &*traceparent("01"))];
        assert_eq!(check(&channel, Ask::get("/"), &metadata).await.unwrap().status, 401);
        let is_denied =
            |collected: &Collected| collected.attribute("cognito_authz.decision").as_deref() == Some("deny");
        let denied = collector.span("a denied check", is_denied).await;
        assert_eq!(denied.attribute("cognito_authz.reason").as_deref(), Some("missing_credential"));
        assert_eq!((denied.trace(), denied.status()), (TRACE.into(), 0), "a denial is no error of the service");
        assert_ne!(denied.id(), allowed.id());
        end(app).await;
        let text = format!("{:?}", collector.spans());
        for secret in ["secret-of-the-path", "eyJ", "orders"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
}

#[tokio::test]
async fn a_call_that_fails_has_its_status() {
    let collector = Collector::start(Protocol::Grpc).await;
    let (app, _keys) = start(&collector.variables(), &["--grpc-max-message-bytes", "1KiB"]).await;
    let channel = connect(&app.grpc[0]).await;
    let large = Ask::get("/").header("x", &"x".repeat(2000));
    let metadata = [("traceparent", &*traceparent("01"))];
    assert_eq!(check(&channel, large, &metadata).await.unwrap_err().code(), tonic::Code::ResourceExhausted);
    let failed = collector.named(CHECK).await;
    assert_eq!(failed.attribute("rpc.grpc.status_code").as_deref(), Some("8"));
    assert_eq!((failed.attribute("error.type").as_deref(), failed.status()), (Some("8"), 2));
    end(app).await;
}

#[tokio::test]
async fn a_client_cannot_switch_traces_on() {
    let sampled = traceparent("01");
    let asks = || good().header("traceparent", &sampled).header("tracestate", "evil=1");
    for (flags, expected) in [(&[][..], false), (&["--trace-ratio=1"], true), (&["--trace-trust-headers"], true)] {
        let collector = Collector::start(Protocol::Http).await;
        let (app, _keys) = start(&collector.variables(), flags).await;
        let channel = connect(&app.grpc[0]).await;
        assert_eq!(check(&channel, asks(), &[]).await.unwrap().status, 200);
        // The proxy's own context takes precedence, and says no.
        if flags != ["--trace-ratio=1"] {
            let unsampled = [("traceparent", &*traceparent("00"))];
            assert_eq!(check(&channel, asks(), &unsampled).await.unwrap().status, 200);
        }
        // Malformed contexts count as absent.
        for bad in ["", "00-0-0-01", &sampled.to_uppercase(), &"0".repeat(5000)] {
            assert_eq!(check(&channel, good().header("traceparent", bad), &[]).await.unwrap().status, 200);
        }
        end(app).await;
        let found = checks(&collector);
        let continued = found.iter().filter(|collected| collected.trace() == TRACE).count();
        assert_eq!(continued, usize::from(expected), "{flags:?}: {found:?}");
        let roots = found.iter().filter(|collected| collected.parent().is_empty()).count();
        assert_eq!(roots, if flags == ["--trace-ratio=1"] { 4 } else { 0 }, "{flags:?}: {found:?}");
        let states: Vec<&str> = found.iter().map(|collected| &*collected.span.trace_state).collect();
        assert_eq!(states.contains(&"evil=1"), flags == ["--trace-trust-headers"], "{states:?}");
    }
}

#[tokio::test]
async fn a_check_that_waits_for_keys_points_to_the_fetch() {
    let collector = Collector::start(Protocol::Grpc).await;
    let (app, keys) = start(&collector.variables(), &[]).await;
    let channel = connect(&app.grpc[0]).await;
    let first = collector.named("fetch keys").await;
    assert_eq!((first.parent(), first.span.kind, first.status()), (String::new(), 3, 0));
    assert_eq!(first.attribute("http.response.status_code").as_deref(), Some("200"));
    assert_eq!(first.attribute("server.address").as_deref(), Some("127.0.0.1"));

    // The fetch at startup is recent, so a `kid` that is not in its set is unknown at once.
    keys.answers(Reply::ok(jwks(&[SigningKey::shared(), SigningKey::other()])));
    let unknown = Ask::get("/").bearer(&TokenBuilder::access().sign(SigningKey::other()));
    let metadata = [("traceparent", &*traceparent("01"))];
    assert_eq!(check(&channel, unknown, &metadata).await.unwrap().status, 401);
    let wait = collector.named("wait for keys").await;
    let check = collector.named(CHECK).await;
    assert_eq!((wait.trace(), wait.parent()), (check.trace(), check.id()));
    assert_eq!(wait.attribute("cognito_authz.pool").as_deref(), Some("default"));
    assert_eq!(wait.span.links.len(), 1);
    let link = &wait.span.links[0];
    assert_eq!((&link.trace_id, &link.span_id), (&first.span.trace_id, &first.span.span_id));
    end(app).await;
    let text = format!("{:?}", collector.spans());
    assert!(!text.contains(POOL), "no URL of the pool: {text}");
}

#[tokio::test]
async fn a_fetch_that_fails_says_why() {
    let collector = Collector::start(Protocol::Http).await;
    let (app, keys) = start(&collector.variables(), &["--jwks-refresh-interval=1s"]).await;
    keys.answers(Reply::status(403));
    let is_failed = |collected: &Collected| collected.status() == 2;
    let failed = collector.span("a failed fetch", is_failed).await;
    assert_eq!(failed.span.name, "fetch keys");
    let found = ["error.type", "http.response.status_code"].map(|name| failed.attribute(name).unwrap());
    assert_eq!(found, ["status", "403"]);
    end(app).await;
}

#[tokio::test]
async fn checks_over_http_are_traced() {
    let collector = Collector::start(Protocol::Http).await;
    let flags = ["--http-listen", "127.0.0.1:0", "--trace-trust-headers"];
    let (app, _keys) = start(&collector.variables(), &flags).await;
    let context = format!("traceparent: {}", traceparent("01"));
    let target = ["x-forwarded-method: GET", "x-forwarded-uri: /orders", "x-forwarded-host: api.test", &context];
    assert_eq!(fetch(&app.http, "/forward-auth", &target).await.status, 401);
    let span = collector.named("/forward-auth").await;
    assert_eq!((span.trace(), span.parent(), span.span.kind), (TRACE.into(), SPAN.into(), 2));
    assert_eq!(span.attributes("http."), ["http.response.status_code=401", "http.route=/forward-auth"]);
    assert_eq!(span.attribute("cognito_authz.reason").as_deref(), Some("missing_credential"));
    end(app).await;
}

#[tokio::test]
async fn the_log_line_of_a_traced_check_has_the_ids_of_its_span() {
    let collector = Collector::start(Protocol::Grpc).await;
    let mut program = Program::start_with(&collector.variables(), &["--jwks-url", "http://127.0.0.1:9/"]);
    let channel = connect(&program.grpc[0]).await;
    let metadata = [("traceparent", &*traceparent("01"))];
    assert_eq!(check(&channel, Ask::get("/traced"), &metadata).await.unwrap().status, 401);
    assert_eq!(check(&channel, Ask::get("/"), &[]).await.unwrap().status, 401);
    let lines: Vec<serde_json::Value> = std::iter::repeat_with(|| program.wait_for_line("\"check\""))
        .take(2)
        .map(|line| serde_json::from_str(&line).unwrap())
        .collect();
    let span = collector.named(CHECK).await;
    assert_eq!(lines[0]["fields"]["trace_id"], TRACE);
    assert_eq!(lines[0]["fields"]["span_id"], *span.id());
    assert_eq!([&lines[1]["fields"]["trace_id"], &lines[1]["fields"]["span_id"]], [&serde_json::Value::Null; 2]);
    let metrics = fetch(&program.admin, "/metrics", &["Accept: application/openmetrics-text"]).await.body;
    let exemplar = format!(" # {{trace_id=\"{TRACE}\"}} ");
    let marked: Vec<&str> = metrics.lines().filter(|line| line.contains(&exemplar)).collect();
    assert_eq!(marked.len(), 1, "{metrics}");
    assert!(marked[0].starts_with("cognito_authz_check_duration_seconds_bucket{decision=\"deny\""), "{marked:?}");
    let failed = collector.named("fetch keys").await;
    assert_eq!(failed.attribute("error.type").as_deref(), Some("connect"));
    // What is left is exported at the end.
    program.signal("TERM");
    assert!(program.wait().success());
}
