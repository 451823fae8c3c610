//! Encodes claims as the values of identity headers.
//!
//! An identity header reaches the upstream with a value from this module or not at all; [`OwnedHeaders`] removes all other
//! headers with such a name, also in the spellings that CGI-like servers read as the same name (`_` and `.` for `-`).

use std::borrow::Cow;
use std::ops::Range;

use serde_json::Value;

use super::denial::Denial;
use super::headers::{HeaderIndex, ListEncoding, OwnedHeaders};
use super::token::claims::Claims;

/// Maximum length of all encoded values together, in bytes. If they are longer, the request is denied
/// ([`Denial::IdentityTooLarge`]).
pub(crate) const MAX_IDENTITY_BYTES: usize = 16 * 1024;

/// Caller of a request with a token.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'c> {
    /// Claims of the token.
    pub(crate) claims: &'c Claims,
    /// Token. Its payload is the base64url of its claims (RFC 7515 section 7.1).
    pub(crate) token: &'c str,
}

/// Encoded values of the identity headers of one request.
///
/// Values are percent-encoded (RFC 3986 section 2.1, over UTF-8): bytes outside 0x20 to 0x7E, `%`, leading and trailing
/// spaces, and commas in members of lists. Decoding a value, or splitting a list and decoding its members, returns the
/// claim. JSON is not percent-encoded; it contains characters outside 0x20 to 0x7E as escapes such as `\u00e9`.
///
/// Not `Debug`, because the values identify a user and must not be logged.
#[derive(Default)]
pub(crate) struct Identity {
    text: String,
    /// Ranges in `text`, in the order of [`HeaderIndex`].
    values: Vec<(HeaderIndex, Range<usize>)>,
}

impl Identity {
    /// Encodes the claims of a caller, if there is one, and the values that the policy sets.
    ///
    /// # Errors
    /// [`Denial::IdentityTooLarge`]. No value is cut or omitted to fit the limit.
    pub(crate) fn new(
        headers: &OwnedHeaders,
        caller: Option<Caller<'_>>,
        of_policy: &[(HeaderIndex, Box<str>)],
    ) -> Result<Self, Denial> {
        let mut identity = Self::default();
        if let Some(caller) = caller {
            identity.text.reserve(caller.claims.heap_bytes() + 16);
            identity.values.reserve(headers.names().len());
            identity.standard(caller.claims);
            for (index, header) in headers.claims() {
                if let Some(value) = caller.claims.extra().get(header.claim) {
                    identity.claim(index, value, header.list);
                }
            }
            if let Some(index) = headers.whole_claims() {
                let payload = caller.token.split('.').nth(1).unwrap_or_default();
                identity.put(index, |out| out.push_str(payload));
            }
        }
        for (index, value) in of_policy {
            identity.put(*index, |out| out.push_str(value));
        }
        if identity.text.len() > MAX_IDENTITY_BYTES { Err(Denial::IdentityTooLarge) } else { Ok(identity) }
    }

    /// Adds the standard headers, in the order of [`OwnedHeaders::new`].
    fn standard(&mut self, claims: &Claims) {
        let single = [
            Some(claims.sub()),
            claims.username(),
            Some(claims.client_id()),
            Some(claims.token_use().as_str()),
            claims.scope(),
        ];
        for (index, claim) in single.into_iter().enumerate() {
            if let Some(claim) = claim {
                self.put(index, |out| encode(out, claim, b'%'));
            }
        }
        self.put(5, |out| encode_list(out, claims.groups()));
        if let Some(email) = claims.email() {
            self.put(6, |out| encode(out, email, b'%'));
        }
    }

    /// Adds a claim of any type. Numbers, booleans and objects are written as JSON; a list as `list` specifies.
    fn claim(&mut self, index: HeaderIndex, value: &Value, list: ListEncoding) {
        match (value, list) {
            (Value::Array(members), ListEncoding::Comma) => {
                let members: Vec<Cow<'_, str>> = members.iter().map(as_text).collect();
                self.put(index, |out| encode_list(out, members.iter().map(|member| &**member)));
            }
            (Value::Array(members), ListEncoding::Repeated) => {
                // Encoded as members of a list, because a recipient may join them to one.
                for member in members {
                    self.put(index, |out| encode(out, &as_text(member), b','));
                }
            }
            (Value::Array(_) | Value::Object(_), _) => self.put(index, |out| out.push_str(&ascii_json(value))),
            (scalar, _) => self.put(index, |out| encode(out, &as_text(scalar), b'%')),
        }
    }

    /// Adds a value, unless it is empty.
    pub(crate) fn put(&mut self, index: HeaderIndex, write: impl FnOnce(&mut String)) {
        let start = self.text.len();
        write(&mut self.text);
        if self.text.len() > start {
            self.values.push((index, start..self.text.len()));
        }
    }

    /// Length of all values together, in bytes.
    pub(super) fn text_bytes(&self) -> usize {
        self.text.len()
    }

    /// Size of all heap allocations, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.text.capacity() + self.values.capacity() * size_of::<(HeaderIndex, Range<usize>)>()
    }

    /// Values, in the order of [`HeaderIndex`]. A header can have several values, or none.
    pub(crate) fn values(&self) -> impl Iterator<Item = (HeaderIndex, &str)> {
        self.values.iter().filter_map(|(index, range)| Some((*index, self.text.get(range.clone())?)))
    }
}

/// Returns a claim as text. `null` becomes empty, other types JSON.
fn as_text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed(""),
        Value::String(text) => Cow::Borrowed(text),
        Value::Bool(true) => Cow::Borrowed("true"),
        Value::Bool(false) => Cow::Borrowed("false"),
        Value::Number(number) => Cow::Owned(number.to_string()),
        Value::Array(_) | Value::Object(_) => Cow::Owned(ascii_json(value)),
    }
}

/// Serializes JSON, with escapes for characters that a header cannot contain (RFC 8259 section 7).
fn ascii_json(value: &Value) -> String {
    let json = value.to_string();
    if json.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if matches!(c, ' '..='~') {
            escaped.push(c);
        } else {
            // Only within texts: the JSON has no other characters outside ASCII, and has escaped those below 0x20.
            escaped.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    escaped
}

/// Appends the members, separated by commas without spaces. Omits empty members, which would be ambiguous; Cognito has none.
fn encode_list<'m>(out: &mut String, members: impl Iterator<Item = &'m str>) {
    for (position, member) in members.filter(|member| !member.is_empty()).enumerate() {
        if position > 0 {
            out.push(',');
        }
        encode(out, member, b',');
    }
}

/// Appends `value`, percent-encoded. `also` is a byte to encode in addition to the usual ones.
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
    fn values_are_encoded() {
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
        fn decoding_returns_the_value(value in any::<String>(), members in prop::collection::vec("[^\u{0}]{1,8}", 1..5)) {
            let encoded = one(&value);
            prop_assert!(encoded.bytes().all(|b| (0x20..=0x7e).contains(&b)));
            prop_assert_eq!(encoded.trim(), &encoded);
            prop_assert_eq!(decode(&encoded), value);
            let members: Vec<&str> = members.iter().map(String::as_str).collect();
            let decoded: Vec<String> = list(&members).split(',').map(decode).collect();
            prop_assert_eq!(decoded, members);
        }
    }

    use crate::authz::headers::ClaimHeader;
    use crate::authz::token::claims::{ClaimPath, WantedClaims};
    use crate::authz::token::tests::claims_with;
    use crate::table::{codes, table};
    use serde_json::json;

    /// Returns the values of a header for the claim `c`.
    fn values_of(claim: &Value, list: ListEncoding) -> Vec<String> {
        let mut wanted = WantedClaims::default();
        let index = wanted.want(ClaimPath::new(["c"]).unwrap());
        let mut headers = OwnedHeaders::new("x-auth-".parse().unwrap());
        headers.add_claim(&"x-c".parse().unwrap(), ClaimHeader { claim: index, list });
        let claims = claims_with(&json!({ "c": claim }), &wanted);
        let caller = Caller { claims: &claims, token: "" };
        let identity = Identity::new(&headers, Some(caller), &[]).map_err(Denial::reason).ok().unwrap();
        let position = headers.position("x-c").unwrap();
        identity.values().filter(|(index, _)| *index == position).map(|(_, value)| value.to_owned()).collect()
    }

    /// Reads the table in `docs/policy.md`: a claim as JSON, and its header values for each `list`; `–` stands for no header.
    #[test]
    fn claims_are_encoded_by_type() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/policy.md")).unwrap();
        let rows = table(&page, "### How claims are written");
        assert!(rows.len() >= 13, "{rows:?}");
        for row in rows {
            let claim: Value = serde_json::from_str(codes(&row[0]).next().unwrap()).unwrap();
            for (cell, list) in row[1..].iter().zip([ListEncoding::Comma, ListEncoding::Json, ListEncoding::Repeated]) {
                let expected: Vec<&str> = codes(cell).collect();
                assert_eq!(expected.is_empty(), cell == "–", "{cell}");
                assert_eq!(values_of(&claim, list), expected, "{claim} {list:?}");
            }
        }
    }

    #[test]
    fn the_header_for_all_claims_is_the_payload_of_the_token() {
        let mut headers = OwnedHeaders::new("x-auth-".parse().unwrap());
        headers.add_whole_claims(&"x-claims".parse().unwrap());
        let claims = claims_with(&json!({}), &WantedClaims::default());
        let position = headers.position("x-claims").unwrap();
        for (payload, fits) in [("eyJhIjoxfQ".to_owned(), true), ("A".repeat(17_000), false)] {
            let caller = Caller { claims: &claims, token: &format!("h.{payload}.s") };
            let identity = Identity::new(&headers, Some(caller), &[]);
            assert_eq!(identity.as_ref().err(), (!fits).then_some(&Denial::IdentityTooLarge));
            if let Ok(identity) = identity {
                assert!(identity.values().any(|value| value == (position, &payload)));
            }
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            let list = prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from);
            let object = prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect()));
            prop_oneof![list, object]
        })
    }

    proptest! {
        #[test]
        fn json_in_a_header_parses_as_the_claim(value in any_json()) {
            let header = ascii_json(&value);
            prop_assert!(header.bytes().all(|b| (0x20..=0x7e).contains(&b)));
            prop_assert_eq!(serde_json::from_str::<Value>(&header).unwrap(), value);
        }
    }
}
