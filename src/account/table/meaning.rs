//! Meaning of Cognito's errors for one operation.
//!
//! Cognito uses one name for many things: `NotAuthorizedException` is a wrong password, a revoked token, a disabled
//! user, or a wrong client secret. Each operation says here what these names mean for its callers, so that
//! [`judge`](crate::account::error::judge) does not need to know any operation.
//!
//! Operations that ask for the same kind of proof share a constant. There is no default: a row has to choose.

use super::super::error::Code;
use crate::cognito::error::Hint;

/// Meaning of the errors that mean different things for different operations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meanings {
    /// `NotAuthorized`, and names that are used in its place: `UserNotFound`, `Unauthorized`, `RefreshTokenReuse`,
    /// `UnsupportedTokenType`.
    pub(crate) not_authorized: NotAuthorized,
    /// `InvalidParameter`.
    pub(crate) invalid_parameter: Code,
    /// `InvalidPassword`. With [`Code::InvalidPassword`], the response contains the text of the password policy.
    pub(crate) invalid_password: Code,
    /// `UsernameExists` and `AliasExists` with `--account-hide-users`; without it, [`Code::UsernameExists`].
    pub(crate) hidden_taken_name: Code,
    /// States and quotas of a user.
    pub(crate) user_state: UserState,
    /// Message of 404 if the caller names a resource: then `ResourceNotFound` means that it does not exist, and not that
    /// the app client does not.
    pub(crate) missing_resource: Option<&'static str>,
    /// Hints in Cognito's message that blame the operator's configuration, and not the caller.
    pub(crate) operator_hints: &'static [Hint],
}

/// Meaning of `NotAuthorized`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAuthorized {
    /// This code, with the row's status.
    Code(Code),
    /// The session of the sign-in has expired, if the message says so; otherwise this code.
    SessionOr(Code),
    /// The access token was not accepted: 401 `invalid_token`. If the caller sent the session of a sign-in instead:
    /// `invalid_session`, with the row's status.
    Token,
    /// A wrong password, unless Cognito says that it means the access token or its user.
    PasswordOrToken,
}

/// States and quotas of a user: not confirmed, password reset required, too many attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UserState {
    /// They have codes of their own. Only for callers who have proved a password or a token, or on routes whose
    /// responses [hide](super::Hides) them.
    Shown,
    /// They have this code, because a code of their own would reveal that the user exists.
    As(Code),
}

/// The caller chooses a name.
pub(super) const SIGN_UP: Meanings = Meanings { not_authorized: NotAuthorized::Code(Code::Rejected), ..ONLY_A_NAME };

/// The caller proves nothing: a message is sent to the user.
pub(super) const ONLY_A_NAME: Meanings = Meanings {
    not_authorized: NotAuthorized::Code(Code::InvalidCredentials),
    invalid_parameter: Code::InvalidRequest,
    invalid_password: Code::InvalidPassword,
    hidden_taken_name: Code::InvalidCode,
    user_state: UserState::Shown,
    missing_resource: None,
    operator_hints: &[Hint::Secret],
};

/// The caller sends the code of a message.
pub(super) const MESSAGE_CODE: Meanings = Meanings {
    not_authorized: NotAuthorized::Code(Code::InvalidCode),
    user_state: UserState::As(Code::InvalidCode),
    ..ONLY_A_NAME
};

/// The caller sends a user name and a password, or starts another sign-in flow.
pub(super) const SIGN_IN: Meanings = Meanings {
    not_authorized: NotAuthorized::Code(Code::InvalidCredentials),
    // Some emulators report a wrong password under this name.
    invalid_password: Code::InvalidCredentials,
    operator_hints: &[Hint::Flow, Hint::Secret],
    ..ONLY_A_NAME
};

/// The caller responds to a challenge. The secret hash is computed over a name that the caller sends, so a hash that
/// Cognito does not accept can be the caller's fault.
pub(super) const CHALLENGE: Meanings =
    Meanings { not_authorized: NotAuthorized::SessionOr(Code::InvalidCredentials), operator_hints: &[], ..ONLY_A_NAME };

/// The caller sends an authorization code of the hosted pages. Its errors have names of their own (`InvalidGrant`,
/// `InvalidClient`).
pub(super) const AUTHORIZATION_CODE: Meanings =
    Meanings { not_authorized: NotAuthorized::Code(Code::InvalidCredentials), ..ONLY_A_NAME };

/// The caller sends a refresh token to get new tokens. The secret hash is computed over a name that the caller sends,
/// so a hash that Cognito does not accept can be the caller's fault.
pub(super) const REFRESH: Meanings = Meanings { operator_hints: &[Hint::Flow], ..REVOKE };

/// The caller sends a refresh token to end its session.
pub(super) const REVOKE: Meanings = Meanings {
    not_authorized: NotAuthorized::Code(Code::InvalidToken),
    invalid_parameter: Code::InvalidToken,
    ..ONLY_A_NAME
};

/// The caller signs out with an access token, a refresh token, or both.
pub(super) const SIGN_OUT: Meanings =
    Meanings { not_authorized: NotAuthorized::Code(Code::InvalidToken), ..ACCESS_TOKEN };

/// The caller sends the access token of the user.
pub(super) const ACCESS_TOKEN: Meanings =
    Meanings { not_authorized: NotAuthorized::Token, operator_hints: &[], ..ONLY_A_NAME };
