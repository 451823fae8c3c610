//! Envoy traces requests, and so does the service: the collector receives one trace.

use super::{Stage, good_token, published_key};
use crate::support::collector::{Collected, Collector, Protocol};
use crate::support::envoy::LISTENERS;
use crate::support::http1::{bearer, fetch};
use crate::telemetry::end;

const CHECK: &str = "envoy.service.auth.v3.Authorization/Check";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
/// Context of a client that asks to be sampled.
const SAMPLED: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn the_check_is_below_envoys_call_in_the_trace_of_the_request() {
    let keys = published_key().await;
    // Both programs export to this collector.
    let collector = Collector::start(Protocol::Grpc).await;
    let stage = Stage::start_with(&collector.variables(), &["--jwks-url", &keys.url], |bootstrap| {
        for listener in LISTENERS {
            bootstrap.trace(listener, &collector.address);
        }
    })
    .await;
    stage.envoy.finds_the_service_healthy().await;
    let token = bearer(&good_token());
    for (number, listener) in LISTENERS.into_iter().enumerate() {
        let response = fetch(stage.envoy.address(listener), "/traced", &[&token]).await;
        assert_eq!(response.status, 200);
        let is_new = |check: &Collected| check.span.name == CHECK && check.trace() != TRACE;
        let find = || collector.spans().into_iter().filter(is_new).nth(number);
        collector.span("our span", |_| find().is_some()).await;
        let check = find().unwrap();
        assert_eq!((&*check.service, check.span.kind), ("cognito-authz", 2));
        assert_eq!(check.attribute("cognito_authz.decision").as_deref(), Some("allow"));

        let egress = collector.span("Envoy's call", |other| other.id() == check.parent()).await;
        assert_eq!((&*egress.service, egress.trace()), ("envoy", check.trace()));
        assert_eq!(egress.span.name, "async envoy.service.auth.v3.Authorization.Check egress");
        assert_eq!(egress.span.kind, 3, "a client span");
        let ingress = collector.span("Envoy's request", |other| other.id() == egress.parent()).await;
        assert_eq!((&*ingress.service, ingress.trace(), ingress.parent()), ("envoy", check.trace(), String::new()));
        assert_eq!(ingress.span.kind, 2, "a server span");
        // The application gets the same trace.
        let seen = stage.upstream.seen().pop().unwrap();
        assert!(seen.header("traceparent")[0].contains(&check.trace()), "{seen:?}");
    }
}

#[tokio::test]
async fn what_envoy_does_not_sample_is_not_traced() {
    let keys = published_key().await;
    let collector = Collector::start(Protocol::Grpc).await;
    let [listener, _] = LISTENERS;
    let stage = Stage::start_with(&collector.variables(), &["--jwks-url", &keys.url], |bootstrap| {
        bootstrap.trace(listener, &collector.address);
        bootstrap.manager(listener)["tracing"]["random_sampling"]["value"] = 0.into();
        bootstrap.show_headers(listener, "traceparent");
    })
    .await;
    stage.envoy.finds_the_service_healthy().await;
    let token = bearer(&good_token());
    for lines in [&[&*token][..], &[&*token, SAMPLED]] {
        assert_eq!(fetch(stage.envoy.address(listener), "/unsampled", lines).await.status, 200);
    }
    end(stage.service).await;
    let names: Vec<String> = collector.spans().into_iter().map(|collected| collected.span.name).collect();
    assert!(names.iter().all(|name| name == "fetch keys"), "{names:?}");
}

#[tokio::test]
async fn an_edge_removes_the_context_of_its_clients() {
    let keys = published_key().await;
    let collector = Collector::start(Protocol::Grpc).await;
    let [edge, inner] = LISTENERS;
    let stage = Stage::start_with(&collector.variables(), &["--jwks-url", &keys.url], |bootstrap| {
        for listener in LISTENERS {
            bootstrap.trace(listener, &collector.address);
        }
        bootstrap.remove_contexts_of_clients(edge);
    })
    .await;
    stage.envoy.finds_the_service_healthy().await;
    let token = bearer(&good_token());
    assert_eq!(fetch(stage.envoy.address(edge), "/", &[&token, SAMPLED]).await.status, 200);
    let check = collector.named(CHECK).await;
    assert_ne!(check.trace(), TRACE);
    assert_eq!(fetch(stage.envoy.address(inner), "/", &[&token, SAMPLED]).await.status, 200);
    let continues = |other: &Collected| other.span.name == CHECK && other.trace() == TRACE;
    collector.span("a check in the trace of the client", continues).await;
}
