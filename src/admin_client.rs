//! Requests of commands to the admin port of a running instance. The image has neither a shell nor curl, so the program
//! itself sends them.

use std::time::Duration;

use anyhow::{Context, bail};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpStream;
use url::Url;

/// Maximum size of a response.
const MAX_BODY_BYTES: usize = 4 << 20;

/// Request.
#[derive(Debug)]
pub(crate) struct Call<'c> {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: &'c str,
    /// Bearer token.
    pub(crate) token: Option<&'c SecretString>,
    /// Body, as JSON.
    pub(crate) body: Option<String>,
    /// Time limit for connection, request and response together.
    pub(crate) limit: Duration,
}

/// Response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Call<'_> {
    /// Sends the request to the admin port with this base URL. Redirects are not followed.
    ///
    /// # Errors
    /// There is no complete response in time. The text contains no token.
    pub(crate) async fn send(self, admin: &Url) -> anyhow::Result<Reply> {
        if admin.scheme() != "http" {
            bail!("{admin}: the admin port speaks plain HTTP; use a URL that starts with http://");
        }
        let host = admin.host_str().with_context(|| format!("{admin}: the URL has no host"))?;
        let port = admin.port_or_known_default().unwrap_or(80);
        let limit = self.limit;
        tokio::time::timeout(limit, self.exchange(host.trim_matches(['[', ']']), port))
            .await
            .with_context(|| format!("{admin} did not answer within {} s", limit.as_secs()))?
    }

    async fn exchange(self, host: &str, port: u16) -> anyhow::Result<Reply> {
        let stream =
            TcpStream::connect((host, port)).await.with_context(|| format!("cannot connect to {host}:{port}"))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(self.method)
            .uri(self.target)
            .header(header::HOST, format!("{host}:{port}"))
            .header(header::ACCEPT, "application/json");
        if let Some(token) = self.token {
            let mut value = header::HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        if self.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::<Bytes>::from(self.body.unwrap_or_default()))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        Ok(Reply { status, body })
    }
}
