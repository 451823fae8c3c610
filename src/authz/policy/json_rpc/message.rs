//! Reads JSON-RPC messages, and rejects those that two parsers could read differently.
//!
//! Parsers differ in duplicate members (most keep the last one), in the case of names (Go's `encoding/json` ignores it),
//! in text after the first value, in NUL characters (C strings end there), and in `__proto__`. So each of these is an
//! error. Nothing is kept of a body except the method and the name of the current message.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{Call, CallIndex, MAX_MESSAGES, Names, Unreadable};

/// Members of a message (JSON-RPC 2.0 sections 4 and 5).
const MEMBERS: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

/// Reader of one body.
pub(super) struct Reader<'c> {
    calls: &'c [Call],
    /// Calls that the messages so far match.
    found: Vec<CallIndex>,
    /// Number of messages so far.
    messages: usize,
    /// Reason for the error that the parser reports, if this reader caused it.
    fault: Option<Unreadable>,
}

impl<'c> Reader<'c> {
    pub(super) fn new(calls: &'c [Call]) -> Self {
        Self { calls, found: Vec::new(), messages: 0, fault: None }
    }

    /// Reads a message, or a batch: an array of messages.
    ///
    /// # Errors
    /// An [`Unreadable`], even if messages before the fault match calls.
    pub(super) fn read(mut self, body: &str) -> Result<Vec<CallIndex>, Unreadable> {
        let mut parser = serde_json::Deserializer::from_str(body);
        let read = parser.deserialize_any(BodyVisitor(&mut self)).and_then(|()| parser.end());
        match read {
            Ok(()) => Ok(self.found),
            Err(_) => Err(self.fault.unwrap_or(Unreadable::Message)),
        }
    }

    /// Adds the calls that a message matches.
    fn add(&mut self, method: &str, name: Option<&str>) -> Result<(), Unreadable> {
        for (index, call) in self.calls.iter().enumerate() {
            if call.applies_to(method, name)? && !self.found.contains(&index) {
                self.found.push(index);
            }
        }
        Ok(())
    }

    /// Returns an error of the parser, and notes its reason.
    fn fail<E: Error>(&mut self, fault: Unreadable) -> E {
        self.fault = Some(fault);
        E::custom(fault.requirement())
    }
}

impl Call {
    /// `true` if this call applies to a message. `name` is `params.name`, if that is text.
    pub(super) fn applies_to(&self, method: &str, name: Option<&str>) -> Result<bool, Unreadable> {
        if !self.methods.iter().any(|known| **known == *method) {
            return Ok(false);
        }
        let is_listed =
            |names: &[Box<str>]| name.map(|name| names.iter().any(|known| **known == *name)).ok_or(Unreadable::Name);
        match &self.names {
            Names::Any => Ok(true),
            Names::Only(names) => is_listed(names),
            Names::Except(names) => is_listed(names).map(|listed| !listed),
        }
    }
}

/// Returns the position in `known` of the member that `key` names, or `None` for any other member.
///
/// # Errors
/// `key` is no known name, but a lenient parser could take it for one.
fn member(key: &str, known: &[&str]) -> Result<Option<usize>, ()> {
    if let Some(place) = known.iter().position(|name| *name == key) {
        return Ok(Some(place));
    }
    // Upper case first: `ſ` (U+017F) is another lower case of `S`.
    let folded = || key.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    let letters = || folded().filter(char::is_ascii_alphanumeric);
    let is_ambiguous = key.contains('\0') || key == "__proto__" || known.iter().any(|name| letters().eq(name.chars()));
    if is_ambiguous { Err(()) } else { Ok(None) }
}

/// Visitor of the body.
struct BodyVisitor<'r, 'c>(&'r mut Reader<'c>);

impl<'de> Visitor<'de> for BodyVisitor<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message or a batch")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<(), A::Error> {
        MessageSeed(self.0).visit_map(members)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut messages: A) -> Result<(), A::Error> {
        while messages.next_element_seed(MessageSeed(self.0))?.is_some() {}
        if self.0.messages == 0 { Err(self.0.fail(Unreadable::Batch)) } else { Ok(()) }
    }
}

/// Visitor of one message: a request, a notification, or a response to a request of the server.
struct MessageSeed<'r, 'c>(&'r mut Reader<'c>);

impl<'de> DeserializeSeed<'de> for MessageSeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.0.messages == MAX_MESSAGES {
            return Err(self.0.fail(Unreadable::Batch));
        }
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut seen = [false; MEMBERS.len()];
        let (mut method, mut name) = (None, None);
        while let Some(Key(key)) = members.next_key()? {
            let place = member(&key, &MEMBERS).map_err(|()| self.0.fail::<A::Error>(Unreadable::Message))?;
            if let Some(seen) = place.and_then(|place| seen.get_mut(place))
                && std::mem::replace(seen, true)
            {
                return Err(self.0.fail(Unreadable::Message));
            }
            match place.and_then(|place| MEMBERS.get(place)).copied() {
                Some("method") => method = Some(members.next_value_seed(Value { is_params: false })?),
                Some("params") => name = members.next_value_seed(Value { is_params: true })?,
                _ => drop(members.next_value_seed(Value { is_params: false })?),
            }
        }
        self.0.messages += 1;
        let [_, _, _, _, result, error] = seen;
        match method {
            Some(Some(method)) if !result && !error && !method.contains('\0') => {
                self.0.add(&method, name.as_deref()).map_err(|fault| self.0.fail(fault))
            }
            None if result || error => Ok(()),
            _ => Err(self.0.fail(Unreadable::Message)),
        }
    }
}

/// Name of a member, unescaped.
#[derive(serde::Deserialize)]
struct Key<'j>(#[serde(borrow)] Cow<'j, str>);

/// Valid value that is not kept.
struct Skipped;

impl<'de> Deserialize<'de> for Skipped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value { is_params: false }.deserialize(deserializer).map(|_| Self)
    }
}

/// Visitor of any value. Returns the value if it is text; for `params` it returns the text of the member `name`.
///
/// It validates what it skips: numbers, Unicode, and the depth of nesting (127 levels).
#[derive(Clone, Copy)]
struct Value {
    is_params: bool,
}

impl<'de> DeserializeSeed<'de> for Value {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok((!self.is_params).then_some(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok((!self.is_params).then(|| Cow::Owned(text.to_owned())))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        if number.is_finite() { Ok(None) } else { Err(E::custom("a number is out of range")) }
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        if !self.is_params {
            while members.next_entry::<Skipped, Skipped>()?.is_some() {}
            return Ok(None);
        }
        let (mut seen, mut name) = (false, None);
        while let Some(Key(key)) = members.next_key()? {
            match member(&key, &["name"]) {
                Ok(Some(_)) if !std::mem::replace(&mut seen, true) => {
                    name = members.next_value_seed(Self { is_params: false })?;
                }
                Ok(None) => {
                    members.next_value::<Skipped>()?;
                }
                Ok(Some(_)) | Err(()) => return Err(A::Error::custom("the name is ambiguous")),
            }
        }
        match name {
            Some(name) if name.contains('\0') => Err(A::Error::custom("the name contains NUL")),
            name => Ok(name),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        while elements.next_element::<Skipped>()?.is_some() {}
        Ok(None)
    }
}
