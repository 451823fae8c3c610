//! Named schemas of the responses.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::answers::reference;
use crate::account::error::Code;
use crate::account::oauth;
use crate::account::table::{Success, rows};
use crate::request_id::MAX_LENGTH;

/// Name of the schema of a success.
pub(super) fn of_success(success: Success) -> &'static str {
    match success {
        Success::Message(_) => "Message",
        Success::Registered(_) => "Registered",
        Success::Tokens => "SignInResult",
        Success::LoggedOut(_) => "LoggedOut",
        Success::Revoked(_) => "Revoked",
        Success::Sent(_) => "CodeSent",
        Success::Profile => "Profile",
        Success::Totp => "TotpSecret",
        Success::TotpVerified(_) => "TotpVerified",
        Success::CreationOptions => "PasskeyCreationOptions",
        Success::Passkeys => "PasskeyList",
    }
}

/// Schemas by name. With cookies, tokens are in cookies unless the client asks for them in the body.
pub(super) fn all(has_cookies: bool) -> Value {
    let text = || json!({"type": "string"});
    let nullable = || json!({"type": ["string", "null"]});
    let uri = || json!({"type": "string", "format": "uri"});
    let named = |name: &str| reference("schemas", name);
    let token: &[&str] = if has_cookies { &["tokenType"] } else { &["accessToken", "tokenType"] };
    json!({
        "Error": error(),
        "Message": object(&["message"], json!({"message": text()})),
        "Registered": object(&["message"], json!({"message": text(), "userSub": text(), "delivery": named("CodeDelivery")})),
        "CodeSent": object(&["message"], json!({"message": text(), "delivery": named("CodeDelivery")})),
        "CodeDelivery": described(
            "Destination of a code, masked by Cognito.",
            object(&[], json!({"destination": nullable(), "medium": nullable(), "attribute": nullable()})),
        ),
        "SignInResult": described(
            "Tokens, or a challenge that has to be answered first.",
            json!({"anyOf": [named("Tokens"), named("Challenge")]}),
        ),
        "Tokens": object(token, json!({
            "accessToken": text(), "idToken": text(), "refreshToken": text(), "tokenType": text(),
            "expiresIn": {"type": "integer", "description": "Lifetime of the access token in seconds."},
            "newDevice": named("NewDevice"),
        })),
        "NewDevice": described(
            "Device that Cognito offers to remember.",
            object(&[], json!({"deviceKey": text(), "deviceGroupKey": nullable()})),
        ),
        "Challenge": object(&["challenge", "session", "parameters"], json!({
            "challenge": {"type": "string", "description": "Name of the challenge in Cognito, such as SOFTWARE_TOKEN_MFA. Cognito adds new ones without notice."},
            "session": nullable(),
            "parameters": {"type": "object", "additionalProperties": text(), "description": "Parameters of the challenge, by Cognito's names."},
            "availableChallenges": {"type": "array", "items": text()},
        })),
        "LoggedOut": object(&["message"], json!({"message": text(), "scope": named("RevocationScope"), "hostedUiLogoutUrl": uri()})),
        "Revoked": object(&["message"], json!({"message": text(), "scope": named("RevocationScope")})),
        "RevocationScope": {
            "type": "string",
            "enum": ["replica", "shared"],
            "description": "Where the tokens are refused from now on: by this replica, or by all replicas with the same store.",
        },
        "Profile": object(&["sub", "username", "attributes", "mfa"], json!({
            "sub": text(),
            "username": text(),
            "attributes": {"type": "object", "additionalProperties": text()},
            "mfa": named("SecondFactors"),
            "deliveries": {"type": "array", "items": named("CodeDelivery"), "description": "Destinations of codes that were sent because of a change."},
        })),
        "SecondFactors": described(
            "Second factors, by Cognito's names, such as SOFTWARE_TOKEN_MFA.",
            object(&["preferred", "enabled"], json!({"preferred": nullable(), "enabled": {"type": "array", "items": text()}})),
        ),
        "SecondFactorSettings": object(&["enabled"], json!({
            "enabled": {"type": "boolean"}, "preferred": {"type": ["boolean", "null"]},
        })),
        "TotpSecret": object(&["secret", "otpauthUrl"], json!({
            "secret": {"type": "string", "description": "Secret in base32."},
            "otpauthUrl": {"type": "string", "format": "uri", "description": "URL to show as a QR code."},
            "session": {"type": "string", "description": "Session to continue the sign-in with."},
        })),
        "TotpVerified": object(&["message"], json!({
            "message": text(), "session": {"type": "string", "description": "Session to continue the sign-in with."},
        })),
        "PasskeyCreationOptions": {
            "type": "object",
            "additionalProperties": true,
            "description": "`PublicKeyCredentialCreationOptionsJSON` (WebAuthn Level 3).",
        },
        "PasskeyList": object(&["credentials"], json!({
            "credentials": {"type": "array", "items": named("Passkey")},
            "next": {"type": "string", "description": "Parameter for the next page; absent on the last one."},
        })),
        "Passkey": object(
            &["credentialId", "friendlyName", "relyingPartyId", "authenticatorAttachment", "transports", "createdAt"],
            json!({
                "credentialId": text(), "friendlyName": nullable(), "relyingPartyId": nullable(),
                "authenticatorAttachment": nullable(), "transports": {"type": "array", "items": text()},
                "createdAt": {"type": ["string", "null"], "format": "date-time"},
            }),
        ),
        "SignInUrl": object(&["url", "state", "codeVerifier"], json!({"url": uri(), "state": text(), "codeVerifier": text()})),
        "OpenApiDocument": {"type": "object", "additionalProperties": true, "description": "An OpenAPI 3.1 document."},
    })
}

fn object(required: &[&str], properties: Value) -> Value {
    let mut schema = Map::from_iter([("type".to_owned(), "object".into()), ("properties".into(), properties)]);
    if !required.is_empty() {
        schema.insert("required".into(), required.into());
    }
    schema.into()
}

fn described(about: &str, mut schema: Value) -> Value {
    if let Some(schema) = schema.as_object_mut() {
        schema.insert("description".into(), about.into());
    }
    schema
}

fn error() -> Value {
    let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    object(
        &["message", "code", "request_id"],
        json!({
            "message": {"type": "string", "description": "What is wrong, and what to send instead, in English."},
            "code": {"type": "string", "enum": codes},
            "field": {
                "type": "string",
                "enum": fields(),
                "description": "Only with `invalid_request`: the member of the request that is missing or wrong, if it is one.",
            },
            "request_id": quoted_request_id(),
        }),
    )
}

/// Names of the members and parameters of all requests.
fn fields() -> BTreeSet<&'static str> {
    rows().flat_map(|row| row.fields).map(|field| field.name).chain(oauth::PARAMETERS).collect()
}

/// Schema of a well-formed id of a request.
pub(super) fn request_id() -> Value {
    json!({"type": "string", "pattern": "^[A-Za-z0-9-]+$", "minLength": 1, "maxLength": MAX_LENGTH})
}

/// Schema of the member of an error that repeats the id.
pub(super) fn quoted_request_id() -> Value {
    described("Id of the request, to quote to the operator; the same as `X-Request-Id`.", request_id())
}
