//! Rows for the passkeys of a signed-in user. To sign in with one takes no row of its own: `login` with `USER_AUTH`,
//! then `challenge` with `WEB_AUTHN`.

use http::Method;

use super::super::error::Code;
use super::meaning::{ACCESS_TOKEN, Meanings};
use super::{
    Credential, EndsSession, Field, Flow, Hides, Limit, Need, Place, Revokes, Row, Success, Tag, Target, text,
};
use crate::cognito::Operation;

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "webauthn-registration",
        tag: Tag::Passkeys,
        method: Method::POST,
        path: "/webauthn/registration",
        summary: "Starts to add a passkey: returns the options for the browser, for `PublicKeyCredential.parseCreationOptionsFromJSON`.",
        operation: Operation::StartWebAuthnRegistration,
        credential: Credential::Token,
        fields: &[],
        flow: Flow::Plain,
        success: Success::CreationOptions,
        refusal: 400,
        errors: ACCESS_TOKEN,
        limit: Limit::Address,
        hides: Hides::Nothing,
        revokes: Revokes::Nothing,
        ends_session: EndsSession::Never,
    },
    Row {
        name: "complete-webauthn-registration",
        tag: Tag::Passkeys,
        method: Method::PUT,
        path: "/webauthn/registration",
        summary: "Adds the passkey that the browser has created.",
        operation: Operation::CompleteWebAuthnRegistration,
        credential: Credential::Token,
        fields: &[text(
            "credential",
            Need::Yes,
            Target::Document("Credential"),
            "The new credential, as `PublicKeyCredential.toJSON()` returns it.",
        )],
        flow: Flow::Plain,
        success: Success::Message("Passkey added."),
        refusal: 400,
        errors: Meanings {
            // Cognito cannot read the credential, or its attestation is wrong.
            invalid_parameter: Code::PasskeyNotAccepted,
            ..ACCESS_TOKEN
        },
        limit: Limit::Address,
        hides: Hides::Nothing,
        revokes: Revokes::Nothing,
        ends_session: EndsSession::Never,
    },
    Row {
        name: "webauthn-credentials",
        tag: Tag::Passkeys,
        method: Method::GET,
        path: "/webauthn/credentials",
        summary: "Lists the user's passkeys.",
        operation: Operation::ListWebAuthnCredentials,
        credential: Credential::Token,
        fields: &[Field {
            place: Place::Query,
            ..text(
                "next",
                Need::No,
                Target::Member("NextToken"),
                "`next` of the response before, for the page after it.",
            )
        }],
        flow: Flow::Plain,
        success: Success::Passkeys,
        refusal: 400,
        errors: ACCESS_TOKEN,
        limit: Limit::Address,
        hides: Hides::Nothing,
        revokes: Revokes::Nothing,
        ends_session: EndsSession::Never,
    },
    Row {
        name: "delete-webauthn-credentials",
        tag: Tag::Passkeys,
        method: Method::DELETE,
        path: "/webauthn/credentials/{credentialId}",
        summary: "Deletes a passkey.",
        operation: Operation::DeleteWebAuthnCredential,
        credential: Credential::Token,
        fields: &[Field {
            place: Place::Path,
            ..text("credentialId", Need::Yes, Target::Id("CredentialId"), "Id of the passkey, from the list.")
        }],
        flow: Flow::Plain,
        success: Success::Message("Passkey deleted."),
        refusal: 400,
        errors: Meanings {
            missing_resource: Some("The user has no such passkey. `GET /webauthn/credentials` lists them."),
            ..ACCESS_TOKEN
        },
        limit: Limit::Address,
        hides: Hides::Nothing,
        revokes: Revokes::Nothing,
        ends_session: EndsSession::Never,
    },
];
