//! What upstream may know of a caller: claims become headers, and which headers are ours.
//!
//! A header of ours reaches upstream with our value or not at all. That is why every name under the prefix is
//! owned, also the ones that have no value this time, and also in the spellings that some servers read as the
//! same name (`_` and `.` for `-`, CGI's old confusion).

use std::borrow::Cow;
use std::ops::Range;

use serde_json::Value;

use super::denial::Denial;
use super::headers::{HeaderIndex, ListEncoding, OwnedHeaders};
use super::token::claims::Claims;

/// All values together may have this many bytes, encoded; one more is [`Denial::IdentityTooLarge`].
pub const MAX_IDENTITY_BYTES: usize = 16 * 1024;

/// Who calls, as far as headers are made of it.
#[derive(Clone, Copy)]
pub struct Caller<'c> {
    /// What their token says.
    pub claims: &'c Claims,
    /// The token: its payload *is* the base64url of its claims (RFC 7515 section 7.1).
    pub token: &'c str,
}

/// The values of our headers for one request, encoded.
///
/// Percent-encoded (RFC 3986 section 2.1, over UTF-8) are bytes outside 0x20 to 0x7E, `%`, spaces at an edge, and
/// in lists the comma. Decoding a value, or splitting a list and decoding its members, gives back the claim. JSON is
/// not encoded once more: characters outside 0x20 to 0x7E are written `\u00e9` in it.
///
/// It has no `Debug`: who somebody is does not belong into a log.
#[derive(Default)]
pub struct Identity {
    text: String,
    /// In the order of [`HeaderIndex`].
    values: Vec<(HeaderIndex, Range<usize>)>,
}

impl Identity {
    /// What upstream is told about a caller, or about nobody, and what the policy adds.
    ///
    /// # Errors
    /// [`Denial::IdentityTooLarge`]: a header is never cut or left out to make it fit.
    pub fn new(
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

    /// The headers that every configuration has, in the order of [`OwnedHeaders::new`].
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

    /// A claim of any type: text as it is, numbers and booleans as in JSON, objects as JSON, lists as `list` says.
    fn claim(&mut self, index: HeaderIndex, value: &Value, list: ListEncoding) {
        match (value, list) {
            (Value::Array(members), ListEncoding::Comma) => {
                let members: Vec<Cow<'_, str>> = members.iter().map(as_text).collect();
                self.put(index, |out| encode_list(out, members.iter().map(|member| &**member)));
            }
            (Value::Array(members), ListEncoding::Repeated) => {
                // As members of a list, which they may become.
                for member in members {
                    self.put(index, |out| encode(out, &as_text(member), b','));
                }
            }
            (Value::Array(_) | Value::Object(_), _) => self.put(index, |out| out.push_str(&ascii_json(value))),
            (scalar, _) => self.put(index, |out| encode(out, &as_text(scalar), b'%')),
        }
    }

    /// Adds a value; an empty one counts as none.
    pub(crate) fn put(&mut self, index: HeaderIndex, write: impl FnOnce(&mut String)) {
        let start = self.text.len();
        write(&mut self.text);
        if self.text.len() > start {
            self.values.push((index, start..self.text.len()));
        }
    }

    /// The values, in the order of [`HeaderIndex`]; a header may have several, or none.
    pub fn values(&self) -> impl Iterator<Item = (HeaderIndex, &str)> {
        self.values.iter().filter_map(|(index, range)| Some((*index, self.text.get(range.clone())?)))
    }
}

/// A claim as a text: what is none, as JSON. `null` is no text at all.
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

/// JSON in which characters that a header cannot carry are escaped (RFC 8259 section 7).
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
            // JSON escapes what is below 0x20 itself, so this only stands inside texts.
            escaped.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    escaped
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

    use crate::authz::headers::ClaimHeader;
    use crate::authz::token::extra_claims::{ClaimPath, WantedClaims};
    use crate::authz::token::tests::claims_with;
    use crate::table::{codes, table};
    use serde_json::json;

    /// The values of a header that carries the claim `c`.
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

    /// The table of `docs/policy.md`: a claim as JSON, and the values of its header for each `list`. `–` is no header.
    #[test]
    fn claims_are_written_by_their_type() {
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
    fn all_claims_are_the_tokens_own_payload() {
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
        fn json_in_a_header_is_the_claim(value in any_json()) {
            let header = ascii_json(&value);
            prop_assert!(header.bytes().all(|b| (0x20..=0x7e).contains(&b)));
            prop_assert_eq!(serde_json::from_str::<Value>(&header).unwrap(), value);
        }
    }
}
