//! Makes the call of Cognito from the members of a body, as the row's fields say.
//!
//! No row has a field for values that a caller must never choose: `ForceAliasCreation`, `AnalyticsMetadata`,
//! `ValidationData`, the app client, and the secret hash.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::body::Members;
use super::error::AccountError;
use super::table::{Field, Row, Target};
use crate::cognito::Call;

/// Values of callers that are passed on to Cognito.
#[derive(Clone, Debug, Default)]
pub struct Allowed {
    /// Attributes that users may set, in addition to those that the rows allow.
    pub attributes: Vec<String>,
    /// Keys of `ClientMetadata` for Lambda triggers.
    pub metadata: Vec<String>,
    /// `true` to send the client's address to Cognito, in `UserContextData`.
    pub forward_address: bool,
}

/// Makes the call of a row. `token` is the caller's access token, if the row takes one; `address` is the client's.
///
/// # Errors
/// [`AccountError`] 400 for an attribute that is not allowed.
pub(super) fn call(
    row: &Row,
    members: &Members,
    token: Option<&str>,
    allowed: &Allowed,
    address: Option<IpAddr>,
) -> Result<Call, AccountError> {
    let operation = row.operation;
    let user = members.user(row).map(str::to_owned);
    let mut body = Map::new();
    let mut parameters = Map::new();
    let mut attributes = Map::new();
    for field in row.fields {
        let text = members.text(field.name);
        match (field.target, text) {
            (Target::User(Some(attribute)) | Target::Attribute(attribute), Some(text)) => {
                attributes.insert(attribute.into(), text.into());
            }
            (Target::Member(member) | Target::Id(member), Some(text)) => {
                body.insert(member.into(), text.into());
            }
            (Target::Parameter(parameter), Some(text)) => {
                parameters.insert(parameter.into(), text.into());
            }
            (Target::AuthFlow, flow) => {
                body.insert("AuthFlow".into(), flow.unwrap_or("USER_PASSWORD_AUTH").into());
            }
            (Target::Parameters, _) => {
                parameters.extend(members.texts(field.name).map(|(name, text)| (name.to_owned(), text.into())));
            }
            (Target::Attributes(always), _) => {
                for (name, text) in members.texts(field.name) {
                    if !always.contains(&name) && !allowed.attributes.iter().any(|allowed| allowed == name) {
                        return Err(forbidden_attribute(field, name, always, allowed));
                    }
                    // A member of its own takes precedence.
                    attributes.entry(name).or_insert_with(|| text.into());
                }
            }
            (Target::Document(member), _) => {
                if let Some(document) = members.document(field.name) {
                    body.insert(member.into(), document.clone().into());
                }
            }
            (Target::Factor(member), _) => {
                if let Some((enabled, preferred)) = members.factor(field.name) {
                    let mut settings = json!({"Enabled": enabled});
                    if let (Some(preferred), Some(settings)) = (preferred, settings.as_object_mut()) {
                        settings.insert("PreferredMfa".into(), preferred.into());
                    }
                    body.insert(member.into(), settings);
                }
            }
            (Target::Metadata, _) => {
                if let Some(metadata) = metadata(members, allowed) {
                    body.insert("ClientMetadata".into(), metadata);
                }
            }
            (Target::RefreshToken | Target::Flow, _)
            | (
                Target::User(_) | Target::Member(_) | Target::Id(_) | Target::Parameter(_) | Target::Attribute(_),
                None,
            )
            | (Target::User(None), Some(_)) => {}
        }
    }
    if let Some(map) = operation.parameters() {
        parameters.remove("SECRET_HASH");
        if let Some(user) = &user {
            parameters.insert("USERNAME".into(), user.as_str().into());
        }
        body.insert(map.into(), parameters.into());
    } else if let Some(user) = &user {
        body.insert("Username".into(), user.as_str().into());
    }
    if row.sets_attributes() {
        let attributes: Vec<_> =
            attributes.into_iter().map(|(name, value)| json!({"Name": name, "Value": value})).collect();
        body.insert("UserAttributes".into(), attributes.into());
    }
    if let Some(token) = token.filter(|_| operation.takes_access_token()) {
        body.insert("AccessToken".into(), token.into());
    }
    if let Some(address) = address.filter(|_| allowed.forward_address && operation.takes_user_context()) {
        body.insert("UserContextData".into(), json!({"IpAddress": address.to_string()}));
    }
    Ok(Call { operation, user, members: body })
}

/// 400 for an attribute that the user may not set. The message lists those that the user may set.
fn forbidden_attribute(field: &Field, name: &str, always: &[&str], allowed: &Allowed) -> AccountError {
    // The name is the caller's text, and only the caller gets it back.
    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    let names: Vec<_> = always.iter().copied().chain(allowed.attributes.iter().map(String::as_str)).collect();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let message = format!("attributes.{name} is not allowed. Allowed: {names} (--account-attributes)");
    AccountError::invalid_member(field.name, message)
}

/// Returns the allowed keys of `ClientMetadata`; `None` if there are none.
pub(super) fn metadata(members: &Members, allowed: &Allowed) -> Option<Value> {
    let kept: Map<String, Value> = members
        .texts("clientMetadata")
        .filter(|(name, _)| allowed.metadata.iter().any(|allowed| allowed == name))
        .map(|(name, text)| (name.to_owned(), text.into()))
        .collect();
    (!kept.is_empty()).then(|| kept.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::table::row;

    /// Returns the body of the call that is made of a body.
    fn made(path: &str, body: &Value) -> Result<Value, String> {
        let row = row(path);
        let members =
            Members::read(row, body.to_string().as_bytes(), None).map_err(|error| error.message.into_owned())?;
        let allowed = Allowed {
            attributes: vec!["custom:plan".into(), "email".into()],
            metadata: vec!["locale".into()],
            forward_address: true,
        };
        let address = Some("192.0.2.1".parse().unwrap());
        call(row, &members, Some("access"), &allowed, address)
            .map(|call| Value::Object(call.members))
            .map_err(|error| error.message.into_owned())
    }

    const CONTEXT: &str = "192.0.2.1";

    #[test]
    fn rows_become_calls() {
        let context = json!({"IpAddress": CONTEXT});
        for (path, body, expected) in [
            (
                "/register",
                json!({"email": "a@b", "password": " p ", "name": "Ada", "attributes": {"custom:plan": "x"},
                    "ForceAliasCreation": true, "clientMetadata": {"locale": "de", "x": "y"}, "AnalyticsMetadata": {}}),
                json!({"Username": "a@b", "Password": " p ", "ClientMetadata": {"locale": "de"}, "UserContextData": context,
                    "UserAttributes": [{"Name": "custom:plan", "Value": "x"}, {"Name": "email", "Value": "a@b"},
                        {"Name": "name", "Value": "Ada"}]}),
            ),
            (
                "/register",
                json!({"username": "ada", "email": "a@b", "password": "p", "name": "Ada", "attributes": {"email": "c@d"}}),
                json!({"Username": "ada", "Password": "p", "UserContextData": context,
                    "UserAttributes": [{"Name": "email", "Value": "a@b"}, {"Name": "name", "Value": "Ada"}]}),
            ),
            (
                "/register",
                json!({"phone": "+49", "password": "p", "name": "Ada"}),
                json!({"Username": "+49", "Password": "p", "UserContextData": context,
                    "UserAttributes": [{"Name": "name", "Value": "Ada"}, {"Name": "phone_number", "Value": "+49"}]}),
            ),
            (
                "/verify",
                json!({"email": "a@b", "code": "1", "forceAliasCreation": true}),
                json!({"Username": "a@b", "ConfirmationCode": "1", "UserContextData": context}),
            ),
            (
                "/login",
                json!({"email": "a@b", "password": "p", "clientMetadata": {"x": "y"}}),
                json!({"AuthFlow": "USER_PASSWORD_AUTH", "UserContextData": context,
                    "AuthParameters": {"USERNAME": "a@b", "PASSWORD": "p"}}),
            ),
            (
                "/login",
                json!({"email": "a@b", "authFlow": "USER_SRP_AUTH",
                    "authParameters": {"SRP_A": "0", "SECRET_HASH": "mine", "USERNAME": "other"}}),
                json!({"AuthFlow": "USER_SRP_AUTH", "UserContextData": context,
                    "AuthParameters": {"USERNAME": "a@b", "SRP_A": "0"}}),
            ),
            (
                "/challenge",
                json!({"challenge": "NEW_ONE", "session": "s", "username": "u", "responses": {"ANSWER": "1", "SECRET_HASH": "x"}}),
                json!({"ChallengeName": "NEW_ONE", "Session": "s", "UserContextData": context,
                    "ChallengeResponses": {"USERNAME": "u", "ANSWER": "1"}}),
            ),
            (
                "/reset-password",
                json!({"email": "a@b", "code": "1", "newPassword": " p "}),
                json!({"Username": "a@b", "ConfirmationCode": "1", "Password": " p ", "UserContextData": context}),
            ),
            ("/revoke", json!({"refreshToken": "r"}), json!({"Token": "r"})),
            (
                "/change-password",
                json!({"oldPassword": "o", "newPassword": "n"}),
                json!({"AccessToken": "access", "PreviousPassword": "o", "ProposedPassword": "n"}),
            ),
            ("GET /me", json!({}), json!({"AccessToken": "access"})),
            ("DELETE /me", json!({}), json!({"AccessToken": "access"})),
            (
                "PATCH /me",
                json!({"attributes": {"name": "Ada L", "custom:plan": ""}, "clientMetadata": {"locale": "de", "x": "y"}}),
                json!({"AccessToken": "access", "ClientMetadata": {"locale": "de"},
                    "UserAttributes": [{"Name": "custom:plan", "Value": ""}, {"Name": "name", "Value": "Ada L"}]}),
            ),
            (
                "/verify-attribute/code",
                json!({"attribute": "email"}),
                json!({"AccessToken": "access", "AttributeName": "email"}),
            ),
            (
                "/verify-attribute",
                json!({"attribute": "email", "code": "1"}),
                json!({"AccessToken": "access", "AttributeName": "email", "Code": "1"}),
            ),
            ("/mfa/totp", json!({"email": "a@b"}), json!({"AccessToken": "access"})),
            (
                "/mfa/totp/verify",
                json!({"code": "1", "deviceName": "phone"}),
                json!({"AccessToken": "access", "UserCode": "1", "FriendlyDeviceName": "phone"}),
            ),
            (
                "PUT /mfa/preference",
                json!({"totp": {"enabled": true, "preferred": true}, "sms": {"enabled": false}}),
                json!({"AccessToken": "access", "SoftwareTokenMfaSettings": {"Enabled": true, "PreferredMfa": true},
                    "SMSMfaSettings": {"Enabled": false}}),
            ),
            ("/webauthn/registration", json!({}), json!({"AccessToken": "access"})),
            (
                "PUT /webauthn/registration",
                json!({"credential": {"id": "a", "response": {"n": [1, null, {"x": -7}]}}}),
                json!({"AccessToken": "access", "Credential": {"id": "a", "response": {"n": [1, null, {"x": -7}]}}}),
            ),
            (
                "GET /webauthn/credentials",
                json!({"next": "only in the query", "NextToken": "x"}),
                json!({"AccessToken": "access"}),
            ),
        ] {
            assert_eq!(made(path, &body), Ok(expected), "{path} {body}");
        }
        let refused = |name: &str, allowed: &str| {
            Err(format!("attributes.{name} is not allowed. Allowed: {allowed} (--account-attributes)"))
        };
        let role = json!({"email": "a", "password": "p", "name": "n", "attributes": {"custom:role": "admin"}});
        assert_eq!(made("/register", &role), refused("custom:role", "custom:plan, email"));
        for name in ["custom:role", "phone_number", "email_verified", "sub"] {
            let change = json!({"attributes": {name: "x"}});
            assert_eq!(made("PATCH /me", &change), refused(name, "name, custom:plan, email"));
        }
    }
}
