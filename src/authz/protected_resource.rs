//! Protected resources (RFC 9728): what clients such as MCP clients may learn about a resource before they have a token.
//!
//! The policy file lists them. Their policies refer to their metadata in challenges; the account API serves the metadata.
//! Start from [`ProtectedResources::of_host`].

use url::Url;

use crate::user_pool::{ClientId, PoolIndex};

/// Path of a resource's metadata, in front of the path of the resource (RFC 9728 section 3.1).
pub(crate) const METADATA_PATH: &str = "/.well-known/oauth-protected-resource";

/// Resource that a client asks for tokens for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProtectedResource {
    /// Identifier (RFC 9728 section 1.2), as the operator wrote it.
    pub(crate) identifier: Box<str>,
    /// Path of the identifier; empty if it has none, or if it is `/`.
    pub(crate) path: Box<str>,
    /// Name to show to users.
    pub(crate) name: Option<Box<str>>,
    /// Scopes that a client may need.
    pub(crate) scopes: Vec<Box<str>>,
}

/// Public app client that registration returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicClient {
    /// App client.
    pub(crate) id: ClientId,
    /// URIs that codes may be sent to. They are compared as text.
    pub(crate) redirect_uris: Vec<Box<str>>,
}

/// Origin with at least one protected resource. As an authorization server (RFC 8414) it stands for one user pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResourceOrigin {
    /// Scheme, host and port, without a trailing slash.
    pub(crate) origin: Box<str>,
    host: Box<str>,
    port: u16,
    /// Port that a `Host` without one means.
    default_port: u16,
    /// Pool whose sign-in pages clients use.
    pub(crate) pool: PoolIndex,
    /// App client for clients that register; `None` if they cannot.
    pub(crate) client: Option<PublicClient>,
    /// Resources of the origin, in the order of the file.
    pub(crate) resources: Vec<ProtectedResource>,
}

impl ResourceOrigin {
    /// Creates the origin of `url`, without resources.
    pub(crate) fn new(url: &Url, pool: PoolIndex, client: Option<PublicClient>) -> Self {
        let default_port = if url.scheme() == "http" { 80 } else { 443 };
        Self {
            origin: url.origin().ascii_serialization().into(),
            host: url.host_str().unwrap_or_default().into(),
            port: url.port().unwrap_or(default_port),
            default_port,
            pool,
            client,
            resources: Vec::new(),
        }
    }

    /// Returns host and port. `Host` cannot tell two origins apart that have the same: they differ at most in the scheme.
    pub(crate) fn address(&self) -> (Box<str>, u16) {
        (self.host.clone(), self.port)
    }

    /// `true` if `authority` (`Host`, RFC 9110 section 7.2) names this host and port.
    fn is_named_by(&self, authority: &str) -> bool {
        let (host, port) = match authority.rsplit_once(':') {
            // A colon within brackets is part of an IPv6 address.
            Some((host, port)) if !port.ends_with(']') => (host, port),
            _ => (authority, ""),
        };
        let port = match port {
            "" => Some(self.default_port),
            // `parse` would accept a sign.
            port if port.bytes().all(|b| b.is_ascii_digit()) => port.parse().ok(),
            _ => None,
        };
        host.eq_ignore_ascii_case(&self.host) && port == Some(self.port)
    }

    /// Returns the resource whose metadata has this path: [`METADATA_PATH`] with the path of the resource. The path without
    /// one also stands for the only resource of the origin.
    pub(crate) fn described_at(&self, path: &str) -> Option<&ProtectedResource> {
        let rest = path.strip_prefix(METADATA_PATH)?;
        let exact = self.resources.iter().find(|resource| *resource.path == *rest);
        let only = match self.resources.as_slice() {
            [only] if rest.is_empty() => Some(only),
            _ => None,
        };
        exact.or(only)
    }
}

/// All protected resources, by origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProtectedResources(Vec<ResourceOrigin>);

impl ProtectedResources {
    /// Creates the set.
    pub(crate) fn new(origins: Vec<ResourceOrigin>) -> Self {
        Self(origins)
    }

    /// `true` if there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All origins.
    pub(crate) fn origins(&self) -> impl Iterator<Item = &ResourceOrigin> {
        self.0.iter()
    }

    /// Returns the origin that `authority` names. If all resources have one origin, that one, because a proxy may rewrite
    /// `Host`. The text selects among the origins of the file; nothing is made from it.
    pub(crate) fn of_host(&self, authority: Option<&str>) -> Option<&ResourceOrigin> {
        let named = authority.and_then(|authority| self.0.iter().find(|origin| origin.is_named_by(authority)));
        let only = match self.0.as_slice() {
            [only] => Some(only),
            _ => None,
        };
        named.or(only)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str, paths: &[&str]) -> ResourceOrigin {
        let mut origin = ResourceOrigin::new(&url.parse().unwrap(), 0, None);
        origin.resources = paths
            .iter()
            .map(|path| ProtectedResource {
                identifier: format!("{url}{path}").into(),
                path: (*path).into(),
                name: None,
                scopes: Vec::new(),
            })
            .collect();
        origin
    }

    #[test]
    fn a_host_selects_among_the_origins() {
        let urls = ["https://a.example", "https://a.example:8443", "http://localhost:8080", "http://[::1]"];
        let all = ProtectedResources::new(urls.iter().map(|url| origin(url, &[])).collect());
        let found = |host: &str| all.of_host(Some(host)).map(|origin| origin.origin.to_string());
        for (host, expected) in [
            ("a.example", Some("https://a.example")),
            ("A.EXAMPLE", Some("https://a.example")),
            ("a.example:", Some("https://a.example")),
            ("a.example:443", Some("https://a.example")),
            ("a.example:8443", Some("https://a.example:8443")),
            ("localhost:8080", Some("http://localhost:8080")),
            ("[::1]", Some("http://[::1]")),
            ("[::1]:80", Some("http://[::1]")),
            ("a.example:80", None),
            ("a.example:+443", None),
            ("a.example.", None),
            ("a.example:443:443", None),
            ("a.example:99999", None),
            ("localhost", None),
            ("[::1", None),
            ("::1", None),
            ("b.example", None),
            ("https://a.example", None),
            ("a.example, a.example", None),
            ("", None),
            (":443", None),
        ] {
            assert_eq!(found(host).as_deref(), expected, "{host}");
        }
        assert!(all.of_host(None).is_none());
        let one = ProtectedResources::new(vec![origin("https://a.example", &[])]);
        assert!(one.of_host(None).is_some() && one.of_host(Some("inside:9192")).is_some());
        assert!(ProtectedResources::default().of_host(Some("a.example")).is_none());
    }

    #[test]
    fn metadata_has_the_path_of_the_resource() {
        let found = |paths: &[&str], path: &str| {
            origin("https://a.example", paths).described_at(path).map(|resource| resource.path.to_string())
        };
        let root = METADATA_PATH;
        for (paths, path, expected) in [
            (&["/mcp"][..], format!("{root}/mcp"), Some("/mcp")),
            (&["/mcp"], root.to_owned(), Some("/mcp")),
            (&["/mcp"], format!("{root}/"), None),
            (&["/mcp"], format!("{root}/mcp/"), None),
            (&["/mcp"], format!("{root}/MCP"), None),
            (&["/mcp"], format!("{root}mcp"), None),
            (&["/mcp/"], format!("{root}/mcp/"), Some("/mcp/")),
            (&["/mcp", "/other"], root.to_owned(), None),
            (&["/mcp", "/other"], format!("{root}/other"), Some("/other")),
            (&["/mcp", ""], root.to_owned(), Some("")),
            (&["/mcp"], "/mcp".to_owned(), None),
        ] {
            assert_eq!(found(paths, &path).as_deref(), expected, "{paths:?} {path}");
        }
    }
}
