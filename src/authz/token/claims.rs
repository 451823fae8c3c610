//! Claims of a verified token.
//!
//! [`Claims`] exist only for a token whose signature has been verified. In addition to the standard claims, they contain
//! those that policies and identity headers need ([`WantedClaims`]). These are extracted once, at verification, and stored by
//! index; all other claims are dropped.

use std::collections::HashMap;
use std::fmt;

use serde_json::Value;

use super::super::denial::Denial;
use super::raw_claims::CheckedClaims;
use crate::clock::UnixTime;
use crate::jwks::SignatureValid;
use crate::revocation::{LastJudged, Marks};

/// Kind of a token (`token_use`, a claim that Cognito adds).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenUse {
    /// Access token, `access`. Its app client is in `client_id`.
    Access,
    /// ID token, `id`. Its app client is in `aud`.
    Id,
}

impl TokenUse {
    /// Value of the claim.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Id => "id",
        }
    }
}

/// Claims of a token that has passed every check, including that of its signature.
///
/// All texts share one allocation, to save memory in the cache of verified tokens.
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
    marks: Marks,
    last_judged: LastJudged,
}

/// Range in [`Claims::text`]. `u16` is enough: a token has at most 16 KiB, and decoding JSON does not make texts longer.
#[derive(Clone, Copy)]
struct Span {
    start: u16,
    end: u16,
}

impl Claims {
    /// Creates verified claims. `proof` must be of the signature of the token that `checked` was read from; the only caller,
    /// [`CandidateToken::verify`](super::CandidateToken::verify), has both.
    pub(super) fn new(
        checked: &CheckedClaims<'_>,
        SignatureValid { .. }: SignatureValid,
        marks: Marks,
        extra: ExtraClaims,
    ) -> Self {
        let mut text = String::new();
        let mut keep = |part: &str| {
            let start = text.len();
            text.push_str(part);
            // The fallback is unreachable, because a token is not that long. It would make the text read as empty.
            let offset = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
            Span { start: offset(start), end: offset(text.len()) }
        };
        let (sub, client_id) = (keep(checked.sub), keep(checked.client_id));
        let [username, scope, email] = [checked.username, checked.scope, checked.email].map(|part| part.map(&mut keep));
        let groups = checked.groups.iter().map(|group| keep(group)).collect();
        let (token_use, expires) = (checked.token_use, checked.expires);
        Self {
            text: text.into(),
            sub,
            client_id,
            username,
            scope,
            email,
            groups,
            extra,
            token_use,
            expires,
            marks,
            last_judged: LastJudged::default(),
        }
    }

    /// Subject (`sub`), never empty.
    pub(crate) fn sub(&self) -> &str {
        self.part(self.sub)
    }

    /// App client: `client_id` of an access token, or the accepted member of `aud` of an ID token.
    pub(crate) fn client_id(&self) -> &str {
        self.part(self.client_id)
    }

    /// `username` of an access token, `cognito:username` of an ID token. Client-credentials tokens have none.
    pub(crate) fn username(&self) -> Option<&str> {
        self.username.map(|span| self.part(span))
    }

    /// `scope`: values separated by spaces.
    pub(crate) fn scope(&self) -> Option<&str> {
        self.scope.map(|span| self.part(span))
    }

    /// `email` of an ID token whose `email_verified` is true; `None` for other tokens.
    pub(crate) fn email(&self) -> Option<&str> {
        self.email.map(|span| self.part(span))
    }

    /// `cognito:groups`. Empty if the claim is absent, as Cognito omits it for a user without groups.
    pub(crate) fn groups(&self) -> impl ExactSizeIterator<Item = &str> + Clone {
        self.groups.iter().map(|span| self.part(*span))
    }

    /// Kind of the token.
    pub(crate) fn token_use(&self) -> TokenUse {
        self.token_use
    }

    /// `exp`, rounded down to whole seconds.
    pub(crate) fn expires(&self) -> UnixTime {
        self.expires
    }

    /// What the token can be revoked by.
    pub(crate) fn marks(&self) -> &Marks {
        &self.marks
    }

    /// State of the revocations that the token was last found valid in.
    pub(crate) fn last_judged(&self) -> &LastJudged {
        &self.last_judged
    }

    /// Claims that policies and identity headers need in addition to the standard ones.
    pub(crate) fn extra(&self) -> &ExtraClaims {
        &self.extra
    }

    /// Size of all heap allocations, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.text.len() + size_of_val(&*self.groups) + self.extra.heap_bytes()
    }

    fn part(&self, span: Span) -> &str {
        self.text.get(usize::from(span.start)..usize::from(span.end)).unwrap_or_default()
    }
}

impl fmt::Debug for Claims {
    /// Omits all claims that can identify a user, because they must not be logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims")
            .field("token_use", &self.token_use)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// `true` if a token whose `exp` is `expires` may still be used (RFC 7519 section 4.1.4).
pub(crate) fn is_alive(expires: UnixTime, now: UnixTime, leeway: i64) -> bool {
    now < expires.saturating_add(leeway)
}

/// Path of a claim: its name or, for a member of an object, the names that lead to it.
///
/// Names are a list, not a dotted text, so that `custom:tenant` and `https://example.com/roles` need no escaping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClaimPath(Box<[Box<str>]>);

impl ClaimPath {
    /// Creates a path. `None` if there are no names, or if one of them is empty.
    pub(crate) fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Option<Self> {
        let names: Box<[Box<str>]> = names.into_iter().map(Into::into).collect();
        (!names.is_empty() && names.iter().all(|name| !name.is_empty())).then_some(Self(names))
    }

    /// Name of the top-level claim.
    pub(crate) fn claim(&self) -> &str {
        self.0.first().map_or("", |name| name)
    }

    /// Returns the value in `claims`. `null` counts as absent.
    pub(crate) fn look_up<'v>(&self, claims: &'v Value) -> Option<&'v Value> {
        let value = self.0.iter().try_fold(claims, |value, name| value.get(&**name))?;
        Some(value).filter(|value| !value.is_null())
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// Index of a claim in [`WantedClaims`], and in the [`ExtraClaims`] of every token.
pub(crate) type WantedIndex = usize;

/// Paths of the claims that a configuration needs in addition to the standard ones, without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedClaims {
    paths: Vec<ClaimPath>,
    indexes: HashMap<ClaimPath, WantedIndex>,
}

impl WantedClaims {
    /// Adds a claim, unless it is already there, and returns its index.
    pub(crate) fn want(&mut self, path: ClaimPath) -> WantedIndex {
        *self.indexes.entry(path).or_insert_with_key(|path| {
            self.paths.push(path.clone());
            self.paths.len() - 1
        })
    }

    /// Returns the path of a claim.
    pub(crate) fn path(&self, index: WantedIndex) -> Option<&ClaimPath> {
        self.paths.get(index)
    }

    /// Extracts the claims from a payload. Parses the payload only if any claim is wanted.
    ///
    /// # Errors
    /// [`Denial::MalformedToken`] if the payload cannot be parsed. Its claims must not count as absent.
    pub(super) fn pick(&self, payload: &str) -> Result<ExtraClaims, Denial> {
        if self.paths.is_empty() {
            return Ok(ExtraClaims::default());
        }
        let claims: Value = serde_json::from_str(payload).map_err(|_| Denial::MalformedToken)?;
        Ok(ExtraClaims(self.paths.iter().map(|path| path.look_up(&claims).cloned()).collect()))
    }
}

/// Values of the [`WantedClaims`] in one token. Not `Debug`, because they can identify a user.
#[derive(Default)]
pub(crate) struct ExtraClaims(Box<[Option<Value>]>);

impl ExtraClaims {
    /// Returns the claim with this index, if the token has it.
    pub(crate) fn get(&self, index: WantedIndex) -> Option<&Value> {
        self.0.get(index)?.as_ref()
    }

    /// Approximate size of all heap allocations, in bytes.
    pub(crate) fn heap_bytes(&self) -> usize {
        fn of(value: &Value) -> usize {
            match value {
                Value::String(text) => text.len(),
                Value::Array(members) => members.iter().map(|member| size_of::<Value>() + of(member)).sum(),
                // 400 bytes is about one node of a B-tree, which has room for eleven members.
                Value::Object(members) => {
                    let each = |(name, member): (&String, &Value)| 2 * size_of::<Value>() + name.len() + of(member);
                    400 + members.iter().map(each).sum::<usize>()
                }
                _ => 0,
            }
        }
        size_of_val(&*self.0) + self.0.iter().flatten().map(of).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_are_found_by_their_path() {
        let payload =
            r#"{"a":1,"custom:tenant":"t","https://x/y.z":["r"],"o":{"p":{"q":true},"n":null},"n":null,"a.b":2}"#;
        let mut wanted = WantedClaims::default();
        let mut find = |names: &[&str]| {
            let index = wanted.want(ClaimPath::new(names.iter().copied()).unwrap());
            wanted.pick(payload).unwrap().get(index).cloned()
        };
        for (names, expected) in [
            (&["a"][..], Some(json!(1))),
            (&["custom:tenant"], Some(json!("t"))),
            (&["https://x/y.z"], Some(json!(["r"]))),
            (&["o", "p", "q"], Some(json!(true))),
            (&["a.b"], Some(json!(2))),
            (&["o", "p"], Some(json!({"q": true}))),
            (&["o.p"], None),
            (&["a", "b"], None),
            (&["o", "n"], None),
            (&["n"], None),
            (&["absent"], None),
            (&["https://x/y.z", "0"], None),
        ] {
            assert_eq!(find(names), expected, "{names:?}");
        }
        assert_eq!(wanted.paths.len(), 12);
        assert_eq!(wanted.want(ClaimPath::new(["a"]).unwrap()), 0, "each once");
        assert!(ClaimPath::new([]).is_none() && ClaimPath::new(["a", ""]).is_none());
        for unreadable in ["", "{", r#"{"a":1e999}"#, r#"{"a":1,"x":"\ud800"}"#] {
            assert_eq!(wanted.pick(unreadable).err(), Some(Denial::MalformedToken), "{unreadable}");
            assert!(WantedClaims::default().pick(unreadable).is_ok(), "nothing is read");
        }
    }
}
