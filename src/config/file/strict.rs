//! Strict reading: null is never a value, and a text is never a number, a boolean or null.
//!
//! A member whose value is commented out, or that a template leaves empty, is null in YAML. serde accepts null as an
//! absent member and as an empty map or list, and the policy then asks for less. The YAML parser also accepts `5`, `true`
//! and `null` where a type asks for a text, and serde's derived types accept a list of their members instead of a map.
//! [`Strict`] wraps the parser, and with it every type of the form, so the rule holds for members that are added later.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

/// End of the errors for a member that is null or empty.
pub(super) const MEND: &str = "remove the member, or give it a value";

/// A strict deserializer, map, list or seed. Each passes its strictness on to what it contains.
pub(super) struct Strict<T>(pub(super) T);

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(Value { visitor, wants: Wants::Anything })
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(Value { visitor, wants: Wants::Text })
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(Value { visitor, wants: Wants::Variant })
    }

    /// A present member is never `None`.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(Value { visitor, wants: Wants::Map })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.deserialize_map(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 bytes byte_buf unit unit_struct seq tuple tuple_struct
        ignored_any
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wants {
    Anything,
    Text,
    /// Name of an enum variant.
    Variant,
    /// A map, and not a list of its members.
    Map,
}

/// Visitor between the parser and a type's own visitor.
struct Value<V> {
    visitor: V,
    wants: Wants,
}

impl<V> Value<V> {
    fn is_text_wanted(&self) -> bool {
        matches!(self.wants, Wants::Text | Wants::Variant)
    }
}

fn null<E: Error>() -> E {
    E::custom(format!("the value is null: {MEND}"))
}

fn not_a_text<E: Error>(what: &str, value: impl fmt::Display) -> E {
    E::custom(format!("{value} is a {what}, not a text: a text that looks like one is written in quotes, '{value}'"))
}

/// Rejects a number or a boolean where a text is expected.
macro_rules! not_for_texts {
    ($($visit:ident($type:ty) $what:literal)*) => {$(
        fn $visit<E: Error>(self, value: $type) -> Result<V::Value, E> {
            if self.is_text_wanted() { Err(not_a_text($what, value)) } else { self.visitor.$visit(value) }
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Value<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    not_for_texts! {
        visit_bool(bool) "boolean"
        visit_i64(i64) "number"
        visit_u64(u64) "number"
        visit_i128(i128) "number"
        visit_u128(u128) "number"
        visit_f64(f64) "number"
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<V::Value, E> {
        if self.wants == Wants::Variant {
            return self.visitor.visit_enum(serde::de::value::StrDeserializer::new(text));
        }
        self.visitor.visit_str(text)
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        Err(null())
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        Err(null())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        if self.wants == Wants::Map {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self.visitor));
        }
        self.visitor.visit_seq(Strict(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<V::Value, A::Error> {
        self.visitor.visit_map(Strict(members))
    }

    /// A tagged value: `!name value`.
    fn visit_enum<A: EnumAccess<'de>>(self, _: A) -> Result<V::Value, A::Error> {
        Err(A::Error::custom("a YAML tag means nothing here: remove it"))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(Strict(seed))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Strict(deserializer))
    }
}
