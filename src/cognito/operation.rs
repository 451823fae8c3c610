//! Operations of the user-pool API ([`Operation`]): their names, how each authenticates the app client, and which may be
//! repeated. [`Call`] holds the parameters of one.

use serde_json::{Map, Value};

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Operations of the user-pool API, by their names in the Cognito API reference. None needs AWS credentials.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the Cognito API reference documents them")]
        pub enum Operation {
            $($(#[$doc])* $name,)*
        }

        impl Operation {
            /// Every operation.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Name of the operation, for the header `X-Amz-Target`, metrics and logs.
            pub(crate) fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

operations! {
    SignUp,
    ConfirmSignUp,
    ResendConfirmationCode,
    InitiateAuth,
    RespondToAuthChallenge,
    GetTokensFromRefreshToken,
    ForgotPassword,
    ConfirmForgotPassword,
    ChangePassword,
    GlobalSignOut,
    RevokeToken,
    GetUser,
    UpdateUserAttributes,
    DeleteUser,
    GetUserAttributeVerificationCode,
    VerifyUserAttribute,
    AssociateSoftwareToken,
    VerifySoftwareToken,
    SetUserMFAPreference,
    StartWebAuthnRegistration,
    CompleteWebAuthnRegistration,
    ListWebAuthnCredentials,
    DeleteWebAuthnCredential,
    /// Token endpoint of the hosted sign-in pages (see [`oauth`]). It is not part of the user-pool API.
    OauthToken,
    /// The pool's `OpenID` Provider configuration (see [`openid`]). It is not part of the user-pool API.
    OpenidConfiguration,
}

/// Form in which a call authenticates the app client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Member `SecretHash`, next to `Username`.
    Hash,
    /// Member `SECRET_HASH` of the map with this name, next to `USERNAME`.
    HashIn(&'static str),
    /// Member `ClientSecret`: the secret itself.
    Secret,
    /// None: the access token, or the session of a sign-in, identifies the app client.
    Token,
    /// HTTP Basic authentication (see [`oauth`]).
    Basic,
    /// None: the operation is public.
    Nothing,
}

impl Operation {
    /// `true` for an operation of the user-pool API.
    pub(super) fn is_api(self) -> bool {
        !matches!(self, Self::OauthToken | Self::OpenidConfiguration)
    }

    pub(super) fn proof(self) -> Proof {
        match self {
            Self::SignUp
            | Self::ConfirmSignUp
            | Self::ResendConfirmationCode
            | Self::ForgotPassword
            | Self::ConfirmForgotPassword => Proof::Hash,
            Self::InitiateAuth | Self::RespondToAuthChallenge => {
                Proof::HashIn(self.parameters().unwrap_or("AuthParameters"))
            }
            Self::GetTokensFromRefreshToken | Self::RevokeToken => Proof::Secret,
            Self::ChangePassword
            | Self::GlobalSignOut
            | Self::GetUser
            | Self::UpdateUserAttributes
            | Self::DeleteUser
            | Self::GetUserAttributeVerificationCode
            | Self::VerifyUserAttribute
            | Self::AssociateSoftwareToken
            | Self::VerifySoftwareToken
            | Self::SetUserMFAPreference
            | Self::StartWebAuthnRegistration
            | Self::CompleteWebAuthnRegistration
            | Self::ListWebAuthnCredentials
            | Self::DeleteWebAuthnCredential => Proof::Token,
            Self::OauthToken => Proof::Basic,
            Self::OpenidConfiguration => Proof::Nothing,
        }
    }

    /// `true` if the operation takes the user's access token, whose scope has to include
    /// `aws.cognito.signin.user.admin`.
    pub(crate) fn takes_access_token(self) -> bool {
        self.proof() == Proof::Token
    }

    /// Name of the map that holds the operation's parameters and the user name, if it has one.
    pub(crate) fn parameters(self) -> Option<&'static str> {
        match self {
            Self::InitiateAuth => Some("AuthParameters"),
            Self::RespondToAuthChallenge => Some("ChallengeResponses"),
            _ => None,
        }
    }

    /// `true` if the operation takes `UserContextData`.
    pub(crate) fn takes_user_context(self) -> bool {
        matches!(self.proof(), Proof::Hash | Proof::HashIn(_))
    }

    /// `true` if the operation is idempotent, so that a retry is safe even if the first call had an effect.
    pub(super) fn may_be_repeated(self) -> bool {
        matches!(self, Self::GetUser | Self::GlobalSignOut | Self::RevokeToken | Self::SetUserMFAPreference)
    }
}

/// Parameters of a call. It has no `Debug`, because nearly every member is a secret or names a person.
#[derive(Clone)]
pub struct Call {
    /// Operation to call.
    pub(crate) operation: Operation,
    /// User name that the secret hash is computed over: the one in the call or, if the call has none, the user's real
    /// user name.
    pub(crate) user: Option<String>,
    /// Members of the body. [`CognitoClient::call`] adds those that authenticate the app client.
    pub(crate) members: Map<String, Value>,
}

impl Call {
    /// `GetUser`: the profile of the access token's user.
    pub(crate) fn get_user(access_token: &str) -> Self {
        Self::with_member(Operation::GetUser, "AccessToken", access_token)
    }

    /// `GlobalSignOut`: ends all sessions of the access token's user.
    pub(crate) fn global_sign_out(access_token: &str) -> Self {
        Self::with_member(Operation::GlobalSignOut, "AccessToken", access_token)
    }

    /// `RevokeToken`: ends the session of a refresh token.
    pub(crate) fn revoke_token(refresh_token: &str) -> Self {
        Self::with_member(Operation::RevokeToken, "Token", refresh_token)
    }

    fn with_member(operation: Operation, name: &str, value: &str) -> Self {
        Self { operation, user: None, members: Map::from_iter([(name.to_owned(), Value::from(value))]) }
    }
}
