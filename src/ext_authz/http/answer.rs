//! Encodes answers as HTTP responses.
//!
//! - A pass is 200 with the headers that the proxy copies to the client's request. nginx, Traefik and Caddy leave a
//!   client's own header in place if the answer does not have it, so a header without a value is sent empty. Envoy gets
//!   the names of these headers in `x-envoy-auth-headers-to-remove`.
//! - A refusal is the response that the client gets. nginx drops the body of it, so nginx also gets the body as a header.
//!   nginx takes every status but 2xx, 401 and 403 for a failure, so a redirect to the sign-in is 401 with `Location`
//!   there, and the configuration of nginx makes it 302.

use http::header::{COOKIE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::Full;
use prost::bytes::Bytes;

use super::Endpoint;
use crate::authz::answer::{Pass, Refusal};
use crate::authz::headers::Mutation;
use crate::authz::{Answer, RequestContext};
use crate::net::http_server;

/// Names of the headers that Envoy removes from the client's request, separated by commas (Envoy's `AuthorizationResponse`).
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");
/// Body of a refusal, for nginx.
const BODY: HeaderName = HeaderName::from_static("x-authz-body");

/// Error for a header that HTTP cannot carry. Names and values are checked or encoded before, so this is a defect.
struct Unsendable;

/// Encodes an answer to `request`.
pub(super) fn write(
    endpoint: Endpoint,
    answer: &Answer<'_>,
    request: Option<&RequestContext<'_>>,
) -> http_server::Answer {
    let status = match answer {
        Answer::Refusal(refusal) if endpoint == Endpoint::Nginx => refusal.denial().status(),
        _ => answer.status(),
    };
    let encoded = StatusCode::from_u16(status).map_err(|_| Unsendable).and_then(|status| {
        let (headers, body) = match answer {
            Answer::Pass(pass) => (pass_headers(endpoint, pass, request)?, Bytes::new()),
            Answer::Refusal(refusal) => (refusal_headers(endpoint, refusal)?, refusal.body().into()),
        };
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    });
    encoded.unwrap_or_else(|Unsendable| {
        tracing::error!("an answer cannot be encoded as HTTP");
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

fn pass_headers(
    endpoint: Endpoint,
    pass: &Pass<'_>,
    request: Option<&RequestContext<'_>>,
) -> Result<HeaderMap, Unsendable> {
    let mut headers = HeaderMap::new();
    let mut to_remove = Vec::new();
    let mut result = Ok(());
    pass.mutations(&mut |mutation| {
        let done = match mutation {
            Mutation::Set(name, value) => put(&mut headers, name, value.as_bytes()),
            // One line: of several, nginx before 1.23 reads the first and Envoy the last.
            Mutation::Append(name, value) => append(&mut headers, name, value),
            Mutation::Remove(name) if endpoint == Endpoint::Envoy => {
                to_remove.push(name.to_owned());
                Ok(())
            }
            Mutation::Remove(name) => put(&mut headers, name, b""),
        };
        if done.is_err() {
            result = done;
        }
    });
    result?;
    if endpoint == Endpoint::Envoy {
        if !to_remove.is_empty() {
            put(&mut headers, TO_REMOVE.as_str(), to_remove.join(",").as_bytes())?;
        }
    } else if pass.hides_sessions() && !headers.contains_key(COOKIE) {
        // A proxy that copies `Cookie` from every answer gets the client's cookies if they need no change.
        let cookies: Vec<_> = request.map(|request| request.header_values("cookie").collect()).unwrap_or_default();
        put(&mut headers, COOKIE.as_str(), &cookies.join(&b"; "[..]))?;
    }
    Ok(headers)
}

fn refusal_headers(endpoint: Endpoint, refusal: &Refusal<'_>) -> Result<HeaderMap, Unsendable> {
    let mut headers = HeaderMap::new();
    for (name, value) in refusal.headers() {
        headers.append(HeaderName::from_static(name), HeaderValue::try_from(value).map_err(|_| Unsendable)?);
    }
    if endpoint == Endpoint::Nginx {
        put(&mut headers, BODY.as_str(), refusal.body().as_bytes())?;
    }
    Ok(headers)
}

fn put(headers: &mut HeaderMap, name: &str, value: &[u8]) -> Result<(), Unsendable> {
    let name = HeaderName::try_from(name).map_err(|_| Unsendable)?;
    headers.insert(name, HeaderValue::from_bytes(value).map_err(|_| Unsendable)?);
    Ok(())
}

/// Adds a value to a header, after a comma. Values are already encoded for that.
fn append(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), Unsendable> {
    let before = headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    let joined = [before, b",", value.as_bytes()].concat();
    put(headers, name, &joined)
}
