//! Collector of traces, as the OpenTelemetry Collector is one: takes OTLP over gRPC or HTTP, with the messages and the
//! gRPC service of the `opentelemetry-proto` crate, and keeps every span. And collectors that fail ([`Fault`]).

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use prost::bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::codegen::Service;
use tonic::{Status, async_trait};

use super::server::{serve_at, serve_http2};
use super::tool::free_port;
use super::{PATIENCE, eventually};

/// Protocol of a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Grpc,
    Http,
}

impl Protocol {
    /// Value of `OTEL_EXPORTER_OTLP_PROTOCOL`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http/protobuf",
        }
    }
}

/// Running collector. It ends with its runtime.
#[derive(Clone)]
pub(crate) struct Collector {
    /// Address (`host:port`).
    pub(crate) address: String,
    protocol: Protocol,
    inbox: Inbox,
}

/// A span, with the name of the service that it is from.
#[derive(Clone, Debug)]
pub(crate) struct Collected {
    pub(crate) service: String,
    pub(crate) span: Span,
}

#[derive(Clone, Default)]
struct Inbox(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    spans: Vec<Collected>,
    /// Headers or metadata of the last request.
    headers: http::HeaderMap,
    /// Number of spans of each further request that are rejected.
    rejects: i64,
}

impl Inbox {
    fn put(&self, request: ExportTraceServiceRequest, headers: http::HeaderMap) -> ExportTraceServiceResponse {
        let mut state = self.0.lock().unwrap();
        for resource in request.resource_spans {
            let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
            let service = text(&attributes, "service.name").unwrap_or_default();
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                state.spans.push(Collected { service: service.clone(), span });
            }
        }
        state.headers = headers;
        let rejected_spans = state.rejects;
        let partial_success = (rejected_spans > 0)
            .then(|| ExportTracePartialSuccess { rejected_spans, error_message: "too many".into() });
        ExportTraceServiceResponse { partial_success }
    }
}

#[async_trait]
impl TraceService for Inbox {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        let (metadata, _, request) = request.into_parts();
        Ok(tonic::Response::new(self.put(request, metadata.into_headers())))
    }
}

impl Collector {
    pub(crate) async fn start(protocol: Protocol) -> Self {
        Self::start_at(protocol, 0).await
    }

    /// As [`Collector::start`], on this port.
    pub(crate) async fn start_at(protocol: Protocol, port: u16) -> Self {
        let inbox = Inbox::default();
        let address = match protocol {
            Protocol::Grpc => {
                let service = TraceServiceServer::new(inbox.clone());
                serve_http2(port, move |request| {
                    let mut service = service.clone();
                    async move { service.call(request).await.unwrap() }
                })
                .await
            }
            Protocol::Http => {
                let inbox = inbox.clone();
                serve_at(port, move |request| {
                    let inbox = inbox.clone();
                    async move { over_http(&inbox, request).await }
                })
                .await
            }
        };
        Self { address, protocol, inbox }
    }

    /// Variables that make a service export to it at once.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        variables(&self.address, self.protocol)
    }

    /// Rejects this number of spans of each further request.
    pub(crate) fn rejects(&self, spans: i64) {
        self.inbox.0.lock().unwrap().rejects = spans;
    }

    /// Headers or metadata of the last request.
    pub(crate) fn headers(&self) -> http::HeaderMap {
        self.inbox.0.lock().unwrap().headers.clone()
    }

    /// Spans so far.
    pub(crate) fn spans(&self) -> Vec<Collected> {
        self.inbox.0.lock().unwrap().spans.clone()
    }

    /// Waits for the first span that meets the condition.
    pub(crate) async fn span(&self, what: &str, condition: impl Fn(&Collected) -> bool) -> Collected {
        let find = || self.spans().into_iter().find(|span| condition(span));
        eventually(what, PATIENCE, async || find().is_some()).await;
        find().unwrap()
    }

    /// Waits for the first span with this name.
    pub(crate) async fn named(&self, name: &str) -> Collected {
        self.span(name, |collected| collected.span.name == name).await
    }
}

/// Variables that make a service export to this address at once.
pub(crate) fn variables(address: &str, protocol: Protocol) -> Vec<(String, String)> {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*format!("http://{address}")),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.name()),
        ("OTEL_BSP_SCHEDULE_DELAY", "10"),
    ];
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

async fn over_http(inbox: &Inbox, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let is_known = head.method == "POST" && head.uri.path() == "/v1/traces";
    let body = body.collect().await.unwrap().to_bytes();
    match ExportTraceServiceRequest::decode(body) {
        Ok(request) if is_known && head.headers["content-type"] == "application/x-protobuf" => {
            let response = inbox.put(request, head.headers).encode_to_vec();
            let builder = Response::builder().header("content-type", "application/x-protobuf");
            builder.body(Full::new(response.into())).unwrap()
        }
        _ => Response::builder().status(400).body(Full::default()).unwrap(),
    }
}

impl Collected {
    /// Attribute, as text.
    pub(crate) fn attribute(&self, name: &str) -> Option<String> {
        text(&self.span.attributes, name)
    }

    /// Attributes whose names begin with this, as `name=value`, sorted.
    pub(crate) fn attributes(&self, prefix: &str) -> Vec<String> {
        let shown = |pair: &KeyValue| format!("{}={}", pair.key, shown(pair.value.as_ref()));
        let mut attributes: Vec<_> =
            self.span.attributes.iter().filter(|pair| pair.key.starts_with(prefix)).map(shown).collect();
        attributes.sort_unstable();
        attributes
    }

    /// Id of the trace.
    pub(crate) fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }

    /// Id of the span.
    pub(crate) fn id(&self) -> String {
        hex(&self.span.span_id)
    }

    /// Id of the span above it; empty for the first of a trace.
    pub(crate) fn parent(&self) -> String {
        hex(&self.span.parent_span_id)
    }

    /// Code of the status: 0 unset, 1 ok, 2 error.
    pub(crate) fn status(&self) -> i32 {
        self.span.status.as_ref().map_or(0, |status| status.code)
    }
}

fn text(attributes: &[KeyValue], name: &str) -> Option<String> {
    attributes.iter().find(|pair| pair.key == name).map(|pair| shown(pair.value.as_ref()))
}

fn shown(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// How a collector fails.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// Nothing listens at its address.
    Refuses,
    /// It accepts connections, and reads nothing.
    Hangs,
    /// It reads the request byte by byte, and sends the response byte by byte without an end.
    Slow,
    /// It closes each connection after it has read something.
    Closes,
}

impl Fault {
    pub(crate) const ALL: [Self; 4] = [Self::Refuses, Self::Hangs, Self::Slow, Self::Closes];

    /// Starts a collector that fails in this way, and returns its address.
    pub(crate) fn start(self) -> String {
        if matches!(self, Self::Refuses) {
            return format!("127.0.0.1:{}", free_port());
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                match self {
                    Self::Refuses => {}
                    Self::Hangs => open.push(stream),
                    Self::Closes => drop(stream.read(&mut [0; 100]).await),
                    Self::Slow => drop(tokio::spawn(async move {
                        let (mut reader, mut writer) = stream.split();
                        let read = async { while reader.read(&mut [0; 1]).await.is_ok_and(|read| read > 0) {} };
                        let write = async {
                            for byte in "HTTP/1.1 200 OK\r\nx: ".bytes().chain(std::iter::repeat(b'x')) {
                                if writer.write_all(&[byte]).await.is_err() {
                                    break;
                                }
                                tokio::time::sleep(Duration::from_millis(20)).await;
                            }
                        };
                        tokio::join!(read, write);
                    })),
                }
            }
        });
        address
    }
}
