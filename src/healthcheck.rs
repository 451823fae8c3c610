//! The command `cognito-authz healthcheck`: checks that a running instance is ready. The image has neither a shell nor
//! curl, so the program itself sends the request.
//!
//! With `https`, the instance has to present a certificate that a CA of `--admin-ca-file` has signed, for the host of
//! the URL or for `--admin-server-name`. There is no way to skip this check.

use std::time::Duration;

use anyhow::{Context, bail};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::bytes::Bytes;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::options::HealthcheckOptions;
use crate::net::tls::{self, Trust};

/// Time limit for connection, request and response together.
const TIMEOUT: Duration = Duration::from_secs(3);
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Sends a GET for `/readyz` to the admin port.
///
/// # Errors
/// If the instance does not answer or is not ready. The text then contains the body, which lists what is pending.
pub async fn check(options: &HealthcheckOptions) -> anyhow::Result<()> {
    let admin = &options.admin;
    let host = admin.host_str().with_context(|| format!("{admin}: the URL has no host"))?.trim_matches(['[', ']']);
    let port = admin.port_or_known_default().unwrap_or(80);
    let tls = encryption(options, host)?;
    tokio::time::timeout(TIMEOUT, ask(host, port, tls))
        .await
        .with_context(|| format!("{admin} did not answer within {} s", TIMEOUT.as_secs()))?
}

/// Returns the TLS client and the name to ask for, or `None` if the URL starts with `http:`.
fn encryption(options: &HealthcheckOptions, host: &str) -> anyhow::Result<Option<(TlsConnector, ServerName<'static>)>> {
    let HealthcheckOptions { admin, admin_ca_file, admin_server_name, admin_cert_file, admin_key_file } = options;
    match (admin.scheme(), admin_ca_file) {
        ("http", None) if admin_server_name.is_none() && admin_cert_file.is_none() => Ok(None),
        ("http", _) => bail!("{admin}: the options about certificates need a URL that starts with https://"),
        ("https", None) => bail!("{admin}: https needs --admin-ca-file, the CA of the instance's certificate"),
        ("https", Some(ca)) => {
            let identity = admin_cert_file.clone().zip(admin_key_file.clone());
            let connector = tls::connector(&Trust { ca: ca.clone(), identity })?;
            let name = admin_server_name.as_deref().unwrap_or(host);
            let name = ServerName::try_from(name.to_owned()).with_context(|| format!("{name} is not a host name"))?;
            Ok(Some((connector, name)))
        }
        _ => bail!("{admin}: not an http or https URL"),
    }
}

async fn ask(host: &str, port: u16, tls: Option<(TlsConnector, ServerName<'static>)>) -> anyhow::Result<()> {
    let stream = TcpStream::connect((host, port)).await.with_context(|| format!("cannot connect to {host}:{port}"))?;
    match tls {
        None => ask_over(stream, host, port)
            .await
            .context("if the admin address begins with tls: or mtls:, use a URL that starts with https://"),
        Some((connector, name)) => {
            let stream = connector.connect(name, stream).await.context("the TLS handshake failed")?;
            ask_over(stream, host, port).await
        }
    }
}

async fn ask_over<S>(stream: S, host: &str, port: u16) -> anyhow::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/readyz").header(header::HOST, format!("{host}:{port}")).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_BODY_BYTES)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!(error))?
        .to_bytes();
    if status != StatusCode::OK {
        bail!(
            "not ready ({status}): {}",
            String::from_utf8_lossy(&body).split_whitespace().collect::<Vec<_>>().join(" ")
        );
    }
    Ok(())
}
