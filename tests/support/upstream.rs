//! Application behind a proxy. It records every request that reaches it, and returns the request in the response. If a
//! request asks for a WebSocket, it switches protocols and returns every byte that it receives.

use std::sync::{Arc, Mutex};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use prost::bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::server::{serve, serve_http2};

/// Running server. It ends with its runtime.
pub(crate) struct Upstream {
    pub(crate) address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// Request as the application received it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    /// All header lines. hyper converts the names to lower case.
    pub(crate) headers: Vec<(String, String)>,
}

impl Seen {
    fn new(request: &Request<Incoming>) -> Self {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        Self { method: request.method().to_string(), path: request.uri().path().to_owned(), headers }
    }

    /// Values of a header, in order.
    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(other, _)| other == name).map(|(_, value)| &**value).collect()
    }

    /// Headers that an application could take for an identity header, in any spelling, sorted by name.
    pub(crate) fn identity(&self) -> Vec<(&str, &str)> {
        let is_ours = |name: &str| name.replace(['_', '.'], "-").starts_with("x-auth-");
        let ours = self.headers.iter().filter(|(name, _)| is_ours(name));
        let mut ours: Vec<_> = ours.map(|(name, value)| (&**name, &**value)).collect();
        ours.sort_unstable();
        ours
    }
}

impl Upstream {
    /// Starts an application that speaks HTTP/1.1 and answers with a [`Seen`] as JSON.
    pub(crate) async fn start() -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        let address = serve(move |request| {
            let body = serde_json::to_string(&remember(&all, &request)).unwrap();
            let response = if request.headers().get("upgrade").is_some_and(|protocol| protocol == "websocket") {
                tokio::spawn(echo(request));
                let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
                response.header("connection", "upgrade").header("upgrade", "websocket").body(Full::default()).unwrap()
            } else {
                Response::new(Full::new(Bytes::from(body)))
            };
            std::future::ready(response)
        })
        .await;
        Self { address, seen }
    }

    /// Starts an application that speaks gRPC. Every method returns a message whose field 1 is the number 1.
    pub(crate) async fn start_grpc() -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&seen);
        let address = serve_http2(0, move |request| {
            remember(&all, &request);
            let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
            let message = Full::new(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1]));
            let body = message.with_trailers(std::future::ready(Some(Ok(trailers))));
            let response = Response::builder().header("content-type", "application/grpc").body(body).unwrap();
            std::future::ready(response)
        })
        .await;
        Self { address, seen }
    }

    /// Requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// Returns every byte of an upgraded connection.
async fn echo(request: Request<Incoming>) {
    let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
    let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
    drop(tokio::io::copy(&mut reader, &mut writer).await);
}

fn remember(all: &Mutex<Vec<Seen>>, request: &Request<Incoming>) -> Seen {
    let seen = Seen::new(request);
    all.lock().unwrap().push(seen.clone());
    seen
}
