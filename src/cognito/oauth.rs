//! The token endpoint of Cognito's hosted sign-in pages (RFC 6749 section 4.1.3): a code from a redirect becomes tokens.
//!
//! Another host and another protocol than the user-pool API, but the same rules: a deadline, the circuit, no redirect, a
//! bound on the answer, and neither codes nor tokens in the log. The answer is handed on in the shape of `InitiateAuth`'s,
//! so that whoever verifies tokens has one shape to know.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use tokio::time::{self, Instant};
use url::Url;
use url::form_urlencoded::Serializer;

use super::error::{CognitoError, ErrorAnswer, Outage, read_oauth};
use super::{CognitoClient, Failure, Operation, RETRY_JITTER, RETRY_PAUSE, fetch};

/// An authorization code, and what proves that it was asked for here. It has no `Debug`: all of it is secret.
pub struct CodeGrant<'g> {
    /// The code.
    pub code: &'g str,
    /// The verifier whose challenge went with the request (RFC 7636).
    pub verifier: &'g str,
    /// Where the code was sent.
    pub redirect_uri: &'g str,
}

impl CognitoClient {
    /// Exchanges a code for tokens at the hosted pages of `domain`. Nothing is tried twice but a connection that was
    /// never established: a code is good for one use. All of it ends before `deadline`.
    ///
    /// # Errors
    /// [`CognitoError`]; a code that is not accepted is refused as `InvalidGrant`.
    pub async fn exchange_code(
        &self,
        domain: &Url,
        grant: &CodeGrant<'_>,
        deadline: Instant,
    ) -> Result<Map<String, Value>, CognitoError> {
        let first = self.attempt(Operation::OauthToken, self.send_code(domain, grant), deadline).await;
        let pause = RETRY_PAUSE + RETRY_JITTER.mul_f64(fastrand::f64());
        let is_unasked = matches!(first, Err(CognitoError::Unavailable(Outage::Connect)));
        if !is_unasked || Instant::now() + pause >= deadline {
            return first;
        }
        time::sleep(pause).await;
        self.attempt(Operation::OauthToken, self.send_code(domain, grant), deadline).await
    }

    async fn send_code(&self, domain: &Url, grant: &CodeGrant<'_>) -> Result<Map<String, Value>, Failure> {
        let mut url = domain.clone();
        url.set_path("/oauth2/token");
        let client = self.client_id.as_str();
        let known = self.secret.is_none().then_some(("client_id", client));
        let form = [
            ("grant_type", "authorization_code"),
            ("code", grant.code),
            ("redirect_uri", grant.redirect_uri),
            ("code_verifier", grant.verifier),
        ];
        let form = Serializer::new(String::new()).extend_pairs(form.into_iter().chain(known)).finish();
        let http = self.http().await?;
        let mut request = http.post(url).header("content-type", "application/x-www-form-urlencoded").body(form);
        if let Some(secret) = &self.secret {
            // As AWS documents it: the two as they are, without the escapes of RFC 6749 section 2.3.1.
            let pair = STANDARD.encode(format!("{client}:{}", secret.expose_secret()));
            request = request.header("authorization", format!("Basic {pair}"));
        }
        let answer = fetch(request).await?;
        if answer.status != http::StatusCode::OK {
            let ErrorAnswer { error, name } = read_oauth(answer.status.as_u16(), &answer.body);
            return Err(answer.failure(error, &name));
        }
        answer.object().map(|answer| in_one_shape(&answer))
    }
}

/// The members of a token answer (RFC 6749 section 5.1) by the names of the user-pool API.
fn in_one_shape(answer: &Map<String, Value>) -> Map<String, Value> {
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
    fn both_protocols_have_one_shape() {
        let answer = json!({"access_token": "a", "id_token": "i", "refresh_token": "r", "token_type": "Bearer", "expires_in": 300, "x": 1});
        let expected =
            json!({"AccessToken": "a", "IdToken": "i", "RefreshToken": "r", "TokenType": "Bearer", "ExpiresIn": 300});
        assert_eq!(in_one_shape(answer.as_object().unwrap())["AuthenticationResult"], expected);
        assert_eq!(in_one_shape(&Map::new())["AuthenticationResult"], json!({}));
    }
}
