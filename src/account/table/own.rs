//! The rows of what users do with accounts of their own: the profile, its addresses, and second factors. All of them
//! ask Cognito with the user's access token, or with the session of a sign-in that wants a second factor first.

use http::Method;

use super::{Credential, Field, Flow, Hides, Limit, METADATA, Need, Place, Row, Success, text};
use crate::cognito::Operation;

const SESSION: Field = text(
    "session",
    Need::No,
    Place::Member("Session"),
    "The newest session of a sign-in with the challenge MFA_SETUP, instead of an access token.",
);
const ATTRIBUTE: Field =
    text("attribute", Need::Yes, Place::Member("AttributeName"), "What is verified: `email` or `phone_number`.");

const fn factor(name: &'static str, member: &'static str, about: &'static str) -> Field {
    Field { name, need: Need::Any, place: Place::Factor(member), about }
}

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "me",
        method: Method::GET,
        path: "/me",
        summary: "The user's profile: names, attributes, second factors.",
        operation: Operation::GetUser,
        credential: Credential::Token,
        fields: &[],
        flow: Flow::Plain,
        success: Success::Profile,
        refusal: 400,
        limit: Limit::Address,
        hides: Hides::Nothing,
    },
    Row {
        name: "update-me",
        method: Method::PATCH,
        path: "/me",
        summary: "Changes attributes. Where one has to be verified, Cognito sends a code.",
        operation: Operation::UpdateUserAttributes,
        credential: Credential::Token,
        fields: &[
            text(
                "attributes",
                Need::Yes,
                Place::Attributes,
                "`name`, and others as far as they are allowed (`--account-attributes`). An empty text removes one.",
            ),
            METADATA,
        ],
        flow: Flow::Update,
        success: Success::Profile,
        refusal: 400,
        limit: Limit::SendIf(&["email", "phone_number"]),
        hides: Hides::Nothing,
    },
    Row {
        name: "delete-me",
        method: Method::DELETE,
        path: "/me",
        summary: "Deletes the user, for good.",
        operation: Operation::DeleteUser,
        credential: Credential::Token,
        fields: &[],
        flow: Flow::Plain,
        success: Success::Message("Account deleted."),
        refusal: 400,
        limit: Limit::Address,
        hides: Hides::Nothing,
    },
    Row {
        name: "verify-attribute-code",
        method: Method::POST,
        path: "/verify-attribute/code",
        summary: "Sends a code to an address of the user's, to verify it with.",
        operation: Operation::GetUserAttributeVerificationCode,
        credential: Credential::Token,
        fields: &[ATTRIBUTE, METADATA],
        flow: Flow::Plain,
        success: Success::Sent("Verification code sent."),
        refusal: 400,
        limit: Limit::Send,
        hides: Hides::Nothing,
    },
    Row {
        name: "verify-attribute",
        method: Method::POST,
        path: "/verify-attribute",
        summary: "Verifies an address of the user's with the code.",
        operation: Operation::VerifyUserAttribute,
        credential: Credential::Token,
        fields: &[ATTRIBUTE, text("code", Need::Yes, Place::Member("Code"), "From the mail or the text message.")],
        flow: Flow::Plain,
        success: Success::Message("Attribute verified."),
        refusal: 400,
        limit: Limit::Guess,
        hides: Hides::Nothing,
    },
    Row {
        name: "mfa-totp",
        method: Method::POST,
        path: "/mfa/totp",
        summary: "A new secret for an authenticator app, and the URL to show as a QR code.",
        operation: Operation::AssociateSoftwareToken,
        credential: Credential::TokenOrSession,
        fields: &[
            SESSION,
            text("email", Need::No, Place::Flow, "What the authenticator calls the account."),
            text("username", Need::No, Place::Flow, "The same; goes before `email`."),
        ],
        flow: Flow::Totp,
        success: Success::Totp,
        refusal: 400,
        limit: Limit::Address,
        hides: Hides::Nothing,
    },
    Row {
        name: "mfa-totp-verify",
        method: Method::POST,
        path: "/mfa/totp/verify",
        summary: "Confirms the secret with a code of the authenticator. In a sign-in, answer MFA_SETUP with the new session.",
        operation: Operation::VerifySoftwareToken,
        credential: Credential::TokenOrSession,
        fields: &[
            SESSION,
            text("code", Need::Yes, Place::Member("UserCode"), "What the authenticator shows."),
            text("deviceName", Need::No, Place::Member("FriendlyDeviceName"), "What the user calls the authenticator."),
        ],
        flow: Flow::Plain,
        success: Success::TotpVerified("Authenticator verified."),
        refusal: 400,
        limit: Limit::Guess,
        hides: Hides::Nothing,
    },
    Row {
        name: "mfa-preference",
        method: Method::PUT,
        path: "/mfa/preference",
        summary: "Switches second factors on and off, and says which one is asked for first. Those that are not named stay as they are.",
        operation: Operation::SetUserMFAPreference,
        credential: Credential::Token,
        fields: &[
            factor("totp", "SoftwareTokenMfaSettings", "An authenticator app, once it is verified."),
            factor("sms", "SMSMfaSettings", "A text message, where the pool sends them."),
            factor("email", "EmailMfaSettings", "An e-mail, where the pool sends them."),
        ],
        flow: Flow::Plain,
        success: Success::Message("Second factors updated."),
        refusal: 400,
        limit: Limit::Address,
        hides: Hides::Nothing,
    },
];
