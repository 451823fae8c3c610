//! HTTP servers on a free port of the loopback interface. The fake servers and the application behind Envoy use them.

use std::convert::Infallible;
use std::error::Error;
use std::time::{Duration, SystemTime};

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};

/// Response of a fake server.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Headers. Without a `date`, it is the current time; with an empty one, the response has none.
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Time that the server waits before it responds.
    pub(crate) delay: Duration,
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.into(), delay: Duration::ZERO }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::ok("") }
    }

    /// Waits for the delay, and returns the response.
    pub(crate) async fn into_response(self) -> Response<Full<Bytes>> {
        tokio::time::sleep(self.delay).await;
        let mut response = Response::builder().status(StatusCode::from_u16(self.status).unwrap());
        if !self.headers.iter().any(|(name, _)| *name == "date") {
            response = response.header("date", httpdate::fmt_http_date(SystemTime::now()));
        }
        for (name, value) in self.headers.into_iter().filter(|header| *header != ("date", String::new())) {
            response = response.header(name, value);
        }
        response.body(Full::new(self.body.into())).unwrap()
    }
}

/// Starts an HTTP/1.1 server, and returns its address (`host:port`). The server ends with the runtime.
pub(crate) async fn serve<A, F, B>(answer: A) -> String
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Error + Send + Sync> + Send + 'static,
{
    serve_at(0, answer).await
}

/// As [`serve`], on this port.
pub(crate) async fn serve_at<A, F, B>(port: u16, answer: A) -> String
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Error + Send + Sync> + Send + 'static,
{
    accept(port, move |stream| {
        let answer = answer.clone();
        let service = service_fn(move |request| infallible(answer(request)));
        http1::Builder::new().auto_date_header(false).serve_connection(stream, service).with_upgrades()
    })
    .await
}

/// As [`serve_at`], over HTTP/2 without TLS and without an upgrade. Port 0 is any free one.
pub(crate) async fn serve_http2<A, F, B>(port: u16, answer: A) -> String
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes, Error: Error + Send + Sync> + Send + 'static,
{
    accept(port, move |stream| {
        let answer = answer.clone();
        let service = service_fn(move |request| infallible(answer(request)));
        http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service)
    })
    .await
}

async fn infallible<B>(response: impl Future<Output = Response<B>>) -> Result<Response<B>, Infallible> {
    Ok(response.await)
}

/// Accepts connections on this port, or on a free one if it is 0, and serves each in a task of its own.
async fn accept<F>(port: u16, connection: impl Fn(TokioIo<TcpStream>) -> F + Send + 'static) -> String
where
    F: Future<Output: Send> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(TokioIo::new(stream)));
        }
    });
    address
}
