//! JSON objects of a token: read only if every reader reads them alike.
//!
//! Readers differ about the parts that they skip: a number that no `f64` holds, half a surrogate pair, deep nesting, a
//! member that is there twice. If such a part made one reader fail and not another, a claim could count for one check and
//! be absent for the next. So the whole text is judged first, whoever wants what of it. Start from [`object`].

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Reads an object into a struct.
///
/// # Errors
/// For anything but one object, and for an object in which something is ambiguous or cannot be read, be it wanted or not:
/// a member that is there twice (RFC 7519 section 4, RFC 7515 section 4), a number that is out of range, text that is not
/// Unicode, more than 127 levels.
pub(super) fn object<'j, T: Deserialize<'j>>(json: &'j str) -> Result<T, serde_json::Error> {
    serde_json::from_str::<Object>(json)?;
    serde_json::from_str(json)
}

/// An object, judged and forgotten. (Left to itself, serde would also read an array as a struct.)
struct Object;

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor).map(|()| Self)
    }
}

/// Any value, judged and forgotten.
struct Any;

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyVisitor).map(|()| Self)
    }
}

/// The name of a member, without its escapes.
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
                return Err(A::Error::custom("a member is there twice"));
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
