//! Rows for a signed-in user's own account: the profile, its addresses, and second factors. All of them call Cognito
//! with the user's access token, or with the session of a sign-in that requires a second factor.

use http::Method;

use super::super::error::Code;
use super::meaning::{ACCESS_TOKEN, Meanings};
use super::{
    Credential, EndsSession, Field, Flow, Hides, Limit, METADATA, Need, Place, Revokes, Row, Success, Tag, Target, text,
};
use crate::cognito::Operation;
use crate::cognito::error::Hint;
use crate::revocation::Causes;

const SESSION: Field = text(
    "session",
    Need::No,
    Target::Member("Session"),
    "Latest session of a sign-in with the challenge MFA_SETUP, in place of an access token.",
);
const ATTRIBUTE: Field =
    text("attribute", Need::Yes, Target::Member("AttributeName"), "Attribute to verify: `email` or `phone_number`.");

const fn factor(name: &'static str, member: &'static str, about: &'static str) -> Field {
    Field { name, place: Place::Body, need: Need::Any, target: Target::Factor(member), about }
}

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "me",
        tag: Tag::Account,
        method: Method::GET,
        path: "/me",
        summary: "Returns the user's profile: names, attributes, second factors.",
        operation: Operation::GetUser,
        credential: Credential::Token,
        fields: &[],
        flow: Flow::Plain,
        success: Success::Profile,
        refusal: 400,
        errors: ACCESS_TOKEN,
        limit: Limit::Address,
        hides: Hides::Nothing,
        revokes: Revokes::Nothing,
        ends_session: EndsSession::Never,
    },
    Row {
        name: "update-me",
        tag: Tag::Account,
        method: Method::PATCH,
        path: "/me",
        summary: "Changes attributes. Cognito sends a code for each attribute that has to be verified.",
        operation: Operation::UpdateUserAttributes,
        credential: Credential::Token,
        fields: &[
            text(
                "attributes",
                Need::Yes,
                Target::Attributes(&["name"]),
                "`name`, and other attributes if they are allowed (`--account-attributes`). An empty string removes an attribute.",
            ),
            METADATA,
        ],
        flow: Flow::Update,
        success: Success::Profile,
        refusal: 400,
        errors: Meanings {
            // As for an address that is not valid.
            hidden_taken_name: Code::InvalidRequest,
            operator_hints: &[Hint::Attribute],
            ..ACCESS_TOKEN
        },
        limit: Limit::SendToNewAddress,
        hides: Hides::Nothing,
        revokes: Revokes::Nothing,
        ends_session: EndsSession::Never,
    },
    Row {
        name: "delete-me",
        tag: Tag::Account,
        method: Method::DELETE,
        path: "/me",
        summary: "Deletes the user. This cannot be undone.",
        operation: Operation::DeleteUser,
        credential: Credential::Token,
        fields: &[],
        flow: Flow::EndSessions,
        success: Success::Message("Account deleted."),
        refusal: 400,
        errors: ACCESS_TOKEN,
        limit: Limit::Address,
        hides: Hides::Nothing,
        revokes: Revokes::AllSessions(Causes::DELETE_ME),
        ends_session: EndsSession::OnSuccess,
    },
    Row {
        name: "verify-attribute-code",
        tag: Tag::Account,
        method: Method::POST,
        path: "/verify-attribute/code",
        summary: "Sends a code to one of the user's addresses, to verify it.",
        operation: Operation::GetUserAttributeVerificationCode,
        credential: Credential::Token,
        fields: &[ATTRIBUTE, METADATA],
        flow: Flow::Plain,
        success: Success::Sent("Verification code sent."),
        refusal: 400,
        errors: ACCESS_TOKEN,
        limit: Limit::Send,
        hides: Hides::Nothing,
        revokes: Revokes::Nothing,
        ends_session: EndsSession::Never,
    },
    Row {
        name: "verify-attribute",
        tag: Tag::Account,
        method: Method::POST,
        path: "/verify-attribute",
        summary: "Verifies one of the user's addresses with the code that was sent.",
        operation: Operation::VerifyUserAttribute,
        credential: Credential::Token,
        fields: &[ATTRIBUTE, text("code", Need::Yes, Target::Member("Code"), "Code that was sent.")],
        flow: Flow::Plain,
        success: Success::Message("Attribute verified."),
        refusal: 400,
        errors: ACCESS_TOKEN,
        limit: Limit::Guess,
        hides: Hides::Nothing,
        revokes: Revokes::Nothing,
        ends_session: EndsSession::Never,
    },
    Row {
        name: "mfa-totp",
        tag: Tag::SecondFactors,
        method: Method::POST,
        path: "/mfa/totp",
        summary: "Creates a secret for an authenticator app, and the URL to show as a QR code.",
        operation: Operation::AssociateSoftwareToken,
        credential: Credential::TokenOrSession,
        fields: &[
            SESSION,
            text("email", Need::No, Target::Flow, "Account name to show in the authenticator app."),
            text("username", Need::No, Target::Flow, "The same; takes precedence over `email`."),
        ],
        flow: Flow::Totp,
        success: Success::Totp,
        refusal: 400,
        errors: ACCESS_TOKEN,
        limit: Limit::Address,
        hides: Hides::Nothing,
        revokes: Revokes::Nothing,
        ends_session: EndsSession::Never,
    },
    Row {
        name: "mfa-totp-verify",
        tag: Tag::SecondFactors,
        method: Method::POST,
        path: "/mfa/totp/verify",
        summary: "Confirms the secret with a code of the authenticator app. In a sign-in, respond to MFA_SETUP with the new session.",
        operation: Operation::VerifySoftwareToken,
        credential: Credential::TokenOrSession,
        fields: &[
            SESSION,
            text("code", Need::Yes, Target::Member("UserCode"), "Code that the authenticator app shows."),
            text(
                "deviceName",
                Need::No,
                Target::Member("FriendlyDeviceName"),
                "The user's name for the authenticator app.",
            ),
        ],
        flow: Flow::Plain,
        success: Success::TotpVerified("Authenticator verified."),
        refusal: 400,
        errors: ACCESS_TOKEN,
        limit: Limit::Guess,
        hides: Hides::Nothing,
        revokes: Revokes::Nothing,
        ends_session: EndsSession::Never,
    },
    Row {
        name: "mfa-preference",
        tag: Tag::SecondFactors,
        method: Method::PUT,
        path: "/mfa/preference",
        summary: "Enables and disables second factors, and sets the preferred one. Factors that are not listed do not change.",
        operation: Operation::SetUserMFAPreference,
        credential: Credential::Token,
        fields: &[
            factor("totp", "SoftwareTokenMfaSettings", "Authenticator app; has to be verified first."),
            factor("sms", "SMSMfaSettings", "Code by text message, if the pool sends them."),
            factor("email", "EmailMfaSettings", "Code by e-mail, if the pool sends them."),
        ],
        flow: Flow::Plain,
        success: Success::Message("Second factors updated."),
        refusal: 400,
        errors: Meanings {
            // The request itself has been validated, so the user lacks a factor.
            invalid_parameter: Code::MfaNotSetUp,
            ..ACCESS_TOKEN
        },
        limit: Limit::Address,
        hides: Hides::Nothing,
        revokes: Revokes::Nothing,
        ends_session: EndsSession::Never,
    },
];
