//! `OpenID` Provider configuration of a user pool (`OpenID` Connect Discovery 1.0 section 4): where its sign-in pages and its
//! token endpoint are.
//!
//! The document is public. The same rules apply as for the user-pool API: a deadline, no redirects, a size limit. The
//! circuit breaker does not apply, because the pool need not be the one of this client; the caller limits the requests.

use serde_json::{Map, Value};
use tokio::time::Instant;
use url::Url;

use super::error::{CognitoError, ErrorAnswer};
use super::{Answer, CognitoClient, Failure, Operation, fetch};

impl CognitoClient {
    /// Fetches the document at `url`, with one attempt. Returns before the timeout of a call.
    ///
    /// # Errors
    /// [`CognitoError`].
    pub(crate) async fn openid_configuration(&self, url: Url) -> Result<Map<String, Value>, CognitoError> {
        // The timeout of the client is the earlier limit.
        let deadline = Instant::now() + self.timeout;
        self.timed(Operation::OpenidConfiguration, self.get(url), deadline).await.result
    }

    async fn get(&self, url: Url) -> Result<Answer, Failure> {
        let answer = fetch(self.http().await?.get(url).header("accept", "application/json")).await?;
        if answer.status != http::StatusCode::OK {
            let ErrorAnswer { error, name } = ErrorAnswer::read(answer.status.as_u16(), None, &answer.body);
            return Err(answer.failure(error, &name));
        }
        answer.object()
    }
}
