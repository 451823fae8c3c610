//! The span of the request that a task works on, for the spans below it: a call of Cognito is several functions away from
//! the request that needs it.
//!
//! It is a value of the task, so a task that a request starts has none by itself ([`carried`]). Checks do not use this:
//! they pass their span along.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use super::span::{Kind, Seed, Span};

tokio::task_local! {
    static CURRENT: Current;
}

/// Span of a request.
#[derive(Debug)]
struct Current {
    /// For the spans below it.
    seed: Seed,
    /// The span itself; `None` in a task that may outlive the request.
    span: Option<Mutex<Span>>,
}

/// Runs `work` as the work of `span`, which ends with it. Without a span, only runs `work`.
pub(crate) async fn within<T>(span: Option<Span>, work: impl Future<Output = T>) -> T {
    let Some(span) = span else { return work.await };
    CURRENT.scope(Current { seed: span.seed(), span: Some(Mutex::new(span)) }, work).await
}

/// Returns `work` for a task of its own that continues the work of this one.
pub(crate) fn carried<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let seed = CURRENT.try_with(|current| current.seed.clone()).ok();
    async move {
        match seed {
            Some(seed) => CURRENT.scope(Current { seed, span: None }, work).await,
            None => work.await,
        }
    }
}

/// Begins a span below that of the task. `None` if the task works for no request that is traced.
pub(crate) fn child(name: impl Into<Cow<'static, str>>, kind: Kind) -> Option<Span> {
    CURRENT.try_with(|current| current.seed.child(name, kind)).ok()
}

/// Changes the span of the task's request, if it is traced.
pub(crate) fn change(change: impl FnOnce(&mut Span)) {
    let change = |current: &Current| {
        if let Some(span) = &current.span {
            change(&mut span.lock().unwrap_or_else(PoisonError::into_inner));
        }
    };
    CURRENT.try_with(change).ok(); // an error means that nothing is traced
}
