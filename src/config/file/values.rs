//! Values of the policy file that have a form of their own.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::config::options::long_duration;

/// A text that parses into `T`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Parsed<T>(pub T);

impl<'de, T: FromStr> Deserialize<'de> for Parsed<T>
where
    T::Err: fmt::Display,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|why| D::Error::custom(format!("{text:?} is {}", article(&why.to_string()))))
    }
}

/// Errors of `FromStr` say what a value is not, or what is wrong with it.
fn article(why: &str) -> String {
    if why.starts_with("not ") || why.starts_with("a ") { why.to_owned() } else { format!("not valid: {why}") }
}

impl<T> JsonSchema for Parsed<T> {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}

/// Name of a pool or a policy: a metric label, and what Envoy's routes say. 1 to 63 letters, digits, `.`, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let error = |why: &str| D::Error::custom(format!("{text:?} is {why}"));
        let duration = long_duration(&text).map_err(|why| error(&why))?;
        if duration.subsec_nanos() != 0 || duration.is_zero() {
            return Err(error("not a whole number of seconds"));
        }
        i64::try_from(duration.as_secs()).map(Self).map_err(|_| error("too long"))
    }
}

/// Members by name, each name once. The standard maps would take the last of two without a word.
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
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<BTreeMap<K, V>, A::Error> {
                let mut map = BTreeMap::new();
                while let Some(name) = members.next_key()? {
                    let value = members.next_value()?;
                    if map.insert(name, value).is_some() {
                        return Err(A::Error::custom("two members have the same name"));
                    }
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
        })
    }
}

/// One value, or a list of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMany<T>(pub Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Either<T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
                T::deserialize(serde::de::value::StrDeserializer::new(text)).map(|one| vec![one])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, members: A) -> Result<Vec<T>, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(members))
            }
        }

        deserializer.deserialize_any(Either(PhantomData)).map(Self)
    }
}

impl<T> JsonSchema for OneOrMany<T> {
    fn schema_name() -> Cow<'static, str> {
        "OneOrMany".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A text, or a list of texts.",
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
            ],
        })
    }
}

/// What a claim is compared with: a text, number or boolean, or a segment of the path.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// This value.
    Value(Value),
    /// The segment that the route's pattern calls so.
    Segment(String),
}

/// `{segment: tenant}`
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct SegmentReference {
    segment: String,
}

impl<'de> Deserialize<'de> for Operand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OperandVisitor)
    }
}

struct OperandVisitor;

impl<'de> Visitor<'de> for OperandVisitor {
    type Value = Operand;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, a number, a boolean, or {segment: NAME}")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Operand, E> {
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

    fn visit_f64<E: Error>(self, number: f64) -> Result<Operand, E> {
        let number = serde_json::Number::from_f64(number).ok_or_else(|| E::custom("not a number that JSON has"))?;
        Ok(Operand::Value(Value::Number(number)))
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

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "What a claim is compared with. Types count: Cognito's custom attributes are texts.",
            "anyOf": [
                {"type": ["string", "number", "boolean"]},
                {
                    "description": "The segment of the path that the route's pattern calls so.",
                    "type": "object",
                    "properties": {"segment": {"type": "string"}},
                    "required": ["segment"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}
