//! What a client of the account API is told when it does not get what it asked for: a status, a code of a closed
//! list, and a fixed text.
//!
//! [`judge`] is the one place where Cognito's errors become ours, by name and by route. Nothing that a Lambda, a role
//! or a proxy said is passed on; the one text of Cognito's that is says what the password policy asks for.

use std::borrow::Cow;

use super::table::{Flow, Hides, Row};
use crate::cognito::Operation;
use crate::cognito::error::{CognitoError, ErrorName, Hint, Refusal};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal: $message:literal,)*) => {
        /// `code` in the body of an error, and the label `outcome`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word for it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// What the client is told, if there is nothing more to say.
            fn message(self) -> &'static str {
                match self {
                    $(Self::$name => $message,)*
                }
            }
        }
    };
}

codes! {
    /// The body is not what it has to be.
    InvalidRequest = "invalid_request": "The request is not valid.",
    /// Wrong user name or password.
    InvalidCredentials = "invalid_credentials": "Incorrect username or password.",
    /// The sign-up has not been confirmed.
    UserNotConfirmed = "user_not_confirmed": "The account is not verified yet.",
    /// The password has to be reset first.
    PasswordResetRequired = "password_reset_required": "The password has to be reset.",
    /// The name is taken.
    UsernameExists = "username_exists": "An account with this name exists already.",
    /// Not what the password policy asks for.
    InvalidPassword = "invalid_password": "The password does not meet the requirements.",
    /// A wrong code, an old one, or one that nobody asked for.
    InvalidCode = "invalid_code": "The code is wrong or has expired.",
    /// The state of a sign-in at the hosted pages: not ours, not of this request, used, or too old.
    InvalidState = "invalid_state": "The sign-in took too long, was finished before, or was begun elsewhere. Start again.",
    /// The session of a sign-in is over.
    InvalidSession = "invalid_session": "The sign-in took too long or was answered before. Start again.",
    /// A token that is missing, bad, expired or revoked.
    InvalidToken = "invalid_token": "The token is not valid or has expired.",
    /// The access token may not do this.
    ScopeMissing = "scope_missing": "The token lacks the scope aws.cognito.signin.user.admin.",
    /// The user has no such second factor.
    MfaNotSetUp = "mfa_not_set_up": "This second factor is not set up.",
    /// A request with cookies that does not come from a page that may make it.
    CrossSite = "cross_site": "The request does not come from a page that may use cookies here.",
    /// The pool's own rules say no.
    Rejected = "rejected": "The request was rejected.",
    /// No such route.
    NotFound = "not_found": "There is nothing here.",
    /// Another method than the route's.
    MethodNotAllowed = "method_not_allowed": "This method is not allowed here.",
    /// More than 16 KiB.
    TooLarge = "too_large": "The body is larger than 16 KiB.",
    /// Not JSON, or compressed.
    UnsupportedMediaType = "unsupported_media_type": "The body has to be application/json, not compressed.",
    /// Too often.
    RateLimited = "rate_limited": "Too many requests. Try again later.",
    /// The app client does not allow this way to sign in.
    AuthFlowDisabled = "auth_flow_disabled": "This way to sign in is not enabled.",
    /// Cognito does not answer.
    UpstreamUnavailable = "upstream_unavailable": "The service is not available at the moment. Try again later.",
    /// Cognito answers nonsense, or is not set up for this.
    UpstreamError = "upstream_error": "The service could not handle the request.",
}

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountError {
    /// HTTP status.
    pub status: u16,
    /// Which.
    pub code: Code,
    /// In words.
    pub message: Cow<'static, str>,
    /// Seconds to wait before trying again.
    pub retry_after: Option<u64>,
}

/// Seconds until another try is worth it: after an outage, after a quota of the account, after one of a user.
const AFTER_OUTAGE: u64 = 5;
const AFTER_QUOTA: u64 = 5;
const AFTER_USER_QUOTA: u64 = 300;

impl AccountError {
    /// An error with the text of its code.
    pub fn new(status: u16, code: Code) -> Self {
        Self { status, code, message: code.message().into(), retry_after: None }
    }

    /// A body that is not what it has to be.
    pub fn invalid_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), ..Self::new(400, Code::InvalidRequest) }
    }

    /// 401 for a Bearer token.
    pub fn unauthorized(message: impl Into<Cow<'static, str>>) -> Self {
        Self { message: message.into(), ..Self::new(401, Code::InvalidToken) }
    }

    /// Too often; `wait` is in seconds.
    pub fn rate_limited(wait: u64) -> Self {
        Self { retry_after: Some(wait.max(1)), ..Self::new(429, Code::RateLimited) }
    }

    /// Cognito does not answer.
    pub fn unavailable() -> Self {
        Self { retry_after: Some(AFTER_OUTAGE), ..Self::new(503, Code::UpstreamUnavailable) }
    }

    /// Cognito answers nonsense, or is not set up for this.
    pub fn upstream() -> Self {
        Self::new(502, Code::UpstreamError)
    }
}

/// What an error of Cognito's is to the client.
#[derive(Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing: the answer is that of a success.
    AsIfDone,
    /// This.
    Error(AccountError),
}

/// What an error is judged by, beside its route.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// Whether answers that a user interface would like and that tell whether somebody has an account give way to ones
    /// that do not.
    pub hide_users: bool,
    /// Whether the session of a sign-in was shown where an access token could have been.
    pub by_session: bool,
}

/// What `error` is to a client of this route.
pub fn judge(row: &Row, error: &CognitoError, asked: Asked) -> Judgement {
    let hide_users = asked.hide_users;
    match error {
        CognitoError::Unavailable(_) => Judgement::Error(AccountError::unavailable()),
        CognitoError::Nonsense => Judgement::Error(AccountError::upstream()),
        CognitoError::Refused(refusal) => {
            let signs_up = hide_users && row.operation == Operation::SignUp;
            let as_if_done = row.hides == Hides::All && is_about_the_user(refusal)
                || signs_up && (is_about_the_user(refusal) || is_about_the_sign_up(refusal.name));
            if as_if_done { Judgement::AsIfDone } else { Judgement::Error(refused(row, refusal, asked)) }
        }
    }
}

/// States of a user that routes which send mail do not tell: there is none, it is disabled, confirmed, without an
/// address, or was sent too much.
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

/// Refusals of a sign-up that come before or after "the name is taken", in an order that Cognito does not document. As
/// long as one of them has an answer of its own, a request that earns it tells a free name from a taken one.
fn is_about_the_sign_up(name: ErrorName) -> bool {
    use ErrorName::{
        AliasExists, InvalidPassword, PasswordHistoryPolicyViolation, UserLambdaValidation, UsernameExists,
    };
    matches!(
        name,
        AliasExists | InvalidPassword | PasswordHistoryPolicyViolation | UserLambdaValidation | UsernameExists
    )
}

fn refused(row: &Row, refusal: &Refusal, asked: Asked) -> AccountError {
    use ErrorName as E;
    // One status for whatever the caller has done wrong; the code tells the cases apart.
    let caller = |code| AccountError::new(row.refusal, code);
    let unless_hidden = |code, hidden| caller(if asked.hide_users { hidden } else { code });
    let takes_code = matches!(row.operation, Operation::ConfirmSignUp | Operation::ConfirmForgotPassword);
    match refusal.name {
        E::TooManyRequests => AccountError::rate_limited(AFTER_QUOTA),
        // States and quotas of a user would tell that there is one.
        E::LimitExceeded | E::TooManyFailedAttempts | E::UserNotConfirmed | E::PasswordResetRequired if takes_code => {
            caller(Code::InvalidCode)
        }
        E::LimitExceeded | E::TooManyFailedAttempts => AccountError::rate_limited(AFTER_USER_QUOTA),
        E::InternalError | E::OperationNotEnabled | E::ConcurrentModification => AccountError::unavailable(),

        E::UserLambdaValidation => caller(Code::Rejected),
        E::CodeMismatch | E::ExpiredCode | E::EnableSoftwareTokenMFA | E::InvalidGrant => caller(Code::InvalidCode),
        E::MFAMethodNotFound | E::SoftwareTokenMFANotFound => caller(Code::MfaNotSetUp),
        // Some emulators call a wrong password an invalid one.
        E::InvalidPassword if row.operation == Operation::InitiateAuth => caller(Code::InvalidCredentials),
        E::InvalidPassword | E::PasswordHistoryPolicyViolation => {
            let error = caller(Code::InvalidPassword);
            let message = refusal.policy.as_deref().map_or(error.message, |policy| policy.to_owned().into());
            AccountError { message, ..error }
        }
        // As where the address has another form than it should.
        E::UsernameExists | E::AliasExists if row.operation == Operation::UpdateUserAttributes => {
            unless_hidden(Code::UsernameExists, Code::InvalidRequest)
        }
        E::UsernameExists | E::AliasExists => unless_hidden(Code::UsernameExists, Code::InvalidCode),
        E::UserNotConfirmed => unless_hidden(Code::UserNotConfirmed, Code::InvalidCredentials),
        E::PasswordResetRequired => unless_hidden(Code::PasswordResetRequired, Code::InvalidCredentials),

        E::NotAuthorized | E::Unauthorized | E::UserNotFound | E::RefreshTokenReuse | E::UnsupportedTokenType => {
            not_authorized(row, refusal, asked.by_session)
        }
        E::InvalidParameter => match refusal.hint {
            Hint::Flow if row.operation == Operation::InitiateAuth || row.flow == Flow::Refresh => flow_disabled(),
            Hint::Secret if shows_secret(row) => AccountError::upstream(),
            Hint::Session if asked.by_session => caller(Code::InvalidSession),
            // The form of the settings was judged before: it is the user who lacks something.
            _ if row.operation == Operation::SetUserMFAPreference => caller(Code::MfaNotSetUp),
            _ if matches!(row.operation, Operation::GetTokensFromRefreshToken | Operation::RevokeToken) => {
                caller(Code::InvalidToken)
            }
            _ => caller(Code::InvalidRequest),
        },

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
        | E::UnsupportedUserState => AccountError::upstream(),
    }
}

/// Names for "no" that mean something else on each route.
fn not_authorized(row: &Row, refusal: &Refusal, by_session: bool) -> AccountError {
    let caller = |code| AccountError::new(row.refusal, code);
    match refusal.hint {
        Hint::Secret if shows_secret(row) => return AccountError::upstream(),
        Hint::Attribute if row.operation == Operation::UpdateUserAttributes => return AccountError::upstream(),
        Hint::Flow if row.operation == Operation::InitiateAuth || row.flow == Flow::Refresh => return flow_disabled(),
        _ => {}
    }
    match row.operation {
        _ if row.flow == Flow::Refresh => caller(Code::InvalidToken),
        Operation::SignUp => caller(Code::Rejected),
        Operation::ConfirmSignUp | Operation::ConfirmForgotPassword => caller(Code::InvalidCode),
        Operation::RespondToAuthChallenge if refusal.hint == Hint::Session => caller(Code::InvalidSession),
        // There it is the old password, too.
        Operation::ChangePassword if refusal.hint != Hint::AccessToken && refusal.name != ErrorName::UserNotFound => {
            caller(Code::InvalidCredentials)
        }
        Operation::RevokeToken | Operation::GlobalSignOut | Operation::GetTokensFromRefreshToken => {
            caller(Code::InvalidToken)
        }
        operation if operation.takes_access_token() => {
            if by_session {
                caller(Code::InvalidSession)
            } else {
                AccountError::new(401, Code::InvalidToken)
            }
        }
        _ => caller(Code::InvalidCredentials),
    }
}

fn flow_disabled() -> AccountError {
    AccountError::new(502, Code::AuthFlowDisabled)
}

/// Whether a hash that Cognito does not take may be the caller's doing: the hash is made over a name that the caller
/// has from an earlier answer. Elsewhere it is the operator's secret that is wrong.
fn may_misname_user(row: &Row) -> bool {
    row.operation == Operation::RespondToAuthChallenge || row.flow == Flow::Refresh
}

/// Whether a hash or a secret that Cognito does not take is the operator's.
fn shows_secret(row: &Row) -> bool {
    !may_misname_user(row) && !row.operation.takes_access_token()
}

/// What the operator should do about it, for the log.
pub fn advice(row: &Row, error: &CognitoError) -> Option<&'static str> {
    let CognitoError::Refused(refusal) = error else { return None };
    match refusal.name {
        ErrorName::NotAuthorized | ErrorName::InvalidParameter => match refusal.hint {
            Hint::Flow if row.flow == Flow::Refresh => Some(
                "the app client does not allow this refresh: tick ALLOW_REFRESH_TOKEN_AUTH, or set --refresh-flow tokens",
            ),
            Hint::Flow => Some(
                "the app client does not allow this way to sign in: tick it under its authentication flows \
                 (ALLOW_USER_PASSWORD_AUTH for passwords)",
            ),
            Hint::Attribute if row.operation == Operation::UpdateUserAttributes => Some(
                "--account-attributes lists an attribute that the app client may not write: look at its attribute permissions",
            ),
            Hint::Secret if shows_secret(row) => {
                Some("the app client's secret is missing or wrong: --client-secret-file or COGNITO_CLIENT_SECRET")
            }
            _ => None,
        },
        ErrorName::InvalidClient => Some(
            "the hosted sign-in pages refuse the app client: its secret is missing or wrong (--client-secret-file), or \
             --hosted-ui-domain belongs to another pool",
        ),
        ErrorName::UnauthorizedClient => {
            Some("the app client does not allow the authorization code grant, or not these scopes: --oauth-scopes")
        }
        ErrorName::ResourceNotFound => {
            Some("Cognito does not know the app client, or not in this region: --account-client-id")
        }
        ErrorName::CodeDeliveryFailure => {
            Some("Cognito could not send a message: look at the pool's e-mail and SMS settings")
        }
        ErrorName::Forbidden => Some("the pool's web ACL (AWS WAF) refuses calls of this service"),
        ErrorName::UnexpectedLambda | ErrorName::InvalidLambdaResponse => Some("a Lambda trigger of the pool fails"),
        ErrorName::UnsupportedOperation => Some("the app client does not do this: see its token revocation and flows"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
