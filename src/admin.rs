//! The operators' port: `/livez`, `/readyz`, `/metrics`, `/config`. It only reads.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 while the process can answer at all; nothing outside the process changes it |
//! | `/readyz` | 200 when ready, else 503; JSON with what is pending |
//! | `/metrics` | Prometheus text format |
//! | `/config` | the configuration in force, where each value comes from, secrets redacted |

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prost::bytes::Bytes;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authz::Authorizer;
use crate::lifecycle::{Readiness, Shutdown};
use crate::listen::{Listener, Stream};
use crate::metrics::{self, Metrics};

/// Connections at a time: operators and their tools, nobody else.
const MAX_CONNECTIONS: usize = 256;
/// Time for a request's head to arrive, also on a connection that is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// What the port shows.
#[derive(Debug)]
pub struct Admin {
    /// What is pending.
    pub readiness: Readiness,
    /// Whether the end has been announced.
    pub shutdown: Shutdown,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who knows how full the cache is.
    pub authorizer: Arc<Authorizer>,
    /// What is in force.
    pub config: Value,
}

impl Admin {
    /// Serves the port until `closing`; running requests finish.
    pub async fn serve(self: Arc<Self>, listener: Listener, closing: CancellationToken) {
        let running = TaskTracker::new();
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let accept = listener.accept_all(|stream| {
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { return };
            let (admin, closing) = (Arc::clone(&self), closing.clone());
            running.spawn(async move {
                match stream {
                    Stream::Tcp(stream) => admin.serve_connection(stream, closing).await,
                    Stream::Unix(stream) => admin.serve_connection(stream, closing).await,
                }
                drop(permit);
            });
        });
        closing.run_until_cancelled(accept).await;
        running.close();
        running.wait().await;
    }

    async fn serve_connection(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        closing: CancellationToken,
    ) {
        let service = service_fn(move |request| {
            let response = self.answer(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "admin connection ended with an error");
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let answer = match request.uri().path() {
            "/livez" => text(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"),
            "/readyz" => self.readyz(),
            "/metrics" => self.metrics(),
            "/config" => json(StatusCode::OK, &self.config),
            _ => return text(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "not found\n"),
        };
        if [Method::GET, Method::HEAD].contains(request.method()) {
            return answer;
        }
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "only GET and HEAD\n");
        refusal.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
        refusal
    }

    fn readyz(&self) -> Response<Full<Bytes>> {
        let mut pending = self.readiness.pending();
        if self.shutdown.draining.is_cancelled() {
            pending.push("shutting down".into());
        }
        if pending.is_empty() {
            json(StatusCode::OK, &json!({"status": "ready", "pending": []}))
        } else {
            json(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "not ready", "pending": pending}))
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let entries = i64::try_from(self.authorizer.cache().entry_count()).unwrap_or(i64::MAX);
        self.metrics.token_cache_entries.set(entries);
        match self.metrics.render() {
            Ok(rendered) => text(StatusCode::OK, metrics::CONTENT_TYPE, rendered),
            Err(error) => {
                tracing::error!(%error, "metrics cannot be rendered");
                text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", "metrics cannot be rendered\n")
            }
        }
    }
}

fn json(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    text(status, "application/json", format!("{value:#}\n"))
}

fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}
