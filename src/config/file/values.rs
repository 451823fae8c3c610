//! Values of the policy file: names, durations, lists, maps and operands.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use super::reader::MEND;
use super::text::SegmentName;
pub use super::text::{Parsed, Plain};
use crate::authz::policy::requirement::is_exact;
use crate::config::parse::long_duration;

/// Name of a pool or a policy: 1 to 63 letters, digits, `.`, `_` and `-`. It is a metric label, and Envoy's routes name
/// policies by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

impl Name {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if (1..=63).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.into()))
        } else {
            Err("not a name of 1 to 63 letters, digits, '.', '_' and '-'")
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Parsed::deserialize(deserializer).map(|Parsed(name)| name)
    }
}

impl JsonSchema for Name {
    fn schema_name() -> Cow<'static, str> {
        "Name".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Name of a pool or a policy.",
            "type": "string",
            "pattern": "^[A-Za-z0-9._-]{1,63}$",
        })
    }
}

/// A duration in whole seconds, such as `30s`, `5m` or `30d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub i64);

/// Units of a [`Seconds`].
const UNITS: [&str; 5] = ["s", "m", "h", "d", "w"];

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let duration = long_duration(text)?;
        let mut words = text.split(|c: char| c.is_ascii_digit() || c == ' ').filter(|word| !word.is_empty());
        if !words.all(|word| UNITS.contains(&word))
            || text.starts_with(' ')
            || text.ends_with(' ')
            || duration.is_zero()
        {
            return Err("not a whole number of seconds such as 30s, 5m, 12h or 30d".into());
        }
        i64::try_from(duration.as_secs()).map(Self).map_err(|_| "too long".into())
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Parsed::deserialize(deserializer).map(|Parsed(seconds)| seconds)
    }
}

impl JsonSchema for Seconds {
    fn schema_name() -> Cow<'static, str> {
        "Seconds".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // No look-ahead, because Helm's regular expressions do not support it.
        let units = UNITS.concat();
        json_schema!({
            "description": "A whole number of seconds, minutes, hours, days or weeks: `30s`, `5m`, `12h`, `30d`. At most 3650 days.",
            "type": "string",
            "pattern": format!("^[0-9]+ *[{units}]( *[0-9]+ *[{units}])*$"),
            "not": {"pattern": format!("^[0 {units}]*$")},
        })
    }
}

/// List that is not empty if the member is present: an empty list of requirements would require nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T>(Vec<T>);

impl<T> Default for List<T> {
    /// The value of an absent member.
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> From<Vec<T>> for List<T> {
    /// The value of an option; an empty list counts as unset.
    fn from(items: Vec<T>) -> Self {
        Self(items)
    }
}

impl<T> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Items { alone: None }).map(Self)
    }
}

impl<T: JsonSchema> JsonSchema for List<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("List_of_{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "array", "items": generator.subschema_for::<T>(), "minItems": 1})
    }
}

/// Reads one item from a text.
type ReadOne<T> = fn(&str) -> Result<T, serde::de::value::Error>;

/// Reads a list that is not empty. With `alone`, a text is a list of one.
struct Items<T> {
    alone: Option<ReadOne<T>>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Items<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.alone.is_some() { "a text or a list of texts" } else { "a list" })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
        match self.alone {
            Some(read) => read(text).map(|one| vec![one]).map_err(E::custom),
            None => Err(E::invalid_type(serde::de::Unexpected::Str(text), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        if list.is_empty() {
            return Err(A::Error::custom(format!("the list is empty: {MEND}")));
        }
        Ok(list)
    }
}

/// Map with unique names, not empty if the member is present. serde's maps keep the last of two members with one name,
/// and report no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named<K, V>(pub BTreeMap<K, V>);

impl<K, V> Default for Named<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Deserialize<'de> for Named<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unique<K, V>(PhantomData<(K, V)>);

        impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Visitor<'de> for Unique<K, V> {
            type Value = BTreeMap<K, V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<BTreeMap<K, V>, A::Error> {
                let mut map = BTreeMap::new();
                while let Some(name) = members.next_key()? {
                    let value = members.next_value()?;
                    if map.insert(name, value).is_some() {
                        return Err(A::Error::custom("two members have the same name"));
                    }
                }
                if map.is_empty() {
                    return Err(A::Error::custom(format!("the map is empty: {MEND}")));
                }
                Ok(map)
            }
        }

        deserializer.deserialize_map(Unique(PhantomData)).map(Self)
    }
}

impl<K: JsonSchema, V: JsonSchema> JsonSchema for Named<K, V> {
    fn schema_name() -> Cow<'static, str> {
        format!("Map_of_{}", V::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": generator.subschema_for::<K>(),
            "additionalProperties": generator.subschema_for::<V>(),
            "minProperties": 1,
        })
    }
}

/// One value, or a list of at least one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<'de, T: for<'t> Deserialize<'t>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let alone = |text: &str| T::deserialize(serde::de::value::StrDeserializer::new(text));
        deserializer.deserialize_any(Items { alone: Some(alone) }).map(Self)
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_of_{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]})
    }
}

/// Value that a claim is compared with: a text, number or boolean, or a segment of the path.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A fixed value.
    Value(Value),
    /// The segment of the path that has this name in the route's pattern.
    Segment(Plain<SegmentName>),
}

/// `{segment: tenant}`
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, expecting = "a map with `segment`")]
struct SegmentReference {
    segment: Plain<SegmentName>,
}

impl<'de> Deserialize<'de> for Operand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OperandVisitor)
    }
}

struct OperandVisitor;

/// Error for a number that a double does not represent exactly.
const TOO_LARGE: &str = "the number cannot be compared exactly; write an integer of 64 bits, or below 2^53 if it has a point or an exponent";

impl<'de> Visitor<'de> for OperandVisitor {
    type Value = Operand;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, a boolean, or {segment: NAME}")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Operand, E> {
        if text.is_empty() {
            return Err(E::custom(format!("the text is empty: {MEND}")));
        }
        Ok(Operand::Value(text.into()))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Operand, E> {
        Ok(Operand::Value(value.into()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Operand, E> {
        Ok(Operand::Value(number.into()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Operand, E> {
        Ok(Operand::Value(number.into()))
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<Operand, E> {
        Err(E::custom(TOO_LARGE))
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<Operand, E> {
        Err(E::custom(TOO_LARGE))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Operand, E> {
        let value = serde_json::Number::from_f64(number).ok_or_else(|| E::custom("not a JSON number"))?;
        if is_exact(number) { Ok(Operand::Value(Value::Number(value))) } else { Err(E::custom(TOO_LARGE)) }
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Operand, A::Error> {
        let SegmentReference { segment } = Deserialize::deserialize(MapAccessDeserializer::new(members))?;
        Ok(Operand::Segment(segment))
    }
}

impl JsonSchema for Operand {
    fn schema_name() -> Cow<'static, str> {
        "Operand".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut segment = generator.subschema_for::<Plain<SegmentName>>();
        segment.insert("description".into(), "Name of the segment.".into());
        json_schema!({
            "description": "Value that a claim is compared with, of the same type. Cognito's custom attributes are texts.",
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "boolean"},
                {"type": "number", "minimum": i64::MIN, "maximum": u64::MAX},
                {
                    "description": "The segment of the path that has this name in the route's pattern.",
                    "type": "object",
                    "properties": {"segment": segment},
                    "required": ["segment"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}
