//! OTLP messages of traces: the parts of `opentelemetry/proto/trace/v1/trace.proto`, its imports, and
//! `collector/trace/v1/trace_service.proto` that this program sends and reads. Field numbers are those of version 1.
//!
//! The tests decode what is sent with the messages of the `opentelemetry-proto` crate.

use prost::{Message, Oneof};

use super::context::SpanIds;
use super::span::{Attribute, Kind, Record, Value};

/// Bits of `flags`: the parent is known to be, or not to be, of another process.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
/// Bit of `flags` from W3C Trace Context: the span is recorded.
const SAMPLED: u32 = 0x01;
const STATUS_ERROR: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct ExportTraceServiceRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct InstrumentationScope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
#[expect(clippy::struct_field_names, reason = "the names of the protocol")]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "13")]
    links: Vec<Link>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Link {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(fixed32, tag = "6")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Any", tags = "1, 3")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, Oneof)]
enum Any {
    #[prost(string, tag = "1")]
    String(String),
    #[prost(int64, tag = "3")]
    Int(i64),
}

#[derive(Clone, PartialEq, Message)]
struct ExportTraceServiceResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<ExportTracePartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct ExportTracePartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
}

/// Writes the request that exports these spans.
pub(super) fn request(resource: &[(String, String)], spans: Vec<Record>) -> Vec<u8> {
    let attribute =
        |(key, value): &(String, String)| KeyValue { key: key.clone(), value: any(Any::String(value.clone())) };
    let scope = InstrumentationScope { name: env!("CARGO_PKG_NAME").into(), version: env!("CARGO_PKG_VERSION").into() };
    let spans = spans.into_iter().map(span).collect();
    let resource_spans = ResourceSpans {
        resource: Some(Resource { attributes: resource.iter().map(attribute).collect() }),
        scope_spans: vec![ScopeSpans { scope: Some(scope), spans }],
    };
    ExportTraceServiceRequest { resource_spans: vec![resource_spans] }.encode_to_vec()
}

/// Reads the number of spans that the collector has rejected from its response. One that cannot be read rejects none.
pub(super) fn rejected(response: &[u8]) -> u64 {
    let response = ExportTraceServiceResponse::decode(response).unwrap_or_default();
    response.partial_success.and_then(|partial| u64::try_from(partial.rejected_spans).ok()).unwrap_or_default()
}

fn span(record: Record) -> Span {
    let remote = if record.has_remote_parent { IS_REMOTE } else { 0 };
    let (trace_id, span_id) = ids(record.ids);
    let link = |other| {
        let (trace_id, span_id) = ids(other);
        Link { trace_id, span_id, flags: SAMPLED }
    };
    Span {
        trace_id,
        span_id,
        trace_state: record.state.into(),
        parent_span_id: record.parent.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
        name: record.name.into_owned(),
        kind: match record.kind {
            Kind::Internal => 1,
            Kind::Server => 2,
            Kind::Client => 3,
        },
        start_time_unix_nano: record.start,
        end_time_unix_nano: record.end,
        attributes: record.attributes.into_iter().map(attribute).collect(),
        links: record.link.map(link).into_iter().collect(),
        status: record.has_failed.then_some(Status { code: STATUS_ERROR }),
        flags: SAMPLED | HAS_IS_REMOTE | remote,
    }
}

fn ids(ids: SpanIds) -> (Vec<u8>, Vec<u8>) {
    (ids.trace.to_be_bytes().to_vec(), ids.span.to_be_bytes().to_vec())
}

fn attribute((key, value): Attribute) -> KeyValue {
    let value = match value {
        Value::Text(text) => Any::String(text.into_owned()),
        Value::Number(number) => Any::Int(number),
    };
    KeyValue { key: key.to_owned(), value: any(value) }
}

#[expect(clippy::unnecessary_wraps, reason = "the field is optional")]
fn any(value: Any) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}
