//! Responses, made from the responses and errors of Cognito: messages, profiles, tokens, challenges.
//!
//! Tokens are verified before a client gets them, by the same steps as in a check: a token that a check would reject a
//! moment later is of no use to its user, and the operator should know that it was issued.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::context::{Context, unix_now};
use super::counted::Attempt;
use super::error::{AccountError, Code, ErrorContext, Judgement, advice, judge};
use super::passkeys::{creation_options, passkeys};
use super::table::{Hides, Row, Success};
use crate::authz::{Decoded, Denial, Expected, Presented, Purpose, Trace, Verified};
use crate::cognito::error::CognitoError;
use crate::request_id;
use crate::user_pool::AcceptedUse;

/// Value of the label `outcome` for a success.
pub(super) const SUCCESS: &str = "success";
/// Value of the label `outcome` for a challenge.
pub(super) const CHALLENGE: &str = "challenge";

/// Response that is not an error, or must look like none.
#[derive(Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// Value of the label `outcome`.
    pub(super) outcome: &'static str,
    pub(super) body: Value,
    /// `true` if the body contains a refresh token.
    pub(super) has_refresh_token: bool,
    /// Values of `Set-Cookie`.
    pub(super) cookies: Vec<String>,
}

impl std::fmt::Debug for Reply {
    /// Omits the body, because it can contain tokens.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").field("status", &self.status).field("outcome", &self.outcome).finish_non_exhaustive()
    }
}

impl Reply {
    pub(super) fn success(status: u16, body: Map<String, Value>) -> Self {
        Self { status, outcome: SUCCESS, body: body.into(), has_refresh_token: false, cookies: Vec::new() }
    }
}

impl Context {
    /// Makes the response of a success, or one that must look like it.
    ///
    /// # Errors
    /// [`AccountError`] 502 if Cognito's response lacks a required member; `invalid_code` if a successful response of
    /// Cognito says that the code was wrong.
    pub(super) fn done(&self, row: &Row, answer: &Map<String, Value>, by_session: bool) -> Result<Reply, AccountError> {
        let (status, message) = match row.success {
            Success::Registered(message) => (201, message),
            Success::Message(message)
            | Success::LoggedOut(message)
            | Success::Revoked(message)
            | Success::Sent(message)
            | Success::TotpVerified(message) => (200, message),
            Success::Profile => return profile(answer).map(|body| Reply::success(200, body)),
            Success::CreationOptions => return creation_options(answer).map(|body| Reply::success(200, body)),
            Success::Passkeys => return passkeys(answer).map(|body| Reply::success(200, body)),
            Success::Tokens | Success::Totp => return Err(AccountError::upstream()),
        };
        let mut body = Map::from_iter([("message".to_owned(), Value::from(message))]);
        match row.success {
            // Naming the user would reveal that the name was free before.
            Success::Registered(_) if !self.settings.hide_users => {
                if let Some(sub) = answer.get("UserSub").filter(|sub| sub.is_string()) {
                    body.insert("userSub".into(), sub.clone());
                }
                body.extend(delivery(answer.get("CodeDeliveryDetails")).map(|delivery| ("delivery".into(), delivery)));
            }
            Success::LoggedOut(_) | Success::Revoked(_) => {
                body.insert("scope".into(), self.revocations.scope().as_str().into());
            }
            Success::Sent(_) => {
                body.extend(delivery(answer.get("CodeDeliveryDetails")).map(|delivery| ("delivery".into(), delivery)));
            }
            Success::TotpVerified(_) => {
                match answer.get("Status").and_then(Value::as_str) {
                    Some("SUCCESS") => {}
                    Some("ERROR") => return Err(AccountError::new(row.refusal, Code::InvalidCode)),
                    _ => return Err(AccountError::upstream()),
                }
                // With an access token there is no sign-in to continue.
                let session = answer.get("Session").filter(|session| by_session && session.is_string());
                body.extend(session.map(|session| ("session".into(), session.clone())));
            }
            _ => {}
        }
        Ok(Reply::success(status, body))
    }

    /// Makes the response to an error of Cognito, and tells the operator in the log if something has to be configured.
    ///
    /// # Errors
    /// [`AccountError`], unless the response has to look like a success.
    pub(super) fn settle(
        &self,
        row: &'static Row,
        error: &CognitoError,
        by_session: bool,
    ) -> Result<Reply, AccountError> {
        if let Some(advice) = advice(row, error) {
            let (request_id, operation) = (request_id::current(), row.name);
            tracing::error!(request_id, operation, error = %error, advice, "the account API needs its operator");
        }
        match judge(row, error, ErrorContext { hide_users: self.settings.hide_users, by_session }) {
            Judgement::AsIfDone => {
                if row.hides != Hides::All {
                    let (request_id, operation) = (request_id::current(), row.name);
                    tracing::info!(request_id, operation, error = %error, "answered as a success (--account-hide-users)");
                }
                self.done(row, &Map::new(), by_session)
            }
            Judgement::Error(error) => Err(error),
        }
    }

    /// Makes the response to a sign-in or a refresh.
    ///
    /// # Errors
    /// [`AccountError`] 502 if Cognito's response has neither tokens nor a challenge, or if the tokens do not verify.
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
            let request_id = request_id::current();
            tracing::warn!(request_id, "Cognito's answer has neither tokens nor a challenge");
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
        let text = |name: &str| text(result, name);
        let access = text("AccessToken").ok_or_else(|| {
            tracing::warn!(request_id = request_id::current(), "Cognito's answer has no access token");
            AccountError::upstream()
        })?;
        let verified = self.verify_issued(access, AcceptedUse::Access, deadline).await?;
        let id = text("IdToken");
        let identity = match id {
            Some(id) => self.verify_issued(id, AcceptedUse::Id, deadline).await?,
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
        let has_refresh_token = text("RefreshToken").is_some();
        Ok(Reply { has_refresh_token, ..Reply::success(200, body) })
    }

    /// Verifies a token that Cognito has just issued. Returns `None` if its key is not available, or newer than the
    /// last fetch, or if it is not known whether it was revoked: that says nothing against the token, and a check will
    /// ask again.
    ///
    /// # Errors
    /// [`AccountError`] 401 for a token of a session that was revoked here, but not at Cognito: the user has to sign in
    /// again. 502 for every other token that does not verify.
    async fn verify_issued(
        &self,
        token: &str,
        kind: AcceptedUse,
        deadline: Instant,
    ) -> Result<Option<Arc<Verified>>, AccountError> {
        let expected = Expected { pool: &self.settings.pool, token_use: kind, clients: &self.own_client };
        let (rules, purpose) = (self.authorizer.rules(), Purpose::Account(expected));
        match self
            .authorizer
            .verify(&rules, &Presented::new(token), purpose, unix_now(), deadline, &mut Trace::default())
            .await
        {
            Ok(verified) => Ok(Some(verified)),
            Err(Denial::KeysUnavailable | Denial::UnknownKid | Denial::RevocationUnavailable) => Ok(None),
            Err(Denial::Revoked) => Err(AccountError::new(401, Code::InvalidToken)),
            Err(denial) => {
                let (request_id, reason) = (request_id::current(), denial.reason());
                tracing::error!(request_id, token_use = ?kind, reason, "Cognito issued a token that does not verify");
                Err(match denial {
                    Denial::TokenTooLarge => AccountError::new(502, Code::SessionTooLarge),
                    _ => AccountError::upstream(),
                })
            }
        }
    }
}

/// Returns a non-empty string member of a response.
pub(super) fn text<'a>(answer: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    answer.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// Returns `exp` of a token that was not verified; it is only for the client's timer.
fn expires(token: &str) -> Option<i64> {
    Decoded::new(token).ok()?.read().ok()?.expires()
}

/// Returns a device that Cognito offers to remember. The client has to confirm it.
fn new_device(device: &Value) -> Option<Value> {
    let key = device.get("DeviceKey").and_then(Value::as_str)?;
    Some(json!({"deviceKey": key, "deviceGroupKey": device.get("DeviceGroupKey")}))
}

/// Makes the response of a challenge. Cognito may add new names of challenges at any time; members can be null.
fn challenge(answer: &Map<String, Value>) -> Option<Reply> {
    let present = |name: &str| answer.get(name).filter(|value| !value.is_null());
    let name = text(answer, "ChallengeName")?;
    let parameters = present("ChallengeParameters").filter(|value| value.is_object());
    let mut body = Map::new();
    body.insert("challenge".into(), name.into());
    body.insert("session".into(), present("Session").cloned().unwrap_or_default());
    body.insert("parameters".into(), parameters.cloned().unwrap_or_else(|| Map::new().into()));
    if let Some(available) = present("AvailableChallenges").filter(|value| value.is_array()) {
        body.insert("availableChallenges".into(), available.clone());
    }
    Some(Reply { outcome: CHALLENGE, ..Reply::success(200, body) })
}

/// Makes a profile from the response of `GetUser`. Names of attributes and of second factors are Cognito's, and any can
/// be added.
pub(super) fn profile(answer: &Map<String, Value>) -> Result<Map<String, Value>, AccountError> {
    let text = |name: &str| text(answer, name);
    let mut attributes = attributes(answer);
    let (Some(sub), Some(username)) = (attributes.remove("sub"), text("Username")) else {
        tracing::warn!(request_id = request_id::current(), "Cognito's answer does not say who the user is");
        return Err(AccountError::upstream());
    };
    let factors = answer.get("UserMFASettingList").and_then(Value::as_array);
    let factors: Vec<_> = factors.into_iter().flatten().filter(|factor| factor.is_string()).cloned().collect();
    Ok(Map::from_iter([
        ("sub".to_owned(), sub),
        ("username".into(), username.into()),
        ("attributes".into(), attributes.into()),
        ("mfa".into(), json!({"preferred": text("PreferredMfaSetting"), "enabled": factors})),
    ]))
}

/// Returns `UserAttributes` as a map of strings.
pub(super) fn attributes(answer: &Map<String, Value>) -> Map<String, Value> {
    let attributes = answer.get("UserAttributes").and_then(Value::as_array);
    let pair = |attribute: &Value| {
        let value = attribute.get("Value").filter(|value| value.is_string())?;
        Some((attribute.get("Name")?.as_str()?.to_owned(), value.clone()))
    };
    attributes.into_iter().flatten().filter_map(pair).collect()
}

/// Makes the description of a code's destination. Cognito has masked the address.
pub(super) fn delivery(details: Option<&Value>) -> Option<Value> {
    let member = |name: &str| details.and_then(|details| details.get(name)).cloned().unwrap_or_default();
    let [destination, medium, attribute] = ["Destination", "DeliveryMedium", "AttributeName"].map(member);
    details?.is_object().then(|| json!({"destination": destination, "medium": medium, "attribute": attribute}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_keep_unknown_names_of_factors() {
        let of = |answer: Value| profile(answer.as_object().unwrap()).map(Value::Object).map_err(|error| error.status);
        let attributes = json!([{"Name": "sub", "Value": "s"}, {"Name": "email", "Value": "a@b"}, {"Name": "x"}, 7]);
        assert_eq!(
            of(json!({"Username": "u", "UserAttributes": attributes, "PreferredMfaSetting": "SMS_MFA",
                "UserMFASettingList": ["SMS_MFA", "BRAND_NEW"], "MFAOptions": []})),
            Ok(json!({"sub": "s", "username": "u", "attributes": {"email": "a@b"},
                "mfa": {"preferred": "SMS_MFA", "enabled": ["SMS_MFA", "BRAND_NEW"]}}))
        );
        assert_eq!(
            of(json!({"Username": "u", "UserAttributes": [{"Name": "sub", "Value": "s"}], "PreferredMfaSetting": "",
                "UserMFASettingList": null})),
            Ok(json!({"sub": "s", "username": "u", "attributes": {}, "mfa": {"preferred": null, "enabled": []}}))
        );
        for bad in [json!({}), json!({"Username": "u"}), json!({"UserAttributes": attributes})] {
            assert_eq!(of(bad), Err(502));
        }
    }

    #[test]
    fn challenges_keep_unknown_names() {
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
