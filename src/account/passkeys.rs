//! Responses about passkeys.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::answer::text;
use super::error::AccountError;
use crate::clock::{UnixTime, format_rfc3339};
use crate::request_id;

/// Returns the options for a new passkey exactly as Cognito sends them.
///
/// # Errors
/// [`AccountError`] 502 if there are none.
pub(super) fn creation_options(answer: &Map<String, Value>) -> Result<Map<String, Value>, AccountError> {
    match answer.get("CredentialCreationOptions") {
        Some(Value::Object(options)) => Ok(options.clone()),
        _ => Err(incomplete()),
    }
}

/// Makes a page of the user's passkeys.
///
/// # Errors
/// [`AccountError`] 502 if there is no list, or a passkey without an id.
pub(super) fn passkeys(answer: &Map<String, Value>) -> Result<Map<String, Value>, AccountError> {
    let list = answer.get("Credentials").and_then(Value::as_array).ok_or_else(incomplete)?;
    let list: Option<Vec<_>> = list.iter().map(passkey).collect();
    let mut page = Map::from_iter([("credentials".to_owned(), list.ok_or_else(incomplete)?.into())]);
    page.extend(text(answer, "NextToken").map(|next| ("next".to_owned(), next.into())));
    Ok(page)
}

fn incomplete() -> AccountError {
    tracing::warn!(request_id = request_id::current(), "Cognito's answer about passkeys is incomplete");
    AccountError::upstream()
}

/// Describes a passkey. Only the id is certain to be there.
fn passkey(passkey: &Value) -> Option<Value> {
    let passkey = passkey.as_object()?;
    let transports = passkey.get("AuthenticatorTransports").and_then(Value::as_array);
    let transports: Vec<_> = transports.into_iter().flatten().filter(|name| name.is_string()).collect();
    Some(json!({
        "credentialId": text(passkey, "CredentialId")?,
        "friendlyName": text(passkey, "FriendlyCredentialName"),
        "relyingPartyId": text(passkey, "RelyingPartyId"),
        "authenticatorAttachment": text(passkey, "AuthenticatorAttachment"),
        "transports": transports,
        "createdAt": passkey.get("CreatedAt").and_then(time).map(format_rfc3339),
    }))
}

/// Reads a time of AWS JSON: seconds since 1970, with fractions.
fn time(value: &Value) -> Option<UnixTime> {
    let seconds = Duration::try_from_secs_f64(value.as_f64()?).ok()?.as_secs();
    UnixTime::try_from(seconds).ok()
}
