//! gRPC services of the port: authorization, health and reflection.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use prost::bytes::Bytes;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service};
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthService;
use tonic_reflection::server::Builder as ReflectionBuilder;

use super::grpc::{CHECK_PATH, CheckService, SERVICE_NAME};
use super::message_memory::{ConnectionMemory, ProcessMemory, Stream};
use super::unary::AnswerBody;
use crate::metrics::{MessageNumbers, OwnNumber};

/// Maximum size of a request to health or reflection. These requests contain only names.
const MAX_OTHER_MESSAGE_BYTES: usize = 4 * 1024;

/// Descriptors that reflection serves: `external_auth.proto` and its imports, from the descriptor set of envoy-types. A
/// test compares the two.
pub const DESCRIPTORS: &[u8] = include_bytes!("authorization.descriptors.bin");

/// Services of the gRPC port.
#[derive(Clone)]
pub(crate) struct Services {
    check: CheckService,
    health: HealthServer<HealthService>,
    reflection: Arc<Reflection>,
    memory: Arc<ProcessMemory>,
    /// Number of calls that the worker serves.
    streams: OwnNumber,
    closing: CancellationToken,
}

type Handler = Box<dyn Fn(http::Request<Incoming>) -> Answer + Send + Sync>;
type Answer = Pin<Box<dyn Future<Output = http::Response<Body>> + Send>>;

/// Both versions of `grpc.reflection`, because clients still use the older one.
struct Reflection {
    v1: Handler,
    v1alpha: Handler,
}

impl Services {
    /// Creates the services. Streams of health and reflection end when `closing` is cancelled: a client can keep a
    /// watch open for any time, and it must not delay the shutdown.
    ///
    /// # Errors
    /// If the descriptors cannot be decoded, which a test excludes.
    pub(crate) fn new(
        check: CheckService,
        health: HealthServer<HealthService>,
        closing: CancellationToken,
    ) -> Result<Self, tonic_reflection::server::Error> {
        let builder = || {
            ReflectionBuilder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .with_service_name(SERVICE_NAME)
                .with_service_name("grpc.health.v1.Health")
        };
        let v1 = builder().build_v1()?.max_decoding_message_size(MAX_OTHER_MESSAGE_BYTES);
        let v1alpha = builder().build_v1alpha()?.max_decoding_message_size(MAX_OTHER_MESSAGE_BYTES);
        let health = health.max_decoding_message_size(MAX_OTHER_MESSAGE_BYTES);
        let memory = Arc::new(ProcessMemory::new(check.max_message_bytes()));
        let reflection = Reflection {
            v1: Box::new(move |request| answer(v1.clone(), request)),
            v1alpha: Box::new(move |request| answer(v1alpha.clone(), request)),
        };
        Ok(Self { check, health, reflection: Arc::new(reflection), memory, streams: OwnNumber::default(), closing })
    }

    /// The services for one worker, with a memory of at most `recent_bytes` for checks. Its calls are counted in `streams`.
    pub(super) fn for_worker(&self, recent_bytes: u64, streams: OwnNumber) -> Self {
        Self { check: self.check.for_worker(recent_bytes), streams, ..self.clone() }
    }

    /// Number of calls that the worker serves.
    pub(super) fn streams(&self) -> &OwnNumber {
        &self.streams
    }

    /// Returns a function that reads the use of the memory budget, by the size of the messages.
    pub(crate) fn message_numbers(&self) -> impl Fn() -> [(&'static str, MessageNumbers); 2] + Clone + use<> {
        let memory = Arc::clone(&self.memory);
        move || memory.numbers()
    }

    /// Memory budget of the process.
    pub(super) fn memory(&self) -> &Arc<ProcessMemory> {
        &self.memory
    }

    /// Serves one call. `memory` is the budget of its connection.
    ///
    /// The future is boxed once, here, because hyper moves it several times before it runs, and each move copies all of
    /// it.
    pub(super) fn call(
        &self,
        request: http::Request<Incoming>,
        memory: &Arc<ConnectionMemory>,
    ) -> BoxFuture<http::Response<AnswerBody>, Infallible> {
        if request.uri().path() == CHECK_PATH {
            return Box::pin(self.check.call(request, Stream::open(memory)));
        }
        let (services, stream) = (self.clone(), Stream::open(memory));
        Box::pin(async move {
            let response = services.call_other(request).await.map(AnswerBody::Tonic);
            drop(stream);
            Ok(response)
        })
    }

    async fn call_other(self, request: http::Request<Incoming>) -> http::Response<Body> {
        let deadline = super::grpc::deadline(request.headers());
        let path = request.uri().path();
        let service = path.strip_prefix('/').and_then(|path| path.split_once('/')).map_or("", |(service, _)| service);
        let answer = match service {
            "grpc.health.v1.Health" => answer(self.health, request),
            "grpc.reflection.v1.ServerReflection" => (self.reflection.v1)(request),
            "grpc.reflection.v1alpha.ServerReflection" => (self.reflection.v1alpha)(request),
            _ => return Status::unimplemented("no such service or method").into_http(),
        };
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(response) => response.map(|body| Body::new(UntilClosing::new(body, self.closing))),
            Err(_) => Status::deadline_exceeded("the call took too long").into_http(),
        }
    }
}

fn answer<S>(mut service: S, request: http::Request<Incoming>) -> Answer
where
    S: Service<http::Request<Incoming>, Response = http::Response<Body>, Error = Infallible> + Send + 'static,
    S::Future: Send,
{
    Box::pin(async move {
        match service.call(request).await {
            Ok(response) => response,
        }
    })
}

/// Response body that ends with the status UNAVAILABLE when the port closes.
struct UntilClosing {
    body: Option<Body>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl UntilClosing {
    fn new(body: Body, closing: CancellationToken) -> Self {
        Self { body: Some(body), closing: Box::pin(closing.cancelled_owned()) }
    }
}

impl HttpBody for UntilClosing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        ready!(self.closing.as_mut().poll(cx));
        self.body = None;
        let mut trailers = http::HeaderMap::new();
        // Cannot fail for a fixed text. A stream without a status would be an error for the client as well.
        drop(Status::unavailable("shutting down").add_header(&mut trailers));
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}
