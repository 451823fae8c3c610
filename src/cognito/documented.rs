//! Errors that the Cognito API reference documents for each operation. A test compares them with AWS's own description of
//! the API.
//!
//! Metrics use them to know in advance which outcomes an operation can have. An error that is not listed here is handled
//! like any other.

use super::error::{CognitoError, ErrorName, Hint, Outage, Refusal};
use super::operation::Operation;

/// Errors of every operation of the user-pool API.
const COMMON: &[ErrorName] =
    &[ErrorName::Forbidden, ErrorName::InvalidParameter, ErrorName::OperationNotEnabled, ErrorName::TooManyRequests];
/// Errors of operations that run Lambda triggers.
const LAMBDA: &[ErrorName] =
    &[ErrorName::InvalidLambdaResponse, ErrorName::UnexpectedLambda, ErrorName::UserLambdaValidation];
/// Errors of operations that send messages.
const ROLES: &[ErrorName] = &[
    ErrorName::InvalidEmailRoleAccessPolicy,
    ErrorName::InvalidSmsRoleAccessPolicy,
    ErrorName::InvalidSmsRoleTrustRelationship,
];
/// Errors of operations that find a user.
const USER: &[ErrorName] = &[
    ErrorName::NotAuthorized,
    ErrorName::PasswordResetRequired,
    ErrorName::ResourceNotFound,
    ErrorName::UserNotConfirmed,
    ErrorName::UserNotFound,
];
/// Errors of operations on passkeys.
const PASSKEY: &[ErrorName] = &[ErrorName::LimitExceeded, ErrorName::NotAuthorized, ErrorName::PasswordResetRequired];

/// Hints that the message of an ambiguous error can contain.
const HINTS: &[Hint] = &[Hint::None, Hint::Secret, Hint::Flow, Hint::AccessToken, Hint::Session, Hint::Attribute];

impl Operation {
    /// Returns an error of each kind that a call of the operation can end with: the documented refusals, an outage, and a
    /// response that makes no sense.
    pub(crate) fn errors(self) -> impl Iterator<Item = CognitoError> {
        let names = self.refusals().iter().flat_map(|names| names.iter().copied());
        let refused = names.flat_map(|name| {
            let is_ambiguous = matches!(name, ErrorName::NotAuthorized | ErrorName::InvalidParameter);
            let hints = if is_ambiguous { HINTS } else { &[Hint::None] };
            hints.iter().map(move |hint| CognitoError::Refused(Refusal { name, hint: *hint, policy: None }))
        });
        refused.chain([CognitoError::Unavailable(Outage::Failed), CognitoError::Nonsense])
    }

    /// Returns the values of the label `outcome` that a call of the operation can have.
    pub(crate) fn outcomes(self) -> impl Iterator<Item = &'static str> {
        let is_possible = move |label: &&str| match self {
            // A public document that no one is refused, and that is fetched whatever the state of the circuit.
            Self::OpenidConfiguration => !["refused", "throttled", "circuit_open"].contains(label),
            _ => true,
        };
        CognitoError::LABELS.into_iter().filter(is_possible)
    }

    /// `true` if a successful response can be a challenge instead of tokens.
    pub(crate) fn may_challenge(self) -> bool {
        matches!(self, Self::InitiateAuth | Self::RespondToAuthChallenge)
    }

    fn refusals(self) -> &'static [&'static [ErrorName]] {
        use ErrorName as E;
        match self {
            Self::SignUp => &[
                COMMON,
                LAMBDA,
                ROLES,
                &[
                    E::CodeDeliveryFailure,
                    E::InvalidPassword,
                    E::LimitExceeded,
                    E::NotAuthorized,
                    E::ResourceNotFound,
                    E::UsernameExists,
                ],
            ],
            Self::ConfirmSignUp => &[
                COMMON,
                LAMBDA,
                &[
                    E::AliasExists,
                    E::CodeMismatch,
                    E::ExpiredCode,
                    E::LimitExceeded,
                    E::NotAuthorized,
                    E::ResourceNotFound,
                    E::TooManyFailedAttempts,
                    E::UserNotFound,
                ],
            ],
            Self::ResendConfirmationCode | Self::ForgotPassword => &[
                COMMON,
                LAMBDA,
                ROLES,
                &[E::CodeDeliveryFailure, E::LimitExceeded, E::NotAuthorized, E::ResourceNotFound, E::UserNotFound],
            ],
            Self::InitiateAuth => &[
                COMMON,
                LAMBDA,
                ROLES,
                USER,
                &[E::FeatureUnavailableInTier, E::InvalidUserPoolConfiguration, E::UnsupportedOperation],
            ],
            Self::RespondToAuthChallenge => &[
                COMMON,
                LAMBDA,
                ROLES,
                USER,
                &[
                    E::AliasExists,
                    E::CodeMismatch,
                    E::ExpiredCode,
                    E::InvalidPassword,
                    E::InvalidUserPoolConfiguration,
                    E::MFAMethodNotFound,
                    E::PasswordHistoryPolicyViolation,
                    E::SoftwareTokenMFANotFound,
                ],
            ],
            Self::GetTokensFromRefreshToken => {
                &[COMMON, LAMBDA, &[E::NotAuthorized, E::RefreshTokenReuse, E::ResourceNotFound, E::UserNotFound]]
            }
            Self::ConfirmForgotPassword => &[
                COMMON,
                LAMBDA,
                &[
                    E::CodeMismatch,
                    E::ExpiredCode,
                    E::InvalidPassword,
                    E::LimitExceeded,
                    E::NotAuthorized,
                    E::PasswordHistoryPolicyViolation,
                    E::ResourceNotFound,
                    E::TooManyFailedAttempts,
                    E::UserNotConfirmed,
                    E::UserNotFound,
                ],
            ],
            Self::ChangePassword => {
                &[COMMON, USER, &[E::InvalidPassword, E::LimitExceeded, E::PasswordHistoryPolicyViolation]]
            }
            Self::GlobalSignOut => {
                &[COMMON, &[E::NotAuthorized, E::PasswordResetRequired, E::ResourceNotFound, E::UserNotConfirmed]]
            }
            Self::RevokeToken => &[COMMON, &[E::Unauthorized, E::UnsupportedOperation, E::UnsupportedTokenType]],
            Self::GetUser | Self::DeleteUser | Self::SetUserMFAPreference => &[COMMON, USER],
            Self::UpdateUserAttributes => &[
                COMMON,
                LAMBDA,
                ROLES,
                USER,
                &[E::AliasExists, E::CodeDeliveryFailure, E::CodeMismatch, E::ExpiredCode],
            ],
            Self::GetUserAttributeVerificationCode => {
                &[COMMON, LAMBDA, ROLES, USER, &[E::CodeDeliveryFailure, E::LimitExceeded]]
            }
            Self::VerifyUserAttribute => {
                &[COMMON, USER, &[E::AliasExists, E::CodeMismatch, E::ExpiredCode, E::LimitExceeded]]
            }
            Self::AssociateSoftwareToken => &[
                COMMON,
                &[E::ConcurrentModification, E::NotAuthorized, E::ResourceNotFound, E::SoftwareTokenMFANotFound],
            ],
            Self::VerifySoftwareToken => &[
                COMMON,
                USER,
                &[
                    E::CodeMismatch,
                    E::EnableSoftwareTokenMFA,
                    E::InvalidUserPoolConfiguration,
                    E::SoftwareTokenMFANotFound,
                ],
            ],
            Self::StartWebAuthnRegistration => {
                &[COMMON, PASSKEY, &[E::WebAuthnConfigurationMissing, E::WebAuthnNotEnabled]]
            }
            Self::CompleteWebAuthnRegistration => &[
                COMMON,
                PASSKEY,
                &[
                    E::WebAuthnChallengeNotFound,
                    E::WebAuthnClientMismatch,
                    E::WebAuthnCredentialNotSupported,
                    E::WebAuthnNotEnabled,
                    E::WebAuthnOriginNotAllowed,
                    E::WebAuthnRelyingPartyMismatch,
                ],
            ],
            Self::ListWebAuthnCredentials => &[COMMON, PASSKEY],
            Self::DeleteWebAuthnCredential => &[COMMON, PASSKEY, &[E::ResourceNotFound]],
            // Errors of RFC 6749 section 5.2.
            Self::OauthToken => {
                &[&[E::InvalidClient, E::InvalidGrant, E::InvalidParameter, E::TooManyRequests, E::UnauthorizedClient]]
            }
            Self::OpenidConfiguration => &[],
        }
    }
}
