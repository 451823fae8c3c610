//! Authenticator apps: a secret from Cognito, and the URL by which an authenticator takes it in (the Key Uri Format of
//! Google Authenticator, which all of them read).
//!
//! The secret is worth the second factor for as long as it lives: it is in the answer, and nowhere else.

use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::body::Members;
use super::caller::Bearer;
use super::error::AccountError;
use super::table::Row;
use super::{Account, Reply, call, profile};
use crate::cognito::{Call, Operation};

/// What is left as it is: what no part of a URL gives a meaning to (RFC 3986, section 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Whose accounts they are, for people who have many in one authenticator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer(Box<str>);

impl FromStr for Issuer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The label is issuer, colon, account.
        let is_name = (1..=64).contains(&text.chars().count()) && text == text.trim();
        if is_name && !text.chars().any(|c| c == ':' || c.is_control()) {
            Ok(Self(text.into()))
        } else {
            Err("not a name of at most 64 characters without a colon")
        }
    }
}

impl Issuer {
    /// The name, or this one as far as it can be a name.
    pub fn or(issuer: Option<Self>, other: &str) -> Self {
        issuer.unwrap_or_else(|| Self(other.chars().filter(|c| *c != ':').take(64).collect()))
    }

    /// `otpauth://totp/…` for a secret. Algorithm, digits and period are the defaults, which are Cognito's.
    fn url(&self, account: Option<&str>, secret: &str) -> String {
        let encoded = |text| utf8_percent_encode(text, ENCODED).to_string();
        let issuer = encoded(&self.0);
        let account = account.map(|account| format!(":{}", encoded(account))).unwrap_or_default();
        format!("otpauth://totp/{issuer}{account}?secret={}&issuer={issuer}", encoded(secret))
    }
}

impl Account {
    /// A new secret for the user of the token, or of the session.
    pub(super) async fn totp(
        &self,
        row: &'static Row,
        bearer: Option<&Bearer>,
        members: &Members,
        deadline: Instant,
    ) -> Result<Reply, AccountError> {
        let token = bearer.map(|bearer| &*bearer.token);
        let call = call::call(row, members, token, &self.settings.allowed, None)?;
        let answer = match self.client.call(call, deadline).await {
            Ok(answer) => answer,
            Err(error) => return self.settle(row, &error, bearer.is_none()),
        };
        let text = |name: &str| answer.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let Some(secret) = text("SecretCode") else {
            tracing::warn!("Cognito's answer has no secret for an authenticator");
            return Err(AccountError::upstream());
        };
        let account = match (members.text("username").or(members.text("email")), bearer) {
            (Some(name), _) => Some(name.to_owned()),
            (None, Some(bearer)) => Some(self.name_of(bearer, deadline).await),
            (None, None) => None,
        };
        let mut body = Map::new();
        body.insert("secret".into(), secret.into());
        body.insert("otpauthUrl".into(), self.settings.totp_issuer.url(account.as_deref(), secret).into());
        // Beside a token there is no sign-in to go on with.
        if let (None, Some(session)) = (bearer, text("Session")) {
            body.insert("session".into(), session.into());
        }
        Ok(Reply::new(200, "success", body.into()))
    }

    /// What the user would call the account. In many pools the real user name is a UUID, which says nothing in an
    /// authenticator; it has to do if there is no address, or if Cognito does not tell now.
    async fn name_of(&self, bearer: &Bearer, deadline: Instant) -> String {
        let members = Map::from_iter([("AccessToken".to_owned(), Value::from(&*bearer.token))]);
        let user = self.client.call(Call { operation: Operation::GetUser, user: None, members }, deadline).await;
        let mut attributes = user.as_ref().map(profile::attributes).unwrap_or_default();
        match ["email", "phone_number"].into_iter().find_map(|name| attributes.remove(name)) {
            Some(Value::String(address)) => address,
            _ => bearer.user.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authenticators_read_the_url() {
        let issuer: Issuer = "Big & Söhne".parse().unwrap();
        assert_eq!(
            issuer.url(Some("ada+x:1@example.com"), "JBSWY3DPEHPK3PXP"),
            "otpauth://totp/Big%20%26%20S%C3%B6hne:ada%2Bx%3A1%40example.com?secret=JBSWY3DPEHPK3PXP&issuer=Big%20%26%20S%C3%B6hne"
        );
        assert_eq!(issuer.url(None, "A&B").matches('&').count(), 1, "nothing in it changes another part");
        assert_eq!(Issuer::or(None, "a:b"), Issuer("ab".into()));
        for bad in ["", " a", "a:b", "a\nb", &"a".repeat(65)] {
            assert!(bad.parse::<Issuer>().is_err(), "{bad}");
        }
    }
}
