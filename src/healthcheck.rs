//! The command `cognito-authz healthcheck`: checks that a running instance is ready.

use std::time::Duration;

use anyhow::bail;
use http::StatusCode;

use crate::admin_client::{AdminPort, Call};
use crate::config::options::InstanceOptions;

/// Time limit for connection, request and response together.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Sends a GET for `/readyz` to the admin port.
///
/// # Errors
/// If the instance does not answer or is not ready. The text then contains the body, which lists what is pending.
pub async fn check(options: &InstanceOptions) -> anyhow::Result<()> {
    let reply = AdminPort::new(options)?.send(Call::get("/readyz", TIMEOUT)).await?;
    if reply.status != StatusCode::OK {
        let body = String::from_utf8_lossy(&reply.body);
        bail!("not ready ({}): {}", reply.status, body.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    Ok(())
}
