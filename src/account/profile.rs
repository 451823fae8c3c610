//! The answers that are more than tokens or an error: what was done, and who the user is.

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::body::Members;
use super::caller::Bearer;
use super::error::{AccountError, Code};
use super::table::{Row, Success};
use super::{Account, Reply, call};
use crate::cognito::{Call, Operation};

impl Account {
    /// The answer when all went well, or has to look like it.
    ///
    /// # Errors
    /// [`AccountError`]: 502 when Cognito's answer lacks what ours is made of; the row's for a code that Cognito
    /// calls wrong in an answer that is no error.
    pub(super) fn done(&self, row: &Row, answer: &Map<String, Value>, by_session: bool) -> Result<Reply, AccountError> {
        let (status, message) = match row.success {
            Success::Registered(message) => (201, message),
            Success::Message(message)
            | Success::LoggedOut(message)
            | Success::Sent(message)
            | Success::TotpVerified(message) => (200, message),
            Success::Profile => return profile(answer).map(|body| Reply::new(200, "success", body.into())),
            Success::Tokens | Success::Totp => return Err(AccountError::upstream()),
        };
        let mut body = Map::from_iter([("message".to_owned(), Value::from(message))]);
        match row.success {
            // Who it was would tell that it was nobody before.
            Success::Registered(_) if !self.settings.hide_users => {
                if let Some(sub) = answer.get("UserSub").filter(|sub| sub.is_string()) {
                    body.insert("userSub".into(), sub.clone());
                }
                body.extend(delivery(answer.get("CodeDeliveryDetails")).map(|delivery| ("delivery".into(), delivery)));
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
                // Beside a token there is no sign-in to go on with.
                let session = answer.get("Session").filter(|session| by_session && session.is_string());
                body.extend(session.map(|session| ("session".into(), session.clone())));
            }
            _ => {}
        }
        Ok(Reply::new(status, "success", body.into()))
    }

    /// Changes attributes, and answers with the profile as it is then.
    ///
    /// # Errors
    /// [`AccountError`], also when the change was made and the profile cannot be had: asking again changes nothing more.
    pub(super) async fn update(
        &self,
        row: &'static Row,
        bearer: &Bearer,
        members: &Members,
        deadline: Instant,
    ) -> Result<Reply, AccountError> {
        let call = call::call(row, members, Some(&bearer.token), &self.settings.allowed, None)?;
        let updated = match self.client.call(call, deadline).await {
            Ok(answer) => answer,
            Err(error) => return self.settle(row, &error, false),
        };
        self.readdressed(row, members, &bearer.user);
        let token = Map::from_iter([("AccessToken".to_owned(), Value::from(&*bearer.token))]);
        let call = Call { operation: Operation::GetUser, user: None, members: token };
        let mut body = match self.client.call(call, deadline).await {
            Ok(answer) => {
                self.shown(&bearer.user, &attributes(&answer));
                profile(&answer)?
            }
            Err(error) => return self.settle(row, &error, false),
        };
        let details = updated.get("CodeDeliveryDetailsList").and_then(Value::as_array);
        let deliveries: Vec<_> = details.into_iter().flatten().filter_map(|one| delivery(Some(one))).collect();
        if !deliveries.is_empty() {
            body.insert("deliveries".into(), deliveries.into());
        }
        Ok(Reply::new(200, "success", body.into()))
    }
}

/// Who the user is, in our words. Names of attributes and of second factors are Cognito's, and open.
fn profile(answer: &Map<String, Value>) -> Result<Map<String, Value>, AccountError> {
    let text = |name: &str| answer.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut attributes = attributes(answer);
    let (Some(sub), Some(username)) = (attributes.remove("sub"), text("Username")) else {
        tracing::warn!("Cognito's answer does not say who the user is");
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

/// `UserAttributes` as a map of texts.
pub(super) fn attributes(answer: &Map<String, Value>) -> Map<String, Value> {
    let attributes = answer.get("UserAttributes").and_then(Value::as_array);
    let pair = |attribute: &Value| {
        let value = attribute.get("Value").filter(|value| value.is_string())?;
        Some((attribute.get("Name")?.as_str()?.to_owned(), value.clone()))
    };
    attributes.into_iter().flatten().filter_map(pair).collect()
}

/// Where a code was sent; Cognito has masked the address.
fn delivery(details: Option<&Value>) -> Option<Value> {
    let member = |name: &str| details.and_then(|details| details.get(name)).cloned().unwrap_or_default();
    let [destination, medium, attribute] = ["Destination", "DeliveryMedium", "AttributeName"].map(member);
    details?.is_object().then(|| json!({"destination": destination, "medium": medium, "attribute": attribute}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles() {
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
}
