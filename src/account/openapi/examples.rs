//! Examples of requests and responses. A request's example is the one that a user sends first: what is required, and no
//! more. Those of a journey fit together: sign up, verify, sign in.

use serde_json::{Map, Value, json};

use crate::account::error::Code;
use crate::account::settings::{AppUri, Settings};
use crate::account::table::{Field, Need, Row, Shape, Success};
use crate::cognito::Operation;

const EMAIL: &str = "grace@example.com";
const NAME: &str = "Grace Hopper";
const PASSWORD: &str = "Correct-horse-1-battery";
const NEW_PASSWORD: &str = "Correct-horse-2-battery";
const CODE: &str = "123456";
const SESSION: &str = "AYABeKq1pQ…";
const ACCESS_TOKEN: &str = "eyJraWQiOiJhY2Nlc3Mi…";
const ID_TOKEN: &str = "eyJraWQiOiJpZCIs…";
const REFRESH_TOKEN: &str = "eyJjdHkiOiJKV1Qi…";
const SUB: &str = "6d8d0a2e-3f2b-4c55-9a80-0d1f5d2f0b11";
const REQUEST_ID: &str = "5e1b9a0c-6f0e-4c4e-9d5e-0d1f5d2f0b11";
const CREDENTIAL_ID: &str = "AbC-_1";

/// URI of an application, if none is configured.
pub(super) const REDIRECT_URI: &str = "http://localhost:3118/callback";

/// URIs of applications, as they are configured: no others work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Uris<'s> {
    pub(super) redirect: &'s str,
    pub(super) logout: &'s str,
}

impl<'s> Uris<'s> {
    pub(super) fn of(settings: &'s Settings) -> Self {
        let hosted = settings.hosted_ui.as_ref();
        let first = |uris: &'s [AppUri]| uris.first().map_or(REDIRECT_URI, AppUri::as_str);
        Self {
            redirect: hosted.map_or(REDIRECT_URI, |hosted| first(&hosted.redirect_uris)),
            logout: hosted.map_or(REDIRECT_URI, |hosted| first(&hosted.logout_uris)),
        }
    }
}

/// Returns the body of a request. With `by_cookie`, no member is required.
pub(super) fn body(row: &Row, uris: Uris<'_>, by_cookie: bool) -> Value {
    let first_choice = row.body_fields().find(|field| field.need == Need::Any).map(|field| field.name);
    let is_shown = |field: &&Field| match field.need {
        Need::Yes | Need::Unless(_) => !by_cookie,
        Need::User => field.name == "email",
        Need::Any => Some(field.name) == first_choice,
        // Most challenges have a session, and a response.
        Need::No => {
            row.operation == Operation::RespondToAuthChallenge && ["session", "responses"].contains(&field.name)
        }
    };
    let members = row.body_fields().filter(is_shown);
    members
        .map(|field| (field.name.to_owned(), member(row, field, uris).unwrap_or_default()))
        .collect::<Map<_, _>>()
        .into()
}

/// Returns the value of a member; `None` for a name that has no example.
pub(super) fn member(row: &Row, field: &Field, uris: Uris<'_>) -> Option<Value> {
    Some(match field.name {
        "email" if field.target.shape() == Shape::Factor => json!({"enabled": true}),
        "email" => EMAIL.into(),
        "phone" => "+493012345678".into(),
        "username" => "grace".into(),
        "password" | "oldPassword" => PASSWORD.into(),
        // After a reset, the other examples still work.
        "newPassword" if row.operation == Operation::ConfirmForgotPassword => PASSWORD.into(),
        "newPassword" => NEW_PASSWORD.into(),
        "name" => NAME.into(),
        "attributes" => json!({"name": NAME}),
        "attribute" => "email".into(),
        "code" => CODE.into(),
        "challenge" => "SOFTWARE_TOKEN_MFA".into(),
        "responses" => json!({"SOFTWARE_TOKEN_MFA_CODE": CODE}),
        "session" => SESSION.into(),
        "authFlow" => "USER_SRP_AUTH".into(),
        "authParameters" => json!({"SRP_A": "6a5f…"}),
        "clientMetadata" => json!({"locale": "en"}),
        "deviceKey" => "eu-west-1_6d8d0a2e-3f2b-4c55-9a80-0d1f5d2f0b11".into(),
        "deviceName" => "phone".into(),
        "refreshToken" => REFRESH_TOKEN.into(),
        "logoutUri" => uris.logout.into(),
        "redirectUri" => uris.redirect.into(),
        "codeVerifier" => "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into(),
        "state" => "af0ifjsldkj…".into(),
        "totp" | "sms" => json!({"enabled": true, "preferred": true}),
        "credential" => json!({
            "id": CREDENTIAL_ID, "rawId": CREDENTIAL_ID, "type": "public-key", "clientExtensionResults": {},
            "response": {"clientDataJSON": "eyJ0eXBlIjoi…", "attestationObject": "o2NmbXRm…"},
        }),
        "credentialId" => CREDENTIAL_ID.into(),
        "next" => "AYADeG…".into(),
        _ => return None,
    })
}

/// Returns the body of an error. `refused` is a message of its own, and the member that it is about.
pub(super) fn error(code: Code, refused: Option<(&str, Option<&str>)>) -> Value {
    let (message, field) = refused.unwrap_or((code.message(), None));
    let mut body = json!({"message": message, "code": code.as_str(), "request_id": REQUEST_ID});
    if let (Some(field), Some(body)) = (field, body.as_object_mut()) {
        body.insert("field".into(), field.into());
    }
    body
}

/// Returns the body of [`Code::InvalidRequest`] for a request of the row that lacks something, or else has a member of the
/// wrong type.
pub(super) fn invalid_request(row: &Row, by_cookie: bool) -> Value {
    let missing = row.body_fields().find(|field| field.need != Need::No && !by_cookie);
    match (missing, row.fields.first()) {
        (Some(field), _) => error(Code::InvalidRequest, Some((&row.requirement(), Some(field.name)))),
        (None, Some(field)) => {
            let message = format!("{} has to be a string", field.name);
            error(Code::InvalidRequest, Some((&message, Some(field.name))))
        }
        (None, None) => error(Code::InvalidRequest, Some(("The body has to be a JSON object.", None))),
    }
}

/// Returns the bodies of a success, each with a name.
pub(super) fn success(success: Success, has_cookies: bool) -> Vec<(&'static str, Value)> {
    let delivery = || json!({"destination": "g***@e***", "medium": "EMAIL", "attribute": "email"});
    let value = match success {
        Success::Message(message) | Success::TotpVerified(message) => json!({"message": message}),
        Success::Registered(message) => json!({"message": message, "userSub": SUB, "delivery": delivery()}),
        Success::LoggedOut(message) | Success::Revoked(message) => json!({"message": message, "scope": "shared"}),
        Success::Sent(message) => json!({"message": message, "delivery": delivery()}),
        Success::Tokens => {
            let tokens = if has_cookies {
                json!({"expiresIn": 3600, "tokenType": "Bearer"})
            } else {
                json!({"accessToken": ACCESS_TOKEN, "idToken": ID_TOKEN, "refreshToken": REFRESH_TOKEN,
                    "expiresIn": 3600, "tokenType": "Bearer"})
            };
            let challenge = json!({"challenge": "SOFTWARE_TOKEN_MFA", "session": SESSION,
                "parameters": {"FRIENDLY_DEVICE_NAME": "phone", "USER_ID_FOR_SRP": SUB}});
            return vec![("success", tokens), ("with a second factor", challenge)];
        }
        Success::Profile => json!({
            "sub": SUB, "username": SUB, "attributes": {"email": EMAIL, "email_verified": "true", "name": NAME},
            "mfa": {"preferred": "SOFTWARE_TOKEN_MFA", "enabled": ["SOFTWARE_TOKEN_MFA"]},
        }),
        Success::Totp => json!({
            "secret": "JBSWY3DPEHPK3PXP",
            "otpauthUrl": "otpauth://totp/api:grace%40example.com?secret=JBSWY3DPEHPK3PXP&issuer=api",
        }),
        Success::CreationOptions => json!({
            "challenge": "Y2hhbGxlbmdl", "rp": {"id": "example.com", "name": "example.com"},
            "user": {"id": "Z3JhY2U", "name": EMAIL, "displayName": NAME},
            "pubKeyCredParams": [{"type": "public-key", "alg": -7}],
        }),
        Success::Passkeys => json!({"credentials": [{
            "credentialId": CREDENTIAL_ID, "friendlyName": "iCloud Keychain", "relyingPartyId": "example.com",
            "authenticatorAttachment": "platform", "transports": ["internal", "hybrid"], "createdAt": "2026-01-01T00:00:00Z",
        }]}),
    };
    vec![("success", value)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::table::rows;

    #[test]
    fn every_member_has_an_example() {
        let uris = Uris { redirect: REDIRECT_URI, logout: REDIRECT_URI };
        for row in rows() {
            for field in row.fields {
                assert!(member(row, field, uris).is_some(), "{} of {}", field.name, row.name);
            }
        }
    }
}
