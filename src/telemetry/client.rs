//! Sends one batch to the collector: OTLP over HTTP, or over gRPC, with the HTTP client that fetches keys as well.
//!
//! OTLP needs one unary call. So the gRPC form writes the five bytes before the message itself, and reads the status from
//! the trailers (gRPC over HTTP/2, "Requests" and "Responses"). Only these parts of an answer are read, and at most
//! [`MAX_ANSWER_BYTES`].

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use prost::bytes::{BufMut, Bytes, BytesMut};

use super::otlp;
use super::settings::{Protocol, Settings};

/// Time limit to establish a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of an answer.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// Size of the prefix of a gRPC message: one byte of flags and four bytes of length.
const PREFIX_BYTES: usize = 5;
/// gRPC status codes that are worth a retry (OTLP specification, "Failures"): CANCELLED, `DEADLINE_EXCEEDED`,
/// `RESOURCE_EXHAUSTED`, ABORTED, `OUT_OF_RANGE`, UNAVAILABLE, `DATA_LOSS`.
const RETRYABLE: [i32; 7] = [1, 4, 8, 10, 11, 14, 15];

/// Client of the collector.
#[derive(Debug)]
pub(super) struct Client {
    settings: Settings,
    /// Created for the first batch.
    http: Option<reqwest::Client>,
}

/// Reason why a batch was not exported. Its text is for the operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    /// The client could not be created.
    #[error("cannot create the HTTP client: {0}")]
    Client(String),
    /// The connection could not be established.
    #[error("no connection: {0}")]
    Connect(String),
    /// The collector did not take the batch in time.
    #[error("no answer in time")]
    Timeout,
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The collector answers with another HTTP status than 200.
    #[error("the answer has HTTP status {status}")]
    Http {
        /// The status.
        status: u16,
        /// Time that the collector asks to wait.
        after: Option<Duration>,
    },
    /// The collector answers with another gRPC status than OK.
    #[error("the answer has gRPC status {0}")]
    Grpc(i32),
    /// The answer to a gRPC call has no status.
    #[error("the answer has no gRPC status")]
    NoStatus,
}

impl ExportError {
    /// Shortest time before a retry. `None` if a retry would fail as well.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Connect(_) | Self::Broken(_) => Some(Duration::ZERO),
            Self::Http { status: 429 | 502..=504, after } => Some(after.unwrap_or_default()),
            Self::Grpc(code) if RETRYABLE.contains(code) => Some(Duration::ZERO),
            Self::Client(_) | Self::Timeout | Self::Http { .. } | Self::Grpc(_) | Self::NoStatus => None,
        }
    }
}

impl Client {
    /// Creates a client, which connects when it is used.
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, http: None }
    }

    /// Attributes of this process, for the messages.
    pub(super) fn resource(&self) -> &[(String, String)] {
        &self.settings.resource
    }

    /// Writes the body of a request with this message.
    pub(super) fn body(&self, message: Vec<u8>) -> Bytes {
        match self.settings.protocol {
            Protocol::Http => message.into(),
            Protocol::Grpc => {
                let mut body = BytesMut::with_capacity(PREFIX_BYTES + message.len());
                body.put_u8(0);
                body.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
                body.extend_from_slice(&message);
                body.freeze()
            }
        }
    }

    /// Sends a body. Returns the number of spans that the collector has rejected. The caller limits the time.
    ///
    /// # Errors
    /// [`ExportError`].
    pub(super) async fn send(&mut self, body: Bytes) -> Result<u64, ExportError> {
        let protocol = self.settings.protocol;
        let request = self.http()?.post(self.settings.url.clone()).headers(self.settings.headers.clone());
        let request = match protocol {
            Protocol::Http => request.header("content-type", "application/x-protobuf"),
            Protocol::Grpc => request.header("content-type", "application/grpc").header("te", "trailers"),
        };
        let response: http::Response<reqwest::Body> = request.body(body).send().await.map_err(failed)?.into();
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            let after = head.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
            return Err(ExportError::Http { status: head.status.as_u16(), after: after.map(Duration::from_secs) });
        }
        let (message, trailers) = read(body).await?;
        match protocol {
            Protocol::Http => Ok(otlp::rejected(&message)),
            Protocol::Grpc => {
                // A call without a message has its status in the head.
                let status = |headers: &HeaderMap| headers.get("grpc-status")?.to_str().ok()?.parse().ok();
                match trailers.as_ref().and_then(status).or_else(|| status(&head.headers)) {
                    Some(0) => Ok(otlp::rejected(message.get(PREFIX_BYTES..).unwrap_or_default())),
                    Some(code) => Err(ExportError::Grpc(code)),
                    None => Err(ExportError::NoStatus),
                }
            }
        }
    }

    /// Closes the connections. One that hangs would make every further batch hang.
    pub(super) fn disconnect(&mut self) {
        self.http = None;
    }

    fn http(&mut self) -> Result<reqwest::Client, ExportError> {
        if let Some(http) = &self.http {
            return Ok(http.clone());
        }
        let http = build(&self.settings).map_err(|error| ExportError::Client(innermost(&error)))?;
        self.http = Some(http.clone());
        Ok(http)
    }
}

/// Builds a client of the collector.
///
/// # Errors
/// The certificates are not valid.
pub(super) fn build(settings: &Settings) -> Result<reqwest::Client, reqwest::Error> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("cognito-authz/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_gzip();
    if settings.protocol == Protocol::Grpc {
        builder = builder.http2_prior_knowledge();
    }
    if let Some(pem) = &settings.authority {
        builder = builder.tls_certs_only(reqwest::Certificate::from_pem_bundle(pem)?);
    }
    if let Some(pem) = &settings.identity {
        builder = builder.identity(reqwest::Identity::from_pem(pem)?);
    }
    builder.build()
}

/// Reads an answer and its trailers. What is above the limit is dropped: nothing there is of interest.
async fn read(mut body: reqwest::Body) -> Result<(Vec<u8>, Option<HeaderMap>), ExportError> {
    let mut message = Vec::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        match frame.map_err(failed)?.into_data() {
            Ok(data) if message.len() + data.len() > MAX_ANSWER_BYTES => {
                return Err(ExportError::Broken("the answer is too large".into()));
            }
            Ok(data) => message.extend_from_slice(&data),
            Err(other) => trailers = other.into_trailers().ok().or(trailers),
        }
    }
    Ok((message, trailers))
}

fn failed(error: reqwest::Error) -> ExportError {
    match error {
        error if error.is_timeout() => ExportError::Timeout,
        error if error.is_connect() => ExportError::Connect(innermost(&error)),
        error => ExportError::Broken(innermost(&error)),
    }
}

/// Returns the root cause of an error. The errors above it add no information, and can contain the URL.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
