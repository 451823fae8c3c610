//! Collectors that fail. None of them delays a check, takes memory without a bound, or delays the end of the process for
//! more than three seconds.

use std::time::{Duration, Instant};

use super::{check, counter, end, start};
use crate::support::client::{Ask, connect};
use crate::support::collector::{Collector, Fault, Protocol, variables};
use crate::support::tool::free_port;
use crate::support::{PATIENCE, eventually};

/// Spans that wait at most.
const QUEUE: u64 = 20;
/// Checks of each test: more than the queue and the batch that is being sent have space for.
const CHECKS: u64 = 200;
/// Time limit of an export.
const EXPORT: Duration = Duration::from_secs(60);

/// Variables for a collector that never takes a batch in the time of a test.
fn patient(address: &str, protocol: Protocol) -> Vec<(String, String)> {
    let timeout = EXPORT.as_millis().to_string();
    let more = [
        ("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE.to_string()),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", timeout.clone()),
        ("OTEL_BSP_EXPORT_TIMEOUT", timeout),
    ];
    let more = more.map(|(name, value)| (name.to_owned(), value));
    [variables(address, protocol), more.into()].concat()
}

fn dropped(reason: &str) -> String {
    format!("cognito_authz_spans_dropped_total{{reason=\"{reason}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_fails_costs_spans_and_nothing_else() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        for fault in Fault::ALL {
            let what = format!("{fault:?} {protocol:?}");
            let address = fault.start();
            let (app, _keys) = start(&patient(&address, protocol), &["--trace-ratio=1"]).await;
            let channel = connect(&app.grpc[0]).await;
            let begin = Instant::now();
            for _ in 0..CHECKS {
                assert_eq!(check(&channel, Ask::get("/"), &[]).await.unwrap().status, 401, "{what}");
            }
            // No check waits for an export: all of them together take less than one.
            assert!(begin.elapsed() < EXPORT, "{what}: {:?}", begin.elapsed());
            // The queue, the batch that is being sent, and one that was taken in between.
            let lost = counter(&app, &dropped("queue_full")).await;
            assert!(lost >= CHECKS - 3 * QUEUE, "{what}: only {lost} of {CHECKS} spans were dropped");
            assert_eq!(counter(&app, "cognito_authz_spans_exported_total").await, 0, "{what}");
            let stopping = Instant::now();
            end(app).await;
            let took = stopping.elapsed();
            assert!(took < Duration::from_secs(10), "{what}: the process ended after {took:?}");
        }
    }
}

#[tokio::test]
async fn a_batch_that_is_not_taken_in_time_is_dropped_and_counted() {
    for (fault, protocol) in
        [(Fault::Hangs, Protocol::Grpc), (Fault::Slow, Protocol::Http), (Fault::Refuses, Protocol::Grpc)]
    {
        let address = fault.start();
        let timeout = ("OTEL_EXPORTER_OTLP_TIMEOUT".to_owned(), "200".to_owned());
        let (app, _keys) = start(&[variables(&address, protocol), vec![timeout]].concat(), &["--trace-ratio=1"]).await;
        let channel = connect(&app.grpc[0]).await;
        assert_eq!(check(&channel, Ask::get("/"), &[]).await.unwrap().status, 401);
        // The fetch of the keys has a span as well.
        eventually("both spans are dropped", PATIENCE, async || counter(&app, &dropped("failed")).await == 2).await;
        assert_eq!(counter(&app, &dropped("queue_full")).await, 0);
        end(app).await;
    }
}

#[tokio::test]
async fn spans_arrive_once_the_collector_is_back() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let port = free_port();
        let address = format!("127.0.0.1:{port}");
        let (app, _keys) = start(&variables(&address, protocol), &["--trace-ratio=1"]).await;
        let channel = connect(&app.grpc[0]).await;
        assert_eq!(check(&channel, Ask::get("/"), &[]).await.unwrap().status, 401);
        let collector = Collector::start_at(protocol, port).await;
        // The batch that found no collector is tried again.
        collector.named("envoy.service.auth.v3.Authorization/Check").await;
        eventually("exported", PATIENCE, async || counter(&app, "cognito_authz_spans_exported_total").await >= 2).await;
        assert_eq!(counter(&app, &dropped("failed")).await, 0);
        end(app).await;
    }
}

#[tokio::test]
async fn rejected_spans_are_counted() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let collector = Collector::start(protocol).await;
        collector.rejects(1);
        let (app, _keys) = start(&collector.variables(), &[]).await;
        collector.named("fetch keys").await;
        eventually("rejected", PATIENCE, async || counter(&app, &dropped("rejected")).await == 1).await;
        assert_eq!(counter(&app, "cognito_authz_spans_exported_total").await, 0);
        end(app).await;
    }
}

#[tokio::test]
async fn spans_that_are_left_at_the_end_are_exported() {
    let collector = Collector::start(Protocol::Grpc).await;
    let mut variables = collector.variables();
    variables.push(("OTEL_BSP_SCHEDULE_DELAY".into(), "600000".into()));
    let (app, _keys) = start(&variables, &["--trace-ratio=1"]).await;
    let channel = connect(&app.grpc[0]).await;
    for _ in 0..20 {
        assert_eq!(check(&channel, Ask::get("/"), &[]).await.unwrap().status, 401);
    }
    assert_eq!(collector.spans().len(), 0);
    end(app).await;
    assert_eq!(collector.spans().len(), 21);
}
