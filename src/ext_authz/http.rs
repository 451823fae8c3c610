//! The HTTP form of the check, for nginx, Traefik, Caddy, and Envoy's `http_service`: a proxy asks with one HTTP request
//! about each request of a client, and forwards the client's request if the answer is 200.
//!
//! Each kind of proxy has an endpoint of its own ([`Endpoint`]), which reads the client's request from one source only:
//! a proxy overwrites its own headers, and lets a client's copies of other proxies' headers through. [`source`] reads
//! the request, and [`answer`] encodes the answer. The decision, its counters and its log are those of every protocol
//! ([`Checks`]).

mod answer;
mod source;

use std::sync::Arc;

use http::request::Parts;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use tokio::time::{Instant, timeout_at};

use crate::authz;
use crate::check::{Checks, TIME_LIMIT};
use crate::net::http_server::{Answer, RequestBody};
use crate::telemetry::Door;

/// Prefix of the paths of [`Endpoint::Envoy`].
const ENVOY_PREFIX: &str = "/ext-authz";

/// Endpoint for one kind of proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    /// `/ext-authz/<path>`, for Envoy's `http_service` with `path_prefix: /ext-authz`.
    Envoy,
    /// `/auth-request`, for nginx's `auth_request`.
    Nginx,
    /// `/forward-auth`, for Traefik's `forwardAuth` and Caddy's `forward_auth`.
    Forward,
}

impl Endpoint {
    /// Span of a check, as the semantic conventions for HTTP want it.
    fn door(self) -> &'static Door {
        match self {
            Self::Envoy => &Door { name: "/ext-authz/{path}", attributes: &[("http.route", "/ext-authz/{path}")] },
            Self::Nginx => &Door { name: "/auth-request", attributes: &[("http.route", "/auth-request")] },
            Self::Forward => &Door { name: "/forward-auth", attributes: &[("http.route", "/forward-auth")] },
        }
    }

    fn of(path: &str) -> Option<Self> {
        match path {
            "/auth-request" => Some(Self::Nginx),
            "/forward-auth" => Some(Self::Forward),
            other => other.strip_prefix(ENVOY_PREFIX)?.starts_with('/').then_some(Self::Envoy),
        }
    }
}

/// The HTTP form.
#[derive(Clone, Debug)]
pub(crate) struct CheckEndpoints {
    checks: Arc<Checks>,
}

impl CheckEndpoints {
    /// Creates the endpoints over the runner of checks.
    pub(crate) fn new(checks: Arc<Checks>) -> Self {
        Self { checks }
    }

    /// Answers one request of a proxy within [`TIME_LIMIT`].
    pub(crate) async fn answer(&self, request: Request<RequestBody>) -> Answer {
        let deadline = Instant::now() + TIME_LIMIT;
        let (head, body) = request.into_parts();
        // A body that is not read would end the connection. It has no effect on the decision.
        if timeout_at(deadline, discard(body)).await != Ok(true) {
            return plain(StatusCode::REQUEST_TIMEOUT, "the request body did not arrive in time\n");
        }
        let Some(endpoint) = Endpoint::of(head.uri.path()).filter(|_| is_origin_form(&head)) else {
            return plain(StatusCode::NOT_FOUND, "not found\n");
        };
        let context = source::read(endpoint, &head);
        let mut span = self.checks.begin(endpoint.door(), None);
        let write = |answer: &authz::Answer<'_>| answer::write(endpoint, answer, context.as_ref());
        let response = self.checks.check(context.as_ref(), None, deadline, &mut span, write).await;
        if let Some(span) = span.span() {
            span.set("http.response.status_code", i64::from(response.status().as_u16()));
        }
        response
    }
}

/// `true` if the target of the request is a path, and the request does not ask for a tunnel.
fn is_origin_form(head: &Parts) -> bool {
    head.uri.authority().is_none() && head.method != Method::CONNECT
}

/// Reads a body to its end. Returns `false` if the connection fails before.
async fn discard(mut body: RequestBody) -> bool {
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            return false;
        }
    }
    true
}

/// Response without a decision.
fn plain(status: StatusCode, text: &'static str) -> Answer {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    if status == StatusCode::REQUEST_TIMEOUT {
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    response
}
