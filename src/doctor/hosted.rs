//! The hosted sign-in pages, over the network: does the domain answer, and does it know the app client?
//!
//! The request is the one with which a browser begins a sign-in (RFC 6749 section 4.1.1). Cognito answers it with the
//! sign-in page or a redirect to it; it begins no session. A domain belongs to one pool, so it tells an app client of
//! another pool, which the user-pool API does not.

use serde_json::Value;
use url::Url;

use super::Report;
use super::cognito::sentence;
use super::http::{Client, Response};
use crate::config::account::AccountConfig;
use crate::jwks::hint;

/// Code challenge (RFC 7636 section 4.2) of an empty verifier, because app clients can require PKCE.
const CODE_CHALLENGE: &str = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU";

/// Examines the domain of the account API, if it has one.
pub(super) async fn examine(account: &AccountConfig, client: &Client, report: &mut Report) {
    let Some(hosted) = &account.settings.hosted_ui else { return };
    let place = "hosted pages";
    let domain = hosted.domain.0.host_str().unwrap_or_default();
    let id = account.settings.client_id.as_str();
    let scopes: Vec<&str> = hosted.scopes.iter().map(crate::account::Scope::as_str).collect();
    for uri in &hosted.redirect_uris {
        let mut url = hosted.domain.0.clone();
        url.set_path("/oauth2/authorize");
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", id)
            .append_pair("redirect_uri", uri.as_str())
            .append_pair("scope", &scopes.join(" "))
            .append_pair("state", "doctor")
            .append_pair("code_challenge", CODE_CHALLENGE)
            .append_pair("code_challenge_method", "S256");
        match client.get(url.clone()).await {
            Ok(response) => match refusal(&url, &response) {
                None => {
                    report.ok(place, format!("{domain} signs users in for {id}, and sends them to {}", uri.as_str()));
                }
                Some(error) => {
                    let uri = uri.as_str();
                    let what = format!("{domain} refuses a sign-in for the app client {id} and {uri}: {error}.");
                    let (pool, scopes) = (&account.pool.id, scopes.join(" "));
                    let fix = format!(
                        "Is {id} an app client of the pool that the domain belongs to ({pool}), with this callback \
                         URL, the code flow and the scopes {scopes}?"
                    );
                    report.error(place, what, "Users cannot sign in at the hosted pages.", fix);
                }
            },
            Err(error) => {
                let hint = sentence(&hint(&error, &account.pool));
                let fix = format!("Is {domain} the domain of the pool {}? {hint}", account.pool.id);
                let what = format!("{domain} does not answer: {error}.");
                report.error(place, what, "Users cannot sign in at the hosted pages.", fix);
                return;
            }
        }
    }
}

/// Returns the error that the pages answer with, if they do not offer a sign-in.
fn refusal(url: &Url, response: &Response) -> Option<String> {
    let body = || -> Option<String> {
        let body: Value = serde_json::from_slice(&response.body).ok()?;
        body.get("error").and_then(Value::as_str).map(str::to_owned)
    };
    match response.status {
        200 => body(),
        301..=308 => {
            let location = response.location.as_deref().and_then(|location| url.join(location).ok());
            let Some(location) = location else { return Some("a redirect without an address".into()) };
            // An error goes to the page `/error` of the domain, or to the application.
            let error = location.query_pairs().find(|(name, _)| name == "error").map(|(_, error)| error.into_owned());
            error.or_else(|| location.path().ends_with("/error").then(|| "an error page".to_owned()))
        }
        status => Some(body().unwrap_or_else(|| format!("status {status}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_from_a_sign_in_page() {
        let url: Url = "https://auth.example.com/oauth2/authorize?client_id=a".parse().unwrap();
        let answer = |status: u16, location: Option<&str>, body: &str| {
            let (location, body) = (location.map(str::to_owned), body.as_bytes().to_vec());
            refusal(&url, &Response { status, location, error_type: None, body, ahead: None })
        };
        assert_eq!(answer(302, Some("/login?client_id=a"), ""), None);
        assert_eq!(answer(302, Some("https://idp.example.com/saml"), ""), None, "a pool with one identity provider");
        assert_eq!(answer(200, None, "<html>sign in</html>"), None);
        assert_eq!(
            answer(302, Some("/error?error=redirect_mismatch&client_id=a"), "").as_deref(),
            Some("redirect_mismatch")
        );
        assert_eq!(answer(302, Some("/error"), "").as_deref(), Some("an error page"));
        assert_eq!(answer(302, Some("https://app.test/?error=invalid_scope"), "").as_deref(), Some("invalid_scope"));
        assert_eq!(answer(400, None, r#"{"error":"invalid_client"}"#).as_deref(), Some("invalid_client"));
        assert_eq!(answer(404, None, "<html>").as_deref(), Some("status 404"));
    }
}
