//! Steps of a user's journey. The `OpenAPI` document groups the operations by them, in this order.

/// Step of a user's journey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::account) enum Tag {
    SignUp,
    SignIn,
    SecondFactors,
    Passkeys,
    Session,
    Password,
    Account,
    HostedSignIn,
    Metadata,
}

impl Tag {
    pub(in crate::account) const ALL: [Self; 9] = [
        Self::SignUp,
        Self::SignIn,
        Self::SecondFactors,
        Self::Passkeys,
        Self::Session,
        Self::Password,
        Self::Account,
        Self::HostedSignIn,
        Self::Metadata,
    ];

    /// Name in the `OpenAPI` document.
    pub(in crate::account) fn name(self) -> &'static str {
        match self {
            Self::SignUp => "Sign-up",
            Self::SignIn => "Sign-in",
            Self::SecondFactors => "Second factors",
            Self::Passkeys => "Passkeys",
            Self::Session => "Session",
            Self::Password => "Password",
            Self::Account => "Account",
            Self::HostedSignIn => "Hosted sign-in",
            Self::Metadata => "Metadata",
        }
    }

    /// One line of documentation.
    pub(in crate::account) fn about(self) -> &'static str {
        match self {
            Self::SignUp => "Sign a user up, and confirm the address with the code that Cognito sends.",
            Self::SignIn => "Sign in with a password or another flow, and answer the challenges of the sign-in.",
            Self::SecondFactors => "Set up an authenticator app, and switch second factors on and off.",
            Self::Passkeys => "Add, list and delete passkeys. To sign in with one, `login` with `authFlow: USER_AUTH`.",
            Self::Session => "Renew the tokens of a session, and end it.",
            Self::Password => "Reset a forgotten password, and change a known one.",
            Self::Account => "Read, change and delete the profile of the signed-in user, and verify addresses.",
            Self::HostedSignIn => {
                "Sign in at Cognito's hosted pages, and through them at Google, Apple, SAML and others."
            }
            Self::Metadata => "Descriptions of this API and of protected resources.",
        }
    }
}
