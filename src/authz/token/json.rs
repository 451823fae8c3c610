//! Parses the JSON objects of a token, and rejects those that two parsers could read differently.
//!
//! Parsers differ in the parts that they skip: a number that no `f64` holds, half a surrogate pair, deep nesting, a
//! duplicate member. If one parser rejects such a part and another does not, a claim could be present for one check and
//! absent for the next. [`object`] therefore validates the whole text first, including the members that nothing reads.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Parses an object into a struct.
///
/// # Errors
/// - `json` is not exactly one object.
/// - A member is a duplicate (RFC 7519 section 4, RFC 7515 section 4), at any level.
/// - A number is out of range, text is not Unicode, or the nesting is deeper than 127 levels.
pub(super) fn object<'j, T: Deserialize<'j>>(json: &'j str) -> Result<T, serde_json::Error> {
    serde_json::from_str::<Object>(json)?;
    serde_json::from_str(json)
}

/// Valid object; its content is dropped. Without it, serde would also accept an array for a struct.
struct Object;

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor).map(|()| Self)
    }
}

/// Valid value of any type; its content is dropped.
struct Any;

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyVisitor).map(|()| Self)
    }
}

/// Name of a member, unescaped.
#[derive(Deserialize, PartialEq, Eq, Hash)]
struct Name<'j>(#[serde(borrow)] Cow<'j, str>);

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some((name, Any)) = members.next_entry::<Name<'de>, Any>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(())
    }
}

struct AnyVisitor;

impl<'de> Visitor<'de> for AnyVisitor {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        if number.is_finite() { Ok(()) } else { Err(E::custom("a number is out of range")) }
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<(), A::Error> {
        ObjectVisitor.visit_map(members)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while elements.next_element::<Any>()?.is_some() {}
        Ok(())
    }
}
