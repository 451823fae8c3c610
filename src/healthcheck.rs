//! The command `cognito-authz healthcheck`: checks that a running instance is ready.

use std::time::Duration;

use anyhow::bail;
use http::StatusCode;
use url::Url;

use crate::admin_client::Call;

/// Time limit for connection, request and response together.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Sends a GET for `/readyz` to the admin port. `admin` is its base URL.
///
/// # Errors
/// If the instance does not answer or is not ready. The text then contains the body, which lists what is pending.
pub async fn check(admin: &Url) -> anyhow::Result<()> {
    let reply = Call::get("/readyz", TIMEOUT).send(admin).await?;
    if reply.status != StatusCode::OK {
        let body = String::from_utf8_lossy(&reply.body);
        bail!("not ready ({}): {}", reply.status, body.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    Ok(())
}
