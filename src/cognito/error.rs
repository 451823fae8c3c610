//! Errors of Cognito. They are distinguished by *name*, because nearly all of them have status 400 (AWS JSON 1.1).
//!
//! Messages are read only here, for the few distinctions that names do not make, and are not stored, because some of
//! them repeat the caller's input. The only exception is the message about the pool's password policy.

use serde_json::Value;

/// Error of a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CognitoError {
    /// Cognito responded with an error that has a known name.
    #[error("Cognito refuses: {:?}", .0.name)]
    Refused(Refusal),
    /// No response, or one that says that Cognito itself failed.
    #[error("Cognito is unavailable: {}", .0.label())]
    Unavailable(Outage),
    /// A response that cannot be interpreted: without a name, with an unknown name, not JSON, or too large.
    #[error("Cognito's answer makes no sense")]
    Nonsense,
}

/// Kind of an outage of Cognito.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// No connection was established, so the request was not sent.
    Connect,
    /// The connection broke before the response was complete.
    Broken,
    /// No response within the time limit.
    Timeout,
    /// Cognito reported a failure of its own (5xx).
    Failed,
    /// The circuit breaker is open, so the request was not sent.
    CircuitOpen,
}

impl Outage {
    /// Value of the label `outcome`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Broken => "broken",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
            Self::CircuitOpen => "circuit_open",
        }
    }
}

impl CognitoError {
    /// Values of the label `outcome`.
    pub const LABELS: [&'static str; 9] =
        ["success", "refused", "throttled", "connect", "broken", "timeout", "failed", "circuit_open", "nonsense"];

    /// Value of the label `outcome`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Refused(refusal) if refusal.name.is_throttling() => "throttled",
            Self::Refused(_) => "refused",
            Self::Unavailable(outage) => outage.label(),
            Self::Nonsense => "nonsense",
        }
    }
}

/// Error with a known name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Name of the error.
    pub name: ErrorName,
    /// Distinction that only the message makes.
    pub hint: Hint,
    /// Cognito's description of the password policy.
    pub policy: Option<Box<str>>,
}

/// Distinction that only the message of an ambiguous error makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// None.
    None,
    /// The app client's secret, or the secret hash, is missing or wrong.
    Secret,
    /// The app client does not allow this sign-in flow.
    Flow,
    /// The error is about the access token, and not about other members.
    AccessToken,
    /// The error is about the session of a sign-in.
    Session,
    /// The app client may not write the attribute.
    Attribute,
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Known names of errors, without the suffix `Exception`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ErrorName {
            $($(#[$doc])* $name,)*
        }

        impl ErrorName {
            fn known(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($name) => Some(Self::$name),)*
                    // Names of the protocol. AWS services differ in which of them they use.
                    "Throttling" | "Throttled" | "RequestThrottled" | "RequestLimitExceeded" => Some(Self::TooManyRequests),
                    "InternalServer" | "InternalServerError" | "InternalFailure" | "ServiceUnavailable" => Some(Self::InternalError),
                    _ => None,
                }
            }
        }
    };
}

names! {
    /// Another user has the alias.
    AliasExists,
    /// An e-mail or a text message could not be sent.
    CodeDeliveryFailure,
    /// The code is wrong.
    CodeMismatch,
    /// Two calls changed the same user at once.
    ConcurrentModification,
    /// The code is wrong, when an authenticator app is set up.
    EnableSoftwareTokenMFA,
    /// The code has expired, or none was requested.
    ExpiredCode,
    /// The pool's feature plan does not include this.
    FeatureUnavailableInTier,
    /// The pool's web ACL (AWS WAF) blocked the request.
    Forbidden,
    /// Cognito failed.
    InternalError,
    /// The token endpoint does not know the app client, or its secret is wrong.
    InvalidClient,
    /// The role for sending e-mail lacks permissions.
    InvalidEmailRoleAccessPolicy,
    /// The token endpoint does not accept the code: it is wrong, was used, has expired, or belongs to another request.
    InvalidGrant,
    /// A Lambda trigger returned an invalid response.
    InvalidLambdaResponse,
    /// A member of the request is not valid. Also used for many other errors.
    InvalidParameter,
    /// The password does not meet the policy.
    InvalidPassword,
    /// The role for sending text messages lacks permissions.
    InvalidSmsRoleAccessPolicy,
    /// Cognito may not assume the role for sending text messages.
    InvalidSmsRoleTrustRelationship,
    /// The pool's configuration is not valid.
    InvalidUserPoolConfiguration,
    /// A quota is exceeded, mostly one of a single user.
    LimitExceeded,
    /// The user has no such second factor.
    MFAMethodNotFound,
    /// Wrong password, revoked token, disabled user, or wrong secret.
    NotAuthorized,
    /// A replica of the pool that is read-only.
    OperationNotEnabled,
    /// The password was used before.
    PasswordHistoryPolicyViolation,
    /// The password has to be reset first.
    PasswordResetRequired,
    /// The refresh token was rotated before.
    RefreshTokenReuse,
    /// A resource, mostly the app client, does not exist.
    ResourceNotFound,
    /// The user has no such second factor.
    SoftwareTokenMFANotFound,
    /// Too many wrong codes or passwords.
    TooManyFailedAttempts,
    /// A quota of the AWS account is exceeded.
    TooManyRequests,
    /// `RevokeToken` does not accept the token.
    Unauthorized,
    /// The token endpoint does not allow this grant or these scopes for the app client.
    UnauthorizedClient,
    /// A Lambda trigger failed.
    UnexpectedLambda,
    /// The app client or the pool does not support this.
    UnsupportedOperation,
    /// The token is not a refresh token.
    UnsupportedTokenType,
    /// The state of the user does not allow this.
    UnsupportedUserState,
    /// A Lambda trigger rejected the request.
    UserLambdaValidation,
    /// Another user has the name.
    UsernameExists,
    /// The user has not confirmed the sign-up.
    UserNotConfirmed,
    /// The user does not exist.
    UserNotFound,
    /// No registration of a passkey was started, or it has expired.
    WebAuthnChallengeNotFound,
    /// Another app client started the registration of the passkey.
    WebAuthnClientMismatch,
    /// The pool has neither a domain nor a relying party id for passkeys.
    WebAuthnConfigurationMissing,
    /// The pool does not support this kind of passkey.
    WebAuthnCredentialNotSupported,
    /// The pool does not allow passkeys.
    WebAuthnNotEnabled,
    /// The page that created the passkey does not belong to the pool's relying party id.
    WebAuthnOriginNotAllowed,
    /// The passkey was created for another relying party id than the pool's.
    WebAuthnRelyingPartyMismatch,
}

impl ErrorName {
    /// `true` for errors about the number of requests.
    pub fn is_throttling(self) -> bool {
        matches!(self, Self::TooManyRequests | Self::LimitExceeded | Self::TooManyFailedAttempts)
    }
}

/// Parsed error response.
pub(super) struct ErrorAnswer {
    pub(super) error: CognitoError,
    /// Name as it was received, for the log: letters, digits and underscores only, at most 64.
    pub(super) name: String,
}

impl ErrorAnswer {
    /// Parses an error. The name is taken from the header `x-amzn-ErrorType`, or else from the body.
    pub(super) fn read(status: u16, header: Option<&str>, body: &[u8]) -> Self {
        // The content type is not checked: AWS has its own, emulators have others, and a WAF sends HTML.
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let member = |name: &str| body.get(name).and_then(Value::as_str);
        let name = header.or(member("code")).or(member("__type")).map(bare).unwrap_or_default();
        let known = ErrorName::known(name.strip_suffix("Exception").unwrap_or(name));
        let error = match known {
            Some(ErrorName::InternalError) => CognitoError::Unavailable(Outage::Failed),
            Some(name) => {
                CognitoError::Refused(Refusal::new(name, member("message").or(member("Message")).unwrap_or_default()))
            }
            None if status >= 500 => CognitoError::Unavailable(Outage::Failed),
            None => CognitoError::Nonsense,
        };
        Self { error, name: name.chars().filter(char::is_ascii_alphanumeric).take(64).collect() }
    }
}

/// Parses an error of the token endpoint (RFC 6749 section 5.2): a name in JSON, with status 400 or 401. The
/// description is not read.
pub(super) fn read_oauth(status: u16, body: &[u8]) -> ErrorAnswer {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let name = body.get("error").and_then(Value::as_str).unwrap_or_default();
    let known = match name {
        "invalid_grant" => Some(ErrorName::InvalidGrant),
        "invalid_client" => Some(ErrorName::InvalidClient),
        "unauthorized_client" | "unsupported_grant_type" | "invalid_scope" => Some(ErrorName::UnauthorizedClient),
        "invalid_request" => Some(ErrorName::InvalidParameter),
        _ if status == 429 => Some(ErrorName::TooManyRequests),
        _ => None,
    };
    let error = match known {
        _ if status >= 500 => CognitoError::Unavailable(Outage::Failed),
        Some(name) => CognitoError::Refused(Refusal { name, hint: Hint::None, policy: None }),
        None => CognitoError::Nonsense,
    };
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    ErrorAnswer { error, name: name.chars().filter(is_plain).take(64).collect() }
}

/// Removes namespace and URL from a name such as `com.amazon#NotAuthorizedException:http://internal/`.
fn bare(name: &str) -> &str {
    let name = name.split(':').next().unwrap_or_default();
    name.rsplit('#').next().unwrap_or_default().trim()
}

impl Refusal {
    fn new(name: ErrorName, message: &str) -> Self {
        let text = message.to_ascii_lowercase();
        let says = |what: &str| text.contains(what);
        let hint = match name {
            ErrorName::NotAuthorized | ErrorName::InvalidParameter => {
                if says("unauthorized attribute") {
                    Hint::Attribute
                } else if says("secret") {
                    Hint::Secret
                } else if says("not enabled") || says("auth method not supported") || says("auth flow not supported") {
                    Hint::Flow
                } else if says("access token") {
                    Hint::AccessToken
                } else if says("session") || says("auth state") {
                    Hint::Session
                } else {
                    Hint::None
                }
            }
            _ => Hint::None,
        };
        let policy = matches!(name, ErrorName::InvalidPassword | ErrorName::PasswordHistoryPolicyViolation)
            .then(|| message.chars().filter(|c| !c.is_control()).take(300).collect::<String>())
            .filter(|message| !message.is_empty())
            .map(Into::into);
        Self { name, hint, policy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, header: Option<&str>, body: &str) -> CognitoError {
        ErrorAnswer::read(status, header, body.as_bytes()).error
    }

    fn refused(name: ErrorName) -> CognitoError {
        CognitoError::Refused(Refusal { name, hint: Hint::None, policy: None })
    }

    #[test]
    fn names_are_found_in_all_places_and_forms() {
        let code = r#"{"code":"UserNotFoundException"}"#;
        for (header, body) in [
            (None, r#"{"__type":"UserNotFoundException","message":"x"}"#),
            (None, r#"{"__type":"com.amazonaws.cognito#UserNotFoundException"}"#),
            (None, r#"{"__type":"UserNotFoundException:http://internal.amazon.com/coral/x#y"}"#),
            (None, r#"{"__type":"aws.protocol#UserNotFoundException:http://internal/"}"#),
            (None, r#"{"__type":"UserNotFound"}"#),
            (None, code),
            (Some("UserNotFoundException"), ""),
            (Some("UserNotFoundException:"), "<html>"),
            (Some("UserNotFoundException:http://internal.amazon.com/"), r#"{"__type":"Other"}"#),
        ] {
            for status in [400, 404, 500] {
                assert_eq!(read(status, header, body), refused(ErrorName::UserNotFound), "{header:?} {body}");
            }
        }
    }

    #[test]
    fn errors_without_a_known_name_are_classified_by_status() {
        for body in ["", "<html>no</html>", "{}", "[]", r#"{"__type":"BrandNewException"}"#, r#"{"__type":7}"#, "null"]
        {
            assert_eq!(read(403, None, body), CognitoError::Nonsense, "{body}");
            assert_eq!(read(502, None, body), CognitoError::Unavailable(Outage::Failed), "{body}");
        }
        for name in ["InternalErrorException", "InternalServerException", "ServiceUnavailable"] {
            assert_eq!(read(400, Some(name), ""), CognitoError::Unavailable(Outage::Failed), "{name}");
        }
        assert_eq!(read(400, Some("ThrottlingException"), ""), refused(ErrorName::TooManyRequests));
    }

    #[test]
    fn hints_come_from_messages_that_are_not_stored() {
        for (name, message, hint) in [
            ("NotAuthorizedException", "Incorrect username or password.", Hint::None),
            ("NotAuthorizedException", "Unable to verify secret hash for client abc", Hint::Secret),
            ("NotAuthorizedException", "Client abc is configured for secret but secret was not received", Hint::Secret),
            ("NotAuthorizedException", "Access Token has been revoked", Hint::AccessToken),
            ("NotAuthorizedException", "Invalid session for the user, session is expired.", Hint::Session),
            ("InvalidParameterException", "USER_PASSWORD_AUTH flow not enabled for this client", Hint::Flow),
            ("NotAuthorizedException", "A client attempted to write unauthorized attribute", Hint::Attribute),
            ("UserNotFoundException", "secret", Hint::None),
        ] {
            let body = serde_json::json!({"__type": name, "message": message}).to_string();
            let CognitoError::Refused(refusal) = read(400, None, &body) else { panic!("{name}") };
            assert_eq!((refusal.hint, refusal.policy), (hint, None), "{message}");
        }
        let body = r#"{"__type":"InvalidPasswordException","Message":"Password did not conform\nwith policy"}"#;
        let CognitoError::Refused(refusal) = read(400, None, body) else { panic!("not refused") };
        assert_eq!(refusal.policy.as_deref(), Some("Password did not conformwith policy"));
    }

    #[test]
    fn errors_of_the_token_endpoint() {
        let refused = |name| Some(ErrorName::known(name).unwrap());
        for (status, body, expected) in [
            (400, r#"{"error":"invalid_grant","error_description":"private"}"#, refused("InvalidGrant")),
            (401, r#"{"error":"invalid_client"}"#, refused("InvalidClient")),
            (400, r#"{"error":"unauthorized_client"}"#, refused("UnauthorizedClient")),
            (400, r#"{"error":"invalid_request"}"#, refused("InvalidParameter")),
            (429, "<html>", refused("TooManyRequests")),
            (400, r#"{"error":"brand_new"}"#, None),
            (403, "<html>", None),
            (302, "", None),
        ] {
            let answer = read_oauth(status, body.as_bytes());
            let found = match &answer.error {
                CognitoError::Refused(refusal) => Some(refusal.name),
                error => {
                    assert_eq!(*error, CognitoError::Nonsense, "{status} {body}");
                    None
                }
            };
            assert_eq!(found, expected, "{status} {body}");
            assert!(!answer.name.contains("private"));
        }
        let failed = read_oauth(503, br#"{"error":"server_error"}"#);
        assert_eq!((failed.error, &*failed.name), (CognitoError::Unavailable(Outage::Failed), "server_error"));
    }

    #[test]
    fn names_in_the_log_have_only_letters_and_digits() {
        let hostile = format!("{}\n\u{1b}[31m{{}}", "A".repeat(100));
        assert_eq!(ErrorAnswer::read(400, Some(&hostile), b"").name, "A".repeat(64));
    }
}
