//! Request ids: the name under which a proxy's log, this service's log and a user's complaint mean the same request.
//!
//! A proxy sends the id as `x-request-id`. A client can send any value, so only a well-formed one counts
//! ([`well_formed`]), and a request without one gets a new id ([`RequestId::random`]).
//!
//! The account API runs each request in the scope of its id ([`RequestId::scope`]), so that every log line below, those
//! about calls of Cognito included, can have it ([`current`]). A task that continues when the client disconnects keeps the
//! id with [`keep`].

use std::future::Future;

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Header with the id.
pub(crate) const NAME: HeaderName = HeaderName::from_static("x-request-id");

/// Maximum number of characters of a well-formed id.
pub(crate) const MAX_LENGTH: usize = 64;

tokio::task_local! {
    static CURRENT: RequestId;
}

/// Well-formed id of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestId(String);

impl RequestId {
    /// Returns the id that the headers of a request have, or a new one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let sent = sent(headers.get_all(NAME).iter().map(HeaderValue::as_bytes));
        sent.map_or_else(Self::random, |id| Self(id.to_owned()))
    }

    /// Returns a new id: a UUID of version 4 (RFC 9562 section 5.4). It is unique, but not a secret.
    pub(crate) fn random() -> Self {
        // Four bits of version, and two of variant.
        let high = fastrand::u64(..) & !0xf000 | 0x4000;
        let low = fastrand::u64(..) & !(0b11 << 62) | 0b10 << 62;
        let (time, middle, version) = (high >> 32, high >> 16 & 0xffff, high & 0xffff);
        let (clock, node) = (low >> 48, low & 0xffff_ffff_ffff);
        Self(format!("{time:08x}-{middle:04x}-{version:04x}-{clock:04x}-{node:012x}"))
    }

    /// The id as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as the value of a header.
    pub(crate) fn header_value(&self) -> HeaderValue {
        // A well-formed id is a valid value.
        HeaderValue::from_str(&self.0).unwrap_or(HeaderValue::from_static(""))
    }

    /// Runs `request` so that [`current`] returns this id in it.
    pub(crate) fn scope<F: Future>(self, request: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, request)
    }
}

/// Id of the request that the current task handles, for its log lines. `None` outside of [`RequestId::scope`].
pub(crate) fn current() -> Option<String> {
    CURRENT.try_with(|id| id.0.clone()).ok()
}

/// Keeps the id of the current request in a future that becomes a task of its own.
pub(crate) fn keep<F: Future>(task: F) -> impl Future<Output = F::Output> {
    let current = CURRENT.try_with(Clone::clone).ok();
    async move {
        match current {
            Some(id) => CURRENT.scope(id, task).await,
            None => task.await,
        }
    }
}

/// Returns the id among the values of `x-request-id`: the only one, if it is well-formed.
pub(crate) fn sent<'v>(values: impl IntoIterator<Item = &'v [u8]>) -> Option<&'v str> {
    let mut values = values.into_iter();
    let id = values.next().filter(|_| values.next().is_none())?;
    well_formed(id)
}

/// Returns an id as text if it is well-formed: 1 to [`MAX_LENGTH`] ASCII letters, digits and hyphens.
pub(crate) fn well_formed(id: &[u8]) -> Option<&str> {
    let is_plain = (1..=MAX_LENGTH).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
    std::str::from_utf8(id).ok().filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn only_one_well_formed_id_counts() {
        let long = "a".repeat(65);
        for (values, expected) in [
            (&["4a8f0f61-2f5b-4c0e-9d53-0d3f6f5b7c11"][..], true),
            (&["a"], true),
            (&[&long[1..]], true),
            (&[&*long], false),
            (&[], false),
            (&[""], false),
            (&["a b"], false),
            (&["a\n"], false),
            (&["a,b"], false),
            (&["a\"b"], false),
            (&["eyJhbGciOi.x"], false),
            (&["é"], false),
            (&["a", "a"], false),
            (&["a", ""], false),
        ] {
            let id = sent(values.iter().map(|value| value.as_bytes()));
            assert_eq!(id, expected.then(|| values[0]), "{values:?}");
        }
        assert_eq!(sent([&b"\xff"[..]]), None);
    }

    #[test]
    fn new_ids_are_well_formed_and_differ() {
        let ids: HashSet<String> = (0..1000).map(|_| RequestId::random().0).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            assert_eq!((well_formed(id.as_bytes()), id.len()), (Some(&*id), 36));
            let at = |index: usize| id.as_bytes()[index];
            assert!(at(14) == b'4' && b"89ab".contains(&at(19)), "version 4, and the variant of RFC 9562: {id}");
            assert_eq!([8, 13, 18, 23].map(at), [b'-'; 4], "{id}");
        }
    }

    #[tokio::test]
    async fn tasks_keep_the_id_of_their_request() {
        assert_eq!(current(), None);
        let id = RequestId::random();
        let seen = id.clone().scope(async { (current(), tokio::spawn(keep(async { current() })).await.unwrap()) });
        let expected = Some(id.as_str().to_owned());
        assert_eq!(seen.await, (expected.clone(), expected));
        assert_eq!(keep(async { current() }).await, None);
    }
}
