//! Protected resources of the policy file (`protected_resources`).

use std::net::IpAddr;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, json_schema};
use serde::Deserialize;
use url::{Host, Url};

use super::schema;
use super::text::{Any, Challenge, Form, Kind, Parsed, Plain};
use super::values::{List, Name, OneOrMany};
use crate::account::AppUri;
use crate::user_pool::ClientId;

/// Protected resource: an API that clients find the sign-in for by its metadata (RFC 9728), such as an MCP server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    deny_unknown_fields,
    expecting = "a map with `resource` and `policy` | {resource: 'https://mcp.example.com/mcp', policy: NAME}"
)]
#[schemars(transform = schema::protected_resource)]
pub struct ProtectedResourceEntry {
    /// Identifier: the URL that clients know the resource by, such as `https://mcp.example.com/mcp`.
    pub resource: Parsed<ResourceUrl>,
    /// Name of the resource, for users.
    pub name: Option<Plain<Any>>,
    /// Policy of the resource, or list of its policies.
    pub policy: OneOrMany<Name>,
    /// Scopes that clients ask for.
    #[serde(default)]
    pub scopes_supported: List<Plain<Challenge>>,
    /// Pool whose sign-in pages clients use. Optional if only one is possible.
    pub pool: Option<Name>,
    /// Public app client that clients get when they register (RFC 7591). Without it they cannot register.
    pub client_id: Option<Parsed<ClientId>>,
    /// Redirect URIs that clients may register. They are compared as text. The app client must list them, too.
    #[serde(default)]
    pub redirect_uris: List<Parsed<AppUri>>,
    /// Handling of the audience of access tokens (RFC 8707).
    #[serde(default)]
    pub audience: AudienceMode,
}

impl Form for AppUri {
    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^[A-Za-z][A-Za-z0-9+.-]*:[^#\\s]+$"})
    }
}

/// Handling of the audience of tokens.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum AudienceMode {
    /// `aud` must contain the resource.
    Required,
    /// `aud` must contain the resource if an access token has it.
    #[default]
    IfPresent,
}

/// Identifier of a protected resource: an `https://` URL, or an `http://` URL of a loopback host, without query and
/// fragment, in canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceUrl {
    /// Parsed form.
    pub url: Url,
    /// Text in the file.
    pub text: Box<str>,
}

impl FromStr for ResourceUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = "not the URL of a resource, such as https://mcp.example.com/mcp";
        Challenge::check(text).map_err(|_| wrong)?;
        let url = Url::parse(text).map_err(|_| wrong)?;
        let is_loopback = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
            Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        match url.scheme() {
            "https" => {}
            "http" if is_loopback => {}
            "http" => return Err("not an https:// URL; plain http is for loopback hosts".into()),
            _ => return Err(wrong.into()),
        }
        let has_user = !url.username().is_empty() || url.password().is_some();
        if has_user || url.query().is_some() || url.fragment().is_some() {
            return Err("not the URL of a resource: it has no user, query or fragment".into());
        }
        // Clients compare identifiers as text. Some write a URL without a path with a slash at its end.
        let canonical = url.as_str();
        if text != canonical && (url.path() != "/" || Some(text) != canonical.strip_suffix('/')) {
            return Err(format!("not the canonical form of this URL: write {canonical}"));
        }
        Ok(Self { text: text.into(), url })
    }
}

impl Form for ResourceUrl {
    fn schema() -> Schema {
        json_schema!({"type": "string", "pattern": "^https?://[!$-.0-;=A-\\[\\]-~]+(/[!$-;=@-\\[\\]-~]*)?$"})
    }
}
