//! The operations of the account API: rows of one table. A route is a row; what it may carry, what it asks of
//! Cognito and how it ends stand in it. The documentation (`openapi.rs`) is made from the same rows.
//!
//! The ways into an account and out of it are in `table/entry.rs`, what a user who is in does with it in `table/own.rs`.

mod entry;
mod own;

use http::Method;

use crate::cognito::Operation;

/// An operation.
#[derive(Debug)]
pub struct Row {
    /// Its name: a metric label, and `operationId`.
    pub name: &'static str,
    /// How it is asked for. Whatever takes GET takes HEAD, too.
    pub method: Method,
    /// Below the prefix.
    pub path: &'static str,
    /// One line of documentation.
    pub summary: &'static str,
    /// What it asks of Cognito.
    pub operation: Operation,
    /// What the caller shows.
    pub credential: Credential,
    /// Members of the body. Others are ignored.
    pub fields: &'static [Field],
    /// How Cognito is asked.
    pub flow: Flow,
    /// The answer when all went well.
    pub success: Success,
    /// The status of what the caller has done wrong.
    pub refusal: u16,
    /// What is counted beside the address.
    pub limit: Limit,
    /// What must not tell whether a user exists.
    pub hides: Hides,
}

/// What a caller shows to be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// Nothing, or what is in the body.
    None,
    /// The user's access token.
    Token,
    /// That, or the member `session` of a sign-in that is not over yet; not both.
    TokenOrSession,
}

/// A member of a body.
#[derive(Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Whether it has to be there.
    pub need: Need,
    /// Where it goes, and so what it has to be.
    pub place: Place,
    /// One line of documentation.
    pub about: &'static str,
}

/// Whether a member has to be there. An empty one is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Always.
    Yes,
    /// Never.
    No,
    /// Unless this one is.
    Unless(&'static str),
    /// It or another name of the user.
    User,
    /// It or another one of this kind.
    Any,
}

/// Where a member goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is a name of the user; `SignUp` also gets it as this attribute.
    User(Option<&'static str>),
    /// This member of the call.
    Member(&'static str),
    /// This parameter: `AuthParameters` or `ChallengeResponses`, whichever the operation has.
    Parameter(&'static str),
    /// A map of texts, all of which are parameters.
    Parameters,
    /// This attribute of the user.
    Attribute(&'static str),
    /// A map of texts, all of which are attributes, if they are on the list of allowed ones.
    Attributes,
    /// The settings of a second factor, which are this member of the call.
    Factor(&'static str),
    /// A map of texts for Lambdas, of which the allowed ones are passed on.
    Metadata,
    /// The way to sign in.
    AuthFlow,
    /// The flow of the row knows.
    Flow,
}

/// What a member looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A text.
    Text,
    /// A map of texts.
    Texts,
    /// `enabled`, and `preferred` or not.
    Factor,
}

impl Place {
    /// What a member that goes there looks like.
    pub fn shape(self) -> Shape {
        match self {
            Self::Parameters | Self::Attributes | Self::Metadata => Shape::Texts,
            Self::Factor(_) => Shape::Factor,
            _ => Shape::Text,
        }
    }
}

/// How Cognito is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// One call.
    Plain,
    /// One call at a time for a token, which goes on when its caller has gone (`refresh.rs`).
    Refresh,
    /// `GlobalSignOut`, `RevokeToken`, or both (`logout.rs`).
    Logout,
    /// A change, and then what the profile has become (`profile.rs`).
    Update,
    /// A secret, and how an authenticator gets it (`totp.rs`).
    Totp,
    /// The state, and then the exchange of a code (`oauth.rs`). Only with `--hosted-ui-domain`.
    Oauth,
}

/// The answer when all went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Success {
    /// 200 with this message.
    Message(&'static str),
    /// 201 with this message, and who it was.
    Registered(&'static str),
    /// Tokens, or a challenge on the way to them.
    Tokens,
    /// 200 with this message, and how far it reaches.
    LoggedOut(&'static str),
    /// 200 with this message, and where a code was sent.
    Sent(&'static str),
    /// Who the user is.
    Profile,
    /// A secret for an authenticator.
    Totp,
    /// 200 with this message, and the session to go on with.
    TotpVerified(&'static str),
}

/// What a request is counted against, beside its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Nothing.
    Address,
    /// The user, as something that could be guessed.
    Guess,
    /// The user, as somebody who gets mail.
    Send,
    /// The same, if one of these attributes is set: Cognito sends a code to it.
    SendIf(&'static [&'static str]),
}

/// What must not tell whether a user exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hides {
    /// Nothing does.
    Nothing,
    /// Failures.
    Failures,
    /// Any answer: failures look like successes.
    All,
}

/// Ways to sign in that `login` passes on, beside a password.
pub const AUTH_FLOWS: [&str; 3] = ["USER_SRP_AUTH", "USER_AUTH", "CUSTOM_AUTH"];

const fn text(name: &'static str, need: Need, place: Place, about: &'static str) -> Field {
    Field { name, need, place, about }
}

const METADATA: Field = text(
    "clientMetadata",
    Need::No,
    Place::Metadata,
    "For the pool's Lambdas. Keys that are not allowed are dropped (`--client-metadata-keys`).",
);

/// All operations.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    entry::ROWS.iter().chain(own::ROWS)
}

impl Row {
    /// The rows of a path below the prefix.
    pub fn of(path: &str) -> impl Iterator<Item = &'static Self> {
        rows().filter(move |row| row.path == path)
    }

    /// Whether a request with this method is for this row, path aside.
    pub fn takes(&self, method: &Method) -> bool {
        self.method == method || self.method == Method::GET && method == Method::HEAD
    }

    /// What has to be in the body, in words: `email, password, and name are required`.
    pub fn requirement(&self) -> String {
        let names: Vec<_> = self
            .fields
            .iter()
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

    /// Whether a request may come without a body.
    pub fn needs_body(&self) -> bool {
        self.fields.iter().any(|field| field.need != Need::No)
    }
}

/// The row of a route: `PATCH /me`, or `/login` for what is posted.
#[cfg(test)]
pub(super) fn row(route: &str) -> &'static Row {
    let (method, path) = route.split_once(' ').unwrap_or(("POST", route));
    Row::of(path).find(|row| row.method == *method).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_in_words() {
        let words = |route| row(route).requirement();
        assert_eq!(words("/register"), "email, password, and name are required");
        assert_eq!(words("/login"), "email and password are required");
        assert_eq!(words("/resend-code"), "email is required");
        assert_eq!(words("/reset-password"), "email, code, and newPassword are required");
        assert_eq!(words("/refresh"), "refreshToken is required");
        assert_eq!(words("/logout"), "");
        assert_eq!(words("/verify-attribute"), "attribute and code are required");
        assert_eq!(words("PATCH /me"), "attributes is required");
        assert_eq!(words("PUT /mfa/preference"), "totp, sms, or email is required");
    }

    #[test]
    fn names_and_paths_are_taken_once() {
        for (index, row) in rows().enumerate() {
            let path = row.path.replace('/', "-");
            assert!(format!("-{}", row.name).ends_with(&path), "{}", row.name);
            let differs =
                |other: &Row| (&other.method, other.path) != (&row.method, row.path) && other.name != row.name;
            assert!(rows().skip(index + 1).all(differs), "{}", row.name);
            for (index, field) in row.fields.iter().enumerate() {
                assert!(row.fields.iter().skip(index + 1).all(|other| other.name != field.name), "{}", field.name);
                if field.place == Place::Parameters {
                    assert!(row.operation.parameters().is_some(), "{}", row.name);
                }
            }
            assert!(
                row.limit == Limit::Address
                    || row.credential != Credential::None
                    || row.fields.iter().any(|f| f.need == Need::User)
            );
        }
    }
}
