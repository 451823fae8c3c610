//! From Cognito's answer to a sign-in to ours: tokens, or a challenge on the way to them.
//!
//! Tokens are verified before they are handed out, by the same steps as those of a check: a token that we would
//! refuse a moment later is worth nothing to its user, and its being issued is worth a line in the log.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::counted::Attempt;
use super::error::AccountError;
use super::{Account, CHALLENGE, Reply, unix_now};
use crate::authz::{Decoded, Denial, Expected, Purpose, Trace, Verified};
use crate::user_pool::AcceptedUse;

impl Account {
    /// The answer to a sign-in or a refresh.
    ///
    /// # Errors
    /// [`AccountError`] 502 when there is neither, or when the tokens are not what they have to be.
    pub(super) async fn tokens_or_challenge(
        &self,
        answer: &Map<String, Value>,
        attempt: Option<Attempt<'_>>,
        deadline: Instant,
    ) -> Result<Reply, AccountError> {
        if let Some(Value::Object(result)) = answer.get("AuthenticationResult") {
            return self.tokens(result, attempt, deadline).await;
        }
        let reply = challenge(answer).ok_or_else(|| {
            tracing::warn!("Cognito's answer has neither tokens nor a challenge");
            AccountError::upstream()
        })?;
        if let (Some(attempt), Some(parameters)) = (attempt, reply.body.get("parameters")) {
            self.challenged(attempt, parameters);
        }
        Ok(reply)
    }

    async fn tokens(
        &self,
        result: &Map<String, Value>,
        attempt: Option<Attempt<'_>>,
        deadline: Instant,
    ) -> Result<Reply, AccountError> {
        let text = |name: &str| result.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let access = text("AccessToken").ok_or_else(|| {
            tracing::warn!("Cognito's answer has no access token");
            AccountError::upstream()
        })?;
        let verified = self.may_be_handed_out(access, AcceptedUse::Access, deadline).await?;
        let id = text("IdToken");
        let identity = match id {
            Some(id) => self.may_be_handed_out(id, AcceptedUse::Id, deadline).await?,
            None => None,
        };
        for verified in verified.iter().chain(&identity) {
            self.signed_in(attempt, &verified.claims);
        }
        let expires_in = result.get("ExpiresIn").and_then(Value::as_i64);
        let expires_in = expires_in.or_else(|| Some(expires(access)?.saturating_sub(unix_now()).max(0)));
        let mut body = Map::new();
        let mut set = |name: &str, value: Option<Value>| value.map(|value| body.insert(name.into(), value));
        set("accessToken", Some(access.into()));
        set("idToken", id.map(Into::into));
        set("refreshToken", text("RefreshToken").map(Into::into));
        set("expiresIn", expires_in.map(Into::into));
        set("tokenType", Some(text("TokenType").unwrap_or("Bearer").into()));
        set("newDevice", result.get("NewDeviceMetadata").and_then(new_device));
        let rotated = text("RefreshToken").is_some();
        Ok(Reply { rotated, ..Reply::new(200, "success", body.into()) })
    }

    /// A key that cannot be had, or that is newer than our last fetch, is no reason to withhold a token: nothing
    /// speaks against it, and whoever presents it will be asked for its key once more.
    async fn may_be_handed_out(
        &self,
        token: &str,
        kind: AcceptedUse,
        deadline: Instant,
    ) -> Result<Option<Arc<Verified>>, AccountError> {
        let expected = Expected { pool: &self.settings.pool, token_use: kind, clients: &self.own_client };
        let (rules, purpose) = (self.authorizer.rules(), Purpose::Account(expected));
        match self.authorizer.verify(&rules, token, purpose, unix_now(), deadline, &mut Trace::default()).await {
            Ok(verified) => Ok(Some(verified)),
            Err(Denial::KeysUnavailable | Denial::UnknownKid) => Ok(None),
            Err(denial) => {
                tracing::error!(token_use = ?kind, reason = denial.reason(), "Cognito issued a token that does not verify");
                Err(AccountError::upstream())
            }
        }
    }
}

/// `exp` of a token, for a client's clock.
fn expires(token: &str) -> Option<i64> {
    Decoded::new(token).ok()?.read().ok()?.expires()
}

/// A device that Cognito wants to remember, for the client to confirm.
fn new_device(device: &Value) -> Option<Value> {
    let key = device.get("DeviceKey").and_then(Value::as_str)?;
    Some(json!({"deviceKey": key, "deviceGroupKey": device.get("DeviceGroupKey")}))
}

/// A challenge: its name is Cognito's and open, members may be there and null.
fn challenge(answer: &Map<String, Value>) -> Option<Reply> {
    let there = |name: &str| answer.get(name).filter(|value| !value.is_null());
    let name = there("ChallengeName").and_then(Value::as_str).filter(|name| !name.is_empty())?;
    let parameters = there("ChallengeParameters").filter(|value| value.is_object());
    let mut body = Map::new();
    body.insert("challenge".into(), name.into());
    body.insert("session".into(), there("Session").cloned().unwrap_or_default());
    body.insert("parameters".into(), parameters.cloned().unwrap_or_else(|| Map::new().into()));
    if let Some(available) = there("AvailableChallenges").filter(|value| value.is_array()) {
        body.insert("availableChallenges".into(), available.clone());
    }
    Some(Reply::new(200, CHALLENGE, body.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_keep_their_open_names() {
        for (answer, expected) in [
            (
                json!({"ChallengeName": "BRAND_NEW", "Session": "s", "ChallengeParameters": {"A": "1"}, "AuthenticationResult": null}),
                Some(json!({"challenge": "BRAND_NEW", "session": "s", "parameters": {"A": "1"}})),
            ),
            (
                json!({"ChallengeName": "SELECT_CHALLENGE", "Session": "s", "ChallengeParameters": null, "AvailableChallenges": ["PASSWORD"]}),
                Some(
                    json!({"challenge": "SELECT_CHALLENGE", "session": "s", "parameters": {}, "availableChallenges": ["PASSWORD"]}),
                ),
            ),
            (
                json!({"ChallengeName": "PASSWORD_VERIFIER"}),
                Some(json!({"challenge": "PASSWORD_VERIFIER", "session": null, "parameters": {}})),
            ),
            (json!({"ChallengeName": null}), None),
            (json!({"ChallengeName": ""}), None),
            (json!({}), None),
        ] {
            let found = challenge(answer.as_object().unwrap()).map(|reply| reply.body);
            assert_eq!(found, expected, "{answer}");
        }
    }
}
