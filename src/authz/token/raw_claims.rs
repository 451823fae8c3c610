//! Claims of a token whose signature has not been verified, and the checks that can reject it before.
//!
//! The checks are pure: the time is an argument.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::super::denial::Denial;
use super::super::verdict::Step;
use super::claims::{TokenUse, is_alive};
use super::{Expected, TimeLimits};
use crate::clock::UnixTime;
use crate::revocation::MarkedClaims;
use crate::user_pool::{AcceptedUse, ClientId, Clients};

/// Claims that this service reads, of any type and not verified.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct RawClaims<'t> {
    #[serde(borrow)]
    iss: Claim<'t>,
    #[serde(borrow)]
    token_use: Claim<'t>,
    #[serde(borrow)]
    sub: Claim<'t>,
    #[serde(borrow)]
    client_id: Claim<'t>,
    #[serde(borrow)]
    aud: Claim<'t>,
    #[serde(borrow)]
    exp: Claim<'t>,
    #[serde(borrow)]
    nbf: Claim<'t>,
    #[serde(borrow)]
    iat: Claim<'t>,
    #[serde(borrow)]
    auth_time: Claim<'t>,
    #[serde(borrow)]
    jti: Claim<'t>,
    #[serde(borrow)]
    origin_jti: Claim<'t>,
    #[serde(borrow)]
    username: Claim<'t>,
    #[serde(borrow, rename = "cognito:username")]
    cognito_username: Claim<'t>,
    #[serde(borrow)]
    scope: Claim<'t>,
    #[serde(borrow, rename = "cognito:groups")]
    groups: Claim<'t>,
    #[serde(borrow)]
    email: Claim<'t>,
    #[serde(borrow)]
    email_verified: Claim<'t>,
}

/// Claims that have passed the checks that need no key. They are typed, but the signature is not verified.
pub(super) struct CheckedClaims<'t> {
    pub(super) sub: &'t str,
    pub(super) client_id: &'t str,
    pub(super) username: Option<&'t str>,
    pub(super) scope: Option<&'t str>,
    pub(super) email: Option<&'t str>,
    pub(super) groups: &'t [Cow<'t, str>],
    pub(super) token_use: TokenUse,
    pub(super) expires: UnixTime,
    /// Time of the sign-in: `auth_time`, else `iat`. A token with neither counts as older than every revocation.
    pub(super) signed_in: UnixTime,
    pub(super) jti: Option<&'t str>,
    pub(super) origin_jti: Option<&'t str>,
}

impl<'t> RawClaims<'t> {
    /// `iss`, which selects the pool.
    pub(super) fn issuer(&self) -> Result<&str, Denial> {
        self.iss.required_text()
    }

    /// `exp`, not verified.
    pub(super) fn expires(&self) -> Option<UnixTime> {
        self.exp.number().ok().flatten()
    }

    /// Claims that revocations name, not verified. `None` without `sub`.
    pub(super) fn marked(&self) -> Option<MarkedClaims<'_>> {
        let authenticated = self.auth_time.number().unwrap_or(Some(UnixTime::MIN));
        Some(MarkedClaims {
            sub: self.sub.as_text().filter(|sub| !sub.is_empty())?,
            origin_jti: self.origin_jti.as_text().filter(|jti| !jti.is_empty()),
            jti: self.jti.as_text().filter(|jti| !jti.is_empty()),
            since: authenticated.or(self.iat.number().ok().flatten()).unwrap_or(UnixTime::MIN),
        })
    }

    /// Checks all claims except `iss`, in this order: `token_use`, `sub`, app client, `exp`, `nbf`, life, then the types of
    /// the others. Sets `step` to the step that runs.
    pub(super) fn check(
        &'t self,
        expected: Expected<'t>,
        now: UnixTime,
        TimeLimits { leeway, max_life }: TimeLimits,
        step: &mut Step,
    ) -> Result<CheckedClaims<'t>, Denial> {
        *step = Step::TokenUse;
        let token_use = self.token_use(expected.token_use)?;
        *step = Step::Subject;
        let sub = self.sub.required_text()?;
        *step = Step::Client;
        let client_id = match token_use {
            TokenUse::Access => accepted_client(expected.clients, &[self.client_id.required_text()?])?,
            TokenUse::Id => accepted_client(expected.clients, &self.aud.required_texts()?)?,
        };
        *step = Step::Expiry;
        let expires = self.exp.number()?.ok_or(Denial::MissingClaim)?;
        if !is_alive(expires, now, leeway) {
            return Err(Denial::Expired);
        }
        *step = Step::NotBefore;
        if self.nbf.number()?.is_some_and(|not_before| not_before > now.saturating_add(leeway)) {
            return Err(Denial::NotYetValid);
        }
        *step = Step::Life;
        // `iat` may be in the future, but not malformed. An `auth_time` that is no number counts as the oldest one.
        let issued = self.iat.number()?;
        let authenticated = self.auth_time.number().unwrap_or(Some(UnixTime::MIN));
        // A token that names neither is at least as old as now. Cognito issues none.
        if expires.saturating_sub(issued.or(authenticated).unwrap_or(now)) > max_life {
            return Err(Denial::TokenLifeExceeded);
        }
        *step = Step::Types;
        let username = match token_use {
            TokenUse::Access => self.username.text()?,
            TokenUse::Id => self.cognito_username.text()?,
        };
        let email = match token_use {
            TokenUse::Id if self.email_verified.is_true()? => self.email.text()?,
            _ => None,
        };
        Ok(CheckedClaims {
            sub,
            client_id,
            username,
            scope: self.scope.text()?,
            email,
            groups: self.groups.texts()?,
            token_use,
            expires,
            signed_in: authenticated.or(issued).unwrap_or(UnixTime::MIN),
            // Only names of what can be revoked: a value of another type names nothing.
            jti: self.jti.as_text().filter(|jti| !jti.is_empty()),
            origin_jti: self.origin_jti.as_text().filter(|jti| !jti.is_empty()),
        })
    }

    /// Returns the kind of the token, if it is `accepted`.
    pub(super) fn token_use(&self, accepted: AcceptedUse) -> Result<TokenUse, Denial> {
        match (self.token_use.required_text()?, accepted) {
            ("access", AcceptedUse::Access | AcceptedUse::Any) => Ok(TokenUse::Access),
            ("id", AcceptedUse::Id | AcceptedUse::Any) => Ok(TokenUse::Id),
            _ => Err(Denial::WrongTokenUse),
        }
    }
}

/// Returns the first of the accepted clients that is among `named`; if any client is accepted, the first of `named`.
fn accepted_client<'t>(accepted: &'t Clients, named: &[&'t str]) -> Result<&'t str, Denial> {
    match accepted {
        Clients::Any => named.first().copied().ok_or(Denial::MissingClaim),
        Clients::Only(clients) => {
            clients.iter().map(ClientId::as_str).find(|client| named.contains(client)).ok_or(Denial::WrongClient)
        }
    }
}

/// Claim of any type.
///
/// The check that reads a claim rejects a wrong type, not the parser: the first *check* that fails must determine the
/// denial.
#[derive(Default)]
pub(super) enum Claim<'t> {
    #[default]
    Absent,
    Text(Cow<'t, str>),
    Number(f64),
    Bool(bool),
    Texts(Vec<Cow<'t, str>>),
    /// `null`, an object, or an array with a member that is not text. No claim that is read here may be one of these.
    Other,
}

impl<'t> Claim<'t> {
    /// Returns the text; `None` for any other type.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Requires text, if the claim is present. Empty text counts as absent.
    pub(super) fn text(&'t self) -> Result<Option<&'t str>, Denial> {
        match self {
            Self::Absent => Ok(None),
            Self::Text(text) => Ok(Some(&**text).filter(|text| !text.is_empty())),
            _ => Err(Denial::MalformedToken),
        }
    }

    /// Requires text that is present and not empty.
    pub(super) fn required_text(&'t self) -> Result<&'t str, Denial> {
        self.text()?.ok_or(Denial::MissingClaim)
    }

    /// Requires an array of texts, if the claim is present.
    pub(super) fn texts(&'t self) -> Result<&'t [Cow<'t, str>], Denial> {
        match self {
            Self::Absent => Ok(&[]),
            Self::Texts(texts) => Ok(texts),
            _ => Err(Denial::MalformedToken),
        }
    }

    /// Requires one text or an array of texts, at least one of them not empty (`aud`, RFC 7519 section 4.1.3).
    pub(super) fn required_texts(&'t self) -> Result<Vec<&'t str>, Denial> {
        let texts = match self {
            Self::Texts(texts) => texts.iter().map(|text| &**text).filter(|text| !text.is_empty()).collect(),
            _ => vec![self.required_text()?],
        };
        if texts.is_empty() { Err(Denial::MissingClaim) } else { Ok(texts) }
    }

    /// Requires a number, if the claim is present. Rounds down.
    pub(super) fn number(&self) -> Result<Option<i64>, Denial> {
        match self {
            Self::Absent => Ok(None),
            // The cast saturates. JSON has no NaN or infinity, and neither would be a time.
            #[expect(clippy::cast_possible_truncation, reason = "saturates")]
            Self::Number(number) if number.is_finite() => Ok(Some(number.floor() as i64)),
            _ => Err(Denial::MalformedToken),
        }
    }

    /// Requires a boolean or text, if the claim is present. `email_verified` is a boolean in Cognito's ID tokens, but pools
    /// with federated users have been seen to pass on the text `"true"`.
    pub(super) fn is_true(&self) -> Result<bool, Denial> {
        match self {
            Self::Absent => Ok(false),
            Self::Bool(value) => Ok(*value),
            Self::Text(text) => Ok(text == "true"),
            _ => Err(Denial::MalformedToken),
        }
    }
}

impl<'de: 't, 't> Deserialize<'de> for Claim<'t> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ClaimVisitor)
    }
}

struct ClaimVisitor;

impl<'de> Visitor<'de> for ClaimVisitor {
    type Value = Claim<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Claim<'de>, E> {
        Ok(Claim::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Claim<'de>, E> {
        Ok(Claim::Text(Cow::Owned(text.to_owned())))
    }

    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, which is later than any date")]
    fn visit_i64<E: Error>(self, number: i64) -> Result<Claim<'de>, E> {
        Ok(Claim::Number(number as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, which is later than any date")]
    fn visit_u64<E: Error>(self, number: u64) -> Result<Claim<'de>, E> {
        Ok(Claim::Number(number as f64))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Claim<'de>, E> {
        Ok(Claim::Number(number))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Claim<'de>, E> {
        Ok(Claim::Bool(value))
    }

    fn visit_unit<E: Error>(self) -> Result<Claim<'de>, E> {
        Ok(Claim::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Claim<'de>, A::Error> {
        while members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Claim::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Claim<'de>, A::Error> {
        let mut texts = Some(Vec::new());
        while let Some(element) = elements.next_element()? {
            match (element, &mut texts) {
                (Claim::Text(text), Some(texts)) => texts.push(text),
                _ => texts = None,
            }
        }
        Ok(texts.map_or(Claim::Other, Claim::Texts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::token::claims::Claims;
    use crate::authz::token::tests::verify_payload;
    use crate::user_pool::UserPool;
    use serde_json::{Value, json};

    use crate::authz::token::tests::MAX_LIFE;
    use Denial::{Expired, MalformedToken, MissingClaim, NotYetValid, TokenLifeExceeded, WrongClient, WrongTokenUse};

    const NOW: i64 = 1_800_000_000;
    const LEEWAY: i64 = 30;

    fn pool(clients: &[&str], token_use: AcceptedUse) -> UserPool {
        let clients = match clients {
            ["any"] => Clients::Any,
            some => Clients::Only(some.iter().map(|client| client.parse().unwrap()).collect()),
        };
        let mut pool = UserPool::new("default", "eu-west-1_Test".parse().unwrap(), clients, token_use).unwrap();
        pool.issuers = vec!["i".into()];
        pool
    }

    fn access() -> Value {
        json!({"iss": "i", "sub": "s", "token_use": "access", "client_id": "c", "exp": NOW + 60, "iat": NOW, "username": "u"})
    }

    fn id() -> Value {
        json!({"iss": "i", "sub": "s", "token_use": "id", "aud": "c", "exp": NOW + 60, "iat": NOW, "cognito:username": "u"})
    }

    /// Signs a token with `claims` and `change`, and verifies it.
    #[track_caller]
    fn check(mut claims: Value, change: &Value, pool: &UserPool) -> Result<Claims, Denial> {
        for (name, value) in change.as_object().unwrap() {
            if value == "ABSENT" {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        let text = claims.to_string().replace("\"HUGE\"", "1e300");
        verify_payload(&text, pool.clone(), NOW, LEEWAY)
    }

    #[test]
    fn each_rule_for_access_tokens() {
        let pool = pool(&["b", "c"], AcceptedUse::Access);
        for (change, expected) in [
            (json!({}), None),
            (json!({"iss": "ABSENT"}), Some(MissingClaim)),
            (json!({"iss": ["i"]}), Some(MalformedToken)),
            (json!({"iss": null}), Some(MalformedToken)),
            (json!({"token_use": "ABSENT"}), Some(MissingClaim)),
            (json!({"token_use": "id"}), Some(WrongTokenUse)),
            (json!({"token_use": "refresh"}), Some(WrongTokenUse)),
            (json!({"token_use": "Access"}), Some(WrongTokenUse)),
            (json!({"token_use": 1}), Some(MalformedToken)),
            (json!({"token_use": ["access"]}), Some(MalformedToken)),
            (json!({"sub": "ABSENT"}), Some(MissingClaim)),
            (json!({"sub": ""}), Some(MissingClaim)),
            (json!({"sub": 5}), Some(MalformedToken)),
            (json!({"client_id": "ABSENT"}), Some(MissingClaim)),
            (json!({"client_id": ""}), Some(MissingClaim)),
            (json!({"client_id": "other"}), Some(WrongClient)),
            (json!({"client_id": "C"}), Some(WrongClient)),
            (json!({"client_id": ["c"]}), Some(MalformedToken)),
            (json!({"client_id": "ABSENT", "aud": "c"}), Some(MissingClaim)),
            (json!({"aud": "someone-else"}), None), // resource-bound access tokens have `aud`
            (json!({"exp": "ABSENT"}), Some(MissingClaim)),
            (json!({"exp": null}), Some(MalformedToken)),
            (json!({"exp": "1800000060"}), Some(MalformedToken)),
            (json!({"exp": true}), Some(MalformedToken)),
            (json!({"exp": [NOW + 60]}), Some(MalformedToken)),
            (json!({"exp": NOW - LEEWAY}), Some(Expired)),
            (json!({"exp": NOW - LEEWAY + 1}), None),
            (json!({"exp": 1_799_999_970.9}), Some(Expired)),
            (json!({"exp": 1_799_999_971.1}), None),
            (json!({"exp": -1}), Some(Expired)),
            (json!({"exp": 0}), Some(Expired)),
            (json!({"exp": i64::MIN}), Some(Expired)),
            (json!({"exp": u64::MAX}), Some(TokenLifeExceeded)),
            (json!({"exp": "HUGE"}), Some(TokenLifeExceeded)),
            (json!({"iat": NOW + 60 - MAX_LIFE}), None),
            (json!({"iat": NOW + 59 - MAX_LIFE}), Some(TokenLifeExceeded)),
            (json!({"iat": NOW + 59 - MAX_LIFE, "auth_time": NOW}), Some(TokenLifeExceeded)),
            (json!({"iat": NOW, "auth_time": 0}), None), // a session lasts longer than its tokens
            (json!({"iat": "ABSENT", "auth_time": NOW + 60 - MAX_LIFE}), None),
            (json!({"iat": "ABSENT", "auth_time": NOW + 59 - MAX_LIFE}), Some(TokenLifeExceeded)),
            (json!({"iat": "ABSENT", "auth_time": "x"}), Some(TokenLifeExceeded)),
            (json!({"iat": NOW, "auth_time": "x"}), None),
            (json!({"nbf": NOW + LEEWAY + 1, "iat": 0}), Some(NotYetValid)),
            (json!({"nbf": NOW + LEEWAY}), None),
            (json!({"nbf": 1_800_000_030.9}), None),
            (json!({"nbf": NOW + LEEWAY + 1}), Some(NotYetValid)),
            (json!({"nbf": null}), Some(MalformedToken)),
            (json!({"nbf": "0"}), Some(MalformedToken)),
            (json!({"nbf": {}}), Some(MalformedToken)),
            (json!({"nbf": "HUGE"}), Some(NotYetValid)),
            (json!({"iat": NOW + 9999}), None),
            (json!({"iat": "ABSENT"}), None),
            (json!({"iat": "ABSENT", "exp": NOW + MAX_LIFE}), None),
            (json!({"iat": "ABSENT", "exp": NOW + MAX_LIFE + 1}), Some(TokenLifeExceeded)),
            (json!({"iat": "0"}), Some(MalformedToken)),
            (json!({"iat": null}), Some(MalformedToken)),
            (json!({"username": "ABSENT"}), None), // client credentials
            (json!({"username": 1}), Some(MalformedToken)),
            (json!({"scope": ["a"]}), Some(MalformedToken)),
            (json!({"cognito:groups": "admins"}), Some(MalformedToken)),
            (json!({"cognito:groups": ["a", 1]}), Some(MalformedToken)),
            (json!({"cognito:groups": null}), Some(MalformedToken)),
            (json!({"cognito:groups": []}), None),
            // The first check that fails determines the denial.
            (json!({"token_use": "id", "sub": "", "exp": 0}), Some(WrongTokenUse)),
            (json!({"sub": "", "client_id": "x"}), Some(MissingClaim)),
            (json!({"client_id": "x", "exp": 0}), Some(WrongClient)),
            (json!({"exp": 0, "nbf": "x"}), Some(Expired)),
        ] {
            assert_eq!(check(access(), &change, &pool).err(), expected, "{change}");
        }
    }

    #[test]
    fn the_client_of_an_id_token_is_in_aud() {
        let two = pool(&["b", "c"], AcceptedUse::Id);
        let any = pool(&["any"], AcceptedUse::Any);
        for (aud, with_two, with_any) in [
            (json!("c"), Ok("c"), Ok("c")),
            (json!(["c"]), Ok("c"), Ok("c")),
            (json!(["x", "c", "b"]), Ok("b"), Ok("x")),
            (json!("x"), Err(Denial::WrongClient), Ok("x")),
            (json!(["x"]), Err(Denial::WrongClient), Ok("x")),
            (json!([]), Err(Denial::MissingClaim), Err(Denial::MissingClaim)),
            (json!([""]), Err(Denial::MissingClaim), Err(Denial::MissingClaim)),
            (json!(""), Err(Denial::MissingClaim), Err(Denial::MissingClaim)),
            (json!("ABSENT"), Err(Denial::MissingClaim), Err(Denial::MissingClaim)),
            (json!(["c", 1]), Err(Denial::MalformedToken), Err(Denial::MalformedToken)),
            (json!(null), Err(Denial::MalformedToken), Err(Denial::MalformedToken)),
            (json!({"c": 1}), Err(Denial::MalformedToken), Err(Denial::MalformedToken)),
        ] {
            for (pool, expected) in [(&two, with_two), (&any, with_any)] {
                let claims = check(id(), &json!({ "aud": aud, "client_id": "c" }), pool);
                assert_eq!(claims.as_ref().map(Claims::client_id), expected.as_ref().copied(), "{aud}");
            }
        }
    }

    #[test]
    fn claims_are_kept_unchanged() {
        let change =
            json!({"scope": "openid a/b", "cognito:groups": ["ä", "b,c"], "email": "a@b.c", "email_verified": true});
        let claims = check(access(), &change, &pool(&["any"], AcceptedUse::Any)).unwrap();
        assert_eq!((claims.sub(), claims.client_id(), claims.username()), ("s", "c", Some("u")));
        assert_eq!(
            (claims.scope(), claims.token_use(), claims.expires()),
            (Some("openid a/b"), TokenUse::Access, NOW + 60)
        );
        assert_eq!(claims.groups().collect::<Vec<_>>(), ["ä", "b,c"]);
        assert_eq!(claims.email(), None, "only an ID token has a verified e-mail address");
        assert_eq!(format!("{claims:?}"), format!("Claims {{ token_use: Access, expires: {}, .. }}", NOW + 60));
    }

    #[test]
    fn an_email_address_counts_only_when_verified() {
        let pool = pool(&["c"], AcceptedUse::Id);
        for (verified, expected) in [
            (json!(true), Ok(Some("a@b.c"))),
            (json!("true"), Ok(Some("a@b.c"))),
            (json!(false), Ok(None)),
            (json!("false"), Ok(None)),
            (json!("ABSENT"), Ok(None)),
            (json!(1), Err(Denial::MalformedToken)),
        ] {
            let claims = check(id(), &json!({"email": "a@b.c", "email_verified": verified}), &pool);
            assert_eq!(claims.as_ref().map(Claims::email).map_err(|denial| *denial), expected, "{verified}");
        }
    }

    #[test]
    fn duplicate_claims_are_an_error() {
        for text in [r#"{"sub":"a","sub":"b"}"#, r#"{"sub":"a","\u0073ub":"b"}"#, r#"{"exp":1,"exp":1}"#] {
            assert!(serde_json::from_str::<RawClaims<'_>>(text).is_err(), "{text}");
        }
    }
}
