//! What a request is counted against beside its address, and what answers tell about whose names they are.
//!
//! An attempt at a password or a code counts for the name that it uses; a message counts for every recipient that the
//! request names. [`super::rate_limit`] keeps the counts.

use serde_json::{Map, Value};

use super::Account;
use super::address::Address;
use super::body::Members;
use super::error::AccountError;
use super::table::{Limit, Place, Row};
use crate::authz::{Claims, TokenUse};
use crate::cognito::Operation;

/// An attempt to sign in: what it was counted for before Cognito named the user.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    /// Where it comes from.
    pub(super) address: &'a Address,
    /// The name that it used.
    pub(super) name: &'a str,
}

/// Attributes that messages go to.
const ADDRESSES: [&str; 2] = ["email", "phone_number"];
/// First factors that send nothing.
const SILENT: [&str; 3] = ["PASSWORD", "PASSWORD_SRP", "WEB_AUTHN"];
/// First factors that send a code.
const SENT: [&str; 2] = ["EMAIL_OTP", "SMS_OTP"];

impl Account {
    /// Counts a request of `user`, before Cognito is asked.
    ///
    /// # Errors
    /// [`AccountError`] 429.
    pub(super) fn count(
        &self,
        row: &Row,
        members: &Members,
        address: &Address,
        user: &str,
    ) -> Result<(), AccountError> {
        let counted = match row.limit {
            Limit::Address => Ok(()),
            Limit::Guess => {
                let guess = self.limits.guess(address, user);
                let sends = sign_in_sends(row, members);
                guess.and_then(|()| if sends { self.limits.sign_in_message(address, user) } else { Ok(()) })
            }
            Limit::Send | Limit::SendIf(_) => match recipients(row, members, user) {
                recipients if recipients.is_empty() => Ok(()),
                recipients => self.limits.send(&recipients),
            },
        };
        counted.map_err(AccountError::rate_limited)
    }

    /// Takes in whose names a sign-up made: `sub` and the name that was chosen are one user's, and where messages to
    /// that user go.
    pub(super) fn signed_up(&self, row: &Row, members: &Members, answer: &Map<String, Value>) {
        let Some(user) = members.user(row) else { return };
        if let Some(sub) = answer.get("UserSub").and_then(Value::as_str) {
            // An address that is the user name stands for a user whose real name is the `sub`.
            match members.text("username") {
                Some(_) => self.limits.is_name_of(sub, user),
                None => self.limits.is_name_of(user, sub),
            }
            self.limits.sends_to(sub, addresses(row, members));
        }
        self.limits.sends_to(user, addresses(row, members));
    }

    /// Takes in whom Cognito names in a challenge: the real user name.
    pub(super) fn challenged(&self, attempt: Attempt<'_>, parameters: &Value) {
        let named = ["USER_ID_FOR_SRP", "USERNAME"].into_iter().filter_map(|name| parameters.get(name)?.as_str());
        if let Some(user) = named.into_iter().find(|name| !name.is_empty()) {
            self.limits.names_user(attempt.address, attempt.name, user);
        }
    }

    /// Takes in whom a verified token names. The attempt that brought it counts for the user, too.
    pub(super) fn signed_in(&self, attempt: Option<Attempt<'_>>, claims: &Claims) {
        let Some(user) = claims.username() else { return };
        if let Some(attempt) = attempt {
            self.limits.names_user(attempt.address, attempt.name, user);
        }
        self.limits.is_name_of(claims.sub(), user);
        // Of an ID token, and only a verified one. Any user may write an address that is not.
        if let Some(email) = claims.email().filter(|_| claims.token_use() == TokenUse::Id) {
            self.limits.is_name_of(email, user);
        }
    }

    /// Takes in what a profile says about its user: addresses, and those of them that are names because they are
    /// verified.
    pub(super) fn shown(&self, user: &str, attributes: &Map<String, Value>) {
        let text = |name: &str| attributes.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        for (address, verified) in [("email", "email_verified"), ("phone_number", "phone_number_verified")] {
            if let Some(address) = text(address).filter(|_| text(verified) == Some("true")) {
                self.limits.is_name_of(address, user);
            }
        }
        self.limits.sends_to(user, ADDRESSES.into_iter().filter_map(text));
    }

    /// Takes in where a user is going to get messages.
    pub(super) fn readdressed(&self, row: &Row, members: &Members, user: &str) {
        self.limits.sends_to(user, addresses(row, members));
    }
}

/// The addresses in a body that become the user's.
fn addresses<'m>(row: &'m Row, members: &'m Members) -> impl Iterator<Item = &'m str> {
    let own = row.fields.iter().filter(|field| row.operation == Operation::SignUp && is_address(field.place));
    let attributes = row.fields.iter().filter(|field| field.place == Place::Attributes);
    let attributes = attributes.flat_map(|field| members.texts(field.name));
    let attributes = attributes.filter(|(name, value)| ADDRESSES.contains(name) && !value.is_empty());
    own.filter_map(|field| members.text(field.name)).chain(attributes.map(|(_, value)| value))
}

fn is_address(place: Place) -> bool {
    matches!(place, Place::User(Some(attribute)) | Place::Attribute(attribute) if ADDRESSES.contains(&attribute))
}

/// Everything that a request names and that gets a message by it; none if it sends none.
fn recipients<'m>(row: &'m Row, members: &'m Members, user: &'m str) -> Vec<&'m str> {
    let mut recipients: Vec<&str> = addresses(row, members).collect();
    // A change of other attributes sends nothing.
    if !recipients.is_empty() || row.limit == Limit::Send {
        recipients.push(user);
    }
    recipients
}

/// `true` if a step of a sign-in makes Cognito, or a Lambda, send a code although no password was shown.
fn sign_in_sends(row: &Row, members: &Members) -> bool {
    let parameter = |map: &str, wanted: &str| {
        members.texts(map).find(|(name, _)| *name == wanted).map(|(_, value)| value).unwrap_or_default()
    };
    match row.operation {
        Operation::InitiateAuth => match members.text("authFlow") {
            Some("CUSTOM_AUTH") => true,
            Some("USER_AUTH") => !SILENT.contains(&parameter("authParameters", "PREFERRED_CHALLENGE")),
            _ => false,
        },
        Operation::RespondToAuthChallenge => {
            members.text("challenge") == Some("SELECT_CHALLENGE") && SENT.contains(&parameter("responses", "ANSWER"))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::account::table::row;

    fn members(path: &str, body: &Value) -> Members {
        Members::read(row(path), body.to_string().as_bytes(), None).ok().unwrap()
    }

    #[test]
    fn who_gets_a_message() {
        let register = |more: Value| {
            let mut body = json!({"password": "p", "name": "n"});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            body
        };
        for (path, body, expected) in [
            ("/register", register(json!({"email": "e"})), &["e"][..]),
            ("/register", register(json!({"username": "u", "email": "e"})), &["e", "u"]),
            ("/register", register(json!({"username": "u", "email": "e", "phone": "+1"})), &["+1", "e", "u"]),
            ("/register", register(json!({"phone": "+1", "attributes": {"email": "e", "locale": "de"}})), &["+1", "e"]),
            (
                "/register",
                register(json!({"username": "u", "attributes": {"phone_number": "+1", "email": ""}})),
                &["+1", "u"],
            ),
            ("/resend-code", json!({"username": "u", "email": "e"}), &["u"]),
            ("/forgot-password", json!({"email": "e"}), &["e"]),
            ("/verify-attribute/code", json!({"attribute": "email"}), &["me"]),
            ("PATCH /me", json!({"attributes": {"name": "n"}}), &[]),
            ("PATCH /me", json!({"attributes": {"email": ""}}), &[]),
            ("PATCH /me", json!({"attributes": {"email": "e", "phone_number": "+1"}}), &["+1", "e", "me"]),
        ] {
            let members = members(path, &body);
            let user = members.user(row(path)).unwrap_or("me");
            let mut found = recipients(row(path), &members, user);
            found.sort_unstable();
            found.dedup();
            assert_eq!(found, expected, "{path} {body}");
        }
    }

    #[test]
    fn which_sign_ins_send_codes() {
        let flow = |flow: &str, preferred: Value| json!({"email": "e", "authFlow": flow, "authParameters": preferred});
        for (path, body, expected) in [
            ("/login", json!({"email": "e", "password": "p"}), false),
            ("/login", flow("USER_SRP_AUTH", json!({"SRP_A": "0"})), false),
            ("/login", flow("CUSTOM_AUTH", json!({"X": "0"})), true),
            ("/login", flow("USER_AUTH", json!({"X": "0"})), true),
            ("/login", flow("USER_AUTH", json!({"PREFERRED_CHALLENGE": "EMAIL_OTP"})), true),
            ("/login", flow("USER_AUTH", json!({"PREFERRED_CHALLENGE": "PASSWORD"})), false),
            ("/login", flow("USER_AUTH", json!({"PREFERRED_CHALLENGE": "WEB_AUTHN"})), false),
            (
                "/challenge",
                json!({"challenge": "SELECT_CHALLENGE", "email": "e", "responses": {"ANSWER": "SMS_OTP"}}),
                true,
            ),
            (
                "/challenge",
                json!({"challenge": "SELECT_CHALLENGE", "email": "e", "responses": {"ANSWER": "PASSWORD"}}),
                false,
            ),
            ("/challenge", json!({"challenge": "SMS_MFA", "email": "e", "responses": {"SMS_MFA_CODE": "1"}}), false),
        ] {
            assert_eq!(sign_in_sends(row(path), &members(path, &body)), expected, "{path} {body}");
        }
    }
}
