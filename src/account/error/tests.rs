use super::*;
use crate::account::table::{row, rows};
use crate::cognito::error::Outage;

fn error(name: ErrorName, hint: Hint) -> CognitoError {
    CognitoError::Refused(Refusal { name, hint, policy: None })
}

/// Returns the status and code for an error; 200 for a response that looks like a success.
fn judged(path: &str, name: ErrorName, hint: Hint, hide_users: bool) -> (u16, &'static str) {
    match judge(row(path), &error(name, hint), ErrorContext { hide_users, by_session: false }) {
        Judgement::AsIfDone => (200, ""),
        Judgement::Error(error) => (error.status, error.code.as_str()),
    }
}

#[test]
fn errors_of_each_operation() {
    use ErrorName as E;
    for (path, name, expected) in [
        ("/register", E::UsernameExists, (400, "username_exists")),
        ("/register", E::InvalidPassword, (400, "invalid_password")),
        ("/register", E::InvalidParameter, (400, "invalid_request")),
        ("/register", E::NotAuthorized, (400, "rejected")),
        ("/register", E::UserLambdaValidation, (400, "rejected")),
        ("/register", E::CodeDeliveryFailure, (502, "upstream_error")),
        ("/register", E::UnexpectedLambda, (502, "upstream_error")),
        ("/register", E::OperationNotEnabled, (503, "upstream_unavailable")),
        ("/verify", E::CodeMismatch, (400, "invalid_code")),
        ("/verify", E::ExpiredCode, (400, "invalid_code")),
        ("/verify", E::UserNotFound, (400, "invalid_code")),
        ("/verify", E::NotAuthorized, (400, "invalid_code")),
        ("/verify", E::AliasExists, (400, "username_exists")),
        ("/verify", E::LimitExceeded, (400, "invalid_code")),
        ("/verify", E::TooManyFailedAttempts, (400, "invalid_code")),
        ("/verify", E::TooManyRequests, (429, "rate_limited")),
        ("/resend-code", E::UserNotFound, (200, "")),
        ("/resend-code", E::InvalidParameter, (200, "")),
        ("/resend-code", E::NotAuthorized, (200, "")),
        ("/resend-code", E::LimitExceeded, (200, "")),
        ("/resend-code", E::CodeDeliveryFailure, (200, "")),
        ("/resend-code", E::TooManyRequests, (429, "rate_limited")),
        ("/forgot-password", E::UserNotFound, (200, "")),
        ("/forgot-password", E::UserNotConfirmed, (200, "")),
        ("/forgot-password", E::ResourceNotFound, (502, "upstream_error")),
        ("/login", E::NotAuthorized, (401, "invalid_credentials")),
        ("/login", E::UserNotFound, (401, "invalid_credentials")),
        ("/login", E::InvalidPassword, (401, "invalid_credentials")),
        ("/login", E::UserNotConfirmed, (401, "user_not_confirmed")),
        ("/login", E::PasswordResetRequired, (401, "password_reset_required")),
        ("/login", E::UserLambdaValidation, (401, "rejected")),
        ("/login", E::InvalidParameter, (401, "invalid_request")),
        ("/login", E::TooManyRequests, (429, "rate_limited")),
        ("/login", E::Forbidden, (502, "upstream_error")),
        ("/challenge", E::CodeMismatch, (401, "invalid_code")),
        ("/challenge", E::ExpiredCode, (401, "invalid_code")),
        ("/challenge", E::NotAuthorized, (401, "invalid_credentials")),
        ("/challenge", E::InvalidPassword, (401, "invalid_password")),
        ("/challenge", E::SoftwareTokenMFANotFound, (401, "mfa_not_set_up")),
        ("/refresh", E::NotAuthorized, (401, "invalid_token")),
        ("/refresh", E::RefreshTokenReuse, (401, "invalid_token")),
        ("/refresh", E::UserNotFound, (401, "invalid_token")),
        ("/refresh", E::InvalidParameter, (401, "invalid_token")),
        ("/reset-password", E::CodeMismatch, (400, "invalid_code")),
        ("/reset-password", E::UserNotConfirmed, (400, "invalid_code")),
        ("/reset-password", E::UserNotFound, (400, "invalid_code")),
        ("/reset-password", E::PasswordHistoryPolicyViolation, (400, "invalid_password")),
        ("/reset-password", E::TooManyFailedAttempts, (400, "invalid_code")),
        ("/reset-password", E::LimitExceeded, (400, "invalid_code")),
        ("/reset-password", E::TooManyRequests, (429, "rate_limited")),
        ("/revoke", E::Unauthorized, (400, "invalid_token")),
        ("/revoke", E::UnsupportedTokenType, (400, "invalid_token")),
        ("/revoke", E::UnsupportedOperation, (502, "upstream_error")),
        ("/change-password", E::NotAuthorized, (400, "invalid_credentials")),
        ("/change-password", E::LimitExceeded, (429, "rate_limited")),
        ("/change-password", E::UserNotFound, (401, "invalid_token")),
        ("GET /me", E::NotAuthorized, (401, "invalid_token")),
        ("GET /me", E::UserNotFound, (401, "invalid_token")),
        ("GET /me", E::PasswordResetRequired, (400, "password_reset_required")),
        ("PATCH /me", E::NotAuthorized, (401, "invalid_token")),
        ("PATCH /me", E::InvalidParameter, (400, "invalid_request")),
        ("PATCH /me", E::AliasExists, (400, "username_exists")),
        ("PATCH /me", E::UserLambdaValidation, (400, "rejected")),
        ("DELETE /me", E::NotAuthorized, (401, "invalid_token")),
        ("/verify-attribute/code", E::LimitExceeded, (429, "rate_limited")),
        ("/verify-attribute/code", E::CodeDeliveryFailure, (502, "upstream_error")),
        ("/verify-attribute", E::CodeMismatch, (400, "invalid_code")),
        ("/verify-attribute", E::ExpiredCode, (400, "invalid_code")),
        ("/verify-attribute", E::AliasExists, (400, "username_exists")),
        ("/mfa/totp", E::SoftwareTokenMFANotFound, (400, "mfa_not_set_up")),
        ("/mfa/totp", E::ConcurrentModification, (503, "upstream_unavailable")),
        ("/mfa/totp/verify", E::EnableSoftwareTokenMFA, (400, "invalid_code")),
        ("/mfa/totp/verify", E::CodeMismatch, (400, "invalid_code")),
        ("/mfa/totp/verify", E::NotAuthorized, (401, "invalid_token")),
        ("PUT /mfa/preference", E::InvalidParameter, (400, "mfa_not_set_up")),
        ("PUT /mfa/preference", E::NotAuthorized, (401, "invalid_token")),
        ("/webauthn/registration", E::WebAuthnNotEnabled, (502, "passkeys_disabled")),
        ("/webauthn/registration", E::WebAuthnConfigurationMissing, (502, "passkeys_disabled")),
        ("/webauthn/registration", E::InvalidParameter, (400, "invalid_request")),
        ("PUT /webauthn/registration", E::InvalidParameter, (400, "passkey_not_accepted")),
        ("PUT /webauthn/registration", E::WebAuthnChallengeNotFound, (400, "invalid_challenge")),
        ("PUT /webauthn/registration", E::WebAuthnClientMismatch, (400, "invalid_challenge")),
        ("PUT /webauthn/registration", E::WebAuthnOriginNotAllowed, (400, "passkey_not_accepted")),
        ("PUT /webauthn/registration", E::WebAuthnRelyingPartyMismatch, (400, "passkey_not_accepted")),
        ("PUT /webauthn/registration", E::WebAuthnCredentialNotSupported, (400, "passkey_not_accepted")),
        ("GET /webauthn/credentials", E::ResourceNotFound, (502, "upstream_error")),
        ("DELETE /webauthn/credentials/x", E::ResourceNotFound, (404, "not_found")),
        ("DELETE /webauthn/credentials/x", E::NotAuthorized, (401, "invalid_token")),
    ] {
        assert_eq!(judged(path, name, Hint::None, false), expected, "{path} {name:?}");
    }
}

#[test]
fn hints_in_messages() {
    use ErrorName::{InvalidParameter, NotAuthorized};
    for (path, name, hint, expected) in [
        ("/login", InvalidParameter, Hint::Flow, (502, "auth_flow_disabled")),
        ("/login", NotAuthorized, Hint::Secret, (502, "upstream_error")),
        ("/forgot-password", NotAuthorized, Hint::Secret, (502, "upstream_error")),
        ("/challenge", NotAuthorized, Hint::Secret, (401, "invalid_credentials")),
        ("/challenge", NotAuthorized, Hint::Session, (401, "invalid_session")),
        ("/refresh", InvalidParameter, Hint::Flow, (502, "auth_flow_disabled")),
        ("/refresh", NotAuthorized, Hint::Secret, (401, "invalid_token")),
        ("/change-password", NotAuthorized, Hint::AccessToken, (401, "invalid_token")),
        ("PATCH /me", NotAuthorized, Hint::Attribute, (502, "upstream_error")),
        ("PATCH /me", InvalidParameter, Hint::Secret, (400, "invalid_request")),
    ] {
        assert_eq!(judged(path, name, hint, false), expected, "{path} {name:?} {hint:?}");
    }
}

#[test]
fn only_errors_of_the_operator_have_advice() {
    let has = |path, name| advice(row(path), &error(name, Hint::None)).is_some();
    let passkey = "DELETE /webauthn/credentials/x";
    for name in [ErrorName::WebAuthnNotEnabled, ErrorName::WebAuthnConfigurationMissing] {
        assert!(has("/webauthn/registration", name), "{name:?}");
    }
    assert!(has("GET /webauthn/credentials", ErrorName::ResourceNotFound));
    for name in [
        ErrorName::ResourceNotFound,
        ErrorName::WebAuthnChallengeNotFound,
        ErrorName::WebAuthnOriginNotAllowed,
        ErrorName::WebAuthnRelyingPartyMismatch,
    ] {
        assert!(!has(passkey, name), "any caller can cause {name:?}");
    }
}

#[test]
fn a_session_is_not_a_token() {
    use ErrorName::{InvalidParameter, NotAuthorized, ResourceNotFound};
    for path in ["/mfa/totp", "/mfa/totp/verify"] {
        for (name, hint, expected) in [
            (NotAuthorized, Hint::Session, (400, "invalid_session")),
            (NotAuthorized, Hint::None, (400, "invalid_session")),
            (InvalidParameter, Hint::Session, (400, "invalid_session")),
            (InvalidParameter, Hint::None, (400, "invalid_request")),
            (ResourceNotFound, Hint::None, (502, "upstream_error")),
        ] {
            let context = ErrorContext { hide_users: false, by_session: true };
            let Judgement::Error(error) = judge(row(path), &error(name, hint), context) else { panic!("{path}") };
            assert_eq!((error.status, error.code.as_str()), expected, "{path} {name:?} {hint:?}");
        }
    }
}

#[test]
fn users_can_be_hidden() {
    use ErrorName as E;
    for (path, name, expected) in [
        ("/register", E::UsernameExists, (200, "")),
        ("/register", E::AliasExists, (200, "")),
        ("/register", E::InvalidPassword, (200, "")),
        ("/register", E::InvalidParameter, (200, "")),
        ("/register", E::UserLambdaValidation, (200, "")),
        ("/register", E::CodeDeliveryFailure, (200, "")),
        ("/register", E::LimitExceeded, (200, "")),
        ("/register", E::TooManyRequests, (429, "rate_limited")),
        ("/register", E::ResourceNotFound, (502, "upstream_error")),
        ("/register", E::UnexpectedLambda, (502, "upstream_error")),
        ("/verify", E::AliasExists, (400, "invalid_code")),
        ("PATCH /me", E::AliasExists, (400, "invalid_request")),
        ("/verify-attribute", E::AliasExists, (400, "invalid_code")),
        ("/login", E::UserNotConfirmed, (401, "invalid_credentials")),
        ("/login", E::PasswordResetRequired, (401, "invalid_credentials")),
    ] {
        assert_eq!(judged(path, name, Hint::None, true), expected, "{path} {name:?}");
    }
}

#[test]
fn outages_and_nonsense_do_not_depend_on_the_operation() {
    for row in rows() {
        let of = |error| match judge(row, &error, ErrorContext::default()) {
            Judgement::Error(error) => (error.status, error.retry_after.is_some()),
            Judgement::AsIfDone => (200, false),
        };
        for outage in [Outage::Connect, Outage::Broken, Outage::Timeout, Outage::Failed, Outage::CircuitOpen] {
            assert_eq!(of(CognitoError::Unavailable(outage)), (503, true), "{}", row.path);
        }
        assert_eq!(of(CognitoError::Nonsense), (502, false), "{}", row.path);
        assert_eq!(of(error(ErrorName::TooManyRequests, Hint::None)), (429, true), "{}", row.path);
    }
}
