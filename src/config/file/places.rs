//! Members of a policy about browsers: origins that may read refusals, and further places of the credential.

use schemars::{JsonSchema, Schema, json_schema};
use serde::Deserialize;

use super::schema;
use super::text::{Form, Kind, Parsed, Plain};
use crate::account::cors::Origin;
use crate::authz::credential::places::{CredentialHeader, WEBSOCKET_PREFIX};
use crate::authz::headers::{ENVOYS, RESERVED};
use crate::authz::request::is_token;

/// Places of the credential, in addition to `Authorization` and the session cookies. A request with two credentials is
/// refused.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    deny_unknown_fields,
    expecting = "a map with `header`, `websocket_protocol` or `websocket_query` | {header: x-token}"
)]
#[schemars(transform = schema::any_all)]
pub struct PlacesEntry {
    /// Header whose value is a token, with or without `Bearer`.
    pub header: Option<Parsed<CredentialHeader>>,
    /// Name that marks a token in `Sec-WebSocket-Protocol`: as `NAME.TOKEN`, or as the entry before the token. The token is
    /// removed from the request.
    pub websocket_protocol: Option<Plain<Subprotocol>>,
    /// Query parameter of requests that open a WebSocket. It is removed from the request.
    pub websocket_query: Option<Plain<QueryName>>,
}

impl PlacesEntry {
    /// `true` if no place is named.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { header, websocket_protocol, websocket_query } = self;
        header.is_none() && websocket_protocol.is_none() && websocket_query.is_none()
    }
}

/// Subprotocol of a WebSocket: a token (RFC 6455 section 4.1).
#[derive(Debug)]
pub enum Subprotocol {}

impl Kind for Subprotocol {
    fn check(text: &str) -> Result<(), String> {
        if is_token(text.as_bytes()) && text.len() <= 128 {
            return Ok(());
        }
        Err("not the name of a subprotocol, such as bearer".into())
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[A-Za-z0-9!#$%&'*+^_`|~.-]{1,128}$"})
    }
}

/// Name of a query parameter: unreserved characters (RFC 3986 section 2.3), which clients never encode.
#[derive(Debug)]
pub enum QueryName {}

impl Kind for QueryName {
    fn check(text: &str) -> Result<(), String> {
        let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if text.bytes().all(is_unreserved) && text.len() <= 128 {
            return Ok(());
        }
        Err("not the name of a query parameter, such as access_token".into())
    }

    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[A-Za-z0-9._~-]{1,128}$"})
    }
}

impl Form for CredentialHeader {
    fn schema() -> Schema {
        let reserved = RESERVED.map(in_any_case).join("|");
        let prefixes = ENVOYS.into_iter().chain([WEBSOCKET_PREFIX]).map(in_any_case).collect::<Vec<_>>().join("|");
        json_schema!({
            "type": "string",
            "pattern": "^[A-Za-z0-9!#$%&'*+^`|~-]{1,128}$",
            "not": {"pattern": format!("^(({reserved})$|{prefixes})")},
        })
    }
}

/// Returns a regular expression for `text` in any case. Helm's expressions have no flags.
fn in_any_case(text: &str) -> String {
    let letter = |c: char| if c.is_ascii_lowercase() { format!("[{}{c}]", c.to_ascii_uppercase()) } else { c.into() };
    text.chars().map(letter).collect()
}

impl Form for Origin {
    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^(https?|wss?|ftp)://[^/?#@*A-Z\\s]+$"})
    }
}
