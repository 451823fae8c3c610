use std::collections::BTreeSet;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tokio::time::Instant;

use super::queue::Exit;
use super::settings::Batches;
use super::span::{Record, Value};
use super::*;
use crate::metrics::Metrics;

const DOOR: Door = Door { name: "check", attributes: &[("a", "b")] };
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// A tracer without a thread.
fn tracer(sampling: Sampling, queue: usize) -> (Arc<Tracer>, Exit, Metrics) {
    let metrics = Metrics::new().unwrap();
    let batches = Batches { queue, size: 10, delay: Duration::from_secs(1) };
    let (queue, exit) = queue::queue(batches, metrics.telemetry.clone());
    (Arc::new(Tracer { sampling, queue }), exit, metrics)
}

const NOTHING: Sampling = Sampling { roots: 0.0, unsampled: 0.0, trusts_headers: false };

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

fn headers(flags: Option<&str>) -> HeaderMap {
    let pairs = flags.map(|flags| [("traceparent", parent(flags)), ("tracestate", "a=1".into())]);
    pairs.into_iter().flatten().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

/// Makes one check with the flags of a context in the metadata and in the headers of the checked request. Returns its
/// span.
fn check(sampling: Sampling, metadata: Option<&str>, request: Option<&str>) -> Option<Record> {
    let (tracer, mut exit, _) = tracer(sampling, 10);
    let mut span = tracer.begin_check(&DOOR, Some(&headers(metadata)));
    tracer.decide(&mut span, || Parent::of(&headers(request)));
    drop(span);
    let mut spans = exit.take();
    assert!(spans.len() <= 1);
    spans.pop()
}

/// Trace, parent and state of a span.
fn place(record: &Record) -> (bool, Option<u64>, &str) {
    (record.ids.trace_id().to_string() == TRACE, record.parent, &record.state)
}

#[test]
fn metadata_decides_before_the_headers_of_the_request() {
    let own = u64::from_str_radix(SPAN, 16).unwrap();
    let span = check(NOTHING, Some("01"), None).unwrap();
    assert_eq!(place(&span), (true, Some(own), "a=1"));
    assert!(span.has_remote_parent && span.kind == Kind::Server && span.name == "check");
    assert_eq!(span.attributes, [("a", Value::from("b"))]);
    assert!(span.start > 0 && span.end >= span.start);
    let trusting = Sampling { trusts_headers: true, ..NOTHING };
    for sampling in [NOTHING, trusting] {
        assert!(check(sampling, Some("00"), Some("01")).is_none(), "the proxy does not sample it");
    }
    let always = Sampling { unsampled: 1.0, ..NOTHING };
    assert_eq!(place(&check(always, Some("00"), None).unwrap()), (true, Some(own), "a=1"));
    assert!(check(Sampling { roots: 1.0, ..NOTHING }, Some("00"), None).is_none());
}

#[test]
fn a_client_cannot_switch_traces_on() {
    let own = u64::from_str_radix(SPAN, 16).unwrap();
    for flags in [None, Some("00"), Some("01")] {
        assert!(check(NOTHING, None, flags).is_none());
    }
    let some = Sampling { roots: 1.0, ..NOTHING };
    for flags in ["00", "01"] {
        let span = check(some, None, Some(flags)).unwrap();
        assert_eq!(place(&span), (true, Some(own), ""), "its trace is continued, without its state");
    }
    let root = check(some, None, None).unwrap();
    assert_eq!(place(&root), (false, None, ""));
    let trusting = Sampling { trusts_headers: true, ..NOTHING };
    assert_eq!(place(&check(trusting, None, Some("01")).unwrap()), (true, Some(own), "a=1"));
    assert!(check(trusting, None, Some("00")).is_none());
    assert!(check(trusting, None, None).is_none());
}

#[test]
fn a_share_of_the_checks_is_traced_whatever_their_ids_are() {
    let half = Sampling { roots: 0.5, ..NOTHING };
    let traced = (0..1000).filter(|_| check(half, None, Some("01")).is_some()).count();
    assert!((350..650).contains(&traced), "{traced} of 1000 checks of the same trace");
}

#[test]
fn requests_of_the_account_api_are_traced_as_checks_without_metadata_are() {
    let begin = |sampling, flags| {
        let (tracer, mut exit, _) = tracer(sampling, 10);
        drop(tracer.begin_request(&Method::POST, &headers(flags)));
        exit.take().pop()
    };
    assert!(begin(NOTHING, Some("01")).is_none());
    let trusting = Sampling { trusts_headers: true, ..NOTHING };
    assert!(begin(trusting, Some("00")).is_none());
    let span = begin(trusting, Some("01")).unwrap();
    assert_eq!((span.name.as_ref(), place(&span).0), ("POST", true));
    let root = begin(Sampling { roots: 1.0, ..NOTHING }, None).unwrap();
    assert_eq!((root.kind, root.parent), (Kind::Server, None));
    assert_eq!(method_name(&Method::from_bytes(b"EYJHBGCI").unwrap()), "_OTHER");
}

#[test]
fn a_full_queue_drops_spans_and_counts_them() {
    let (tracer, mut exit, metrics) = tracer(Sampling { roots: 1.0, ..NOTHING }, 3);
    for _ in 0..5 {
        drop(tracer.begin_check(&DOOR, None));
    }
    let dropped = |count| {
        let shown = String::from_utf8(metrics.render(crate::metrics::Format::Text).unwrap()).unwrap();
        shown.contains(&format!("cognito_authz_spans_dropped_total{{reason=\"queue_full\"}} {count}\n"))
    };
    assert!(dropped(2));
    assert_eq!(exit.take().len(), 3);
    drop(exit);
    drop(tracer.begin_check(&DOOR, None));
    assert!(dropped(3), "nothing reads the queue any more");
}

#[tokio::test(start_paused = true)]
async fn spans_below_a_span_are_part_of_its_trace() {
    let (tracer, mut exit, _) = tracer(NOTHING, 10);
    let CheckSpan::Yes(span) = tracer.begin_check(&DOOR, Some(&headers(Some("01")))) else { panic!("not traced") };
    let from = Instant::now();
    tokio::time::advance(Duration::from_millis(30)).await;
    let to = Instant::now();
    let mut past = span.past_child("past", (from, to));
    let other = SpanIds::root();
    past.link(Some(other));
    drop(past);
    let ids = span.ids();
    tokio::time::advance(Duration::from_millis(30)).await;
    drop(span);
    let [past, span] = <[_; 2]>::try_from(exit.take()).unwrap();
    assert_eq!((past.ids.trace, past.parent, &*past.state), (ids.trace, Some(ids.span), "a=1"));
    assert!(!past.has_remote_parent && past.link == Some(other));
    assert_eq!((past.end - past.start, span.end - span.start), (30_000_000, 60_000_000));
}

#[tokio::test]
async fn the_span_of_a_task_is_that_of_its_request() {
    let (tracer, mut exit, _) = tracer(Sampling { roots: 1.0, ..NOTHING }, 10);
    current::change(|_| panic!("no request"));
    assert!(current::child("none", Kind::Client).is_none());
    let span = tracer.begin_request(&Method::GET, &HeaderMap::new());
    let mut tasks = tokio::task::JoinSet::new();
    current::within(span, async {
        current::change(|span| span.set_route("/a".into()));
        drop(current::child("direct", Kind::Client));
        tasks.spawn(current::carried(async {
            current::change(|_| panic!("the task can outlive the request"));
            drop(current::child("spawned", Kind::Client));
        }));
    })
    .await;
    tasks.join_all().await;
    let spans = exit.take();
    let names: BTreeSet<&str> = spans.iter().map(|record| record.name.as_ref()).collect();
    assert_eq!(names, BTreeSet::from(["GET /a", "direct", "spawned"]));
    let request = spans.iter().find(|record| record.parent.is_none()).unwrap();
    assert!(spans.iter().all(|record| record.ids.trace == request.ids.trace));
    assert_eq!(spans.iter().filter(|record| record.parent == Some(request.ids.span)).count(), 2);
    assert!(current::within(None, async { current::child("none", Kind::Client) }).await.is_none());
}

#[test]
fn messages_are_those_of_opentelemetry() {
    let (tracer, mut exit, _) = tracer(NOTHING, 10);
    let CheckSpan::Yes(mut span) = tracer.begin_check(&DOOR, Some(&headers(Some("01")))) else { panic!("not traced") };
    span.set("number", -1);
    span.fail("keys_unavailable");
    let other = SpanIds { trace: 1, span: 2 };
    span.link(Some(other));
    drop(span);
    let message = otlp::request(&[("service.name".into(), "s".into())], exit.take());
    let request = ExportTraceServiceRequest::decode(&*message).unwrap();
    assert_eq!(request.encode_to_vec(), message, "the official messages know every field");
    let resource = &request.resource_spans[0];
    assert_eq!(resource.resource.as_ref().unwrap().attributes[0].key, "service.name");
    let scope = resource.scope_spans[0].scope.as_ref().unwrap();
    assert_eq!((&*scope.name, &*scope.version), ("cognito-authz", env!("CARGO_PKG_VERSION")));
    let span = &resource.scope_spans[0].spans[0];
    assert_eq!(
        u128::from_be_bytes(span.trace_id.clone().try_into().unwrap()),
        u128::from_str_radix(TRACE, 16).unwrap()
    );
    assert_eq!(
        u64::from_be_bytes(span.parent_span_id.clone().try_into().unwrap()),
        u64::from_str_radix(SPAN, 16).unwrap()
    );
    assert_eq!((span.span_id.len(), span.kind, &*span.name, &*span.trace_state), (8, 2, "check", "a=1"));
    assert_eq!(span.flags, 0x301, "sampled, and its parent is remote");
    assert_eq!(span.status.as_ref().unwrap().code, 2);
    let link = &span.links[0];
    assert_eq!((link.trace_id.len(), link.span_id.last(), link.flags), (16, Some(&2), 1));
    let attributes: Vec<String> = span.attributes.iter().map(|pair| format!("{} {:?}", pair.key, pair.value)).collect();
    assert!(attributes[0].starts_with("a ") && attributes[0].contains("StringValue(\"b\")"), "{attributes:?}");
    assert!(attributes[1].contains("IntValue(-1)") && attributes[2].starts_with("error.type "), "{attributes:?}");
}

#[test]
fn rejected_spans_are_read_from_the_response() {
    let partial = |rejected_spans| ExportTraceServiceResponse {
        partial_success: Some(ExportTracePartialSuccess { rejected_spans, error_message: "no".into() }),
    };
    for (response, rejected) in
        [(partial(3), 3), (partial(0), 0), (partial(-1), 0), (ExportTraceServiceResponse::default(), 0)]
    {
        assert_eq!(otlp::rejected(&response.encode_to_vec()), rejected);
    }
    assert_eq!(otlp::rejected(b"\xff\xff"), 0);
}
