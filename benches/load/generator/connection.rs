//! One HTTP/2 connection of the generator, and one request on it.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use envoy_types::pb::envoy::service::auth::v3::CheckResponse;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use h2::client::{Builder, SendRequest};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use prost::Message;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::{Kind, Target};
use crate::request::BROWSER_HEADERS;

/// Connects to servers.
pub(crate) struct Connector {
    target: Target,
    tls: Option<TlsConnector>,
    /// Number of connections so far.
    connected: Cell<usize>,
}

/// Open connection: the handle that sends, and the task that moves its bytes, which ends once all handles are dropped.
pub(crate) type Connection = (SendRequest<Bytes>, JoinHandle<()>);

impl Connector {
    pub(crate) fn new(target: Target) -> Result<Self> {
        let tls = match &target {
            Target::Tls(_, ca) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(CertificateDer::from_pem_file(ca)?)?;
                let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
                config.alpn_protocols = vec![b"h2".to_vec()];
                Some(TlsConnector::from(Arc::new(config)))
            }
            Target::Unix(_) | Target::UnixPair(_) | Target::Tcp(_) => None,
        };
        Ok(Self { target, tls, connected: Cell::new(0) })
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let connected = self.connected.replace(self.connected.get() + 1);
        match &self.target {
            Target::UnixPair(paths) => handshake(UnixStream::connect(&paths[connected % 2]).await?).await,
            Target::Unix(path) => handshake(UnixStream::connect(path).await?).await,
            Target::Tcp(address) | Target::Tls(address, _) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                match &self.tls {
                    None => handshake(stream).await,
                    Some(tls) => handshake(tls.connect(ServerName::try_from("localhost")?, stream).await?).await,
                }
            }
        }
    }
}

async fn handshake<S: AsyncRead + AsyncWrite + Unpin + 'static>(stream: S) -> Result<Connection> {
    let mut builder = Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 24);
    let (sender, connection) = builder.handshake(stream).await?;
    // If the connection fails, so does the next request.
    Ok((sender, tokio::task::spawn_local(async move { drop(connection.await) })))
}

/// Form of the requests: everything except for what differs between messages.
pub(crate) struct Form {
    pub(crate) kind: Kind,
    uri: Uri,
    headers: HeaderMap,
}

impl Form {
    pub(crate) fn new(kind: Kind) -> Self {
        let (uri, headers): (_, &[(&str, &str)]) = match kind {
            Kind::Check => (
                "http://cognito_authz/envoy.service.auth.v3.Authorization/Check",
                &[
                    ("te", "trailers"),
                    ("grpc-timeout", "5000m"),
                    ("content-type", "application/grpc"),
                    ("x-envoy-internal", "true"),
                    ("x-forwarded-for", "10.42.0.9"),
                    ("x-envoy-expected-rq-timeout-ms", "5000"),
                ],
            ),
            Kind::Get => ("http://api.example.test/v1/orders/7f3c?expand=items&limit=50", &BROWSER_HEADERS),
        };
        let pairs =
            headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        Self { kind, uri: Uri::from_static(uri), headers: pairs.collect() }
    }

    /// Sends a request and waits for the whole answer. Returns the body of one that allows.
    ///
    /// # Errors
    /// Any other outcome, which the error names.
    pub(crate) async fn ask(&self, sender: &SendRequest<Bytes>, message: Bytes) -> Result<Bytes> {
        let mut sender = sender.clone().ready().await?;
        let mut request = Request::new(());
        *request.method_mut() = if self.kind == Kind::Check { Method::POST } else { Method::GET };
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let response = if self.kind == Kind::Check {
            let (response, mut body) = sender.send_request(request, false)?;
            body.send_data(message, true)?;
            response
        } else {
            request.headers_mut().insert(header::AUTHORIZATION, HeaderValue::from_maybe_shared(message)?);
            sender.send_request(request, true)?.0
        };
        let response = response.await?;
        let (head, mut body) = response.into_parts();
        let mut content = Bytes::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            content = if content.is_empty() { data } else { joined(&content, &data) };
        }
        ensure!(head.status == 200, "status {}: {}", head.status, String::from_utf8_lossy(&content));
        if self.kind == Kind::Check {
            let trailers = body.trailers().await?.unwrap_or_default();
            let status = trailers.get("grpc-status").or(head.headers.get("grpc-status"));
            ensure!(status.is_some_and(|status| status == "0"), "the gRPC status is {status:?}");
        }
        Ok(content)
    }
}

fn joined(first: &[u8], second: &[u8]) -> Bytes {
    let mut both = BytesMut::from(first);
    both.extend_from_slice(second);
    both.freeze()
}

/// Answers that have been found to allow, by the number of the message. An answer that is the same as before needs no
/// second look, which saves the generator's time.
pub(crate) struct Allowed(std::cell::RefCell<Vec<Bytes>>);

impl Allowed {
    pub(crate) fn new(messages: usize) -> Rc<Self> {
        Rc::new(Self(vec![Bytes::new(); messages].into()))
    }

    /// Returns an error that names the outcome unless the answer allows the request.
    pub(crate) fn judge(&self, number: usize, answer: &Bytes) -> Result<()> {
        let mut known = self.0.borrow_mut();
        if !answer.is_empty() && known[number] == *answer {
            return Ok(());
        }
        let message = answer.get(5..).context("an empty answer")?;
        let response = CheckResponse::decode(message)?;
        let code = response.status.map_or(0, |status| status.code);
        match response.http_response {
            Some(HttpResponse::OkResponse(_)) if code == 0 => (),
            Some(HttpResponse::DeniedResponse(denied)) => bail!("denied: {}", denied.body),
            other => bail!("status {code}, {other:?}"),
        }
        known[number] = Bytes::copy_from_slice(answer);
        Ok(())
    }
}
