//! The command `cognito-authz healthcheck`: checks that a running instance is ready. The image has neither a shell nor
//! curl, so the program itself sends the request.

use std::time::Duration;

use anyhow::{Context, bail};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use prost::bytes::Bytes;
use tokio::net::TcpStream;
use url::Url;

/// Time limit for connection, request and response together.
const TIMEOUT: Duration = Duration::from_secs(3);
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Sends a GET for `/readyz` to the admin port. `admin` is its base URL.
///
/// # Errors
/// If the instance does not answer or is not ready. The text then contains the body, which lists what is pending.
pub async fn check(admin: &Url) -> anyhow::Result<()> {
    if admin.scheme() != "http" {
        bail!("{admin}: the admin port speaks plain HTTP; use a URL that starts with http://");
    }
    let host = admin.host_str().with_context(|| format!("{admin}: the URL has no host"))?;
    let port = admin.port_or_known_default().unwrap_or(80);
    tokio::time::timeout(TIMEOUT, ask(host.trim_matches(['[', ']']), port))
        .await
        .with_context(|| format!("{admin} did not answer within {} s", TIMEOUT.as_secs()))?
}

async fn ask(host: &str, port: u16) -> anyhow::Result<()> {
    let stream = TcpStream::connect((host, port)).await.with_context(|| format!("cannot connect to {host}:{port}"))?;
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
