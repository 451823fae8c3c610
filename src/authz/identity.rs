//! What upstream may know of a caller: claims become headers, and which headers are ours.
//!
//! A header of ours reaches upstream with our value or not at all. That is why every name under the prefix is
//! owned, also the ones that have no value this time, and also in the spellings that some servers read as the
//! same name (`_` and `.` for `-`, CGI's old confusion).

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use super::claims::Claims;
use super::denial::Denial;

/// All values together may have this many bytes, encoded; one more is [`Denial::IdentityTooLarge`].
pub const MAX_IDENTITY_BYTES: usize = 16 * 1024;

/// Number of identity headers.
pub const COUNT: usize = 7;

/// What follows the prefix, in the order in which the headers are sent.
const SUFFIXES: [&str; COUNT] = ["sub", "username", "client-id", "token-use", "scope", "groups", "email"];

/// Start of every header of ours (`--header-prefix`): `[a-z][a-z0-9-]*-`, and none of Envoy's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderPrefix(Box<str>);

impl FromStr for HeaderPrefix {
    type Err = HeaderPrefixError;

    fn from_str(text: &str) -> Result<Self, HeaderPrefixError> {
        let shaped = text.ends_with('-')
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !shaped || text.len() > 64 {
            return Err(HeaderPrefixError::Shape);
        }
        // Both ways round: `x-` would own all of Envoy's headers.
        if ["x-envoy-", "x-forwarded-"].iter().any(|envoys| text.starts_with(envoys) || envoys.starts_with(text)) {
            return Err(HeaderPrefixError::Envoys);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for HeaderPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a prefix.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HeaderPrefixError {
    /// Not of the shape.
    #[error("not lower-case letters, digits and dashes that begin with a letter and end with a dash (at most 64)")]
    Shape,
    /// Would take over headers that Envoy sets.
    #[error("takes over headers of Envoy's (x-envoy-, x-forwarded-)")]
    Envoys,
}

/// The names of our headers.
#[derive(Debug)]
pub struct IdentityHeaders {
    prefix: HeaderPrefix,
    names: [Box<str>; COUNT],
}

impl IdentityHeaders {
    /// The names under `prefix`.
    pub fn new(prefix: HeaderPrefix) -> Self {
        let names = SUFFIXES.map(|suffix| format!("{prefix}{suffix}").into());
        Self { prefix, names }
    }

    /// Every name, in the order of [`Identity::values`].
    pub fn names(&self) -> &[Box<str>; COUNT] {
        &self.names
    }

    /// Whether upstream could take `name` for a header of ours although it is none of [`names`](Self::names): another
    /// spelling of one, or another name under the prefix.
    pub fn is_lookalike(&self, name: &[u8]) -> bool {
        let prefix = self.prefix.0.as_bytes();
        let under_prefix = name.len() >= prefix.len()
            && prefix.iter().zip(name).all(|(ours, theirs)| match theirs {
                b'_' | b'.' => *ours == b'-',
                other => *ours == other.to_ascii_lowercase(),
            });
        under_prefix && !self.names.iter().any(|ours| ours.as_bytes().eq_ignore_ascii_case(name))
    }
}

/// The values of the identity headers for one caller, encoded.
///
/// Percent-encoded (RFC 3986 section 2.1, over UTF-8) are bytes outside 0x20 to 0x7E, `%`, spaces at an edge, and
/// in lists the comma. Decoding a value, or splitting a list and decoding its members, gives back the claim.
///
/// It has no `Debug`: who somebody is does not belong into a log.
pub struct Identity {
    text: String,
    values: [Option<Range<usize>>; COUNT],
}

impl Identity {
    /// What `claims` say, as headers.
    ///
    /// # Errors
    /// [`Denial::IdentityTooLarge`]: a header is never cut or left out to make it fit.
    pub fn new(claims: &Claims) -> Result<Self, Denial> {
        let mut text = String::with_capacity(claims.heap_bytes() + 16);
        let mut single = |claim: Option<&str>| {
            let start = text.len();
            encode(&mut text, claim?, b'%');
            Some(start..text.len())
        };
        let sub = single(Some(claims.sub()));
        let username = single(claims.username());
        let client_id = single(Some(claims.client_id()));
        let token_use = single(Some(claims.token_use().as_str()));
        let scope = single(claims.scope());
        let email = single(claims.email());
        let start = text.len();
        encode_list(&mut text, claims.groups());
        let groups = (text.len() > start).then_some(start..text.len());
        if text.len() > MAX_IDENTITY_BYTES {
            return Err(Denial::IdentityTooLarge);
        }
        Ok(Self { text, values: [sub, username, client_id, token_use, scope, groups, email] })
    }

    /// The values, `None` for a header that upstream must not see, in the order of [`IdentityHeaders::names`].
    pub fn values(&self) -> impl Iterator<Item = Option<&str>> {
        self.values.iter().map(|value| self.text.get(value.clone()?))
    }
}

/// Appends the members, with commas and no spaces between. An empty member cannot be told from none; Cognito has none.
fn encode_list<'m>(out: &mut String, members: impl Iterator<Item = &'m str>) {
    for (position, member) in members.filter(|member| !member.is_empty()).enumerate() {
        if position > 0 {
            out.push(',');
        }
        encode(out, member, b',');
    }
}

/// Appends `value`, with `also` encoded beside what always is.
fn encode(out: &mut String, value: &str, also: u8) {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'%' && byte != also;
    let at_edge = value.starts_with(' ') || value.ends_with(' ');
    if !at_edge && value.bytes().all(plain) {
        out.push_str(value);
        return;
    }
    let inner = value.len() - value.trim_start_matches(' ').len()..value.trim_end_matches(' ').len();
    for (position, byte) in value.bytes().enumerate() {
        if plain(byte) && (byte != b' ' || inner.contains(&position)) {
            out.push(char::from(byte));
        } else {
            const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
            let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or('0');
            out.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(value: &str) -> String {
        let mut out = String::new();
        encode(&mut out, value, b'%');
        out
    }

    fn list(members: &[&str]) -> String {
        let mut out = String::new();
        encode_list(&mut out, members.iter().copied());
        out
    }

    #[test]
    fn values_survive_a_header() {
        for (value, encoded) in [
            ("", ""),
            ("plain ~!@#$^&*()", "plain ~!@#$^&*()"),
            ("a,b", "a,b"),
            ("100%", "100%25"),
            ("zoë", "zo%C3%AB"),
            ("a\r\nx-auth-sub: b", "a%0D%0Ax-auth-sub: b"),
            ("\u{7f}\0", "%7F%00"),
            (" a b ", "%20a b%20"),
            ("  ", "%20%20"),
            ("é ", "%C3%A9%20"),
        ] {
            assert_eq!(one(value), encoded);
        }
        assert_eq!(list(&["a", "b c", "d,e", " f", "g%"]), "a,b c,d%2Ce,%20f,g%25");
        assert_eq!(list(&["", "a", ""]), "a");
        assert_eq!(list(&[]), "");
    }

    fn decode(value: &str) -> String {
        let mut bytes = Vec::new();
        let mut rest = value.as_bytes();
        while let Some((byte, tail)) = rest.split_first() {
            (bytes, rest) = if *byte == b'%' {
                let hex = std::str::from_utf8(&tail[..2]).unwrap();
                ([bytes, vec![u8::from_str_radix(hex, 16).unwrap()]].concat(), &tail[2..])
            } else {
                ([bytes, vec![*byte]].concat(), tail)
            };
        }
        String::from_utf8(bytes).unwrap()
    }

    proptest! {
        #[test]
        fn decoding_gives_back_the_value(value in any::<String>(), members in prop::collection::vec("[^\u{0}]{1,8}", 1..5)) {
            let encoded = one(&value);
            prop_assert!(encoded.bytes().all(|b| (0x20..=0x7e).contains(&b)));
            prop_assert_eq!(encoded.trim(), &encoded);
            prop_assert_eq!(decode(&encoded), value);
            let members: Vec<&str> = members.iter().map(String::as_str).collect();
            let decoded: Vec<String> = list(&members).split(',').map(decode).collect();
            prop_assert_eq!(decoded, members);
        }
    }

    #[test]
    fn prefixes() {
        for good in ["x-auth-", "a-", "x-jwt-claim-", "x9-"] {
            assert!(good.parse::<HeaderPrefix>().is_ok(), "{good}");
        }
        for bad in ["", "-", "x-auth", "X-Auth-", "9x-", "x_auth-", "x auth-", "é-"] {
            assert_eq!(bad.parse::<HeaderPrefix>(), Err(HeaderPrefixError::Shape), "{bad}");
        }
        for envoys in ["x-envoy-", "x-envoy-auth-", "x-forwarded-", "x-forwarded-for-", "x-"] {
            assert_eq!(envoys.parse::<HeaderPrefix>(), Err(HeaderPrefixError::Envoys), "{envoys}");
        }
    }

    #[test]
    fn lookalikes_are_known() {
        let headers = IdentityHeaders::new("x-auth-".parse().unwrap());
        for ours in ["x-auth-sub", "X-Auth-Sub", "x-auth-client-id"] {
            assert!(!headers.is_lookalike(ours.as_bytes()), "{ours}");
        }
        for lookalike in [
            "x_auth_sub",
            "x.auth.sub",
            "X_AUTH-sub",
            "x-auth_sub",
            "x-auth-client_id",
            "x-auth-role",
            "x-auth-",
            "x-auth_",
        ] {
            assert!(headers.is_lookalike(lookalike.as_bytes()), "{lookalike}");
        }
        for other in ["", "x-auth", "authorization", "x-authz-sub", "xx-auth-sub", "x--auth-sub", "x-request-id"] {
            assert!(!headers.is_lookalike(other.as_bytes()), "{other}");
        }
    }
}
