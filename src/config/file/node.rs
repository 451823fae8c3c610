//! Parsed YAML document from which faulty parts can be removed, to look for further faults.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::fault::{Fault, Key, MAX_SHOWN, YamlPath};
use crate::files::MAX_TEXT_BYTES;

/// Maximum weight of a document: its values, and the bytes of its texts. Aliases count as what they stand for: lists of
/// aliases for long lists would otherwise fill the memory. A file without aliases never has as much, because a value takes
/// at least a byte, and a text at least two thirds of its bytes.
const MAX_WEIGHT: u64 = 2 * MAX_TEXT_BYTES;

/// Value in a YAML document.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Null,
    /// Value, and its text in the document.
    Bool(bool, String),
    /// Value, and its text in the document.
    Number(Number, String),
    Text(String),
    List(Vec<Node>),
    /// Members in the order of the document, with duplicates.
    Map(Vec<(Node, Node)>),
    /// Value with a tag, such as `!name 5`.
    Tagged,
    /// Value with a fault, which was removed.
    Removed,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Signed(i64),
    Unsigned(u64),
    /// Integer of more than 64 bits.
    Long,
    Float(f64),
}

impl Node {
    /// Parses a document.
    ///
    /// # Errors
    /// The error of the YAML parser, with its position; or that the document has more than [`MAX_WEIGHT`].
    pub(super) fn parse(text: &str) -> Result<Self, yaml_serde::Error> {
        let left = Cell::new(MAX_WEIGHT);
        let mut node = AnyNode(&left).deserialize(yaml_serde::Deserializer::from_str(text))?;
        Spelling(&mut node).deserialize(yaml_serde::Deserializer::from_str(text))?;
        Ok(node)
    }

    /// Number of values.
    pub(super) fn size(&self) -> usize {
        1 + match self {
            Self::List(items) => items.iter().map(Self::size).sum(),
            Self::Map(members) => members.iter().map(|(_, value)| 1 + value.size()).sum(),
            _ => 0,
        }
    }

    pub(super) fn is_removed(&self) -> bool {
        *self == Self::Removed
    }

    /// Text of a scalar, as it is in the document.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Null => "null",
            Self::Text(text) | Self::Bool(_, text) | Self::Number(_, text) => text,
            Self::List(_) | Self::Map(_) | Self::Tagged | Self::Removed => "?",
        }
    }

    /// Formats the value in one line of YAML, as a list unless it is one. A long value is shortened to `[…]`.
    pub(super) fn as_list(&self) -> String {
        let mut text = String::new();
        self.write_flow(&mut text);
        let list = if matches!(self, Self::List(_)) { text } else { format!("[{text}]") };
        if list.chars().count() > MAX_SHOWN { "[…]".into() } else { list }
    }

    fn write_flow(&self, out: &mut String) {
        if out.len() > 4 * MAX_SHOWN {
            return; // too long already
        }
        let mut separator = "";
        match self {
            Self::List(items) => {
                out.push('[');
                for item in items {
                    out.push_str(std::mem::replace(&mut separator, ", "));
                    item.write_flow(out);
                }
                out.push(']');
            }
            Self::Map(members) => {
                out.push('{');
                for (name, value) in members {
                    out.push_str(std::mem::replace(&mut separator, ", "));
                    name.write_flow(out);
                    out.push_str(": ");
                    value.write_flow(out);
                }
                out.push('}');
            }
            Self::Text(text) if !is_plain(text) => out.extend(["'", &text.replace('\'', "''"), "'"]),
            scalar => out.push_str(scalar.text()),
        }
    }

    /// Returns the value at a path.
    fn at<'n>(&'n self, path: &[Key]) -> Option<&'n Self> {
        path.iter().try_fold(self, |node, key| match (node, key) {
            (Self::List(items), Key::Item(index)) => items.get(*index),
            (Self::Map(members), Key::Member(_) | Key::Again(_)) => {
                members.get(member(members, key)?).map(|(_, value)| value)
            }
            _ => None,
        })
    }

    /// Removes the value at a path. Returns `false` for the document itself, and if the path does not exist.
    pub(super) fn remove(&mut self, path: &[Key]) -> bool {
        let mut node = self;
        for key in path {
            let child = match (node, key) {
                (Self::List(items), Key::Item(index)) => items.get_mut(*index),
                (Self::Map(members), Key::Member(_) | Key::Again(_)) => match member(members, key) {
                    Some(place) => members.get_mut(place).map(|(_, value)| value),
                    None => None,
                },
                _ => None,
            };
            let Some(child) = child else { return false };
            node = child;
        }
        let is_new = !path.is_empty() && !node.is_removed();
        if is_new {
            *node = Self::Removed;
        }
        is_new
    }

    /// `true` if the document has a value at a path.
    pub(super) fn has(&self, path: &YamlPath) -> bool {
        self.at(path.keys()).is_some()
    }

    /// `true` if a fault follows from the removal of a part of its value. `removed` are the places of all removed parts,
    /// and of the members that unknown ones were meant to be.
    pub(super) fn explains(&self, fault: &Fault, removed: &[YamlPath]) -> bool {
        if let Some(name) = fault.missing() {
            return removed.contains(&fault.path().member(name));
        }
        match self.at(fault.path().keys()) {
            Some(Self::Map(members)) => members.iter().any(|(_, value)| value.is_removed()),
            Some(Self::List(items)) => items.iter().any(Self::is_removed),
            _ => false,
        }
    }
}

/// Position of the member that a key names, among those that are not removed.
fn member(members: &[(Node, Node)], key: &Key) -> Option<usize> {
    let (name, skipped) = match key {
        Key::Member(name) => (name, 0),
        Key::Again(name) => (name, 1),
        Key::Item(_) => return None,
    };
    let named = |(_, (key, value)): &(usize, &(Node, Node))| key.text() == name && !value.is_removed();
    members.iter().enumerate().filter(named).map(|(place, _)| place).nth(skipped)
}

/// `true` for a text that needs no quotes in a list of YAML.
fn is_plain(text: &str) -> bool {
    let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_')
        && text.chars().all(|c| c.is_alphanumeric() || "-_./@+".contains(c));
    is_word && !["true", "false", "null", "yes", "no", "on", "off"].contains(&&*text.to_ascii_lowercase())
}

/// Reads a value. The cell has the weight that the rest of the document may have.
#[derive(Clone, Copy)]
struct AnyNode<'c>(&'c Cell<u64>);

impl AnyNode<'_> {
    /// Counts a value whose text has this number of bytes.
    fn count<E: Error>(self, bytes: usize) -> Result<(), E> {
        let weight = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(1);
        match self.0.get().checked_sub(weight) {
            Some(left) => {
                self.0.set(left);
                Ok(())
            }
            None => Err(E::custom(
                "the file is too large if each alias (`*name`) is replaced by the value that it stands for",
            )),
        }
    }
}

impl<'de> DeserializeSeed<'de> for AnyNode<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for AnyNode<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        self.count(0).map(|()| Node::Bool(value, value.to_string()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Node, E> {
        self.count(0).map(|()| Node::Number(Number::Signed(number), number.to_string()))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Node, E> {
        self.count(0).map(|()| Node::Number(Number::Unsigned(number), number.to_string()))
    }

    fn visit_i128<E: Error>(self, number: i128) -> Result<Node, E> {
        self.count(0).map(|()| Node::Number(Number::Long, number.to_string()))
    }

    fn visit_u128<E: Error>(self, number: u128) -> Result<Node, E> {
        self.count(0).map(|()| Node::Number(Number::Long, number.to_string()))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Node, E> {
        self.count(0).map(|()| Node::Number(Number::Float(number), number.to_string()))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Node, E> {
        self.count(text.len()).map(|()| Node::Text(text.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        self.count(0).map(|()| Node::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        self.count(0)?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Node, A::Error> {
        self.count(0)?;
        let mut map = Vec::new();
        while let Some(member) = members.next_entry_seed(self, self)? {
            map.push(member);
        }
        Ok(Node::Map(map))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Node, A::Error> {
        // An error here would hide the faults of the other members.
        let (IgnoredAny, value) = tagged.variant()?;
        serde::de::VariantAccess::newtype_variant::<IgnoredAny>(value)?;
        self.count(0).map(|()| Node::Tagged)
    }
}

/// Sets the texts of numbers and booleans: the parser tells either the value or the text.
struct Spelling<'n>(&'n mut Node);

impl<'de> DeserializeSeed<'de> for Spelling<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.0 {
            Node::Bool(_, text) | Node::Number(_, text) => *text = String::deserialize(deserializer)?,
            Node::List(_) => deserializer.deserialize_seq(self)?,
            Node::Map(_) => deserializer.deserialize_map(self)?,
            Node::Null | Node::Text(_) | Node::Tagged | Node::Removed => drop(IgnoredAny::deserialize(deserializer)?),
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Spelling<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the same value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Node::List(list) = self.0 else { return Ok(()) };
        for item in list {
            items.next_element_seed(Spelling(item))?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let Node::Map(map) = self.0 else { return Ok(()) };
        for (name, value) in map {
            members.next_key_seed(Spelling(name))?;
            members.next_value_seed(Spelling(value))?;
        }
        Ok(())
    }
}
