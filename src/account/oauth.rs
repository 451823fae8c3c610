//! Sign-in at Cognito's hosted pages, and through them at Google, Facebook, Apple, SAML and OIDC providers: the
//! authorization code grant with PKCE (RFC 6749 section 4.1, RFC 7636), following RFC 9700.
//!
//! `GET /oauth/authorize-url` returns the URL to send the browser to, with a state ([`state`]) and the challenge of a
//! new verifier. `POST /oauth/token` takes the parameters of the redirect, checks the state, and exchanges the code;
//! the app client's secret is added here. Redirect URIs are compared exactly with a list.

pub(crate) mod state;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Map;
use tokio::time::Instant;
use url::{Url, form_urlencoded};

use self::state::{Binding, LIFETIME, Purpose, States, Used, random};
use super::answer::Reply;
use super::body::Members;
use super::caller::Address;
use super::context::{Context, unix_now};
use super::error::{AccountError, Code};
use super::settings::{AppUri, HostedUi, Scope};
use super::table::Row;
use super::token_transport::TokenTransport;
use crate::cognito::error::{CognitoError, Outage};
use crate::cognito::oauth::CodeGrant;

/// Path below the prefix of the route that returns the URL of the hosted pages.
pub(super) const AUTHORIZE_PATH: &str = "/oauth/authorize-url";
/// Name of that route: value of the label `operation`, and `operationId`.
pub(super) const AUTHORIZE_NAME: &str = "oauth-authorize-url";

/// Parameters of that route: the redirect URI, and the identity provider.
pub(super) const PARAMETERS: [&str; 2] = ["redirectUri", "identityProvider"];

/// Sign-in to start at the hosted pages.
#[derive(Clone, Copy)]
pub(super) struct Authorization<'a> {
    pub(super) purpose: Purpose,
    /// URI that the code is sent to; one of the list.
    pub(super) redirect_uri: &'a str,
    /// Anything else that the state is bound to.
    pub(super) holder: &'a str,
    /// Name of an identity provider, whose page is shown directly.
    pub(super) provider: Option<&'a str>,
    /// `true` if a session at the hosted pages must not be enough (`prompt=login`).
    pub(super) login_again: bool,
}

/// Sign-in that was started. It has no `Debug`, because the verifier is secret.
pub(super) struct Begun {
    pub(super) url: Url,
    pub(super) state: String,
    pub(super) verifier: String,
}

/// Values that prove that a code belongs to a sign-in that was started here. It has no `Debug`, because the verifier is
/// secret.
#[derive(Clone, Copy)]
pub(super) struct Proof<'p> {
    pub(super) purpose: Purpose,
    pub(super) verifier: &'p str,
    pub(super) redirect_uri: &'p str,
    pub(super) holder: &'p str,
}

/// Failed exchange of a code.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub(super) error: AccountError,
    /// `true` if the same request can still succeed, because the code was not sent.
    pub(super) can_retry: bool,
}

/// Handler of sign-ins at the hosted pages.
#[derive(Debug)]
pub(super) struct Oauth {
    settings: HostedUi,
    states: States,
}

impl Oauth {
    pub(super) fn new(settings: HostedUi) -> Self {
        Self { states: States::new(&settings.state_key), settings }
    }

    /// Returns the URL that ends the session at the hosted pages; only the browser can request it. `asked` is the page
    /// that the browser wants to be sent to afterwards.
    ///
    /// # Errors
    /// [`AccountError`] 400 for a page that is not on the list.
    pub(super) fn logout_url(&self, client: &str, asked: Option<&str>) -> Result<Option<Url>, AccountError> {
        let listed = &self.settings.logout_uris;
        let target = match asked {
            None => listed.first(),
            Some(asked) => {
                let found = listed.iter().find(|uri| uri.as_str() == asked);
                Some(found.ok_or_else(|| not_listed("logoutUri", "--oauth-logout-uris"))?)
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
        found.map(AppUri::as_str).ok_or_else(|| not_listed("redirectUri", "--oauth-redirect-uris"))
    }

    /// Returns the URL of the hosted pages that a sign-in starts at.
    ///
    /// # Errors
    /// [`AccountError`]: 400 for a query that is not valid, 403 for a page that must not use cookies, 429.
    pub(super) fn authorize_url(
        &self,
        context: &Context,
        query: &str,
        address: &Address,
        transport: &TokenTransport<'_>,
    ) -> Result<Reply, AccountError> {
        transport.reject_cross_site_start(&context.settings.cors)?;
        context.limits.request(address).map_err(AccountError::rate_limited)?;
        let asked = parameter(query, "redirectUri")?;
        let asked = asked.ok_or_else(|| AccountError::invalid_member("redirectUri", "redirectUri is required"))?;
        let redirect_uri = self.redirect_uri(&asked)?;
        let provider = parameter(query, "identityProvider")?;
        // Names of providers have 1 to 32 characters. Cognito checks that the provider exists.
        if provider.as_ref().is_some_and(|name| name.chars().count() > 32 || name.chars().any(char::is_control)) {
            let message = "identityProvider has to be a provider's name: at most 32 characters, no control character";
            return Err(AccountError::invalid_member("identityProvider", message));
        }
        let (browser, cookies) = transport.begin_in_browser()?;
        let provider = provider.as_deref();
        let asked =
            Authorization { purpose: Purpose::Script, redirect_uri, holder: &browser, provider, login_again: false };
        let Begun { url, state, verifier } = self.begin(context.settings.client_id.as_str(), &asked)?;
        let body = [("url", url.into()), ("state", state), ("codeVerifier", verifier)];
        let body: Map<_, _> = body.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect();
        Ok(Reply { cookies, ..Reply::success(200, body) })
    }

    /// Makes the URL of the hosted pages that a sign-in starts at, with a new state and a new verifier.
    ///
    /// # Errors
    /// [`AccountError`] 503 if the system has no random numbers at the moment.
    pub(super) fn begin(&self, client: &str, asked: &Authorization<'_>) -> Result<Begun, AccountError> {
        let Authorization { purpose, redirect_uri, holder, provider, login_again } = *asked;
        let verifier = URL_SAFE_NO_PAD.encode(random::<32>()?);
        let challenge = challenge(&verifier);
        let binding = Binding { purpose, challenge: &challenge, redirect_uri, holder };
        let state = self.states.issue(&binding, unix_now().saturating_add(LIFETIME))?;

        let mut url = self.settings.domain.0.clone();
        url.set_path("/oauth2/authorize");
        let scopes: Vec<&str> = self.settings.scopes.iter().map(|Scope(scope)| &**scope).collect();
        let mut pairs = url.query_pairs_mut();
        pairs
            .append_pair("response_type", "code")
            .append_pair("client_id", client)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("state", &state)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        if !scopes.is_empty() {
            pairs.append_pair("scope", &scopes.join(" "));
        }
        if let Some(provider) = provider {
            pairs.append_pair("identity_provider", provider);
        }
        if login_again {
            pairs.append_pair("prompt", "login");
        }
        drop(pairs);
        Ok(Begun { url, state, verifier })
    }

    /// Exchanges a code for tokens.
    ///
    /// # Errors
    /// [`AccountError`]: 400 for a state, a URI or a code that is not valid; otherwise the translation of Cognito's
    /// error.
    pub(super) async fn exchange(
        &self,
        context: &Context,
        row: &'static Row,
        members: &Members,
        transport: &TokenTransport<'_>,
        deadline: Instant,
    ) -> Result<Reply, AccountError> {
        let text = |name| members.text(name).unwrap_or_default();
        let redirect_uri = self.redirect_uri(text("redirectUri"))?;
        let refused = || AccountError::new(row.refusal, Code::InvalidState);
        let holder = &*transport.browser()?.ok_or_else(refused)?;
        let proof = Proof { purpose: Purpose::Script, verifier: text("codeVerifier"), redirect_uri, holder };
        let used = self.use_up(text("state"), &proof).ok_or_else(refused)?;
        let exchanged = self.exchange_code(context, row, text("code"), &proof, &used, deadline).await;
        exchanged.map_err(|unfinished| unfinished.error)
    }

    /// Uses up a state, before any call of Cognito, so that a second request with it makes no call. Only a client that
    /// knows the verifier can use it up. Returns `None` for a state that is not valid.
    pub(super) fn use_up(&self, state: &str, proof: &Proof<'_>) -> Option<Used> {
        let Proof { purpose, verifier, redirect_uri, holder } = *proof;
        let binding = Binding { purpose, challenge: &challenge(verifier), redirect_uri, holder };
        self.states.redeem(state, &binding, unix_now())
    }

    /// Exchanges a code for tokens. If the code was not sent, the state becomes valid again.
    ///
    /// # Errors
    /// [`Unfinished`].
    pub(super) async fn exchange_code(
        &self,
        context: &Context,
        row: &'static Row,
        code: &str,
        proof: &Proof<'_>,
        used: &Used,
        deadline: Instant,
    ) -> Result<Reply, Unfinished> {
        let grant = CodeGrant { code, verifier: proof.verifier, redirect_uri: proof.redirect_uri };
        let (result, can_retry) = match context.client.exchange_code(&self.settings.domain.0, &grant, deadline).await {
            Ok(answer) => (context.tokens_or_challenge(&answer, None, deadline).await, false),
            Err(error) => {
                let was_sent = !matches!(error, CognitoError::Unavailable(Outage::Connect | Outage::CircuitOpen));
                if !was_sent {
                    self.states.give_back(used);
                }
                (context.settle(row, &error, false), !was_sent)
            }
        };
        result.map_err(|error| Unfinished { error, can_retry })
    }

    /// Origin of the hosted pages.
    pub(super) fn origin(&self) -> String {
        self.settings.domain.0.origin().ascii_serialization()
    }
}

/// 400 for a URI that is not one of an option's.
fn not_listed(field: &'static str, option: &str) -> AccountError {
    AccountError::invalid_member(field, format!("{field} has to be one of {option}, character for character"))
}

/// Computes the S256 challenge of a verifier (RFC 7636 section 4.2).
fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

/// Returns a parameter of a query. An empty parameter counts as absent; a repeated one is an error.
pub(super) fn parameter(query: &str, name: &'static str) -> Result<Option<String>, AccountError> {
    let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(other, _)| other == name);
    let value = values.next().map(|(_, value)| value.into_owned());
    if values.next().is_some() {
        return Err(AccountError::invalid_member(name, format!("{name} is there twice; send it once")));
    }
    Ok(value.filter(|value| !value.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_s256() {
        // RFC 7636, appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(challenge(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn repeated_parameters_are_rejected() {
        assert_eq!(parameter("a=1&b=%2F%20c+d", "b").unwrap().as_deref(), Some("/ c d"));
        assert_eq!(parameter("a=1&b=", "b").unwrap(), None);
        assert_eq!(parameter("", "b").unwrap(), None);
        assert_eq!(parameter("b=1&b=1", "b").unwrap_err().message, "b is there twice; send it once");
    }
}
