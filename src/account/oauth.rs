//! Signing in at Cognito's hosted pages, and by them at Google, Facebook, Apple, SAML and OIDC providers: the
//! authorization code grant with PKCE (RFC 6749 section 4.1, RFC 7636), as RFC 9700 wants it.
//!
//! `GET /oauth/authorize-url` makes the URL that the browser goes to, with a state ([`state`]) and the challenge of a new
//! verifier. `POST /oauth/token` takes what came back to the redirect URI, checks the state, and exchanges the code; the
//! client's secret is added on the way. Where a code may be sent is a list of exact URIs.

pub mod state;

use std::str::FromStr;

use aws_lc_rs::{digest, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use tokio::time::Instant;
use url::{Host, Url, form_urlencoded};

use self::state::{Bound, LIFETIME, StateKey, States};
use super::address::Address;
use super::body::Members;
use super::carrier::Carrier;
use super::error::{AccountError, Code};
use super::table::Row;
use super::{Account, Reply, unix_now};
use crate::cognito::error::{CognitoError, Outage};
use crate::cognito::oauth::CodeGrant;

/// Where the URL to sign in at is made, below the prefix.
pub const AUTHORIZE_PATH: &str = "/oauth/authorize-url";
/// Its label of `operation`, and its `operationId`.
pub const AUTHORIZE_NAME: &str = "oauth-authorize-url";

/// The hosted pages of a pool, and how they are used.
#[derive(Clone, Debug)]
pub struct HostedUi {
    /// Where they are.
    pub domain: HostedUiDomain,
    /// Where codes may be sent.
    pub redirect_uris: Vec<AppUri>,
    /// Where the browser may be sent after signing out.
    pub logout_uris: Vec<AppUri>,
    /// What tokens are asked to be good for.
    pub scopes: Vec<Scope>,
    /// What states are proven with.
    pub state_key: StateKey,
}

/// The domain of hosted pages: `auth.example.com`, or an origin such as `https://auth.example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostedUiDomain(pub Url);

impl FromStr for HostedUiDomain {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "not a domain such as auth.example.com";
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let url = Url::parse(&with_scheme).map_err(|_| wrong)?;
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        let is_nobodys = url.username().is_empty() && url.password().is_none();
        let is_web = matches!(url.scheme(), "https" | "http") && url.has_host();
        if is_web && is_bare && is_nobodys { Ok(Self(url)) } else { Err(wrong) }
    }
}

/// A URI of an application, as it is registered with the app client: `https://…`, `http://localhost…`, or one with a
/// scheme of its own (`com.example.app://callback`). It is compared as text, and kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppUri(Box<str>);

impl AppUri {
    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AppUri {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|_| "not a URI such as https://app.example.com/callback")?;
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

/// A scope (RFC 6749 section 3.3): one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope(Box<str>);

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

/// The hosted pages with their states.
#[derive(Debug)]
pub(super) struct Oauth {
    settings: HostedUi,
    states: States,
}

impl Oauth {
    pub(super) fn new(settings: HostedUi) -> Self {
        Self { states: States::new(&settings.state_key), settings }
    }

    /// Where the session at the hosted pages is ended; the browser has to go there. `asked` is where it then wants to be.
    ///
    /// # Errors
    /// [`AccountError`] 400 for a place that is not on the list.
    pub(super) fn logout_url(&self, client: &str, asked: Option<&str>) -> Result<Option<Url>, AccountError> {
        let listed = &self.settings.logout_uris;
        let target = match asked {
            None => listed.first(),
            Some(asked) => {
                let found = listed.iter().find(|uri| uri.as_str() == asked);
                Some(found.ok_or_else(|| AccountError::invalid_request("logoutUri is not allowed"))?)
            }
        };
        Ok(target.map(|target| {
            let mut url = self.settings.domain.0.clone();
            url.set_path("/logout");
            url.query_pairs_mut().append_pair("client_id", client).append_pair("logout_uri", target.as_str());
            url
        }))
    }

    fn redirect_uri(&self, asked: &str) -> Result<&str, AccountError> {
        let found = self.settings.redirect_uris.iter().find(|uri| uri.as_str() == asked);
        found.map(AppUri::as_str).ok_or_else(|| AccountError::invalid_request("redirectUri is not allowed"))
    }
}

impl Account {
    /// The URL at which a sign-in begins.
    ///
    /// # Errors
    /// [`AccountError`]: 400 for a query that is not what it has to be, 403 for a page that may not use cookies, 429.
    pub(super) fn authorize_url(
        &self,
        oauth: &Oauth,
        query: &str,
        address: &Address,
        carrier: &Carrier<'_>,
    ) -> Result<Reply, AccountError> {
        self.guard_beginning(carrier)?;
        self.limits.request(address).map_err(AccountError::rate_limited)?;
        let asked = parameter(query, "redirectUri")?;
        let asked = asked.ok_or_else(|| AccountError::invalid_request("redirectUri is required"))?;
        let redirect_uri = oauth.redirect_uri(&asked)?;
        let provider = parameter(query, "identityProvider")?;
        // Cognito's names are 1 to 32 characters; whether there is one of this name it says itself.
        if provider.as_ref().is_some_and(|name| name.chars().count() > 32 || name.chars().any(char::is_control)) {
            return Err(AccountError::invalid_request("identityProvider is not a provider's name"));
        }
        let (browser, cookies) = carrier.begin_in_browser()?;
        let verifier = URL_SAFE_NO_PAD.encode(random::<32>()?);
        let challenge = challenge(&verifier);
        let bound = Bound { challenge: &challenge, redirect_uri, browser: &browser };
        let state = oauth.states.issue(&bound, unix_now().saturating_add(LIFETIME))?;

        let mut url = oauth.settings.domain.0.clone();
        url.set_path("/oauth2/authorize");
        let scopes: Vec<&str> = oauth.settings.scopes.iter().map(|Scope(scope)| &**scope).collect();
        let mut pairs = url.query_pairs_mut();
        pairs
            .append_pair("response_type", "code")
            .append_pair("client_id", self.settings.client_id.as_str())
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("state", &state)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        if !scopes.is_empty() {
            pairs.append_pair("scope", &scopes.join(" "));
        }
        if let Some(provider) = provider {
            pairs.append_pair("identity_provider", &provider);
        }
        drop(pairs);
        let body = json!({"url": url.as_str(), "state": state, "codeVerifier": verifier});
        Ok(Reply { cookies, ..Reply::new(200, "success", body) })
    }

    /// Exchanges a code for tokens.
    ///
    /// # Errors
    /// [`AccountError`]: 400 for a state, a URI or a code that is not good; what Cognito's failures are.
    pub(super) async fn oauth_token(
        &self,
        oauth: &Oauth,
        row: &'static Row,
        members: &Members,
        carrier: &Carrier<'_>,
        deadline: Instant,
    ) -> Result<Reply, AccountError> {
        let text = |name| members.text(name).unwrap_or_default();
        let redirect_uri = oauth.redirect_uri(text("redirectUri"))?;
        let verifier = text("codeVerifier");
        let refused = || AccountError::new(row.refusal, Code::InvalidState);
        let bound =
            Bound { challenge: &challenge(verifier), redirect_uri, browser: &carrier.browser()?.ok_or_else(refused)? };
        // Used up by whoever knows the verifier, before Cognito is asked: a second request does not get there.
        let used = oauth.states.redeem(text("state"), &bound, unix_now()).ok_or_else(refused)?;
        let grant = CodeGrant { code: text("code"), verifier, redirect_uri };
        match self.client.exchange_code(&oauth.settings.domain.0, &grant, deadline).await {
            Ok(answer) => self.tokens_or_challenge(&answer, None, deadline).await,
            Err(error) => {
                // Nothing was asked, so the code is as good as before.
                if let CognitoError::Unavailable(Outage::Connect | Outage::CircuitOpen) = error {
                    oauth.states.give_back(&used);
                }
                self.settle(row, &error, false)
            }
        }
    }
}

/// S256 (RFC 7636 section 4.2).
fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

/// Bytes that nobody can guess.
///
/// # Errors
/// [`AccountError`] 503: the system has none at the moment.
pub(super) fn random<const N: usize>() -> Result<[u8; N], AccountError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| AccountError::unavailable())?;
    Ok(bytes)
}

/// A parameter of a query. An empty one is not there; one that is there twice is refused.
fn parameter(query: &str, name: &str) -> Result<Option<String>, AccountError> {
    let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(other, _)| other == name);
    let value = values.next().map(|(_, value)| value.into_owned());
    if values.next().is_some() {
        return Err(AccountError::invalid_request(format!("{name} is there twice")));
    }
    Ok(value.filter(|value| !value.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_and_uris() {
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
        for bad in
            ["", "/callback", "app.example.com", "http://app.example.com/", "https://a/#x", "javascript:alert(1)"]
        {
            assert!(bad.parse::<AppUri>().is_err(), "{bad}");
        }
        assert!("openid".parse::<Scope>().is_ok() && "https://api.example.com/orders.read".parse::<Scope>().is_ok());
        assert!("".parse::<Scope>().is_err() && "open id".parse::<Scope>().is_err());
    }

    #[test]
    fn a_challenge_is_s256() {
        // RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(challenge(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn parameters_are_there_once() {
        assert_eq!(parameter("a=1&b=%2F%20c+d", "b").unwrap().as_deref(), Some("/ c d"));
        assert_eq!(parameter("a=1&b=", "b").unwrap(), None);
        assert_eq!(parameter("", "b").unwrap(), None);
        assert_eq!(parameter("b=1&b=1", "b").unwrap_err().message, "b is there twice");
    }
}
