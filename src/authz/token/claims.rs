//! What a verified token says ([`Claims`]) and what an unverified one claims (`RawClaims`), with the checks that
//! may refuse it before its signature is looked at.
//!
//! Pure: the time is an argument, and the same input gives the same answer.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;

use super::super::denial::Denial;
use super::super::step::Step;
use super::claim::Claim;
use super::extra_claims::ExtraClaims;
use crate::jwks::SignatureValid;
use crate::user_pool::{AcceptedUse, ClientId, Clients, UserPool};

/// Seconds since 1970-01-01T00:00:00Z, leap seconds ignored (`NumericDate`, RFC 7519 section 2).
pub type UnixTime = i64;

/// Which kind of token this is (`token_use`, a claim of Cognito's).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenUse {
    /// `access`: the app client is in `client_id`.
    Access,
    /// `id`: the app client is in `aud`.
    Id,
}

impl TokenUse {
    /// The value of the claim.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Id => "id",
        }
    }
}

/// The claims of a token whose every check has passed. Only [`CandidateToken::verify`] makes one.
///
/// The texts lie one after the other in one allocation: there are as many of these as the cache holds tokens.
///
/// [`CandidateToken::verify`]: super::token::CandidateToken::verify
pub struct Claims {
    text: Box<str>,
    sub: Span,
    client_id: Span,
    username: Option<Span>,
    scope: Option<Span>,
    email: Option<Span>,
    groups: Box<[Span]>,
    extra: ExtraClaims,
    token_use: TokenUse,
    expires: UnixTime,
}

/// A part of [`Claims::text`]. A token has at most 16 KiB, and reading JSON makes no text longer.
#[derive(Clone, Copy)]
struct Span {
    start: u16,
    end: u16,
}

impl Claims {
    /// Subject, never empty.
    pub fn sub(&self) -> &str {
        self.part(self.sub)
    }

    /// The app client: `client_id` of an access token; the accepted member of `aud` of an ID token.
    pub fn client_id(&self) -> &str {
        self.part(self.client_id)
    }

    /// `username` or, of an ID token, `cognito:username`. Absent in client-credentials tokens.
    pub fn username(&self) -> Option<&str> {
        self.username.map(|span| self.part(span))
    }

    /// `scope` as issued: values with spaces between.
    pub fn scope(&self) -> Option<&str> {
        self.scope.map(|span| self.part(span))
    }

    /// `email`, only of an ID token that says it is verified.
    pub fn email(&self) -> Option<&str> {
        self.email.map(|span| self.part(span))
    }

    /// `cognito:groups`; Cognito leaves the claim out when there are none.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.groups.iter().map(|span| self.part(*span))
    }

    /// The kind of token.
    pub fn token_use(&self) -> TokenUse {
        self.token_use
    }

    /// `exp`, fractions cut off.
    pub fn expires(&self) -> UnixTime {
        self.expires
    }

    /// The other claims that the configuration asks for.
    pub fn extra(&self) -> &ExtraClaims {
        &self.extra
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.text.len() + size_of_val(&*self.groups) + self.extra.heap_bytes()
    }

    fn part(&self, span: Span) -> &str {
        self.text.get(usize::from(span.start)..usize::from(span.end)).unwrap_or_default()
    }
}

impl fmt::Debug for Claims {
    /// Names no person: what stands in a token does not belong into a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims")
            .field("token_use", &self.token_use)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Whether a token that ends at `expires` may still be used (RFC 7519 section 4.1.4).
pub fn is_alive(expires: UnixTime, now: UnixTime, leeway: i64) -> bool {
    now < expires.saturating_add(leeway)
}

/// What a token has to be: of this kind, issued to one of these clients.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'e> {
    /// Of the pool of this name.
    pub pool: &'e str,
    /// Which kinds.
    pub token_use: AcceptedUse,
    /// Which clients.
    pub clients: &'e Clients,
}

impl<'e> Expected<'e> {
    /// What a check expects of the pool's tokens.
    pub fn by_checks(pool: &'e UserPool) -> Self {
        Self { pool: &pool.name, token_use: pool.token_use, clients: &pool.clients }
    }
}

/// The claims we read, as the token writes them: nothing is known about their types, and none is believed.
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

/// The claims after the checks that need no key: typed, but still not proven to be the issuer's.
pub(super) struct CheckedClaims<'t> {
    sub: &'t str,
    client_id: &'t str,
    username: Option<&'t str>,
    scope: Option<&'t str>,
    email: Option<&'t str>,
    groups: &'t [Cow<'t, str>],
    token_use: TokenUse,
    expires: UnixTime,
}

impl<'t> RawClaims<'t> {
    /// `iss`, to select a pool with.
    pub(super) fn issuer(&self) -> Result<&str, Denial> {
        self.iss.required_text()
    }

    /// When the token ends by its own account, which proves nothing.
    pub(super) fn expires(&self) -> Option<UnixTime> {
        self.exp.number().ok().flatten()
    }

    /// Every check of the claims but `iss`, in this order: `token_use`, `sub`, client, `exp`, `nbf`,
    /// then the types of what remains. `step` is how far it got.
    pub(super) fn check(
        &'t self,
        expected: Expected<'t>,
        now: UnixTime,
        leeway: i64,
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
        *step = Step::Types;
        self.iat.number()?; // a future `iat` is no reason to refuse, a malformed one is
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
        })
    }

    /// The kind of token, if it is accepted.
    pub(super) fn token_use(&self, accepted: AcceptedUse) -> Result<TokenUse, Denial> {
        match (self.token_use.required_text()?, accepted) {
            ("access", AcceptedUse::Access | AcceptedUse::Any) => Ok(TokenUse::Access),
            ("id", AcceptedUse::Id | AcceptedUse::Any) => Ok(TokenUse::Id),
            _ => Err(Denial::WrongTokenUse),
        }
    }
}

/// The first accepted client among `named`.
fn accepted_client<'t>(accepted: &'t Clients, named: &[&'t str]) -> Result<&'t str, Denial> {
    match accepted {
        Clients::Any => named.first().copied().ok_or(Denial::MissingClaim),
        Clients::Only(clients) => {
            clients.iter().map(ClientId::as_str).find(|client| named.contains(client)).ok_or(Denial::WrongClient)
        }
    }
}

impl CheckedClaims<'_> {
    /// Makes verified claims. The proof is of the signature over the token that these claims were read from: the one caller
    /// is [`CandidateToken::verify`](super::token::CandidateToken::verify), which holds both.
    pub(super) fn into_verified(self, SignatureValid { .. }: SignatureValid, extra: ExtraClaims) -> Claims {
        let mut text = String::new();
        let mut keep = |part: &str| {
            let start = text.len();
            text.push_str(part);
            // No token is long enough for more; if one were, the part would read as empty.
            let place = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
            Span { start: place(start), end: place(text.len()) }
        };
        let (sub, client_id) = (keep(self.sub), keep(self.client_id));
        let [username, scope, email] = [self.username, self.scope, self.email].map(|part| part.map(&mut keep));
        let groups = self.groups.iter().map(|group| keep(group)).collect();
        let (token_use, expires) = (self.token_use, self.expires);
        Claims { text: text.into(), sub, client_id, username, scope, email, groups, extra, token_use, expires }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::token::tests::verify_payload;
    use serde_json::{Value, json};

    use Denial::{Expired, MalformedToken, MissingClaim, NotYetValid, WrongClient, WrongTokenUse};

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

    /// The only place that verifies tokens: really signed ones with these claims.
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
            (json!({"aud": "someone-else"}), None), // resource-bound access tokens have one
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
            (json!({"exp": u64::MAX}), None),
            (json!({"exp": "HUGE"}), None),
            (json!({"nbf": NOW + LEEWAY}), None),
            (json!({"nbf": 1_800_000_030.9}), None),
            (json!({"nbf": NOW + LEEWAY + 1}), Some(NotYetValid)),
            (json!({"nbf": null}), Some(MalformedToken)),
            (json!({"nbf": "0"}), Some(MalformedToken)),
            (json!({"nbf": {}}), Some(MalformedToken)),
            (json!({"nbf": "HUGE"}), Some(NotYetValid)),
            (json!({"iat": NOW + 9999}), None),
            (json!({"iat": "ABSENT"}), None),
            (json!({"iat": "0"}), Some(MalformedToken)),
            (json!({"iat": null}), Some(MalformedToken)),
            (json!({"username": "ABSENT"}), None), // client credentials
            (json!({"username": 1}), Some(MalformedToken)),
            (json!({"scope": ["a"]}), Some(MalformedToken)),
            (json!({"cognito:groups": "admins"}), Some(MalformedToken)),
            (json!({"cognito:groups": ["a", 1]}), Some(MalformedToken)),
            (json!({"cognito:groups": null}), Some(MalformedToken)),
            (json!({"cognito:groups": []}), None),
            // The first check that fails names the reason.
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
    fn claims_are_kept_as_they_stand() {
        let change =
            json!({"scope": "openid a/b", "cognito:groups": ["ä", "b,c"], "email": "a@b.c", "email_verified": true});
        let claims = check(access(), &change, &pool(&["any"], AcceptedUse::Any)).unwrap();
        assert_eq!((claims.sub(), claims.client_id(), claims.username()), ("s", "c", Some("u")));
        assert_eq!(
            (claims.scope(), claims.token_use(), claims.expires()),
            (Some("openid a/b"), TokenUse::Access, NOW + 60)
        );
        assert_eq!(claims.groups().collect::<Vec<_>>(), ["ä", "b,c"]);
        assert_eq!(claims.email(), None, "an access token's e-mail address is not vouched for");
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
    fn duplicates_of_what_we_read_are_an_error() {
        for text in [r#"{"sub":"a","sub":"b"}"#, r#"{"sub":"a","\u0073ub":"b"}"#, r#"{"exp":1,"exp":1}"#] {
            assert!(serde_json::from_str::<RawClaims<'_>>(text).is_err(), "{text}");
        }
    }
}
