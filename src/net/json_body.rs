//! Reads the body of a request that has to be JSON: of limited size, within limited time.

use std::time::Duration;

use http::header::{self, HeaderMap};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use prost::bytes::{Bytes, BytesMut};
use tokio::time::{Instant, timeout_at};

use super::http_server::RequestBody;

/// Largest body in bytes.
pub(crate) const MAX_BYTES: usize = 16 * 1024;
/// Number of bytes that are read, and discarded, of a body that is too large, so that the client can read the response.
const DISCARDED_BYTES: usize = 1024 * 1024;
/// Time limit for the whole body.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Reason why a body is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The body is of another type, or compressed.
    Type,
    /// The body is larger than [`MAX_BYTES`].
    TooLarge,
    /// The body did not arrive in time.
    Late,
    /// The body broke off.
    BrokenOff,
}

/// Reads a body. A request without one needs no type.
///
/// # Errors
/// [`BodyError`].
pub(crate) async fn read(headers: &HeaderMap, mut body: RequestBody) -> Result<Bytes, BodyError> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(BodyError::Type);
    }
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    if !is_json(headers) {
        return Err(BodyError::Type);
    }
    let deadline = Instant::now() + READ_TIMEOUT;
    let mut read = BytesMut::new();
    let mut length = 0;
    loop {
        let frame = timeout_at(deadline, body.frame()).await.map_err(|_| BodyError::Late)?;
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(|_| BodyError::BrokenOff)?.into_data() else { continue }; // trailers
        length += data.len();
        if length <= MAX_BYTES {
            read.extend_from_slice(&data);
        } else if length > DISCARDED_BYTES {
            break;
        }
    }
    if length > MAX_BYTES { Err(BodyError::TooLarge) } else { Ok(read.freeze()) }
}

/// `true` for `application/json`, with or without parameters. The encoding is always UTF-8 (RFC 8259 section 8.1).
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    essence.trim_matches([' ', '\t']).eq_ignore_ascii_case("application/json")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_json_is_accepted() {
        let with =
            |value: &'static str| HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))]);
        for good in ["application/json", "Application/JSON; charset=utf-8", "application/json;x=y"] {
            assert!(is_json(&with(good)), "{good}");
        }
        for bad in
            ["", "text/json", "application/json5", "application/x-www-form-urlencoded", "text/plain; application/json"]
        {
            assert!(!is_json(&with(bad)), "{bad}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
