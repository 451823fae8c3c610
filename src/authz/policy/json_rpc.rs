//! Requirements that depend on the JSON-RPC messages in a request's body (`json_rpc` of a policy), such as the tools
//! that an MCP client calls.
//!
//! [`JsonRpc::calls_in`] reads the body and returns the calls that its messages match. A body that another parser could
//! read differently, or that the check does not carry completely, is an [`Unreadable`]. This is the only code of the
//! authorizer that reads a body.

mod message;
#[cfg(test)]
mod tests;

use self::message::Reader;
use super::PolicyIndex;
use crate::authz::request::{Body, RequestContext};

/// Requirements of a policy that depend on the body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct JsonRpc {
    /// Maximum length of the body in bytes.
    pub(crate) max_body: usize,
    /// Calls with requirements of their own.
    pub(crate) calls: Vec<Call>,
}

/// Messages that must meet the requirements of another policy as well.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// Values of `method`.
    pub(crate) methods: Vec<Box<str>>,
    /// Values of `params.name`.
    pub(crate) names: Names,
    /// Policy whose requirements a message must meet.
    pub(crate) policy: PolicyIndex,
}

/// Values of `params.name` that a call applies to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Names {
    /// Every message of the method, with or without a name.
    Any,
    /// These.
    Only(Vec<Box<str>>),
    /// All except these.
    Except(Vec<Box<str>>),
}

/// Index of a call in [`JsonRpc::calls`].
pub(crate) type CallIndex = usize;

/// Maximum number of messages in a batch.
pub(crate) const MAX_MESSAGES: usize = 100;

/// Reason why the messages of a request are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// The check carries no body, although the method has one or the headers announce one.
    Missing,
    /// The proxy sends bodies as text, and so replaces bytes that are not UTF-8 (`pack_as_bytes: false`).
    AsText,
    /// The check carries only a part of the body.
    Partial,
    /// The body is longer than [`JsonRpc::max_body`].
    TooLarge,
    /// The request asks for another protocol. Its messages follow later, and no check carries them.
    Upgrade,
    /// The media type is not `application/json`, or the charset is not UTF-8.
    ContentType,
    /// The body has a content coding, such as gzip.
    ContentEncoding,
    /// The body is not JSON, or contains something other than unambiguous JSON-RPC messages.
    Message,
    /// The batch is empty or has more than [`MAX_MESSAGES`] messages.
    Batch,
    /// The name of a message is not text, and a call of its method depends on it.
    Name,
}

impl Unreadable {
    /// Name of the requirement in the metadata and the log.
    pub(crate) fn requirement(self) -> &'static str {
        match self {
            Self::Missing => "json_rpc.missing",
            Self::AsText => "json_rpc.as_text",
            Self::Partial => "json_rpc.partial",
            Self::TooLarge => "json_rpc.max_body",
            Self::Upgrade => "json_rpc.upgrade",
            Self::ContentType => "json_rpc.content_type",
            Self::ContentEncoding => "json_rpc.content_encoding",
            Self::Message => "json_rpc.message",
            Self::Batch => "json_rpc.batch",
            Self::Name => "json_rpc.name",
        }
    }
}

/// Methods whose requests may have no body. Streams of server events begin with GET, and DELETE ends an MCP session.
const WITHOUT_BODY: [&[u8]; 4] = [b"GET", b"HEAD", b"OPTIONS", b"DELETE"];

impl JsonRpc {
    /// Returns the calls that the messages of the request match, each once, in the order of the first message.
    ///
    /// # Errors
    /// An [`Unreadable`] if not all messages are known for certain.
    pub(crate) fn calls_in(&self, request: &RequestContext<'_>) -> Result<Vec<CallIndex>, Unreadable> {
        if request.header_values("upgrade").next().is_some() {
            return Err(Unreadable::Upgrade);
        }
        let body = match request.body {
            Body::AsText => return Err(Unreadable::AsText),
            Body::Bytes(bytes) if !bytes.is_empty() => bytes,
            Body::Absent | Body::Bytes(_) if WITHOUT_BODY.contains(&request.method) && !announces_body(request) => {
                return Ok(Vec::new());
            }
            Body::Absent | Body::Bytes(_) => return Err(Unreadable::Missing),
        };
        if is_partial(request, body.len()) {
            return Err(Unreadable::Partial);
        }
        if body.len() > self.max_body {
            return Err(Unreadable::TooLarge);
        }
        if request.header_values("content-encoding").any(|coding| !coding.eq_ignore_ascii_case(b"identity")) {
            return Err(Unreadable::ContentEncoding);
        }
        if !is_json(request) {
            return Err(Unreadable::ContentType);
        }
        Reader::new(&self.calls).read(std::str::from_utf8(body).map_err(|_| Unreadable::Message)?)
    }
}

/// `true` if the headers announce a body. If the check carries none, the proxy does not send bodies.
fn announces_body(request: &RequestContext<'_>) -> bool {
    request.header_values("content-length").any(|length| length != b"0")
        || request.header_values("transfer-encoding").next().is_some()
}

/// `true` if the body of the request is longer than `length`, or can be.
///
/// Envoy marks a body that it cut with `x-envoy-auth-partial-body: true` (`allow_partial_message`), and every other one
/// with `false`. A body of unknown length that it cut after exactly `max_request_bytes` can be marked `false`.
fn is_partial(request: &RequestContext<'_>, length: usize) -> bool {
    let has_length = |value: &[u8]| std::str::from_utf8(value).is_ok_and(|text| text.parse() == Ok(length));
    request.header_values("x-envoy-auth-partial-body").any(|value| value != b"false")
        || !request.header_values("content-length").all(has_length)
}

/// `true` if the request has one `Content-Type`, which is `application/json`, and its only parameter, if there is one, is
/// the charset UTF-8.
fn is_json(request: &RequestContext<'_>) -> bool {
    let mut values = request.header_values("content-type");
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let mut parts = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let is = |part: Option<&[u8]>, known: &[&str]| {
        part.is_some_and(|part| known.iter().any(|known| part.eq_ignore_ascii_case(known.as_bytes())))
    };
    is(parts.next(), &["application/json"])
        && (parts.clone().next().is_none() || is(parts.next(), &["charset=utf-8", "charset=\"utf-8\""]))
        && parts.next().is_none()
}
