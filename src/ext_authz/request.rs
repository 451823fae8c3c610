//! Envoy's `CheckRequest`, read where it lies: the bytes become a [`RequestContext`] that borrows from them.
//!
//! Only what a decision may depend on is read; the rest is stepped over. For every message that a protobuf library
//! decodes, the result is the one it would give: fields in any order, messages that are given twice are merged, of
//! scalars and map entries the last one counts, unknown fields are skipped (protobuf encoding specification, "Last
//! One Wins"). Fields: `envoy/service/auth/v3/external_auth.proto` and `attribute_context.proto`.

use std::collections::HashMap;

use crate::authz::{Header, RequestContext};

/// A message that is not a `CheckRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a CheckRequest")]
pub struct Undecodable;

/// Reads a `CheckRequest`. `None` is one without an HTTP request, as a TCP listener's filter sends it.
///
/// # Errors
/// [`Undecodable`].
pub fn read(message: &[u8]) -> Result<Option<RequestContext<'_>>, Undecodable> {
    let mut reader = RequestReader::default();
    for field in Fields(message) {
        if let (1, attributes) = field? {
            reader.attributes(attributes.message()?)?;
        }
    }
    let RequestReader { has_http, policy, method, path, host, mut headers, mut raw_headers, .. } = reader;
    headers.append(&mut raw_headers);
    Ok(has_http.then_some(RequestContext { policy, method, path, host, headers }))
}

#[derive(Default)]
struct RequestReader<'m> {
    has_http: bool,
    policy: Option<&'m [u8]>,
    method: &'m [u8],
    path: &'m [u8],
    host: &'m [u8],
    /// Entries of the map `headers`, each name once.
    headers: Vec<Header<'m>>,
    /// Members of the list `header_map`.
    raw_headers: Vec<Header<'m>>,
    /// One bit for each kind of name among `headers` (see [`kind`]): a name of a new kind cannot be there yet.
    kinds: u128,
    /// Places in `headers` by name, once there are too many to look through.
    places: HashMap<&'m [u8], usize>,
}

/// With more headers than this, names are looked up in a table. Envoy sends at most 100 unless told otherwise.
const FEW_HEADERS: usize = 128;

/// A number below 128 that equal names have in common and most others have not.
fn kind(name: &[u8]) -> u32 {
    let last = name.last().copied().unwrap_or_default();
    (u32::from(last) + 37 * u32::try_from(name.len() & 0x7f).unwrap_or_default()) & 0x7f
}

impl<'m> RequestReader<'m> {
    /// `AttributeContext`
    fn attributes(&mut self, message: &'m [u8]) -> Result<(), Undecodable> {
        for field in Fields(message) {
            match field? {
                (4, request) => {
                    for field in Fields(request.message()?) {
                        if let (2, http) = field? {
                            self.has_http = true;
                            self.http(http.message()?)?;
                        }
                    }
                }
                (10, extension) => {
                    if let (b"policy", policy) = map_entry(extension.message()?)? {
                        self.policy = Some(policy);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// `AttributeContext.HttpRequest`
    fn http(&mut self, message: &'m [u8]) -> Result<(), Undecodable> {
        self.headers.reserve(32);
        for field in Fields(message) {
            match field? {
                (2, method) => self.method = method.message()?,
                (4, path) => self.path = path.message()?,
                (5, host) => self.host = host.message()?,
                (3, header) => {
                    let (name, value) = map_entry(header.message()?)?;
                    self.put(Header { name, value });
                }
                (13, header_map) => {
                    for field in Fields(header_map.message()?) {
                        if let (1, header) = field? {
                            self.raw_header(header.message()?)?;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// `HeaderValue`, a member of the list that Envoy sends under `encode_raw_headers`. One of the two values is set; if
    /// somebody sets both, both count.
    fn raw_header(&mut self, message: &'m [u8]) -> Result<(), Undecodable> {
        let (mut name, mut text, mut raw): (_, &[u8], &[u8]) = (&[][..], &[], &[]);
        for field in Fields(message) {
            match field? {
                (1, value) => name = value.message()?,
                (2, value) => text = value.message()?,
                (3, value) => raw = value.message()?,
                _ => {}
            }
        }
        if !text.is_empty() && !raw.is_empty() {
            self.raw_headers.push(Header { name, value: text });
        }
        self.raw_headers.push(Header { name, value: if raw.is_empty() { text } else { raw } });
        Ok(())
    }

    /// An entry of the map `headers`: of two with one name, the last one counts.
    fn put(&mut self, header: Header<'m>) {
        let bit = 1 << kind(header.name);
        let known = if self.kinds & bit == 0 {
            None
        } else if self.headers.len() <= FEW_HEADERS {
            self.headers.iter().position(|known| known.name == header.name)
        } else {
            if self.places.is_empty() {
                self.places = self.headers.iter().enumerate().map(|(place, known)| (known.name, place)).collect();
            }
            self.places.get(header.name).copied()
        };
        if let Some(known) = known.and_then(|place| self.headers.get_mut(place)) {
            *known = header;
            return;
        }
        self.kinds |= bit;
        if !self.places.is_empty() {
            self.places.insert(header.name, self.headers.len());
        }
        self.headers.push(header);
    }
}

/// Key and value of a `map<string, string>` entry.
fn map_entry(message: &[u8]) -> Result<(&[u8], &[u8]), Undecodable> {
    let (mut key, mut value): (&[u8], &[u8]) = (&[], &[]);
    for field in Fields(message) {
        match field? {
            (1, text) => key = text.message()?,
            (2, text) => value = text.message()?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// The fields of a message: number and value.
struct Fields<'m>(&'m [u8]);

/// The value of a field.
enum Value<'m> {
    /// Length-delimited: a message, text or bytes.
    Bytes(&'m [u8]),
    /// Of a wire type that nothing we read has.
    Other,
}

impl<'m> Value<'m> {
    fn message(self) -> Result<&'m [u8], Undecodable> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Other => Err(Undecodable),
        }
    }
}

impl<'m> Iterator for Fields<'m> {
    type Item = Result<(u64, Value<'m>), Undecodable>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field(0);
        if field.is_err() {
            self.0 = &[]; // nothing behind it can be found
        }
        Some(field)
    }
}

/// Groups (a wire type of old) stand inside each other at most this deep; a protobuf library allows 100, too.
const MAX_GROUP_DEPTH: usize = 100;

impl<'m> Fields<'m> {
    fn field(&mut self, depth: usize) -> Result<(u64, Value<'m>), Undecodable> {
        let (number, wire_type) = self.key()?;
        let value = match wire_type {
            0 => {
                self.varint()?;
                Value::Other
            }
            1 => self.take(8).map(|_| Value::Other)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Undecodable)?;
                Value::Bytes(self.take(length)?)
            }
            3 => {
                self.skip_group(number, depth)?;
                Value::Other
            }
            5 => self.take(4).map(|_| Value::Other)?,
            _ => return Err(Undecodable),
        };
        Ok((number, value))
    }

    fn skip_group(&mut self, number: u64, depth: usize) -> Result<(), Undecodable> {
        if depth >= MAX_GROUP_DEPTH {
            return Err(Undecodable);
        }
        loop {
            let before = self.0;
            let (inner, wire_type) = self.key()?;
            if wire_type == 4 {
                return if inner == number { Ok(()) } else { Err(Undecodable) };
            }
            self.0 = before;
            self.field(depth + 1)?;
        }
    }

    fn key(&mut self) -> Result<(u64, u64), Undecodable> {
        let key = self.varint()?;
        if key > u64::from(u32::MAX) || key >> 3 == 0 {
            return Err(Undecodable);
        }
        Ok((key >> 3, key & 7))
    }

    fn varint(&mut self) -> Result<u64, Undecodable> {
        let mut value = 0_u64;
        for (position, byte) in self.0.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if position == 9 && bits > 1 {
                return Err(Undecodable);
            }
            value |= bits << (7 * position);
            if byte & 0x80 == 0 {
                self.0 = self.0.get(position + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(Undecodable)
    }

    fn take(&mut self, length: usize) -> Result<&'m [u8], Undecodable> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Undecodable)?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
    use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
    use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
    use proptest::prelude::*;
    use prost::Message;

    /// What a protobuf library makes of a message: policy; method, path and host; headers, sorted.
    type Reading = Option<(Option<Vec<u8>>, [Vec<u8>; 3], Vec<(Vec<u8>, Vec<u8>)>)>;

    fn by_prost(message: &[u8]) -> Result<Reading, prost::DecodeError> {
        let attributes = CheckRequest::decode(message)?.attributes.unwrap_or_default();
        let policy = attributes.context_extensions.get("policy").map(|policy| policy.clone().into_bytes());
        let Some(http) = attributes.request.and_then(|request| request.http) else { return Ok(None) };
        let line = [http.method, http.path, http.host].map(String::into_bytes);
        let mut headers: Vec<_> =
            http.headers.into_iter().map(|(name, value)| (name.into_bytes(), value.into_bytes())).collect();
        for header in http.header_map.unwrap_or_default().headers {
            let name = header.key.into_bytes();
            match (header.value.into_bytes(), header.raw_value) {
                (text, raw) if !text.is_empty() && !raw.is_empty() => {
                    headers.extend([(name.clone(), text), (name, raw)]);
                }
                (text, raw) => headers.push((name, if raw.is_empty() { text } else { raw })),
            }
        }
        headers.sort();
        Ok(Some((policy, line, headers)))
    }

    fn by_us(message: &[u8]) -> Result<Reading, Undecodable> {
        Ok(read(message)?.map(|context| {
            let mut headers: Vec<_> = context.headers.iter().map(|h| (h.name.to_vec(), h.value.to_vec())).collect();
            headers.sort();
            let line = [context.method, context.path, context.host].map(<[u8]>::to_vec);
            (context.policy.map(<[u8]>::to_vec), line, headers)
        }))
    }

    /// Whatever prost decodes, we decode to the same.
    fn agree(message: &[u8]) {
        if let Ok(reading) = by_prost(message) {
            assert_eq!(by_us(message), Ok(reading), "{message:02x?}");
        }
    }

    fn request() -> impl Strategy<Value = CheckRequest> {
        let name = prop_oneof![Just("authorization".to_owned()), Just("x-auth-sub".to_owned()), "[a-c]{0,2}"];
        let map = prop::collection::hash_map(name.clone(), "[a-z]{0,3}", 0..5);
        let raw = (name.clone(), "[a-z]{0,2}", prop::collection::vec(any::<u8>(), 0..3));
        let extensions = prop::collection::hash_map(prop_oneof![Just("policy".to_owned()), name], "[a-z]{0,3}", 0..3);
        let http = (map, prop::option::of(prop::collection::vec(raw, 0..3)), "[a-z/]{0,5}").prop_map(
            |(headers, raw, text)| {
                let value = |(key, value, raw_value)| HeaderValue { key, value, raw_value };
                let header_map = raw.map(|raw| HeaderMap { headers: raw.into_iter().map(value).collect() });
                let (method, path, host) = (text.clone(), text.clone() + "/", text.clone());
                HttpRequest { method, path, host, headers, header_map, body: text, size: -1, ..Default::default() }
            },
        );
        (prop::option::of(prop::option::of(prop::option::of(http))), extensions).prop_map(
            |(request, context_extensions)| CheckRequest {
                attributes: request.map(|request| AttributeContext {
                    request: request.map(|http| Request { http, ..Default::default() }),
                    context_extensions,
                    ..Default::default()
                }),
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn what_envoy_sends_reads_as_prost_reads_it(requests in prop::collection::vec(request(), 1..3)) {
            // Two messages in a row are one merged message.
            let message: Vec<u8> = requests.iter().flat_map(Message::encode_to_vec).collect();
            prop_assert!(by_prost(&message).is_ok());
            agree(&message);
        }

        #[test]
        fn a_message_with_a_changed_byte_reads_as_prost_reads_it(request in request(), at in any::<prop::sample::Index>(), byte: u8) {
            let mut message = request.encode_to_vec();
            if !message.is_empty() {
                let at = at.index(message.len());
                message[at] = byte;
            }
            agree(&message);
        }

        #[test]
        fn any_bytes_read_as_prost_reads_them(message in prop::collection::vec(any::<u8>(), 0..40)) {
            agree(&message);
        }
    }

    /// A field of wire type 2.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
    }

    fn http(content: &[u8]) -> Vec<u8> {
        field(1, &field(4, &field(2, content)))
    }

    #[test]
    fn the_last_of_two_map_entries_counts() {
        let entry = |name: &[u8], value: &[u8]| field(3, &[field(1, name), field(2, value)].concat());
        let value_first = field(3, &[field(2, b"3"), field(1, b"a"), field(2, b"4")].concat());
        let message = http(&[entry(b"a", b"1"), entry(b"b", b"2"), value_first].concat());
        agree(&message);
        let context = read(&message).unwrap().unwrap();
        assert_eq!(context.headers, [Header { name: b"a", value: b"4" }, Header { name: b"b", value: b"2" }]);
    }

    #[test]
    fn many_headers_are_read_as_few_are() {
        let mut message = Vec::new();
        for round in ["first", "last"] {
            for number in 0..300 {
                let name = format!("n{number}");
                message.extend(http(&field(3, &[field(1, name.as_bytes()), field(2, round.as_bytes())].concat())));
            }
        }
        agree(&message);
        assert_eq!(read(&message).unwrap().unwrap().headers.len(), 300);
    }

    #[test]
    fn nonsense_is_undecodable() {
        for message in [
            &[0x0a][..],         // a length is missing
            &[0x0a, 0x05, 0x01], // shorter than its length
            &[0x08, 0x01],       // attributes as a number
            &[0x02, 0x00],       // field 0
            &[0x0e],             // wire type 6
            &[0x0c],             // an end of no group
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0xff; 11],
        ] {
            assert_eq!(read(message).err(), Some(Undecodable), "{message:02x?}");
            assert!(by_prost(message).is_err(), "{message:02x?}");
        }
        assert!(read(&[0x13; 1000]).is_err(), "groups do not eat the stack");
        assert!(read(&[]).unwrap().is_none());
    }
}
