//! Requests of commands to the admin port of a running instance. The image has neither a shell nor curl, so the program
//! itself sends them.
//!
//! With `https`, the instance has to present a certificate that a CA of `--admin-ca-file` has signed, for the host of
//! the URL or for `--admin-server-name`. There is no way to skip this check.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use url::Url;

use crate::config::options::{InstanceOptions, OperatorOptions};
use crate::files::{self, MAX_SECRET_BYTES};
use crate::net::tls::{TlsClient, Trust};

/// Time limit for one request of an operator. The service waits for its file or store, and for its turn among wrong
/// tokens.
const OPERATOR_TIMEOUT: Duration = Duration::from_secs(15);
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
    /// Starts with a GET without a token.
    pub(crate) fn get(target: &str, limit: Duration) -> Call<'_> {
        Call { method: Method::GET, target, token: None, body: None, limit }
    }
}

/// Reads a response, which should be `what`. The error does not have serde's reason, which names a type of this program.
pub(crate) fn read<T: DeserializeOwned>(response: Value, what: &str) -> anyhow::Result<T> {
    serde_json::from_value(response)
        .ok()
        .with_context(|| format!("the response is not {what}: is this the admin port of cognito-authz?"))
}

/// Admin port of a running instance.
pub(crate) struct AdminPort<'o> {
    url: &'o Url,
    host: &'o str,
    port: u16,
    /// `None` if the URL starts with `http:`.
    tls: Option<TlsClient>,
}

impl<'o> AdminPort<'o> {
    /// Checks the options, and reads their files. Blocks.
    ///
    /// # Errors
    /// The options do not fit together, or a file cannot be used.
    pub(crate) fn new(options: &'o InstanceOptions) -> anyhow::Result<Self> {
        let InstanceOptions { admin: url, admin_ca_file, admin_server_name, admin_cert_file, admin_key_file } = options;
        let host = url.host_str().with_context(|| format!("{url}: the URL has no host"))?.trim_matches(['[', ']']);
        let tls = match (url.scheme(), admin_ca_file) {
            ("http", None) if admin_server_name.is_none() && admin_cert_file.is_none() => None,
            ("http", _) => bail!("{url}: the options about certificates need a URL that starts with https://"),
            ("https", None) => bail!("{url}: https needs --admin-ca-file, the CA of the instance's certificate"),
            ("https", Some(ca)) => {
                let name = admin_server_name.as_deref().unwrap_or(host).to_owned();
                let identity = admin_cert_file.clone().zip(admin_key_file.clone());
                Some(TlsClient::new(Trust { ca: ca.clone(), name, identity })?)
            }
            _ => bail!("{url}: not an http or https URL"),
        };
        let port = url.port_or_known_default().unwrap_or(80);
        Ok(Self { url, host, port, tls })
    }

    /// Sends a request over a new connection. Redirects are not followed.
    ///
    /// # Errors
    /// There is no complete response in time. The text contains no token.
    pub(crate) async fn send(&self, call: Call<'_>) -> anyhow::Result<Reply> {
        let limit = call.limit;
        tokio::time::timeout(limit, self.connect_and_send(call))
            .await
            .with_context(|| format!("{} did not answer within {} s", self.url, limit.as_secs()))?
    }

    async fn connect_and_send(&self, call: Call<'_>) -> anyhow::Result<Reply> {
        let Self { host, port, tls, .. } = self;
        let stream =
            TcpStream::connect((*host, *port)).await.with_context(|| format!("cannot connect to {host}:{port}"))?;
        match tls {
            None => self
                .exchange(stream, call)
                .await
                .context("if the admin address begins with tls: or mtls:, use a URL that starts with https://"),
            Some(client) => {
                let stream = client.connect(stream).await.context("the TLS handshake failed")?;
                self.exchange(stream, call).await
            }
        }
    }

    async fn exchange<S>(&self, stream: S, call: Call<'_>) -> anyhow::Result<Reply>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(call.method)
            .uri(call.target)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::ACCEPT, "application/json");
        if let Some(token) = call.token {
            let mut value = header::HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        if call.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::<Bytes>::from(call.body.unwrap_or_default()))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        Ok(Reply { status, body })
    }
}

/// Running instance, and the operator's token for it.
pub(crate) struct Instance<'o> {
    pub(crate) options: &'o OperatorOptions,
    port: AdminPort<'o>,
    token: Option<SecretString>,
}

impl<'o> Instance<'o> {
    /// Checks the options, and reads their files. Blocks.
    ///
    /// # Errors
    /// The options do not fit together, or a file cannot be used. The text does not contain the token.
    pub(crate) fn new(options: &'o OperatorOptions) -> anyhow::Result<Self> {
        let read = |path: &Path| -> anyhow::Result<SecretString> {
            let text = files::read_text(path, MAX_SECRET_BYTES)
                .map_err(|error| anyhow::anyhow!("--admin-token-file: {} {error}", path.display()))?;
            let token = text.trim_ascii();
            if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                bail!("--admin-token-file: {} does not contain a token", path.display());
            }
            Ok(token.into())
        };
        let token = options.admin_token_file.as_deref().map(read).transpose()?;
        Ok(Self { options, port: AdminPort::new(&options.instance)?, token })
    }

    /// Sends a request, and returns the body of a success.
    ///
    /// # Errors
    /// The instance does not answer, or refuses. The text is one sentence.
    pub(crate) async fn ask(&self, method: Method, target: &str, body: Option<String>) -> anyhow::Result<Value> {
        let admin = &self.options.instance.admin;
        let call = Call { method, target, token: self.token.as_ref(), body, limit: OPERATOR_TIMEOUT };
        let reply = self.port.send(call).await?;
        let body: Option<Value> = serde_json::from_slice(&reply.body).ok();
        if reply.status.is_success()
            && let Some(body) = body
        {
            return Ok(body);
        }
        let message = body.as_ref().and_then(|body| body.get("message")).and_then(Value::as_str);
        match message {
            Some(message) => bail!("{admin} refused ({}): {message}", reply.status.as_u16()),
            None => bail!("{admin} did not answer like an admin port (status {})", reply.status.as_u16()),
        }
    }
}
