//! Rate limits of operations: the keys that a request counts for in addition to its address, and the knowledge about
//! users' names that responses of Cognito bring.
//!
//! An attempt at a password or a code counts for the name in the request; a message counts for every recipient in the
//! request. [`rate_limit`](super::rate_limit) keeps the counts.

use serde_json::{Map, Value};

use super::body::Members;
use super::caller::Address;
use super::context::Context;
use super::error::AccountError;
use super::table::{Limit, Row, Target};
use crate::authz::{Claims, TokenUse};

/// A sign-in attempt: the keys that it was counted for before Cognito identified the user.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) address: &'a Address,
    /// Name of the user in the request.
    pub(super) name: &'a str,
}

/// Attributes that are addresses for messages.
const ADDRESSES: [&str; 2] = ["email", "phone_number"];
/// First factors for which Cognito sends no message.
const SILENT: [&str; 3] = ["PASSWORD", "PASSWORD_SRP", "WEB_AUTHN"];
/// First factors for which Cognito sends a code.
const SENT: [&str; 2] = ["EMAIL_OTP", "SMS_OTP"];

impl Context {
    /// Counts a request of `user`, before the call of Cognito.
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
            Limit::Guess | Limit::SignIn | Limit::Challenge => {
                let guess = self.limits.guess(address, user);
                let sends = sign_in_sends(row, members);
                guess.and_then(|()| if sends { self.limits.sign_in_message(address, user) } else { Ok(()) })
            }
            Limit::Send | Limit::SendToNewAddress => match recipients(row, members, user) {
                recipients if recipients.is_empty() => Ok(()),
                recipients => self.limits.send(&recipients),
            },
        };
        counted.map_err(AccountError::rate_limited)
    }

    /// Learns the names of a new user: its `sub`, the name in the request, and the addresses that get its messages.
    pub(super) fn signed_up(&self, row: &Row, members: &Members, answer: &Map<String, Value>) {
        let Some(user) = members.user(row) else { return };
        if let Some(sub) = answer.get("UserSub").and_then(Value::as_str) {
            // If the name in the request is an address, the user name in the pool is the `sub`.
            match members.text("username") {
                Some(_) => self.limits.is_name_of(sub, user),
                None => self.limits.is_name_of(user, sub),
            }
            self.limits.sends_to(sub, addresses(row, members));
        }
        self.limits.sends_to(user, addresses(row, members));
    }

    /// Learns the user name that a challenge contains.
    pub(super) fn challenged(&self, attempt: Attempt<'_>, parameters: &Value) {
        let named = ["USER_ID_FOR_SRP", "USERNAME"].into_iter().filter_map(|name| parameters.get(name)?.as_str());
        if let Some(user) = named.into_iter().find(|name| !name.is_empty()) {
            self.limits.names_user(attempt.address, attempt.name, user);
        }
    }

    /// Learns the names in a verified token. The attempt that led to the token counts for the user, too.
    pub(super) fn signed_in(&self, attempt: Option<Attempt<'_>>, claims: &Claims) {
        let Some(user) = claims.username() else { return };
        if let Some(attempt) = attempt {
            self.limits.names_user(attempt.address, attempt.name, user);
        }
        self.limits.is_name_of(claims.sub(), user);
        // Only a verified address, and only ID tokens say so: any user can claim an address that is not verified.
        if let Some(email) = claims.email().filter(|_| claims.token_use() == TokenUse::Id) {
            self.limits.is_name_of(email, user);
        }
    }

    /// Learns the addresses in a profile. Verified addresses are also names of the user.
    pub(super) fn shown(&self, user: &str, attributes: &Map<String, Value>) {
        let text = |name: &str| attributes.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        for (address, verified) in [("email", "email_verified"), ("phone_number", "phone_number_verified")] {
            if let Some(address) = text(address).filter(|_| text(verified) == Some("true")) {
                self.limits.is_name_of(address, user);
            }
        }
        self.limits.sends_to(user, ADDRESSES.into_iter().filter_map(text));
    }

    /// Learns the new addresses of a user who has changed them.
    pub(super) fn readdressed(&self, row: &Row, members: &Members, user: &str) {
        self.limits.sends_to(user, addresses(row, members));
    }
}

/// Returns the addresses in a body that become attributes of the user.
fn addresses<'m>(row: &'m Row, members: &'m Members) -> impl Iterator<Item = &'m str> {
    let own = row.fields.iter().filter(|field| row.sets_attributes() && is_address(field.target));
    let attributes = row.fields.iter().filter(|field| matches!(field.target, Target::Attributes(_)));
    let attributes = attributes.flat_map(|field| members.texts(field.name));
    let attributes = attributes.filter(|(name, value)| ADDRESSES.contains(name) && !value.is_empty());
    own.filter_map(|field| members.text(field.name)).chain(attributes.map(|(_, value)| value))
}

fn is_address(target: Target) -> bool {
    matches!(target, Target::User(Some(attribute)) | Target::Attribute(attribute) if ADDRESSES.contains(&attribute))
}

/// Returns the names and addresses in a request that get a message because of it; none if it sends none.
fn recipients<'m>(row: &'m Row, members: &'m Members, user: &'m str) -> Vec<&'m str> {
    let mut recipients: Vec<&str> = addresses(row, members).collect();
    // Changing other attributes sends no message.
    if !recipients.is_empty() || row.limit == Limit::Send {
        recipients.push(user);
    }
    recipients
}

/// `true` if Cognito, or a Lambda trigger, sends a code in this step of a sign-in although no password was proved.
fn sign_in_sends(row: &Row, members: &Members) -> bool {
    let parameter = |map: &str, wanted: &str| {
        members.texts(map).find(|(name, _)| *name == wanted).map(|(_, value)| value).unwrap_or_default()
    };
    match row.limit {
        Limit::SignIn => match members.text("authFlow") {
            Some("CUSTOM_AUTH") => true,
            Some("USER_AUTH") => !SILENT.contains(&parameter("authParameters", "PREFERRED_CHALLENGE")),
            _ => false,
        },
        Limit::Challenge => {
            members.text("challenge") == Some("SELECT_CHALLENGE") && SENT.contains(&parameter("responses", "ANSWER"))
        }
        Limit::Address | Limit::Guess | Limit::Send | Limit::SendToNewAddress => false,
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
    fn a_message_counts_for_all_recipients() {
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
    fn sign_ins_that_send_codes_count_as_messages() {
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
