//! Settings of the account API, and the types of their values.

use std::str::FromStr;
use std::time::Duration;

use percent_encoding::utf8_percent_encode;
use url::{Host, Url};

use super::browser::Place;
use super::call::Allowed;
use super::cors::Cors;
use super::oauth::state::StateKey;
use super::rate_limit::Rates;
use crate::authz::sign_in::ENCODED;
use crate::session_cookie::SameSite;
use crate::user_pool::ClientId;

/// Settings of the account API.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the pool whose users it serves.
    pub pool: Box<str>,
    /// Path prefix of its routes.
    pub prefix: Prefix,
    /// App client that it calls Cognito for.
    pub client_id: ClientId,
    /// Number of trusted proxies in front; `None` if `X-Forwarded-For` is not trusted.
    pub trusted_hops: Option<usize>,
    /// Other origins whose pages may use it.
    pub cors: Cors,
    /// Values of callers that are passed on to Cognito.
    pub allowed: Allowed,
    /// Operation of Cognito that refreshes tokens.
    pub refresh_flow: RefreshFlow,
    /// Rate limits.
    pub rates: Rates,
    /// Minimum duration of responses that must not reveal whether a user exists.
    pub min_failure_time: Duration,
    /// `true` if responses must not reveal whether an account exists, even if user interfaces could use that.
    pub hide_users: bool,
    /// Issuer name that authenticator apps show.
    pub totp_issuer: Issuer,
    /// `false` if that name is the default of the realm, because neither is configured.
    pub is_issuer_chosen: bool,
    /// `realm` of `WWW-Authenticate` challenges.
    pub realm: Box<str>,
    /// Hosted sign-in pages, if they are used.
    pub hosted_ui: Option<HostedUi>,
    /// Browser sessions, if they are enabled.
    pub cookies: Option<Cookies>,
}

impl Settings {
    /// `true` if the routes of the sign-in by redirect exist.
    pub(super) fn signs_in_by_redirect(&self) -> bool {
        let has_callback = |hosted: &HostedUi| hosted.callbacks(&self.prefix).next().is_some();
        self.cookies.is_some() && self.hosted_ui.as_ref().is_some_and(has_callback)
    }
}

/// Operation of Cognito that refreshes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshFlow {
    /// `GetTokensFromRefreshToken`, with or without rotation of refresh tokens.
    Tokens,
    /// `InitiateAuth` with the flow `REFRESH_TOKEN_AUTH`.
    Auth,
}

/// Settings of browser sessions.
#[derive(Clone, Copy, Debug)]
pub struct Cookies {
    /// Lifetime of the refresh cookie in seconds; `None` for a cookie that the browser deletes when it closes.
    pub max_age: Option<u64>,
    /// Requests from other sites that carry the cookies of the tokens.
    pub same_site: SameSite,
}

/// Path prefix of the account API's routes, such as `/auth`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(Box<str>);

impl Prefix {
    /// The prefix, without a trailing slash.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the part of `path` after the prefix, with its slash; `None` if the path is not below the prefix.
    pub(super) fn strip<'p>(&self, path: &'p str) -> Option<&'p str> {
        path.strip_prefix(&*self.0).filter(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for Prefix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b);
        let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(plain);
        match text.strip_prefix('/') {
            Some(rest) if text.len() <= 128 && rest.split('/').all(is_segment) => Ok(Self(text.into())),
            _ => Err("not a path such as /auth"),
        }
    }
}

/// Issuer name that authenticator apps show next to the account: 1 to 64 characters, without a colon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer(Box<str>);

impl FromStr for Issuer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The label in the URL is issuer, colon, account.
        let is_name = (1..=64).contains(&text.chars().count()) && text == text.trim();
        if is_name && !text.chars().any(|c| c == ':' || c.is_control()) {
            Ok(Self(text.into()))
        } else {
            Err("not a name of at most 64 characters without a colon")
        }
    }
}

impl Issuer {
    /// Returns `issuer`, or else a name made from `other`: without colons, at most 64 characters.
    pub(crate) fn or(issuer: Option<Self>, other: &str) -> Self {
        issuer.unwrap_or_else(|| Self(other.chars().filter(|c| *c != ':').take(64).collect()))
    }

    /// Returns `otpauth://totp/…` for a secret, in the Key Uri Format of Google Authenticator, which all authenticator
    /// apps read. Algorithm, digits and period are the format's defaults, which Cognito
    /// uses.
    pub(super) fn url(&self, account: Option<&str>, secret: &str) -> String {
        let encoded = |text| utf8_percent_encode(text, ENCODED).to_string();
        let issuer = encoded(&self.0);
        let account = account.map(|account| format!(":{}", encoded(account))).unwrap_or_default();
        format!("otpauth://totp/{issuer}{account}?secret={}&issuer={issuer}", encoded(secret))
    }
}

/// Settings of the hosted pages of a pool.
#[derive(Clone, Debug)]
pub struct HostedUi {
    /// Domain of the hosted pages.
    pub domain: HostedUiDomain,
    /// URIs that codes may be sent to.
    pub redirect_uris: Vec<AppUri>,
    /// URIs that the browser may be sent to after signing out. The first is the default.
    pub logout_uris: Vec<AppUri>,
    /// Scopes to request.
    pub scopes: Vec<Scope>,
    /// Key that authenticates states.
    pub state_key: StateKey,
}

impl HostedUi {
    /// Returns the URIs that lead to the account API itself. With at least one of them, and with cookies, the routes of
    /// the sign-in by redirect exist.
    pub(crate) fn callbacks(&self, prefix: &Prefix) -> impl Iterator<Item = &AppUri> {
        self.redirect_uris.iter().filter(move |uri| uri.is_callback(prefix))
    }
}

/// Domain of hosted pages: `auth.example.com`, or an origin such as `https://auth.example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostedUiDomain(pub Url);

impl FromStr for HostedUiDomain {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "not a domain such as auth.example.com";
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let url = Url::parse(&with_scheme).map_err(|_| wrong)?;
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let has_no_user = url.username().is_empty() && url.password().is_none();
        let is_web = matches!(url.scheme(), "https" | "http") && url.has_host();
        if is_web && is_bare && has_no_user { Ok(Self(url)) } else { Err(wrong) }
    }
}

/// URI of an application, as it is registered with the app client: `https://…`, `http://localhost…`, or one with a
/// private-use scheme (`com.example.app://callback`). It is compared as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppUri(Box<str>);

impl AppUri {
    /// The URI as the operator wrote it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// `true` if this is the callback route of an account API with this prefix: a web address whose path is exactly
    /// `PREFIX/oauth/callback`.
    pub(crate) fn is_callback(&self, prefix: &Prefix) -> bool {
        Url::parse(&self.0).is_ok_and(|url| {
            let path = url.path().strip_prefix(prefix.as_str());
            matches!(url.scheme(), "https" | "http") && path == Some(Place::Callback.path())
        })
    }
}

impl FromStr for AppUri {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "not a URI such as https://app.example.com/callback";
        // The parser would remove white space, with which the URI equals no other.
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(wrong);
        }
        let url = Url::parse(text).map_err(|_| wrong)?;
        if url.fragment().is_some() {
            return Err("such a URI has no fragment");
        }
        let is_local = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        match url.scheme() {
            "http" if !is_local => Err("plain http is for this machine only"),
            "javascript" | "data" | "file" | "blob" | "about" | "vbscript" => Err("not the scheme of an application"),
            _ => Ok(Self(text.into())),
        }
    }
}

/// Scope (RFC 6749 section 3.3): one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(pub(super) Box<str>);

impl Scope {
    /// Scope as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Scope {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_word = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
        if !text.is_empty() && text.len() <= 256 && text.bytes().all(is_word) {
            Ok(Self(text.into()))
        } else {
            Err("a scope is one word, such as openid")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        for good in ["/auth", "/api/v1/auth", "/a-b_c.d~e"] {
            assert!(good.parse::<Prefix>().is_ok(), "{good}");
        }
        for bad in ["", "/", "auth", "/auth/", "//auth", "/a b", "/a/../b", "/a?b", "/ä", "/%61"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
        let prefix: Prefix = "/auth".parse().unwrap();
        for (path, rest) in [
            ("/auth/login", Some("/login")),
            ("/auth", Some("")),
            ("/auth/", Some("/")),
            ("/authors", None),
            ("/metrics", None),
            ("/x/auth/login", None),
        ] {
            assert_eq!(prefix.strip(path), rest, "{path}");
        }
    }

    #[test]
    fn otpauth_urls_are_encoded() {
        let issuer: Issuer = "Big & Söhne".parse().unwrap();
        assert_eq!(
            issuer.url(Some("ada+x:1@example.com"), "JBSWY3DPEHPK3PXP"),
            "otpauth://totp/Big%20%26%20S%C3%B6hne:ada%2Bx%3A1%40example.com?secret=JBSWY3DPEHPK3PXP&issuer=Big%20%26%20S%C3%B6hne"
        );
        assert_eq!(issuer.url(None, "A&B").matches('&').count(), 1, "nothing in it changes another part");
        assert_eq!(Issuer::or(None, "a:b"), Issuer("ab".into()));
        for bad in ["", " a", "a:b", "a\nb", &"a".repeat(65)] {
            assert!(bad.parse::<Issuer>().is_err(), "{bad}");
        }
    }

    #[test]
    fn domains_uris_and_scopes() {
        for (text, url) in [
            ("auth.example.com", Some("https://auth.example.com/")),
            ("https://auth.example.com", Some("https://auth.example.com/")),
            ("https://auth.example.com/", Some("https://auth.example.com/")),
            ("http://127.0.0.1:4566", Some("http://127.0.0.1:4566/")),
            ("localhost:4566", Some("https://localhost:4566/")),
            ("", None),
            ("https://", None),
            ("https://auth.example.com/x", None),
            ("https://auth.example.com?x", None),
            ("https://u:p@auth.example.com", None),
            ("ftp://auth.example.com", None),
            ("auth example", None),
        ] {
            let found = text.parse::<HostedUiDomain>().ok().map(|domain| domain.0.to_string());
            assert_eq!(found.as_deref(), url, "{text}");
        }
        for good in [
            "https://app.example.com/callback",
            "https://app.example.com",
            "http://localhost:3000/",
            "http://127.0.0.1/x?y=z",
            "http://[::1]:1/",
            "com.example.app://callback",
        ] {
            assert_eq!(good.parse::<AppUri>().map(|uri| uri.as_str().to_owned()), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "/callback",
            " https://a/",
            "https://a/\n",
            "app.example.com",
            "http://app.example.com/",
            "https://a/#x",
            "javascript:alert(1)",
        ] {
            assert!(bad.parse::<AppUri>().is_err(), "{bad}");
        }
        for (uri, prefix, expected) in [
            ("https://app.example.com/auth/oauth/callback", "/auth", true),
            ("https://app.example.com:8443/auth/oauth/callback?tenant=a", "/auth", true),
            ("http://localhost:3000/auth/oauth/callback", "/auth", true),
            ("https://app.example.com/api/auth/oauth/callback", "/api/auth", true),
            ("https://app.example.com/auth/oauth/callback/", "/auth", false),
            ("https://app.example.com/auth/oauth/callback2", "/auth", false),
            ("https://app.example.com/x/auth/oauth/callback", "/auth", false),
            ("https://app.example.com/oauth/callback", "/auth", false),
            ("https://app.example.com/AUTH/oauth/callback", "/auth", false),
            ("https://app.example.com/callback?/auth/oauth/callback", "/auth", false),
            ("com.example.app://host/auth/oauth/callback", "/auth", false),
        ] {
            let (uri, prefix): (AppUri, Prefix) = (uri.parse().unwrap(), prefix.parse().unwrap());
            assert_eq!(uri.is_callback(&prefix), expected, "{} {}", uri.as_str(), prefix.as_str());
        }
        assert!("openid".parse::<Scope>().is_ok() && "https://api.example.com/orders.read".parse::<Scope>().is_ok());
        assert!("".parse::<Scope>().is_err() && "open id".parse::<Scope>().is_err());
    }
}
