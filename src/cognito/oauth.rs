//! Token endpoint of Cognito's hosted sign-in pages (RFC 6749 section 4.1.3): exchanges an authorization code for
//! tokens.
//!
//! Host and protocol differ from the user-pool API, but the same rules apply: a deadline, the circuit breaker, no
//! redirects, a size limit, and neither codes nor tokens in the log. The result has the form of `InitiateAuth`'s
//! response, so that the code that verifies tokens needs only one form.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use tokio::time::{self, Instant};
use url::Url;
use url::form_urlencoded::Serializer;

use super::error::{CognitoError, ErrorAnswer, Outage, read_oauth};
use super::{Answer, CognitoClient, Failure, Operation, RETRY_JITTER, RETRY_PAUSE, fetch};

/// Authorization code and PKCE verifier. It has no `Debug`, because both are secret.
pub(crate) struct CodeGrant<'g> {
    pub(crate) code: &'g str,
    /// Code verifier (RFC 7636) of the challenge in the authorization request.
    pub(crate) verifier: &'g str,
    /// Redirect URI of the authorization request.
    pub(crate) redirect_uri: &'g str,
}

impl CognitoClient {
    /// Exchanges a code for tokens at the hosted pages of `domain`. Because a code can be used once, a failed exchange
    /// is retried only if no connection was established. Returns before `deadline`.
    ///
    /// # Errors
    /// [`CognitoError`]. A code that Cognito does not accept is refused as `InvalidGrant`.
    pub(crate) async fn exchange_code(
        &self,
        domain: &Url,
        grant: &CodeGrant<'_>,
        deadline: Instant,
    ) -> Result<Map<String, Value>, CognitoError> {
        let first = self.attempt(Operation::OauthToken, self.send_code(domain, grant), deadline).await.result;
        let pause = RETRY_PAUSE + RETRY_JITTER.mul_f64(fastrand::f64());
        let was_not_sent = matches!(first, Err(CognitoError::Unavailable(Outage::Connect)));
        if !was_not_sent || Instant::now() + pause >= deadline {
            return first;
        }
        time::sleep(pause).await;
        self.attempt(Operation::OauthToken, self.send_code(domain, grant), deadline).await.result
    }

    async fn send_code(&self, domain: &Url, grant: &CodeGrant<'_>) -> Result<Answer, Failure> {
        let mut url = domain.clone();
        url.set_path("/oauth2/token");
        let client = self.client_id.as_str();
        let public_client = self.secret.is_none().then_some(("client_id", client));
        let form = [
            ("grant_type", "authorization_code"),
            ("code", grant.code),
            ("redirect_uri", grant.redirect_uri),
            ("code_verifier", grant.verifier),
        ];
        let form = Serializer::new(String::new()).extend_pairs(form.into_iter().chain(public_client)).finish();
        let http = self.http().await?;
        let mut request = http.post(url).header("content-type", "application/x-www-form-urlencoded").body(form);
        if let Some(secret) = &self.secret {
            // AWS documents `Base64(client_id:client_secret)`, without the escapes of RFC 6749 section 2.3.1.
            let pair = STANDARD.encode(format!("{client}:{}", secret.expose_secret()));
            request = request.header("authorization", format!("Basic {pair}"));
        }
        let answer = fetch(request).await?;
        if answer.status != http::StatusCode::OK {
            let ErrorAnswer { error, name } = read_oauth(answer.status.as_u16(), &answer.body);
            return Err(answer.failure(error, &name));
        }
        let Answer { members, date } = answer.object()?;
        Ok(Answer { members: as_authentication_result(&members), date })
    }
}

/// Renames the members of a token response (RFC 6749 section 5.1) to those of the user-pool API.
fn as_authentication_result(answer: &Map<String, Value>) -> Map<String, Value> {
    let names = [
        ("access_token", "AccessToken"),
        ("id_token", "IdToken"),
        ("refresh_token", "RefreshToken"),
        ("token_type", "TokenType"),
        ("expires_in", "ExpiresIn"),
    ];
    let result = names.iter().filter_map(|(from, to)| Some(((*to).to_owned(), answer.get(*from)?.clone())));
    Map::from_iter([("AuthenticationResult".to_owned(), json!(result.collect::<Map<_, _>>()))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_responses_have_the_form_of_the_user_pool_api() {
        let answer = json!({"access_token": "a", "id_token": "i", "refresh_token": "r", "token_type": "Bearer", "expires_in": 300, "x": 1});
        let expected =
            json!({"AccessToken": "a", "IdToken": "i", "RefreshToken": "r", "TokenType": "Bearer", "ExpiresIn": 300});
        assert_eq!(as_authentication_result(answer.as_object().unwrap())["AuthenticationResult"], expected);
        assert_eq!(as_authentication_result(&Map::new())["AuthenticationResult"], json!({}));
    }
}
