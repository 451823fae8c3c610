//! Why Cognito did not do what it was asked: told apart by the *name* of the error, because nearly all of them come
//! with status 400 (AWS JSON 1.1).
//!
//! Messages are read once, here, for the few distinctions that names do not make, and are not kept: some of them
//! repeat what the caller sent. The one exception is what the pool's password policy asks for.

use serde_json::Value;

/// Why a call brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CognitoError {
    /// Cognito answered with an error that it names.
    #[error("Cognito refuses: {:?}", .0.name)]
    Refused(Refusal),
    /// No answer, or one that says that Cognito itself failed.
    #[error("Cognito is unavailable: {}", .0.label())]
    Unavailable(Outage),
    /// An answer that makes no sense: no name, an unknown one, no JSON, too much of it.
    #[error("Cognito's answer makes no sense")]
    Nonsense,
}

/// How Cognito is unavailable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// No connection was established, so nothing was asked.
    Connect,
    /// The connection broke before the answer was complete.
    Broken,
    /// No answer in time.
    Timeout,
    /// Cognito says that it failed (5xx).
    Failed,
    /// It was not even tried.
    CircuitOpen,
}

impl Outage {
    /// The value of the label `outcome`.
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

    /// The value of the label `outcome`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Refused(refusal) if refusal.name.is_throttling() => "throttled",
            Self::Refused(_) => "refused",
            Self::Unavailable(outage) => outage.label(),
            Self::Nonsense => "nonsense",
        }
    }
}

/// An error that Cognito names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which.
    pub name: ErrorName,
    /// What its message tells apart that its name does not.
    pub hint: Hint,
    /// What the password policy asks for, in Cognito's words.
    pub policy: Option<Box<str>>,
}

/// What only the message of an overloaded name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Nothing.
    None,
    /// The app client's secret, or the hash made with it.
    Secret,
    /// The app client does not allow this way to sign in.
    Flow,
    /// The access token, and not what came with it.
    AccessToken,
    /// The session of a sign-in.
    Session,
    /// The app client may not write the attribute.
    Attribute,
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The names of errors that we tell apart, without the ending `Exception`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ErrorName {
            $($(#[$doc])* $name,)*
        }

        impl ErrorName {
            fn known(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($name) => Some(Self::$name),)*
                    // Of the protocol, not of the service; AWS's services differ in which they use.
                    "Throttling" | "Throttled" | "RequestThrottled" | "RequestLimitExceeded" => Some(Self::TooManyRequests),
                    "InternalServer" | "InternalServerError" | "InternalFailure" | "ServiceUnavailable" => Some(Self::InternalError),
                    _ => None,
                }
            }
        }
    };
}

names! {
    /// The alias is another user's.
    AliasExists,
    /// A mail or a text could not be sent.
    CodeDeliveryFailure,
    /// A wrong code.
    CodeMismatch,
    /// Two calls at once.
    ConcurrentModification,
    /// A wrong code, when a second factor is set up.
    EnableSoftwareTokenMFA,
    /// An old code, or none was asked for.
    ExpiredCode,
    /// The pool's tier does not have this.
    FeatureUnavailableInTier,
    /// Refused by a WAF.
    Forbidden,
    /// Cognito failed.
    InternalError,
    /// The token endpoint does not know the app client, or its secret is wrong.
    InvalidClient,
    /// A role of the pool.
    InvalidEmailRoleAccessPolicy,
    /// The token endpoint does not take the code: wrong, used, too old, or of another request.
    InvalidGrant,
    /// A Lambda of the pool answered nonsense.
    InvalidLambdaResponse,
    /// A member of the request; much else, too.
    InvalidParameter,
    /// The password policy.
    InvalidPassword,
    /// A role of the pool.
    InvalidSmsRoleAccessPolicy,
    /// A role of the pool.
    InvalidSmsRoleTrustRelationship,
    /// The pool's configuration.
    InvalidUserPoolConfiguration,
    /// A quota, mostly of one user.
    LimitExceeded,
    /// The user has no such second factor.
    MFAMethodNotFound,
    /// A wrong password, a dead token, a disabled user, a wrong secret.
    NotAuthorized,
    /// A replica of the pool that does not write.
    OperationNotEnabled,
    /// The password was used before.
    PasswordHistoryPolicyViolation,
    /// The password has to be reset.
    PasswordResetRequired,
    /// A refresh token that was rotated before.
    RefreshTokenReuse,
    /// The app client, mostly.
    ResourceNotFound,
    /// The user has no such second factor.
    SoftwareTokenMFANotFound,
    /// Too many wrong codes.
    TooManyFailedAttempts,
    /// A quota of the account.
    TooManyRequests,
    /// Of `RevokeToken`.
    Unauthorized,
    /// The token endpoint does not let the app client do this.
    UnauthorizedClient,
    /// A Lambda of the pool failed.
    UnexpectedLambda,
    /// The app client, or the pool, does not do this.
    UnsupportedOperation,
    /// Not a refresh token.
    UnsupportedTokenType,
    /// The state of the user.
    UnsupportedUserState,
    /// A Lambda of the pool says no.
    UserLambdaValidation,
    /// The name is taken.
    UsernameExists,
    /// The user has not confirmed the sign-up.
    UserNotConfirmed,
    /// No such user.
    UserNotFound,
}

impl ErrorName {
    /// Whether it is about how often, not about what.
    pub fn is_throttling(self) -> bool {
        matches!(self, Self::TooManyRequests | Self::LimitExceeded | Self::TooManyFailedAttempts)
    }
}

/// An answer that is an error, taken apart.
pub(super) struct ErrorAnswer {
    /// What it is.
    pub(super) error: CognitoError,
    /// The name as it came, for the log: letters and digits, cut.
    pub(super) name: String,
}

impl ErrorAnswer {
    /// Reads an error from the header `x-amzn-ErrorType`, if there is one, else from the body.
    pub(super) fn read(status: u16, header: Option<&str>, body: &[u8]) -> Self {
        // Not gated on a content type: AWS has one of its own, emulators have others, a WAF sends HTML.
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

/// Reads an error of the token endpoint (RFC 6749 section 5.2): a name in JSON, with status 400 or 401. Its
/// description is not looked at.
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

/// `com.amazon#NotAuthorizedException:http://internal/` without its ornaments.
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
    fn a_name_is_found_wherever_it_stands_and_however_it_is_dressed() {
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
    fn what_has_no_known_name_is_judged_by_its_status() {
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
    fn messages_tell_apart_what_names_do_not_and_are_forgotten() {
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
    fn a_name_in_the_log_is_a_word() {
        let hostile = format!("{}\n\u{1b}[31m{{}}", "A".repeat(100));
        assert_eq!(ErrorAnswer::read(400, Some(&hostile), b"").name, "A".repeat(64));
    }
}
