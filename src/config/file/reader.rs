//! Deserializer of a parsed document. Its errors have the path of the fault, and name no Rust type.
//!
//! In the policy file, null is never a value, and a text is never a number, a boolean or null ([`Rules::Strict`]). A
//! member whose value is commented out, or that a template leaves empty, is null in YAML. serde accepts null as an absent
//! member and as an empty map or list, and the policy then asks for less. serde's derived types also accept a list of their
//! members instead of a map. The rules hold for every type of the form, and so for members that are added later.

use std::collections::HashSet;

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, Expected, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::fault::{Fault, Key, TWICE, one_of, shortened};
use super::node::{Node, Number};

/// End of the errors for a member that is null or empty.
pub(super) const MEND: &str = "remove the member, or give it a value";

/// Rules of a kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    /// Policy file: no null, and texts that look like numbers or booleans are in quotes.
    Strict,
    /// Test table: null is an absent member, and a number or a boolean is a text where a text is expected.
    Lenient,
}

/// Deserializer of one value.
#[derive(Clone, Copy)]
pub(super) struct Reader<'n> {
    node: &'n Node,
    rules: Rules,
}

impl<'n> Reader<'n> {
    pub(super) fn new(node: &'n Node, rules: Rules) -> Self {
        Self { node, rules }
    }

    fn null(self) -> Result<(), Fault> {
        match self.rules {
            Rules::Strict => Err(Fault::new(format!("the value is null: {MEND}"))),
            Rules::Lenient => Ok(()),
        }
    }

    /// Error for a value of another type than `wanted`.
    fn type_error(self, wanted: &dyn Expected) -> Fault {
        let found = match self.node {
            Node::Null => "null".into(),
            Node::Bool(_, text) => format!("`{text}`"),
            Node::Number(_, text) => format!("the number {text}"),
            Node::Text(text) => format!("the text {}", shortened(text)),
            Node::List(_) => "a list".into(),
            Node::Map(_) => "a map".into(),
            Node::Tagged => return Fault::new("a YAML tag means nothing here: remove it"),
            Node::Removed => return Fault::default(),
        };
        Fault::type_error(&found, &self.node.as_list(), wanted)
    }
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node {
            Node::Null => self.null().and_then(|()| visitor.visit_unit()),
            Node::Bool(value, _) => visitor.visit_bool(*value),
            Node::Number(Number::Signed(number), _) => visitor.visit_i64(*number),
            Node::Number(Number::Unsigned(number), _) => visitor.visit_u64(*number),
            Node::Number(Number::Float(number), _) => visitor.visit_f64(*number),
            Node::Number(Number::Long, _) => visitor.visit_u128(u128::MAX),
            Node::Text(text) => visitor.visit_str(text),
            Node::List(items) => visitor.visit_seq(Items { items: items.iter().enumerate(), rules: self.rules }),
            Node::Map(members) => {
                no_duplicates(members)?;
                visitor.visit_map(Members { rest: members.iter(), value: None, rules: self.rules })
            }
            Node::Tagged | Node::Removed => Err(self.type_error(&visitor)),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match (self.node, self.rules) {
            (Node::Text(text), _) | (Node::Bool(_, text) | Node::Number(_, text), Rules::Lenient) => {
                visitor.visit_str(text)
            }
            (Node::Bool(_, text), Rules::Strict) => Err(not_a_text("boolean", text)),
            (Node::Number(_, text), Rules::Strict) => Err(not_a_text("number", text)),
            (Node::Null, _) => Err(self.null().err().unwrap_or_else(|| self.type_error(&visitor))),
            _ => Err(self.type_error(&visitor)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.node {
            Node::Text(text) => visitor.visit_enum(StrDeserializer::new(text)),
            Node::Null => Err(self.null().err().unwrap_or_else(|| self.type_error(&&*one_of(variants)))),
            _ => Err(self.type_error(&&*one_of(variants))),
        }
    }

    /// In a policy file, a present member is never `None`.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match (self.node, self.rules) {
            (Node::Null, Rules::Lenient) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node {
            Node::List(_) => self.deserialize_any(visitor),
            Node::Null => Err(self.null().err().unwrap_or_else(|| self.type_error(&"a list"))),
            _ => Err(self.type_error(&"a list | …")),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node {
            Node::Map(_) => self.deserialize_any(visitor),
            Node::Null => Err(self.null().err().unwrap_or_else(|| self.type_error(&visitor))),
            _ => Err(self.type_error(&visitor)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 bytes byte_buf unit unit_struct tuple tuple_struct
        ignored_any
    }
}

fn not_a_text(what: &str, value: &str) -> Fault {
    Fault::new(format!("{value} is a {what}, not a text: a text that looks like one is written in quotes, '{value}'"))
}

/// Rejects two members with one name. serde's maps keep the last one, and report no error.
fn no_duplicates(members: &[(Node, Node)]) -> Result<(), Fault> {
    let mut names = HashSet::new();
    for (name, _) in members.iter().filter(|(_, value)| !value.is_removed()) {
        if !names.insert(name.text()) {
            return Err(Fault::new(TWICE).of_key(Key::Again(name.text().to_owned())));
        }
    }
    Ok(())
}

/// Items of a list.
struct Items<'n> {
    items: std::iter::Enumerate<std::slice::Iter<'n, Node>>,
    rules: Rules,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((index, item)) = self.items.find(|(_, item)| !item.is_removed()) else { return Ok(None) };
        let value = seed.deserialize(Reader::new(item, self.rules));
        value.map(Some).map_err(|fault| fault.within(Key::Item(index)))
    }
}

/// Members of a map.
struct Members<'n> {
    rest: std::slice::Iter<'n, (Node, Node)>,
    /// Member whose name was read.
    value: Option<&'n (Node, Node)>,
    rules: Rules,
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        self.value = self.rest.find(|(_, value)| !value.is_removed());
        let Some((name, _)) = self.value else { return Ok(None) };
        let key = seed.deserialize(Reader::new(name, self.rules));
        key.map(Some).map_err(|fault| fault.of_key(Key::Member(name.text().to_owned())))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let Some((name, value)) = self.value else { return Err(Fault::invalid_type(Unexpected::Map, &"a member")) };
        let value = seed.deserialize(Reader::new(value, self.rules));
        value.map_err(|fault| fault.within(Key::Member(name.text().to_owned())))
    }
}
