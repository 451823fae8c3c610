//! `/log-level` of the admin port: operators see the level of the log, and change it for a while. Each change, and the
//! return to the configured level, is one line of the log with `event="log_level"`.
//!
//! | request | response |
//! |---|---|
//! | `GET /log-level` | the level in effect, the configured one, and when it returns |
//! | `PUT /log-level` with `{"level", "for"?}` | puts a level in effect for this time, 1s to 1h and by default 10m |
//! | `DELETE /log-level` | returns to the configured level |

use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use http::header::{self, HeaderValue};
use http::{Method, Request, StatusCode};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::json_answer;
use super::refusal::Refusal;
use super::token::{Gate, Operator};
use crate::config::parse::duration_between;
use crate::logging::{By, DEFAULT_TIME, Handle, LONGEST_TIME, Levels, LogLevel, SHORTEST_TIME};
use crate::net::http_server::{Answer, Peer, RequestBody};
use crate::net::json_body;

/// Path of the route.
pub(super) const PATH: &str = "/log-level";
/// Methods of the route.
const METHODS: &str = "GET, HEAD, PUT, DELETE";
/// Maximum length of a message about the form of the body, in characters.
const MAX_MESSAGE: usize = 200;

/// The route.
#[derive(Debug)]
pub(super) struct LogLevelRoute {
    /// `None` if this process does not write a log of its own.
    log: Option<Handle>,
    gate: Arc<Gate>,
}

/// Body of a PUT. A repeated member is an error, and so is `null`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members {
    level: String,
    #[serde(default, rename = "for", deserialize_with = "present")]
    time: Option<String>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

impl LogLevelRoute {
    /// Creates the route, for those whom `gate` lets pass.
    pub(super) fn new(log: Option<Handle>, gate: Arc<Gate>) -> Self {
        Self { log, gate }
    }

    /// Answers a request for [`PATH`].
    pub(super) async fn answer(&self, request: Request<RequestBody>, peer: Peer) -> Answer {
        match self.run(request, &peer).await {
            Ok(levels) => json_answer(StatusCode::OK, &shown(levels)),
            Err(refusal) => refusal.into_answer(),
        }
    }

    async fn run(&self, request: Request<RequestBody>, peer: &Peer) -> Result<Levels, Refusal> {
        let (parts, body) = request.into_parts();
        let operator = self.gate.authorize(&parts.headers, peer).await?;
        let log =
            self.log.as_ref().ok_or_else(|| Refusal::not_found("The log of this process is not the service's."))?;
        match parts.method {
            Method::GET | Method::HEAD => Ok(log.levels()),
            Method::PUT => {
                let change = read(&json_body::read(&parts.headers, body).await?)?;
                Ok(log.set_level(Some(change), by(operator, peer)))
            }
            Method::DELETE => Ok(log.set_level(None, by(operator, peer))),
            _ => Err(Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "This path takes GET, PUT, DELETE.",
            )
            .with(header::ALLOW, HeaderValue::from_static(METHODS))),
        }
    }
}

/// Reads the body of a PUT.
fn read(body: &[u8]) -> Result<(LogLevel, Duration), Refusal> {
    // serde would read an array as the members in their order.
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(Refusal::bad_request("The body is not a log level: it has to be a JSON object."));
    }
    let Members { level, time } = serde_json::from_slice(body).map_err(|error| {
        let error: String = error.to_string().chars().take(MAX_MESSAGE).collect();
        Refusal::bad_request(format!("The body is not a log level: {error}."))
    })?;
    let level = LogLevel::from_str(&level, false)
        .map_err(|_| Refusal::bad_request("level has to be one of error, warn, info, debug, trace."))?;
    let time = time.map(|time| duration_between(&time, SHORTEST_TIME, LONGEST_TIME)).transpose();
    let time = time.map_err(|why| Refusal::bad_request(format!("for is {why}.")))?;
    Ok((level, time.unwrap_or(DEFAULT_TIME)))
}

fn by<'p>(operator: Operator<'p>, peer: &Peer) -> By<'p> {
    By { name: operator.name(), credential: operator.credential(), peer: peer.address }
}

/// Levels in a response.
pub(super) fn shown(levels: Levels) -> Value {
    let Levels { level, configured, until } = levels;
    json!({"level": level.as_str(), "configured": configured.as_str(), "until": until})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_a_level_and_a_bounded_time() {
        for (body, expected) in [
            (r#"{"level":"debug"}"#, Ok((LogLevel::Debug, DEFAULT_TIME))),
            (r#"{"level":"error","for":"1s"}"#, Ok((LogLevel::Error, SHORTEST_TIME))),
            (r#"{"level":"trace","for":"1h"}"#, Ok((LogLevel::Trace, LONGEST_TIME))),
            (r#"{"level":"DEBUG"}"#, Err("level has to be one of error, warn, info, debug, trace.")),
            (r#"{"level":"debug","for":"61m"}"#, Err("for is not between 1s and 1h.")),
            (r#"{"level":"debug","for":"0s"}"#, Err("for is not between 1s and 1h.")),
            (r#"{"level":"debug","for":"x"}"#, Err("for is not a duration such as 250ms, 30s or 1h.")),
            ("", Err("The body is not a log level: it has to be a JSON object.")),
            (r#"["debug"]"#, Err("The body is not a log level: it has to be a JSON object.")),
        ] {
            let read = read(body.as_bytes()).map_err(|refusal| refusal.message.into_owned());
            assert_eq!(read, expected.map_err(str::to_owned), "{body}");
        }
        for body in [
            "{}",
            r#"{"level":null}"#,
            r#"{"level":"debug","for":null}"#,
            r#"{"level":"debug","for":600}"#,
            r#"{"level":"debug","level":"info"}"#,
            r#"{"level":"debug","until":7}"#,
        ] {
            let refused = read(body.as_bytes()).unwrap_err();
            assert!(refused.message.starts_with("The body is not a log level: "), "{body}: {refused:?}");
        }
    }
}
