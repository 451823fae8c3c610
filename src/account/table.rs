//! The operations of the account API, as rows of one table.
//!
//! A row is a route. Its columns say what a request may contain, which operation of Cognito is called, what Cognito's
//! errors mean, and what the response is. A new operation is a new row; the compiler demands every column. The
//! `OpenAPI` document (`openapi.rs`) is made from the same rows.
//!
//! Rows for signing up, in and out are in `table/entry.rs`, rows for a signed-in user's own account in `table/own.rs`,
//! and rows for passkeys in `table/passkeys.rs`.
//! `table/meaning.rs` describes the meaning of Cognito's errors.

mod entry;
mod meaning;
mod own;
mod passkeys;
mod tag;

use http::Method;

pub(super) use self::meaning::{Meanings, NotAuthorized, UserState};
pub(super) use self::tag::Tag;
use crate::cognito::Operation;
use crate::revocation::Causes;

/// An operation of the account API.
#[derive(Debug)]
pub(super) struct Row {
    /// Name of the operation: a metric label, and `operationId` in the `OpenAPI` document.
    pub(super) name: &'static str,
    /// Step of a user's journey that the operation belongs to, in the `OpenAPI` document.
    pub(super) tag: Tag,
    /// HTTP method. A row with GET also takes HEAD.
    pub(super) method: Method,
    /// Path below the prefix. Its last segment can be the name of a member in braces ([`Place::Path`]).
    pub(super) path: &'static str,
    /// One line of documentation.
    pub(super) summary: &'static str,
    /// Operation of Cognito that the row calls (first).
    pub(super) operation: Operation,
    /// Credential that the caller has to send.
    pub(super) credential: Credential,
    /// Members of the request. Other members are ignored.
    pub(super) fields: &'static [Field],
    /// Handler of the operation.
    pub(super) flow: Flow,
    /// Response on success.
    pub(super) success: Success,
    /// HTTP status of errors that the caller caused.
    pub(super) refusal: u16,
    /// Meaning of those errors of Cognito that mean different things for different operations.
    pub(super) errors: Meanings,
    /// Limits that apply in addition to the address limit.
    pub(super) limit: Limit,
    /// Responses that must not reveal whether a user exists.
    pub(super) hides: Hides,
    /// Sessions that the operation ends.
    pub(super) revokes: Revokes,
    /// Outcomes that end the browser's session.
    pub(super) ends_session: EndsSession,
}

/// Credential that the caller has to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Credential {
    /// None, or one in the body.
    None,
    /// The user's access token, with any scope.
    AnyToken,
    /// The user's access token, with the scope `aws.cognito.signin.user.admin`.
    Token,
    /// Either the same as [`Self::Token`], or the member `session` of a sign-in that is not finished. Not both.
    TokenOrSession,
}

/// A member of a request.
#[derive(Debug)]
pub(super) struct Field {
    /// Name of the member.
    pub(super) name: &'static str,
    /// Part of the request that has the member.
    pub(super) place: Place,
    /// Condition under which the member is required.
    pub(super) need: Need,
    /// Use of the member, which also determines its type.
    pub(super) target: Target,
    /// One line of documentation.
    pub(super) about: &'static str,
}

/// Part of a request that has a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Member of the JSON body.
    Body,
    /// Last segment of the path, percent-decoded. Always present, because other paths are not the row's.
    Path,
    /// Parameter of the query. Never required.
    Query,
}

/// Condition under which a member is required. An empty member counts as absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Always required.
    Yes,
    /// Optional.
    No,
    /// Required unless this other member is present.
    Unless(&'static str),
    /// One of several names of the user, of which one is required.
    User,
    /// One of several members, of which any one is required.
    Any,
}

/// Use of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Name of the user. If the row sets attributes, the member also becomes this attribute.
    User(Option<&'static str>),
    /// Member of the call with this name.
    Member(&'static str),
    /// Parameter with this name, in `AuthParameters` or `ChallengeResponses`.
    Parameter(&'static str),
    /// Map of strings, all of which are parameters.
    Parameters,
    /// Attribute of the user with this name.
    Attribute(&'static str),
    /// Map of strings, all of which are attributes of the user. Allowed are these names and those that the operator
    /// lists (`--account-attributes`).
    Attributes(&'static [&'static str]),
    /// Identifier that Cognito has assigned: member of the call with this name.
    Id(&'static str),
    /// Object that becomes the member of the call with this name, unchanged.
    Document(&'static str),
    /// Settings of a second factor, which become this member of the call.
    Factor(&'static str),
    /// Map of strings for Lambda triggers. Keys that are not allowed are dropped.
    Metadata,
    /// Name of the sign-in flow; without it, the flow is a password.
    AuthFlow,
    /// Refresh token, read by the row's [`Flow`]. If the body has none, the token in the session's cookie is used.
    RefreshToken,
    /// Read by the row's [`Flow`].
    Flow,
}

/// JSON type of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A string.
    Text,
    /// A string of at most [`MAX_ID`] characters of base64url (RFC 4648 section 5), without padding.
    Id,
    /// An object with any members.
    Document,
    /// An object of strings.
    Texts,
    /// An object with the booleans `enabled` and, optionally, `preferred`.
    Factor,
}

impl Target {
    /// JSON type of a member with this target.
    pub(super) fn shape(self) -> Shape {
        match self {
            Self::Parameters | Self::Attributes(_) | Self::Metadata => Shape::Texts,
            Self::Factor(_) => Shape::Factor,
            Self::Id(_) => Shape::Id,
            Self::Document(_) => Shape::Document,
            Self::User(_)
            | Self::Member(_)
            | Self::Parameter(_)
            | Self::Attribute(_)
            | Self::AuthFlow
            | Self::RefreshToken
            | Self::Flow => Shape::Text,
        }
    }
}

/// Handler of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// One call of Cognito.
    Plain,
    /// One call at a time for each refresh token; it continues when the client disconnects (`refresh.rs`).
    Refresh,
    /// `GlobalSignOut`, `RevokeToken`, or both, and a revocation; continues when the client disconnects (`sign_out.rs`).
    Logout,
    /// One call of Cognito, and a revocation; continues when the client disconnects (`sign_out.rs`).
    EndSessions,
    /// A change, followed by a call that reads the changed profile (`own_account.rs`).
    Update,
    /// A secret for an authenticator app, and its `otpauth` URL (`own_account.rs`).
    Totp,
    /// Checks the state and exchanges a code (`oauth.rs`). Only with `--hosted-ui-domain`.
    Oauth,
}

/// Response on success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Success {
    /// 200 with this message.
    Message(&'static str),
    /// 201 with this message, the new user's `sub`, and the destination of the code.
    Registered(&'static str),
    /// Tokens, or the next challenge of the sign-in.
    Tokens,
    /// 200 with this message, the scope of the sign-out, and the URL that ends the session at the hosted pages.
    LoggedOut(&'static str),
    /// 200 with this message, and the scope of the revocation.
    Revoked(&'static str),
    /// 200 with this message, and the destination of the code.
    Sent(&'static str),
    /// The user's profile.
    Profile,
    /// A secret for an authenticator app.
    Totp,
    /// 200 with this message, and the session to continue with.
    TotpVerified(&'static str),
    /// Options for the browser to create a passkey.
    CreationOptions,
    /// A page of the user's passkeys.
    Passkeys,
}

/// Limits that apply in addition to the address limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// None.
    Address,
    /// An attempt at a password or a code of the user.
    Guess,
    /// The first step of a sign-in: an attempt, and a message if the flow sends one. If it succeeds, the name belongs
    /// to the user whom Cognito identifies.
    SignIn,
    /// A later step of a sign-in: an attempt, and a message if the client selects a factor that sends one. Success says
    /// nothing about the name, because the session, and not the name, identifies the user.
    Challenge,
    /// A message to the user.
    Send,
    /// A message to the user and to each new address, if the request sets an address: Cognito sends a code to it.
    SendToNewAddress,
}

/// Responses that must not reveal whether a user exists. "Hidden" failures look the same, and take the same time,
/// whether the user exists or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hides {
    /// None.
    Nothing,
    /// Failures, and challenges that Cognito sends before the client has proved anything.
    Failures,
    /// All responses: failures look like successes.
    All,
    /// All responses, but only with `--account-hide-users`: refusals of the sign-up look like successes, too.
    SignUp,
}

/// Sessions whose tokens are revoked once Cognito has confirmed the operation, with the cause to record. The caller's
/// token says whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Revokes {
    /// None.
    Nothing,
    /// All sessions of the user.
    AllSessions(Causes),
    /// All sessions of the user except the caller's.
    OtherSessions(Causes),
    /// The caller's session.
    Session(Causes),
}

impl Revokes {
    /// Cause to record; `None` if nothing is revoked.
    pub(super) fn cause(self) -> Option<Causes> {
        match self {
            Self::Nothing => None,
            Self::AllSessions(cause) | Self::OtherSessions(cause) | Self::Session(cause) => Some(cause),
        }
    }
}

/// Outcomes that end the browser's session, so that its cookies are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndsSession {
    /// None.
    Never,
    /// Success.
    OnSuccess,
    /// Success, and any error that shows that the tokens in the cookies cannot be signed out.
    OnSuccessOrDeadToken,
}

/// Sign-in flows that `login` accepts, besides a password.
pub(super) const AUTH_FLOWS: [&str; 3] = ["USER_SRP_AUTH", "USER_AUTH", "CUSTOM_AUTH"];

/// Largest number of characters of an identifier: those of a credential id of 1,023 bytes (`WebAuthn` Level 3, section
/// 4).
pub(super) const MAX_ID: usize = 1364;

const fn text(name: &'static str, need: Need, target: Target, about: &'static str) -> Field {
    Field { name, place: Place::Body, need, target, about }
}

const METADATA: Field = text(
    "clientMetadata",
    Need::No,
    Target::Metadata,
    "For the pool's Lambda triggers. Keys that are not allowed (`--client-metadata-keys`) are dropped.",
);

/// All operations.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    entry::ROWS.iter().chain(own::ROWS).chain(passkeys::ROWS)
}

/// Returns the first operation with this handler.
pub(super) fn row_of(flow: Flow) -> Option<&'static Row> {
    rows().find(|row| row.flow == flow)
}

impl Row {
    /// `true` if the request's method selects this row.
    pub(super) fn takes(&self, method: &Method) -> bool {
        self.method == method || self.method == Method::GET && method == Method::HEAD
    }

    /// Returns the segment of `path` that is the row's member in the path, as it was sent; empty if the row has none.
    /// Returns `None` for the path of another row.
    pub(super) fn segment<'p>(&self, path: &'p str) -> Option<&'p str> {
        match self.path.split_once('{') {
            None => (self.path == path).then_some(""),
            Some((start, _)) => path.strip_prefix(start).filter(|rest| !rest.is_empty() && !rest.contains('/')),
        }
    }

    /// Members of the body.
    pub(super) fn body_fields(&self) -> impl Iterator<Item = &'static Field> {
        self.fields.iter().filter(|field| field.place == Place::Body)
    }

    /// `true` if the operation exists only with `--hosted-ui-domain`.
    pub(super) fn needs_hosted_ui(&self) -> bool {
        self.flow == Flow::Oauth
    }

    /// `true` if the session's refresh token in a cookie can take the place of the one in the body.
    pub(super) fn takes_refresh_token(&self) -> bool {
        self.fields.iter().any(|field| field.target == Target::RefreshToken)
    }

    /// `true` if the operation sets attributes of the user.
    pub(super) fn sets_attributes(&self) -> bool {
        self.fields.iter().any(|field| matches!(field.target, Target::Attributes(_)))
    }

    /// Required members in words: `email, password, and name are required`.
    pub(super) fn requirement(&self) -> String {
        let names: Vec<_> = self
            .body_fields()
            .filter(|field| match field.need {
                Need::Yes | Need::Unless(_) => true,
                Need::User => field.name == entry::EMAIL.name,
                Need::No | Need::Any => false,
            })
            .map(|field| field.name)
            .collect();
        match &*names {
            [] => match &*self.fields.iter().filter(|f| f.need == Need::Any).map(|f| f.name).collect::<Vec<_>>() {
                [first @ .., last] => format!("{}, or {last} is required", first.join(", ")),
                [] => String::new(),
            },
            [one] => format!("{one} is required"),
            [one, other] => format!("{one} and {other} are required"),
            [first @ .., last] => format!("{}, and {last} are required", first.join(", ")),
        }
    }

    /// `true` if a request without a body is always an error.
    pub(super) fn needs_body(&self) -> bool {
        self.body_fields().any(|field| field.need != Need::No)
    }
}

/// Returns the row of a route such as `PATCH /me`; the method is POST if there is none.
#[cfg(test)]
pub(super) fn row(route: &str) -> &'static Row {
    let (method, path) = route.split_once(' ').unwrap_or(("POST", route));
    rows().find(|row| row.segment(path).is_some() && row.method == *method).unwrap()
}

#[cfg(test)]
mod tests;
