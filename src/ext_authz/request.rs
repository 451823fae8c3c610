//! Reads Envoy's `CheckRequest` without copying: the [`RequestContext`] borrows from the bytes of the message.
//!
//! Only the fields that a decision may depend on are read; the others are skipped. If a protobuf library can decode a
//! message, this reader gives the same result: fields come in any order, repeated submessages are merged, the last of
//! several scalars or map entries wins, unknown fields are skipped (protobuf encoding specification, "Last One Wins").
//! Field numbers: `envoy/service/auth/v3/external_auth.proto` and `attribute_context.proto`.

use std::collections::HashMap;

use crate::authz::request::Body;
use crate::authz::{Header, RequestContext};

/// Error for bytes that are not a `CheckRequest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a CheckRequest")]
pub struct Undecodable;

/// Reads a `CheckRequest`. Returns `None` if it has no HTTP request, as from Envoy's network filter on a TCP listener.
///
/// # Errors
/// [`Undecodable`] if the bytes do not follow the protobuf encoding, or a field that is read has the wrong wire type.
pub fn read(message: &[u8]) -> Result<Option<RequestContext<'_>>, Undecodable> {
    let mut reader = RequestReader::default();
    for field in Fields(message) {
        if let (1, attributes) = field? {
            reader.attributes(attributes.message()?)?;
        }
    }
    let body = reader.body();
    let RequestReader { has_http, policy, method, path, host, mut headers, mut raw_headers, .. } = reader;
    headers.append(&mut raw_headers);
    Ok(has_http.then_some(RequestContext { policy, method, path, host, headers, body }))
}

#[derive(Default)]
struct RequestReader<'m> {
    has_http: bool,
    policy: Option<&'m [u8]>,
    method: &'m [u8],
    path: &'m [u8],
    host: &'m [u8],
    /// Body as text.
    text_body: &'m [u8],
    /// Body as bytes.
    raw_body: &'m [u8],
    /// Entries of the map `headers`; each name occurs once.
    headers: Vec<Header<'m>>,
    /// Members of the list `header_map`.
    raw_headers: Vec<Header<'m>>,
    /// Bloom filter of the names in `headers` (see [`filter_bit`]): if a name's bit is not set, the name is new.
    seen_bits: u128,
    /// Index in `headers` by name. It stays empty while a linear search is fast enough.
    index_by_name: HashMap<&'m [u8], usize>,
}

/// Number of headers up to which names are found by linear search. Envoy accepts at most 100 headers by default.
const MAX_LINEAR_SEARCH: usize = 128;

/// Returns the position of a name's bit in the filter, below 128. Equal names have the same position.
fn filter_bit(name: &[u8]) -> u32 {
    let last = name.last().copied().unwrap_or_default();
    (u32::from(last) + 37 * u32::try_from(name.len() & 0x7f).unwrap_or_default()) & 0x7f
}

impl<'m> RequestReader<'m> {
    /// Reads an `AttributeContext`.
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

    /// Reads an `AttributeContext.HttpRequest`.
    fn http(&mut self, message: &'m [u8]) -> Result<(), Undecodable> {
        self.headers.reserve(32);
        for field in Fields(message) {
            match field? {
                (2, method) => self.method = method.message()?,
                (4, path) => self.path = path.message()?,
                (5, host) => self.host = host.message()?,
                (11, body) => self.text_body = body.message()?,
                (12, body) => self.raw_body = body.message()?,
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

    /// Returns the body. Envoy sends it as bytes with `pack_as_bytes`, otherwise as text.
    fn body(&self) -> Body<'m> {
        match (self.text_body, self.raw_body) {
            ([], []) => Body::Absent,
            ([], bytes) => Body::Bytes(bytes),
            _ => Body::AsText,
        }
    }

    /// Reads a `HeaderValue`, a member of the list that Envoy sends with `encode_raw_headers`. Envoy sets either
    /// `value` or `raw_value`. If both are set, the header counts twice, once with each value.
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

    /// Adds an entry of the map `headers`. It replaces an earlier entry of the same name.
    fn put(&mut self, header: Header<'m>) {
        let bit = 1 << filter_bit(header.name);
        let index = if self.seen_bits & bit == 0 {
            None
        } else if self.headers.len() <= MAX_LINEAR_SEARCH {
            self.headers.iter().position(|earlier| earlier.name == header.name)
        } else {
            if self.index_by_name.is_empty() {
                let indexed = self.headers.iter().enumerate();
                self.index_by_name = indexed.map(|(index, earlier)| (earlier.name, index)).collect();
            }
            self.index_by_name.get(header.name).copied()
        };
        if let Some(earlier) = index.and_then(|index| self.headers.get_mut(index)) {
            *earlier = header;
            return;
        }
        self.seen_bits |= bit;
        if !self.index_by_name.is_empty() {
            self.index_by_name.insert(header.name, self.headers.len());
        }
        self.headers.push(header);
    }
}

/// Reads the key and the value of a `map<string, string>` entry.
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

/// Iterator over the fields of a message; yields field number and value.
struct Fields<'m>(&'m [u8]);

/// Value of a field.
enum Value<'m> {
    /// Length-delimited: a message, text or bytes.
    Bytes(&'m [u8]),
    /// Any other wire type. No field that is read has one.
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
            self.0 = &[]; // the start of the next field is not known
        }
        Some(field)
    }
}

/// Deepest nesting of groups (a deprecated wire type) that is accepted. Protobuf libraries allow 100 as well.
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
        // Keys and most lengths are below 128: one byte.
        match self.0.split_first() {
            Some((byte @ ..0x80, rest)) => {
                self.0 = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, Undecodable> {
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

    /// Fields of a decoded message: policy; method, path and host; headers, sorted; body as text and as bytes.
    type Reading = Option<(Option<Vec<u8>>, [Vec<u8>; 3], Vec<(Vec<u8>, Vec<u8>)>, (bool, Vec<u8>))>;

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
        let body = if http.body.is_empty() { (false, http.raw_body) } else { (true, Vec::new()) };
        Ok(Some((policy, line, headers, body)))
    }

    fn by_this_reader(message: &[u8]) -> Result<Reading, Undecodable> {
        Ok(read(message)?.map(|context| {
            let mut headers: Vec<_> = context.headers.iter().map(|h| (h.name.to_vec(), h.value.to_vec())).collect();
            headers.sort();
            let line = [context.method, context.path, context.host].map(<[u8]>::to_vec);
            let body = match context.body {
                Body::Absent => (false, Vec::new()),
                Body::Bytes(bytes) => (false, bytes.to_vec()),
                Body::AsText => (true, Vec::new()),
            };
            (context.policy.map(<[u8]>::to_vec), line, headers, body)
        }))
    }

    /// Asserts that a message which prost can decode gives the same result here.
    fn assert_same_as_prost(message: &[u8]) {
        if let Ok(reading) = by_prost(message) {
            assert_eq!(by_this_reader(message), Ok(reading), "{message:02x?}");
        }
    }

    fn request() -> impl Strategy<Value = CheckRequest> {
        let name = prop_oneof![Just("authorization".to_owned()), Just("x-auth-sub".to_owned()), "[a-c]{0,2}"];
        let map = prop::collection::hash_map(name.clone(), "[a-z]{0,3}", 0..5);
        let raw = (name.clone(), "[a-z]{0,2}", prop::collection::vec(any::<u8>(), 0..3));
        let extensions = prop::collection::hash_map(prop_oneof![Just("policy".to_owned()), name], "[a-z]{0,3}", 0..3);
        let body = ("[a-z]{0,1}", prop::collection::vec(any::<u8>(), 0..3));
        let http = (map, prop::option::of(prop::collection::vec(raw, 0..3)), "[a-z/]{0,5}", body).prop_map(
            |(headers, raw, text, (body, raw_body))| {
                let value = |(key, value, raw_value)| HeaderValue { key, value, raw_value };
                let header_map = raw.map(|raw| HeaderMap { headers: raw.into_iter().map(value).collect() });
                let (method, path, host) = (text.clone(), text.clone() + "/", text.clone());
                let fixed = HttpRequest { scheme: text, size: -1, ..Default::default() };
                HttpRequest { method, path, host, headers, header_map, body, raw_body, ..fixed }
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
        fn valid_messages_decode_as_with_prost(requests in prop::collection::vec(request(), 1..3)) {
            // Concatenated messages decode as one merged message.
            let message: Vec<u8> = requests.iter().flat_map(Message::encode_to_vec).collect();
            prop_assert!(by_prost(&message).is_ok());
            assert_same_as_prost(&message);
        }

        #[test]
        fn messages_with_a_changed_byte_decode_as_with_prost(request in request(), at in any::<prop::sample::Index>(), byte: u8) {
            let mut message = request.encode_to_vec();
            if !message.is_empty() {
                let at = at.index(message.len());
                message[at] = byte;
            }
            assert_same_as_prost(&message);
        }

        #[test]
        fn arbitrary_bytes_decode_as_with_prost(message in prop::collection::vec(any::<u8>(), 0..40)) {
            assert_same_as_prost(&message);
        }
    }

    /// Encodes a field of wire type 2.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
    }

    fn http(content: &[u8]) -> Vec<u8> {
        field(1, &field(4, &field(2, content)))
    }

    #[test]
    fn the_last_map_entry_of_a_name_wins() {
        let entry = |name: &[u8], value: &[u8]| field(3, &[field(1, name), field(2, value)].concat());
        let value_first = field(3, &[field(2, b"3"), field(1, b"a"), field(2, b"4")].concat());
        let message = http(&[entry(b"a", b"1"), entry(b"b", b"2"), value_first].concat());
        assert_same_as_prost(&message);
        let context = read(&message).unwrap().unwrap();
        assert_eq!(context.headers, [Header { name: b"a", value: b"4" }, Header { name: b"b", value: b"2" }]);
    }

    #[test]
    fn many_headers_decode_as_with_prost() {
        let mut message = Vec::new();
        for round in ["first", "last"] {
            for number in 0..300 {
                let name = format!("n{number}");
                message.extend(http(&field(3, &[field(1, name.as_bytes()), field(2, round.as_bytes())].concat())));
            }
        }
        assert_same_as_prost(&message);
        assert_eq!(read(&message).unwrap().unwrap().headers.len(), 300);
    }

    #[test]
    fn invalid_encodings_are_rejected() {
        for message in [
            &[0x0a][..],         // a length is missing
            &[0x0a, 0x05, 0x01], // shorter than its length
            &[0x08, 0x01],       // attributes as a number
            &[0x02, 0x00],       // field 0
            &[0x0e],             // wire type 6
            &[0x0c],             // the end of a group that was not started
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0xff; 11],
        ] {
            assert_eq!(read(message).err(), Some(Undecodable), "{message:02x?}");
            assert!(by_prost(message).is_err(), "{message:02x?}");
        }
        assert!(read(&[0x13; 1000]).is_err(), "the depth of groups is limited");
        assert!(read(&[]).unwrap().is_none());
    }
}
