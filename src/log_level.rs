//! The command `cognito-authz log-level`: client of `/log-level` on the admin port of a running instance.

use std::io::Write;

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin_client::{self, Instance};
use crate::clock::{UnixTime, format_rfc3339};
use crate::config::options::LogLevelOptions;

/// Path on the admin port.
const PATH: &str = "/log-level";

/// Response of the admin port.
#[derive(Debug, Deserialize)]
struct Shown {
    level: String,
    configured: String,
    until: Option<UnixTime>,
}

/// Shows or changes the level, and writes the level in effect to `out`.
///
/// # Errors
/// The instance does not answer, or refuses. The text is one sentence.
pub async fn run(options: &LogLevelOptions, out: &mut impl Write) -> anyhow::Result<()> {
    let LogLevelOptions { level, time, reset, operator } = options;
    let instance = Instance::new(operator)?;
    let (method, body) = match level {
        Some(level) => {
            let mut body = json!({"level": level.as_str()});
            if let (Some(time), Some(members)) = (time, body.as_object_mut()) {
                members.insert("for".into(), humantime::format_duration(*time).to_string().into());
            }
            (Method::PUT, Some(body.to_string()))
        }
        None if *reset => (Method::DELETE, None),
        None => (Method::GET, None),
    };
    let shown: Value = instance.ask(method, PATH, body).await?;
    if operator.json {
        return Ok(writeln!(out, "{shown}")?);
    }
    let Shown { level, configured, until } = admin_client::read(shown, "a log level")?;
    match until {
        Some(until) => writeln!(out, "{level} until {}, then {configured}", format_rfc3339(until))?,
        None => writeln!(out, "{level}")?,
    }
    Ok(())
}
