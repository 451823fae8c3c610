//! Spans: one [`Span`] for each piece of work that is traced. Dropping it ends it and hands it to the exporter.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Tracer;
use super::context::{Parent, SpanIds};
use crate::clock::since_1970;

/// Role of the work in its trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Part of the work of this process.
    #[default]
    Internal,
    /// Answers a caller.
    Server,
    /// Asks another service.
    Client,
}

/// Value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// Text.
    Text(Cow<'static, str>),
    /// Number.
    Number(i64),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// Attribute of a span: a name of the semantic conventions, or one of ours (`cognito_authz.…`).
pub(crate) type Attribute = (&'static str, Value);

/// Content of a span.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Ids of the span.
    pub(super) ids: SpanIds,
    /// Id of the span above it.
    pub(super) parent: Option<u64>,
    /// `true` if the span above it belongs to another process.
    pub(super) has_remote_parent: bool,
    /// `tracestate` of the trace.
    pub(super) state: Box<str>,
    /// Name of the span, which says what kind of work it is.
    pub(super) name: Cow<'static, str>,
    /// Role of the work.
    pub(super) kind: Kind,
    /// Start in nanoseconds since 1970.
    pub(super) start: u64,
    /// End in nanoseconds since 1970; 0 until the span has ended.
    pub(super) end: u64,
    /// Attributes.
    pub(super) attributes: Vec<Attribute>,
    /// Span of another trace that this one waited for.
    pub(super) link: Option<SpanIds>,
    /// `true` if the work failed.
    pub(super) has_failed: bool,
}

/// A span that has begun. It is one pointer, because the future of a check contains it.
#[derive(Debug)]
pub(crate) struct Span(Box<Begun>);

#[derive(Debug)]
struct Begun {
    tracer: Arc<Tracer>,
    started: Instant,
    record: Record,
}

impl Span {
    /// Begins a span.
    pub(super) fn begin(tracer: Arc<Tracer>, ids: SpanIds, name: impl Into<Cow<'static, str>>, kind: Kind) -> Self {
        let start = nanoseconds(since_1970());
        let record = Record { ids, name: name.into(), kind, start, ..Record::default() };
        Self(Box::new(Begun { tracer, started: Instant::now(), record }))
    }

    /// Ids of the span.
    pub(crate) fn ids(&self) -> SpanIds {
        self.0.record.ids
    }

    /// What a span below this one needs to know. It can outlive the span.
    pub(super) fn seed(&self) -> Seed {
        let Record { ids, state, .. } = &self.0.record;
        Seed { tracer: Arc::clone(&self.0.tracer), ids: *ids, state: state.clone() }
    }

    /// Makes the span the continuation of a caller's. It must not have children yet.
    pub(super) fn continue_from(&mut self, parent: Parent) {
        let record = &mut self.0.record;
        record.ids.trace = parent.ids.trace;
        record.parent = Some(parent.ids.span);
        record.has_remote_parent = true;
        record.state = parent.state;
    }

    /// Begins a span below this one.
    pub(crate) fn child(&self, name: impl Into<Cow<'static, str>>, kind: Kind) -> Self {
        self.seed().child(name, kind)
    }

    /// Begins and ends a span below this one, for work that was done from one time to another.
    pub(crate) fn past_child(&self, name: &'static str, (from, to): (Instant, Instant)) -> Self {
        let mut child = self.child(name, Kind::Internal);
        let at = |time: Instant| {
            self.0.record.start.saturating_add(nanoseconds(time.saturating_duration_since(self.0.started)))
        };
        (child.0.record.start, child.0.record.end) = (at(from), at(to));
        child
    }

    /// Sets an attribute. Each name is set once.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.0.record.attributes.push((name, value.into()));
    }

    /// Sets an attribute if it has a value.
    pub(crate) fn set_some(&mut self, name: &'static str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// Adds attributes.
    pub(super) fn extend(&mut self, attributes: impl IntoIterator<Item = Attribute>) {
        self.0.record.attributes.extend(attributes);
    }

    /// Points to a span of another trace that this one waited for.
    pub(crate) fn link(&mut self, other: Option<SpanIds>) {
        self.0.record.link = other;
    }

    /// Sets the route of an HTTP request, whose method is the name so far.
    pub(crate) fn set_route(&mut self, route: String) {
        self.0.record.name = format!("{} {route}", self.0.record.name).into();
        self.set("http.route", route);
    }

    /// Marks the work as failed. `kind` becomes the attribute `error.type`.
    pub(crate) fn fail(&mut self, kind: impl Into<Value>) {
        self.set("error.type", kind);
        self.0.record.has_failed = true;
    }
}

/// What the spans below a span need to know of it.
#[derive(Clone, Debug)]
pub(super) struct Seed {
    tracer: Arc<Tracer>,
    ids: SpanIds,
    state: Box<str>,
}

impl Seed {
    /// Begins a span below the one of this seed.
    pub(super) fn child(&self, name: impl Into<Cow<'static, str>>, kind: Kind) -> Span {
        let mut child = Span::begin(Arc::clone(&self.tracer), self.ids.below(), name, kind);
        child.0.record.parent = Some(self.ids.span);
        child.0.record.state.clone_from(&self.state);
        child
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let mut record = std::mem::take(&mut self.record);
        if record.end == 0 {
            record.end = record.start.saturating_add(nanoseconds(self.started.elapsed()));
        }
        self.tracer.queue.put(Box::new(record));
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
