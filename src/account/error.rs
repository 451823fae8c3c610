//! Errors of the account API: an HTTP status, a code of a closed list, and a fixed message.
//!
//! [`judge`] translates every error of Cognito, by its name and by the columns of the row. It does not know single
//! operations: a difference between operations is a column ([`Meanings`](super::table::Meanings)). No text of a Lambda
//! trigger, a role or a proxy reaches the client. The only text of Cognito that does describes the password policy.

use std::borrow::Cow;

use super::table::{Hides, NotAuthorized, Row, UserState};
use crate::cognito::error::{CognitoError, ErrorName, Hint, Refusal};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal: $message:literal,)*) => {
        /// Code of an error: `code` in the body, and value of the metric label `outcome`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(clippy::enum_variant_names, reason = "variants are named after the codes, such as `invalid_code`")]
        pub(crate) enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code as it appears in bodies and metrics.
            pub(crate) fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// Default message for the client.
            pub(crate) fn message(self) -> &'static str {
                match self {
                    $(Self::$name => $message,)*
                }
            }
        }
    };
}

codes! {
    /// The request does not have the required form.
    InvalidRequest = "invalid_request": "The request is not valid.",
    /// Wrong user name or password.
    InvalidCredentials = "invalid_credentials": "Incorrect username or password.",
    /// The sign-up has not been confirmed.
    UserNotConfirmed = "user_not_confirmed": "The account is not verified yet.",
    /// The password has to be reset first.
    PasswordResetRequired = "password_reset_required": "The password has to be reset.",
    /// Another user has the name.
    UsernameExists = "username_exists": "An account with this name exists already.",
    /// The password does not meet the pool's policy.
    InvalidPassword = "invalid_password": "The password does not meet the requirements.",
    /// The code is wrong, has expired, or was never requested.
    InvalidCode = "invalid_code": "The code is wrong or has expired.",
    /// The state of a sign-in at the hosted pages is not ours, belongs to another request, was used, or has expired.
    InvalidState = "invalid_state": "The sign-in took too long, was finished before, or was begun elsewhere. Start again.",
    /// The session of a sign-in has expired.
    InvalidSession = "invalid_session": "The sign-in took too long or was answered before. Start again.",
    /// A token is missing, invalid, expired or revoked.
    InvalidToken = "invalid_token": "The token is not valid or has expired.",
    /// The access token lacks the required scope.
    ScopeMissing = "scope_missing": "The token lacks the scope aws.cognito.signin.user.admin. Tokens of `login` have it, and those of the hosted pages if --oauth-scopes lists it.",
    /// The user has no such second factor.
    MfaNotSetUp = "mfa_not_set_up": "This second factor is not set up.",
    /// The registration of a passkey has expired, was finished before, or was started by another app client.
    InvalidChallenge = "invalid_challenge": "The registration took too long, was finished before, or was begun elsewhere. Start again.",
    /// The passkey cannot be used with this pool, or from this page.
    PasskeyNotAccepted = "passkey_not_accepted": "This passkey is not accepted here.",
    /// A request with cookies comes from a page that must not make it.
    CrossSite = "cross_site": "A request that can use session cookies has to send the Origin of this host or one of --cors-origins, or without an Origin `Sec-Fetch-Site: same-origin`. A client that is not a browser sends `X-Account-Tokens: body` instead.",
    /// The hosted pages ended a sign-in with an error.
    SignInFailed = "sign_in_failed": "The sign-in was cancelled or did not succeed.",
    /// A page asks for a new sign-in right after each sign-in.
    SignInLoop = "sign_in_loop": "You signed in several times within a minute, but the page did not accept the session.",
    /// A token of a session is larger than a check, or a browser's cookies, accept.
    SessionTooLarge = "session_too_large": "The session is too large. Membership in many groups can cause this.",
    /// A Lambda trigger or another rule of the pool rejects the request.
    Rejected = "rejected": "The request was rejected.",
    /// The route, or the resource that the path names, does not exist.
    NotFound = "not_found": "There is nothing at this path.",
    /// The route does not take this method.
    MethodNotAllowed = "method_not_allowed": "The path does not take this method. The header Allow lists those that it takes.",
    /// The body is larger than 16 KiB.
    TooLarge = "too_large": "The body is too large: it can have at most 16 KiB.",
    /// The body is not JSON, or is compressed.
    UnsupportedMediaType = "unsupported_media_type": "Send the body as `Content-Type: application/json`, without `Content-Encoding`.",
    /// A limit of this service, or a quota of Cognito, is exceeded.
    RateLimited = "rate_limited": "Too many requests. Try again later.",
    /// The app client does not allow this sign-in flow.
    AuthFlowDisabled = "auth_flow_disabled": "This way to sign in is not enabled in the app client. The service's log says what to tick.",
    /// The pool is not configured for passkeys.
    PasskeysDisabled = "passkeys_disabled": "Passkeys are not enabled in the pool. The service's log says what to set.",
    /// Cognito is unavailable.
    UpstreamUnavailable = "upstream_unavailable": "The service is not available at the moment. Try again later.",
    /// Cognito's response makes no sense, or the pool is not configured for this.
    UpstreamError = "upstream_error": "The service could not handle the request. Its log says why, under this request_id.",
}

/// Error response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AccountError {
    /// HTTP status.
    pub(super) status: u16,
    pub(super) code: Code,
    /// Message for the client.
    pub(super) message: Cow<'static, str>,
    /// Member of the request that is missing or wrong, if it is one. The name is the table's, not the client's.
    pub(super) field: Option<&'static str>,
    /// Value of `Retry-After`, in seconds.
    pub(super) retry_after: Option<u64>,
}

/// `Retry-After` after an outage, in seconds.
const AFTER_OUTAGE: u64 = 5;
/// `Retry-After` after a quota of the AWS account, in seconds.
const AFTER_QUOTA: u64 = 5;
/// `Retry-After` after a quota of a user, in seconds.
const AFTER_USER_QUOTA: u64 = 300;

impl AccountError {
    /// Creates an error with the default message of its code.
    pub(super) fn new(status: u16, code: Code) -> Self {
        Self { status, code, message: code.message().into(), field: None, retry_after: None }
    }

    /// 400 for a request that does not have the required form.
    pub(super) fn invalid_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), ..Self::new(400, Code::InvalidRequest) }
    }

    /// 400 for a member of the request that is missing or wrong.
    pub(super) fn invalid_member(field: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { field: Some(field), ..Self::invalid_request(message) }
    }

    /// 404 for a route or a resource that does not exist.
    pub(super) fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), ..Self::new(404, Code::NotFound) }
    }

    /// 405 for a path that takes only these methods.
    pub(super) fn method_not_allowed(methods: &str) -> Self {
        let message = format!("The path does not take this method. It takes {methods}.");
        Self { message: message.into(), ..Self::new(405, Code::MethodNotAllowed) }
    }

    /// 401 for a missing or invalid access token.
    pub(super) fn unauthorized(message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), ..Self::new(401, Code::InvalidToken) }
    }

    /// 429; `wait` is in seconds.
    pub(super) fn rate_limited(wait: u64) -> Self {
        Self { retry_after: Some(wait.max(1)), ..Self::new(429, Code::RateLimited) }
    }

    /// 503, with `Retry-After`.
    pub(super) fn unavailable() -> Self {
        Self { retry_after: Some(AFTER_OUTAGE), ..Self::new(503, Code::UpstreamUnavailable) }
    }

    /// 502: a response of Cognito that makes no sense, or a configuration error.
    pub(super) fn upstream() -> Self {
        Self::new(502, Code::UpstreamError)
    }
}

/// Result of translating an error of Cognito.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// The response is the one of a success, so that it does not reveal whether the user exists.
    AsIfDone,
    /// The response is this error.
    Error(AccountError),
}

/// Circumstances of a request that affect the meaning of an error.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ErrorContext {
    /// `true` if responses must not reveal whether an account exists, even if user interfaces could use that
    /// (`--account-hide-users`).
    pub(super) hide_users: bool,
    /// `true` if the caller sent the session of a sign-in where the row also accepts an access token.
    pub(super) by_session: bool,
}

/// Translates an error of Cognito for a client of this row.
pub(super) fn judge(row: &Row, error: &CognitoError, context: ErrorContext) -> Judgement {
    match error {
        CognitoError::Unavailable(_) => Judgement::Error(AccountError::unavailable()),
        CognitoError::Nonsense => Judgement::Error(AccountError::upstream()),
        CognitoError::Refused(refusal) => {
            let is_hidden = match row.hides {
                Hides::Nothing | Hides::Failures => false,
                Hides::All => is_about_the_user(refusal),
                Hides::SignUp => {
                    context.hide_users && (is_about_the_user(refusal) || is_about_the_sign_up(refusal.name))
                }
            };
            if is_hidden { Judgement::AsIfDone } else { Judgement::Error(refused(row, refusal, context)) }
        }
    }
}

/// `true` for errors that depend on the user's state: the user does not exist, is disabled or confirmed, has no
/// address, or has been sent too many messages.
fn is_about_the_user(refusal: &Refusal) -> bool {
    use ErrorName::{
        CodeDeliveryFailure, InvalidParameter, LimitExceeded, NotAuthorized, PasswordResetRequired,
        TooManyFailedAttempts, UnsupportedUserState, UserNotConfirmed, UserNotFound,
    };
    match refusal.name {
        NotAuthorized | InvalidParameter => refusal.hint != Hint::Secret,
        CodeDeliveryFailure
        | LimitExceeded
        | PasswordResetRequired
        | TooManyFailedAttempts
        | UnsupportedUserState
        | UserNotConfirmed
        | UserNotFound => true,
        _ => false,
    }
}

/// `true` for refusals of a sign-up that Cognito may check before or after "the name is taken"; the order is not
/// documented. If one of them had a response of its own, a request that causes it would tell a free name from a taken
/// one.
fn is_about_the_sign_up(name: ErrorName) -> bool {
    use ErrorName::{
        AliasExists, InvalidPassword, PasswordHistoryPolicyViolation, UserLambdaValidation, UsernameExists,
    };
    matches!(
        name,
        AliasExists | InvalidPassword | PasswordHistoryPolicyViolation | UserLambdaValidation | UsernameExists
    )
}

fn refused(row: &Row, refusal: &Refusal, context: ErrorContext) -> AccountError {
    use ErrorName as E;
    // All errors that the caller caused have one status; the code tells them apart.
    let caller = |code| AccountError::new(row.refusal, code);
    let unless_hidden = |code, hidden| caller(if context.hide_users { hidden } else { code });
    let blames_operator = row.errors.operator_hints.contains(&refusal.hint);
    match (refusal.name, row.errors.user_state) {
        (E::TooManyRequests, _) => AccountError::rate_limited(AFTER_QUOTA),
        (
            E::LimitExceeded | E::TooManyFailedAttempts | E::UserNotConfirmed | E::PasswordResetRequired,
            UserState::As(code),
        ) => caller(code),
        (E::LimitExceeded | E::TooManyFailedAttempts, UserState::Shown) => AccountError::rate_limited(AFTER_USER_QUOTA),
        (E::UserNotConfirmed, UserState::Shown) => unless_hidden(Code::UserNotConfirmed, Code::InvalidCredentials),
        (E::PasswordResetRequired, UserState::Shown) => {
            unless_hidden(Code::PasswordResetRequired, Code::InvalidCredentials)
        }
        (E::InternalError | E::OperationNotEnabled | E::ConcurrentModification, _) => AccountError::unavailable(),

        (E::UserLambdaValidation, _) => caller(Code::Rejected),
        (E::CodeMismatch | E::ExpiredCode | E::EnableSoftwareTokenMFA | E::InvalidGrant, _) => {
            caller(Code::InvalidCode)
        }
        (E::MFAMethodNotFound | E::SoftwareTokenMFANotFound, _) => caller(Code::MfaNotSetUp),
        (E::WebAuthnChallengeNotFound | E::WebAuthnClientMismatch, _) => caller(Code::InvalidChallenge),
        // These can also mean a wrong configuration, but any caller can cause them.
        (E::WebAuthnCredentialNotSupported | E::WebAuthnOriginNotAllowed | E::WebAuthnRelyingPartyMismatch, _) => {
            caller(Code::PasskeyNotAccepted)
        }
        (E::WebAuthnConfigurationMissing | E::WebAuthnNotEnabled, _) => AccountError::new(502, Code::PasskeysDisabled),
        (E::ResourceNotFound, _) if let Some(message) = row.errors.missing_resource => AccountError::not_found(message),
        (E::InvalidPassword, _) => bad_password(row, row.errors.invalid_password, refusal),
        (E::PasswordHistoryPolicyViolation, _) => bad_password(row, Code::InvalidPassword, refusal),
        (E::UsernameExists | E::AliasExists, _) => unless_hidden(Code::UsernameExists, row.errors.hidden_taken_name),

        (E::NotAuthorized, _) if blames_operator => operator_error(refusal.hint),
        // Cognito reports a write permission that the app client lacks as `NotAuthorized` only.
        (E::InvalidParameter, _) if blames_operator && refusal.hint != Hint::Attribute => operator_error(refusal.hint),
        (E::NotAuthorized | E::Unauthorized | E::UserNotFound | E::RefreshTokenReuse | E::UnsupportedTokenType, _) => {
            not_authorized(row, refusal, context.by_session)
        }
        (E::InvalidParameter, _) if refusal.hint == Hint::Session && context.by_session => caller(Code::InvalidSession),
        (E::InvalidParameter, _) => caller(row.errors.invalid_parameter),

        (
            E::CodeDeliveryFailure
            | E::FeatureUnavailableInTier
            | E::Forbidden
            | E::InvalidClient
            | E::InvalidEmailRoleAccessPolicy
            | E::InvalidLambdaResponse
            | E::InvalidSmsRoleAccessPolicy
            | E::InvalidSmsRoleTrustRelationship
            | E::InvalidUserPoolConfiguration
            | E::ResourceNotFound
            | E::UnauthorizedClient
            | E::UnexpectedLambda
            | E::UnsupportedOperation
            | E::UnsupportedUserState,
            _,
        ) => AccountError::upstream(),
    }
}

/// Adds Cognito's description of the password policy to [`Code::InvalidPassword`].
fn bad_password(row: &Row, code: Code, refusal: &Refusal) -> AccountError {
    let error = AccountError::new(row.refusal, code);
    match &refusal.policy {
        Some(policy) if code == Code::InvalidPassword => AccountError { message: policy.to_string().into(), ..error },
        _ => error,
    }
}

fn not_authorized(row: &Row, refusal: &Refusal, by_session: bool) -> AccountError {
    let caller = |code| AccountError::new(row.refusal, code);
    match row.errors.not_authorized {
        NotAuthorized::SessionOr(_) if refusal.hint == Hint::Session => caller(Code::InvalidSession),
        NotAuthorized::Code(code) | NotAuthorized::SessionOr(code) => caller(code),
        NotAuthorized::PasswordOrToken
            if refusal.hint != Hint::AccessToken && refusal.name != ErrorName::UserNotFound =>
        {
            caller(Code::InvalidCredentials)
        }
        NotAuthorized::Token | NotAuthorized::PasswordOrToken if by_session => caller(Code::InvalidSession),
        NotAuthorized::Token | NotAuthorized::PasswordOrToken => AccountError::new(401, Code::InvalidToken),
    }
}

/// 502 for a configuration error of the operator.
fn operator_error(hint: Hint) -> AccountError {
    match hint {
        Hint::Flow => AccountError::new(502, Code::AuthFlowDisabled),
        Hint::None | Hint::Secret | Hint::AccessToken | Hint::Session | Hint::Attribute => AccountError::upstream(),
    }
}

/// Returns what the operator should do about an error, for the log.
pub(super) fn advice(row: &Row, error: &CognitoError) -> Option<&'static str> {
    let CognitoError::Refused(refusal) = error else { return None };
    match refusal.name {
        ErrorName::NotAuthorized | ErrorName::InvalidParameter => match refusal.hint {
            Hint::Flow if row.takes_refresh_token() && row.errors.operator_hints.contains(&Hint::Flow) => Some(
                "the app client does not allow this refresh: tick ALLOW_REFRESH_TOKEN_AUTH, or set --refresh-flow tokens",
            ),
            Hint::Flow => Some(
                "the app client does not allow this way to sign in: tick it under its authentication flows \
                 (ALLOW_USER_PASSWORD_AUTH for passwords)",
            ),
            hint if !row.errors.operator_hints.contains(&hint) => None,
            Hint::Attribute => Some(
                "--account-attributes lists an attribute that the app client may not write: look at its attribute permissions",
            ),
            Hint::Secret => {
                Some("the app client's secret is missing or wrong: --client-secret-file or COGNITO_CLIENT_SECRET")
            }
            Hint::None | Hint::AccessToken | Hint::Session => None,
        },
        ErrorName::InvalidClient => Some(
            "the hosted sign-in pages refuse the app client: its secret is missing or wrong (--client-secret-file), or \
             --hosted-ui-domain belongs to another pool",
        ),
        ErrorName::UnauthorizedClient => Some(
            "the app client does not allow the authorization code grant, or does not allow these scopes: --oauth-scopes",
        ),
        ErrorName::ResourceNotFound if row.errors.missing_resource.is_some() => None,
        ErrorName::ResourceNotFound => {
            Some("Cognito does not know the app client, or not in this region: --account-client-id")
        }
        ErrorName::CodeDeliveryFailure => {
            Some("Cognito could not send a message: look at the pool's e-mail and SMS settings")
        }
        ErrorName::Forbidden => Some("the pool's web ACL (AWS WAF) refuses calls of this service"),
        ErrorName::UnexpectedLambda | ErrorName::InvalidLambdaResponse => Some("a Lambda trigger of the pool fails"),
        ErrorName::UnsupportedOperation => {
            Some("the app client does not support this: check its token revocation and its authentication flows")
        }
        ErrorName::WebAuthnNotEnabled => Some(
            "the pool does not allow passkeys: tick them in its options for choice-based sign-in, and ALLOW_USER_AUTH in \
             the app client",
        ),
        ErrorName::WebAuthnConfigurationMissing => {
            Some("passkeys need a relying party id: set one in the pool's passkey settings, or give the pool a domain")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
