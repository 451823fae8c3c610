//! Metadata of protected resources, by which clients that know only the URL of an API find the sign-in, as MCP clients do:
//! `GET /.well-known/oauth-protected-resource[/PATH]` (RFC 9728), `GET /.well-known/oauth-authorization-server`
//! (RFC 8414), and `POST /oauth/register` below the prefix (RFC 7591).
//!
//! The policy file lists the resources (`protected_resources`), so a reload changes what these routes answer. Without
//! resources they do not exist. [`documents`] makes the two documents, [`registration`] judges a registration, and
//! [`upstream`] keeps Cognito's own metadata. `Host` only selects among the origins of the file.

mod documents;
mod registration;
mod upstream;

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{self, HeaderMap};
use http::{Method, Uri};

use self::upstream::PoolDocuments;
use super::answer::Reply;
use super::body;
use super::context::Context;
use super::error::{AccountError, Code};
use super::http::lists;
use super::settings::Prefix;
use crate::authz::Ruleset;
use crate::authz::protected_resource::{METADATA_PATH, ResourceOrigin};
use crate::net::http_server::RequestBody;

/// Path of the metadata of the authorization server (RFC 8414 section 3).
pub(super) const SERVER_PATH: &str = "/.well-known/oauth-authorization-server";
/// Path of registration, below the prefix.
pub(super) const REGISTRATION_PATH: &str = "/oauth/register";

/// Route of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// Metadata of a resource.
    Resource,
    /// Metadata of the authorization server.
    Server,
    /// Registration of a client.
    Registration,
}

impl Route {
    /// Every route.
    pub(super) const ALL: [Self; 3] = [Self::Resource, Self::Server, Self::Registration];

    /// Returns the route of a path.
    pub(super) fn of(path: &str, prefix: &Prefix) -> Option<Self> {
        let after = path.strip_prefix(METADATA_PATH);
        if after.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            return Some(Self::Resource);
        }
        match prefix.strip(path) {
            _ if path == SERVER_PATH => Some(Self::Server),
            Some(REGISTRATION_PATH) => Some(Self::Registration),
            _ => None,
        }
    }

    /// Value of the label `operation`, and `operationId`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Resource => "oauth-protected-resource",
            Self::Server => "oauth-authorization-server",
            Self::Registration => "oauth-register",
        }
    }

    /// Methods, for `Allow`.
    pub(super) fn methods(self) -> &'static str {
        match self {
            Self::Resource | Self::Server => "GET, HEAD",
            Self::Registration => "POST",
        }
    }

    /// Message of 404: no resource of the policy file is meant.
    fn not_found(self) -> &'static str {
        match self {
            Self::Resource => "`protected_resources` has no resource with this host and path.",
            Self::Server => "`protected_resources` has no resource with this host.",
            Self::Registration => "`protected_resources` has no resource with this host that clients can register for.",
        }
    }

    /// Codes of the route's errors.
    pub(super) fn codes(self) -> &'static [Code] {
        match self {
            Self::Resource => &[Code::NotFound, Code::MethodNotAllowed],
            Self::Server => &[Code::NotFound, Code::MethodNotAllowed, Code::UpstreamUnavailable],
            Self::Registration => &[
                Code::InvalidRequest,
                Code::Rejected,
                Code::NotFound,
                Code::MethodNotAllowed,
                Code::TooLarge,
                Code::UnsupportedMediaType,
                Code::RateLimited,
            ],
        }
    }

    fn takes(self, method: &Method) -> bool {
        lists(self.methods(), method)
    }
}

/// Request for one of the routes.
pub(super) struct Asked<'r> {
    pub(super) method: &'r Method,
    pub(super) uri: &'r Uri,
    pub(super) headers: &'r HeaderMap,
    pub(super) body: RequestBody,
    pub(super) peer: Option<IpAddr>,
}

impl Asked<'_> {
    /// Host and port that the request names; `None` if it names none, or several.
    fn authority(&self) -> Option<&str> {
        let mut hosts = self.headers.get_all(header::HOST).iter();
        let host = hosts.next().filter(|_| hosts.next().is_none());
        self.uri.authority().map(http::uri::Authority::as_str).or_else(|| host?.to_str().ok())
    }
}

/// Handler of the routes.
#[derive(Debug, Default)]
pub(super) struct ProtectedResourceRoutes {
    pools: PoolDocuments,
}

impl ProtectedResourceRoutes {
    /// Answers a request according to `rules`.
    ///
    /// # Errors
    /// [`AccountError`]: 404 if the file has no such resource or app client, 405, 429, 503 if Cognito's metadata is not
    /// available, and those of a body.
    pub(super) async fn answer(
        &self,
        context: &Arc<Context>,
        rules: &Ruleset,
        route: Route,
        asked: Asked<'_>,
    ) -> Result<Reply, AccountError> {
        if !route.takes(asked.method) {
            return Err(AccountError::method_not_allowed(route.methods()));
        }
        let not_found = || AccountError::not_found(route.not_found());
        let origin = rules.resources.of_host(asked.authority()).ok_or_else(not_found)?;
        match route {
            Route::Resource => {
                let resource = origin.described_at(asked.uri.path()).ok_or_else(not_found)?;
                Ok(Reply::success(200, documents::resource(origin, resource)))
            }
            Route::Server => self.server(context, rules, origin).await,
            Route::Registration => {
                context
                    .limits
                    .request(&context.address(asked.headers, asked.peer))
                    .map_err(AccountError::rate_limited)?;
                let client = origin.client.as_ref().ok_or_else(not_found)?;
                Ok(registration::register(client, &body::read(asked.headers, asked.body).await?))
            }
        }
    }

    async fn server(
        &self,
        context: &Arc<Context>,
        rules: &Ruleset,
        origin: &ResourceOrigin,
    ) -> Result<Reply, AccountError> {
        let endpoints = self.pools.of(context, rules, origin.pool).await.ok_or_else(AccountError::unavailable)?;
        Ok(Reply::success(200, documents::server(origin, &context.settings.prefix, &endpoints)))
    }
}
