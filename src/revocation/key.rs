//! Names of what a revocation is about, as keys of a fixed size.
//!
//! A key is a digest, so that an entry takes the same memory whatever the pool puts into its claims, and so that neither
//! the file nor the shared store contains user ids.

use std::fmt;

use aws_lc_rs::digest;

pub(crate) use crate::clock::UnixTime;
use crate::user_pool::UserPoolId;

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $label:literal;)*) => {
        /// Kind of a revocation: the claim that it is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        pub(crate) enum Kind {
            $($(#[$doc])* $name = $code,)*
        }

        impl Kind {
            /// Every kind.
            pub(crate) const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Name of the kind: a metric label, and a parameter of the admin port.
            pub(crate) fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }

            /// Kind with this code in a record.
            pub(super) fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// All tokens of a user that come from sign-ins up to some second.
    Subject = 1, "sub";
    /// All tokens of one sign-in.
    Session = 2, "origin_jti";
    /// One token.
    Token = 3, "jti";
    /// One token that has neither `origin_jti` nor `jti`, by its digest.
    Digest = 4, "token";
}

/// Digest of a pool, a kind and a value: the first 128 bits of SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(u64, u64);

impl Key {
    /// A key that no digest is likely to be.
    pub(super) const ZERO: Self = Self(0, 0);
    /// Number of bytes of [`Key::to_bytes`].
    pub(crate) const BYTES: usize = 16;

    /// Key of a claim's value. Pools are told apart by their id, not by their name in a configuration, so that replicas
    /// with different configurations mean the same.
    pub(crate) fn new(pool: &UserPoolId, kind: Kind, value: &str) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&[kind as u8]);
        context.update(pool.as_str().as_bytes());
        // A pool id contains no NUL, so that no two inputs are the same bytes.
        context.update(&[0]);
        context.update(value.as_bytes());
        let mut bytes = [0; Self::BYTES];
        bytes.iter_mut().zip(context.finish().as_ref()).for_each(|(byte, hashed)| *byte = *hashed);
        Self::from_bytes(bytes)
    }

    /// Reads a key in network byte order.
    pub(crate) fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let number = u128::from_be_bytes(bytes);
        let half = |number: u128| u64::try_from(number & u128::from(u64::MAX)).unwrap_or_default();
        Self(half(number >> 64), half(number))
    }

    /// Returns the key in network byte order.
    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        (u128::from(self.0) << 64 | u128::from(self.1)).to_be_bytes()
    }

    /// The key's most significant bits, which are as good as random.
    pub(super) fn high(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.0, self.1)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotAKey;

impl std::str::FromStr for Key {
    type Err = NotAKey;

    /// Reads the form that `Display` writes: 32 lower-case hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 2 * Self::BYTES || !text.bytes().all(is_digit) {
            return Err(NotAKey);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| NotAKey)?;
        Ok(Self::from_bytes(number.to_be_bytes()))
    }
}

/// What a token can be revoked by. Part of the verified claims of every token, so it is small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Key of `sub`.
    pub(super) subject: Key,
    /// Key of `origin_jti`, if the token has one.
    pub(super) session: Option<Key>,
    /// Kind and key of `jti`; of the token itself if it has neither `jti` nor `origin_jti`.
    pub(super) token: Option<(Kind, Key)>,
    /// Time of the sign-in: `auth_time`, else `iat`.
    pub(super) since: UnixTime,
}

/// Claims that [`Marks`] are made of.
#[derive(Clone, Copy)]
pub struct MarkedClaims<'t> {
    /// `sub`.
    pub sub: &'t str,
    /// `origin_jti`: the `jti` of the first token of the session. Absent if the app client has token revocation disabled.
    pub origin_jti: Option<&'t str>,
    /// `jti`.
    pub jti: Option<&'t str>,
    /// Time of the sign-in: `auth_time`, which a refresh does not change, else `iat`.
    pub since: UnixTime,
}

impl Marks {
    /// Creates the marks of a token, which is `token` in compact form.
    pub fn new(pool: &UserPoolId, claims: &MarkedClaims<'_>, token: &str) -> Self {
        let key = |kind: Kind, value: &str| (kind, Key::new(pool, kind, value));
        let session = claims.origin_jti.map(|value| key(Kind::Session, value).1);
        let whole = || session.is_none().then(|| key(Kind::Digest, token));
        Self {
            subject: key(Kind::Subject, claims.sub).1,
            session,
            token: claims.jti.map(|value| key(Kind::Token, value)).or_else(whole),
            since: claims.since,
        }
    }

    /// Kind and key of `sub`.
    pub(crate) fn subject(&self) -> (Kind, Key) {
        (Kind::Subject, self.subject)
    }

    /// Time of the sign-in: `auth_time`, else `iat`.
    pub(crate) fn since(&self) -> UnixTime {
        self.since
    }

    /// Key of the session that the token belongs to: of `origin_jti`, else of `jti`, else of the token itself.
    pub(crate) fn session(&self) -> (Kind, Key) {
        // The last one is unreachable: a token without a session has the other.
        self.session.map(|key| (Kind::Session, key)).or(self.token).unwrap_or((Kind::Subject, self.subject))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_pool_kind_and_value_and_can_be_read_back() {
        let pool = |id: &str| id.parse::<UserPoolId>().unwrap();
        let (a, b) = (pool("eu-west-1_A"), pool("eu-west-1_B"));
        let keys = [
            Key::new(&a, Kind::Subject, "s"),
            Key::new(&b, Kind::Subject, "s"),
            Key::new(&a, Kind::Session, "s"),
            Key::new(&a, Kind::Subject, "t"),
            Key::new(&a, Kind::Subject, ""),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(keys.iter().skip(index + 1).all(|other| other != key), "{index}");
            assert_eq!(key.to_string().parse(), Ok(*key));
            assert_eq!(Key::from_bytes(key.to_bytes()), *key);
        }
        let good = keys[0].to_string();
        for bad in ["", &good[1..], &good.to_uppercase(), &format!("{good}0"), &good.replace(&good[..1], "+")] {
            assert_eq!(bad.parse::<Key>(), Err(NotAKey), "{bad}");
        }
    }

    #[test]
    fn a_session_is_named_by_the_first_claim_that_the_token_has() {
        let pool = "eu-west-1_A".parse().unwrap();
        let marks = |origin_jti, jti| Marks::new(&pool, &MarkedClaims { sub: "s", origin_jti, jti, since: 7 }, "a.b.c");
        let key = |kind, value| Key::new(&pool, kind, value);
        for (origin_jti, jti, session, token) in [
            (Some("o"), Some("j"), (Kind::Session, "o"), Some((Kind::Token, "j"))),
            (Some("o"), None, (Kind::Session, "o"), None),
            (None, Some("j"), (Kind::Token, "j"), Some((Kind::Token, "j"))),
            (None, None, (Kind::Digest, "a.b.c"), Some((Kind::Digest, "a.b.c"))),
        ] {
            let marks = marks(origin_jti, jti);
            assert_eq!(marks.session(), (session.0, key(session.0, session.1)));
            assert_eq!(marks.token, token.map(|(kind, value)| (kind, key(kind, value))));
            assert_eq!(marks.session.is_some(), origin_jti.is_some());
        }
    }
}
