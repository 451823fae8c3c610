//! Settings of traces, made from the variables `OTEL_…` and the options.

use std::time::Duration;

use http::HeaderMap;
use url::Url;

use super::client;

/// Settings of traces.
#[derive(Clone, Debug)]
pub struct Settings {
    /// URL of the requests to the collector.
    pub(crate) url: Url,
    /// Protocol of the requests.
    pub(crate) protocol: Protocol,
    /// Headers of the requests. Their values can be secret, and are marked as such.
    pub(crate) headers: HeaderMap,
    /// CA certificates of the collector (PEM); `None` for those of the system.
    pub(crate) authority: Option<Vec<u8>>,
    /// Certificate and private key for the collector (PEM).
    pub(crate) identity: Option<Vec<u8>>,
    /// Time limit for the export of one batch, retries included.
    pub(crate) timeout: Duration,
    /// Attributes of this process.
    pub(crate) resource: Vec<(String, String)>,
    /// What is traced.
    pub(crate) sampling: Sampling,
    /// Batches and their queue.
    pub(crate) batches: Batches,
}

/// Checks that the certificates of these settings can be used.
///
/// # Errors
/// The reason why not.
pub(crate) fn check_certificates(settings: &Settings) -> Result<(), String> {
    if settings.authority.is_none() && settings.identity.is_none() {
        return Ok(());
    }
    client::build(settings).map(drop).map_err(|error| client::innermost(&error))
}

/// Protocol of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// gRPC, over HTTP/2.
    Grpc,
    /// HTTP with protobuf in the body.
    Http,
}

/// Which work is traced, beside that whose caller samples it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sampling {
    /// Share of the work without a context of a trusted caller, from 0 to 1.
    pub(crate) roots: f64,
    /// Share of the work whose caller does not sample it, from 0 to 1.
    pub(crate) unsampled: f64,
    /// `true` if the headers of a client's request can make the service trace it.
    pub(crate) trusts_headers: bool,
}

/// Batches of spans, and the queue from which they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batches {
    /// Maximum number of spans that wait; further ones are dropped.
    pub(crate) queue: usize,
    /// Maximum number of spans of a batch.
    pub(crate) size: usize,
    /// Maximum time that a span waits for its batch to fill up.
    pub(crate) delay: Duration,
}
