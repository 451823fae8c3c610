//! JWKS endpoint with configurable responses: correct, faulty or slow ones. Tests use it only for faults that a Cognito
//! emulator cannot produce.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::bytes::Bytes;
use tokio::net::TcpListener;

/// Response of the server.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Delay before the response.
    pub(crate) delay: Duration,
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.into(), delay: Duration::ZERO }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::ok("") }
    }
}

/// Running server. It ends with its runtime.
#[derive(Clone)]
pub(crate) struct JwksServer {
    pub(crate) url: String,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    reply: Box<dyn Fn(&str) -> Reply + Send>,
    paths: Vec<String>,
}

impl JwksServer {
    pub(crate) async fn start(reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let reply: Box<dyn Fn(&str) -> Reply + Send> = Box::new(move |_| reply.clone());
        let shared = Arc::new(Mutex::new(Shared { reply, paths: Vec::new() }));
        let server = Self { url, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(http1::Builder::new().serve_connection(
                    TokioIo::new(stream),
                    service_fn(move |request| answer(Arc::clone(&shared), request)),
                ));
            }
        });
        server
    }

    /// Sets the response to all further requests.
    pub(crate) fn answers(&self, reply: Reply) {
        self.answers_by_path(move |_| reply.clone());
    }

    /// Sets the response to all further requests, depending on the path.
    pub(crate) fn answers_by_path(&self, reply: impl Fn(&str) -> Reply + Send + 'static) {
        self.shared.lock().unwrap().reply = Box::new(reply);
    }

    /// Number of requests so far.
    pub(crate) fn requests(&self) -> usize {
        self.shared.lock().unwrap().paths.len()
    }

    /// Paths of the requests so far.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.shared.lock().unwrap().paths.clone()
    }
}

async fn answer(shared: Arc<Mutex<Shared>>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let reply = {
        let mut shared = shared.lock().unwrap();
        let path = request.uri().path().to_owned();
        let reply = (shared.reply)(&path);
        shared.paths.push(path);
        reply
    };
    tokio::time::sleep(reply.delay).await;
    let mut response = Response::builder().status(StatusCode::from_u16(reply.status).unwrap());
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::new(reply.body.into())).unwrap())
}
