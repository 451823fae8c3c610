//! Traces: spans of checks, key fetches, requests of the account API and calls of Cognito, exported over OTLP.
//!
//! Traces are off unless the environment names a collector. Then every part has a [`Tracer`], which decides what is
//! traced ([`Tracer::begin_check`], [`Tracer::begin_request`]). A [`Span`] that has ended goes into a bounded queue, which a
//! thread of its own empties ([`export`]): a collector that is slow, hangs or is gone costs spans, and nothing else.
//!
//! Spans are made by hand. They have no tokens, no claims and no text of a client except its ids of traces and requests,
//! whose form is checked.
//!
//! A client can send any `traceparent`. So only the metadata of a gRPC call, which a proxy writes, makes the service trace
//! a check; the headers of the checked request do so if the operator says that a proxy writes them. Otherwise such a
//! header only tells which trace a span belongs to that is recorded anyway. The share that is recorded anyway is chosen by
//! chance, not by the id of the trace, because a client can choose that id.

mod client;
pub(crate) mod context;
pub(crate) mod current;
mod export;
mod otlp;
mod queue;
pub(crate) mod settings;
mod span;

use std::io;
use std::sync::Arc;

use http::{HeaderMap, Method};

pub(crate) use self::context::{Parent, SpanIds};
pub(crate) use self::export::Exporter;
use self::queue::Queue;
use self::settings::Sampling;
pub use self::settings::Settings;
pub(crate) use self::span::{Kind, Span};
use crate::metrics::telemetry::TelemetryMetrics;

/// Decides what is traced, and takes the spans.
#[derive(Debug)]
pub(crate) struct Tracer {
    sampling: Sampling,
    queue: Queue,
}

/// Protocol of a check, for its span.
#[derive(Debug)]
pub(crate) struct Door {
    /// Name of the span.
    pub(crate) name: &'static str,
    /// Attributes of every span.
    pub(crate) attributes: &'static [(&'static str, &'static str)],
}

/// Span of a check, as far as it is decided.
#[derive(Debug, Default)]
pub(crate) enum CheckSpan {
    /// The check is not traced.
    #[default]
    No,
    /// The headers of the checked request decide.
    Undecided(&'static Door),
    /// The check is traced. The headers of the checked request say which trace it belongs to.
    Root(Span),
    /// The check is traced, and its trace is known.
    Yes(Span),
}

impl CheckSpan {
    /// The span, if the check is traced.
    pub(crate) fn span(&mut self) -> Option<&mut Span> {
        match self {
            Self::No | Self::Undecided(_) => None,
            Self::Root(span) | Self::Yes(span) => Some(span),
        }
    }
}

impl Tracer {
    /// Starts the thread that exports spans.
    ///
    /// # Errors
    /// The thread cannot be created.
    pub(crate) fn start(settings: Settings, metrics: TelemetryMetrics) -> io::Result<(Arc<Self>, Exporter)> {
        let (queue, exit) = queue::queue(settings.batches, metrics.clone());
        let sampling = settings.sampling;
        let exporter = Exporter::start(settings, exit, metrics)?;
        Ok((Arc::new(Self { sampling, queue }), exporter))
    }

    /// Begins the span of a check that came through `door`. `metadata` is that of the gRPC call, if there is one.
    pub(crate) fn begin_check(self: &Arc<Self>, door: &'static Door, metadata: Option<&HeaderMap>) -> CheckSpan {
        let Some(parent) = metadata.and_then(Parent::of) else {
            return if chance(self.sampling.roots) {
                CheckSpan::Root(self.check(door))
            } else if self.sampling.trusts_headers {
                CheckSpan::Undecided(door)
            } else {
                CheckSpan::No
            };
        };
        if !parent.is_sampled && !chance(self.sampling.unsampled) {
            return CheckSpan::No;
        }
        let mut span = self.check(door);
        span.continue_from(parent);
        CheckSpan::Yes(span)
    }

    /// Completes the decision with the context in the headers of the checked request.
    pub(crate) fn decide(self: &Arc<Self>, span: &mut CheckSpan, context: impl FnOnce() -> Option<Parent>) {
        *span = match std::mem::take(span) {
            CheckSpan::Root(mut span) => {
                if let Some(parent) = context() {
                    span.continue_from(self.trusted(parent));
                }
                CheckSpan::Yes(span)
            }
            CheckSpan::Undecided(door) => match context().filter(|parent| parent.is_sampled) {
                Some(parent) => {
                    let mut span = self.check(door);
                    span.continue_from(parent);
                    CheckSpan::Yes(span)
                }
                None => CheckSpan::No,
            },
            decided @ (CheckSpan::No | CheckSpan::Yes(_)) => decided,
        };
    }

    fn check(self: &Arc<Self>, door: &'static Door) -> Span {
        let mut span = Span::begin(Arc::clone(self), SpanIds::root(), door.name, Kind::Server);
        span.extend(door.attributes.iter().map(|(name, value)| (*name, (*value).into())));
        span
    }

    /// Begins the span of a request of the account API, if it is traced. Its route is set later.
    pub(crate) fn begin_request(self: &Arc<Self>, method: &Method, headers: &HeaderMap) -> Option<Span> {
        let parent = Parent::of(headers);
        let asks = self.sampling.trusts_headers && parent.as_ref().is_some_and(|parent| parent.is_sampled);
        if !asks && !chance(self.sampling.roots) {
            return None;
        }
        let method = method_name(method);
        let mut span = Span::begin(Arc::clone(self), SpanIds::root(), method, Kind::Server);
        span.set("http.request.method", method);
        if let Some(parent) = parent {
            span.continue_from(self.trusted(parent));
        }
        Some(span)
    }

    /// Begins a span of work that no request asks for. It is always traced: there is little of it, and checks point to it.
    pub(crate) fn begin_own(self: &Arc<Self>, name: &'static str, kind: Kind) -> Span {
        Span::begin(Arc::clone(self), SpanIds::root(), name, kind)
    }

    /// What is kept of a context in a client's headers.
    fn trusted(&self, parent: Parent) -> Parent {
        if self.sampling.trusts_headers { parent } else { parent.without_state() }
    }
}

/// `true` in this share of the calls.
fn chance(share: f64) -> bool {
    share > 0.0 && fastrand::f64() < share
}

/// Name of a method as the semantic conventions want it: any other one is `_OTHER`.
fn method_name(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];
    known.into_iter().find(|name| method == name).unwrap_or("_OTHER")
}

#[cfg(test)]
mod tests;
