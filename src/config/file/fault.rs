//! Faults in the content of a policy file or a test table: place, reason, and a way to mend it.
//!
//! [`Fault`] is the error type of the [`Reader`](super::reader), so every error of serde is worded here, for readers who
//! know YAML and not Rust. [`Fault::located`] adds line and column.

use std::fmt;

use serde::de::{Error, Expected, Unexpected};

use super::locate::{Position, position};
use crate::nearest::{DidYouMean, did_you_mean};

/// Path to a value in a YAML document. The default is the document itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct YamlPath(Vec<Key>);

/// Step of a [`YamlPath`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Member(String),
    /// Second member with this name.
    Again(String),
    Item(usize),
}

impl YamlPath {
    /// Returns the path of a member of this map.
    pub(crate) fn member(&self, name: impl Into<String>) -> Self {
        self.child(Key::Member(name.into()))
    }

    /// Returns the path of an item of this list, from 0.
    pub(crate) fn item(&self, index: usize) -> Self {
        self.child(Key::Item(index))
    }

    fn child(&self, key: Key) -> Self {
        Self(self.0.iter().cloned().chain([key]).collect())
    }

    /// Creates a fault at this path.
    pub(crate) fn fault(&self, why: impl Into<String>) -> Fault {
        Fault { path: self.clone(), ..Fault::new(why) }
    }

    /// Creates a fault at a name that is not among the `known` ones.
    pub(crate) fn unknown<'k>(&self, why: String, name: &str, known: impl IntoIterator<Item = &'k str>) -> Fault {
        Fault { hint: did_you_mean(name, known).to_string().into(), ..self.fault(why) }
    }

    /// Creates a fault that only follows from another one, which is reported already. It is not reported itself.
    pub(crate) fn consequence(&self) -> Fault {
        Fault { is_consequence: true, ..self.fault("") }
    }

    pub(super) fn keys(&self) -> &[Key] {
        &self.0
    }

    /// `true` if one of the paths is the other, or contains it.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(one, other)| one == other)
    }

    /// Returns the path before the items at `removed` were removed from their lists.
    pub(crate) fn before(&self, removed: &[Self]) -> Self {
        let mut path = Self::default();
        for key in &self.0 {
            let Key::Item(mut index) = *key else {
                path.0.push(key.clone());
                continue;
            };
            let item_of_list = |removed: &Self| match removed.0.split_last() {
                Some((Key::Item(index), list)) if *list == *path.0 => Some(*index),
                _ => None,
            };
            let mut gone: Vec<usize> = removed.iter().filter_map(item_of_list).collect();
            gone.sort_unstable();
            index += gone.into_iter().fold(0, |shift, gone| shift + usize::from(gone <= index + shift));
            path.0.push(Key::Item(index));
        }
        path
    }
}

impl fmt::Display for YamlPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, key) in self.0.iter().enumerate() {
            match key {
                Key::Member(name) | Key::Again(name) if place == 0 => f.write_str(name)?,
                Key::Member(name) | Key::Again(name) => write!(f, ".{name}")?,
                Key::Item(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Fault in the content of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fault {
    path: YamlPath,
    why: Box<str>,
    /// Way to mend it, such as `; did you mean ...?`; empty if there is none.
    hint: Box<str>,
    /// Value to write instead.
    example: Option<Box<str>>,
    /// `true` if the name of the member is at fault, and not its value.
    is_key: bool,
    /// Name of a member that is missing.
    missing: Option<&'static str>,
    /// Known name that an unknown member was most likely meant to have.
    meant: Option<Box<str>>,
    is_consequence: bool,
}

impl Fault {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into().into(), ..Self::default() }
    }

    /// A value of another type than `wanted`. A text after ` | ` in the description of what is expected is an example;
    /// `…` in it stands for `found`, as a list.
    pub(super) fn type_error(found: &str, value: &str, wanted: &dyn Expected) -> Self {
        let wanted = wanted.to_string();
        let (wanted, example) = wanted.split_once(" | ").map_or((&*wanted, None), |(wanted, it)| (wanted, Some(it)));
        let example = example.map(|example| example.replace('…', value).into());
        Self { example, ..Self::new(format!("expected {}, found {found}", in_words(wanted))) }
    }

    /// Returns this fault as one inside the child `key`.
    pub(super) fn within(mut self, key: Key) -> Self {
        self.path.0.insert(0, key);
        self
    }

    /// Returns this fault as one of the name `key` of a member.
    pub(super) fn of_key(self, key: Key) -> Self {
        Self { is_key: true, ..self.within(key) }
    }

    pub(crate) fn path(&self) -> &YamlPath {
        &self.path
    }

    /// Returns this fault at another path.
    pub(crate) fn at(self, path: YamlPath) -> Self {
        Self { path, ..self }
    }

    pub(super) fn is_key(&self) -> bool {
        self.is_key
    }

    pub(super) fn missing(&self) -> Option<&'static str> {
        self.missing
    }

    /// Place of the member that an unknown member was most likely meant to be.
    pub(super) fn meant(&self) -> Option<YamlPath> {
        let (_, map) = self.path.0.split_last()?;
        Some(YamlPath(map.to_vec()).member(self.meant.as_deref()?))
    }

    pub(crate) fn is_consequence(&self) -> bool {
        self.is_consequence
    }

    /// Finds the fault in `text`, which has it, and returns line and column if they are known, and the description: path,
    /// reason, line and column, and the way to mend it.
    pub(crate) fn located(&self, text: &str) -> (Option<(usize, usize)>, String) {
        match position(text, self) {
            Some(Position { line, column, depth }) if depth > 0 => {
                let path = YamlPath(self.path.0.iter().take(depth).cloned().collect());
                let shown = self.clone().at(path).describe(&format!(" at line {line} column {column}"));
                (Some((line, column)), shown)
            }
            _ => (None, self.describe("")),
        }
    }

    fn describe(&self, place: &str) -> String {
        let Self { path, why, hint, example, .. } = self;
        let separator = if path.0.is_empty() { "" } else { ": " };
        let example = match (example, path.0.last()) {
            (None, _) => String::new(),
            (Some(example), Some(Key::Member(name) | Key::Again(name))) => format!(": write `{name}: {example}`"),
            (Some(example), _) => format!(": write `{example}`"),
        };
        format!("{path}{separator}{why}{place}{hint}{example}")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe(""))
    }
}

impl std::error::Error for Fault {}

impl Error for Fault {
    fn custom<T: fmt::Display>(why: T) -> Self {
        Self::new(why.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::type_error(&found_in_words(found), "[…]", wanted)
    }

    fn invalid_value(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Self::invalid_type(found, wanted)
    }

    fn invalid_length(length: usize, wanted: &dyn Expected) -> Self {
        Self::type_error(&format!("{length} items"), "[…]", wanted)
    }

    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        let nearest = did_you_mean(found, known.iter().copied());
        if known.len() <= MAX_ALTERNATIVES {
            let why = format!("expected {}, found {}", one_of(known), shortened(found));
            return Self { hint: nearest.to_string().into(), ..Self::new(why) };
        }
        Self { hint: or_known(nearest, known), ..Self::new(format!("{} is not known here", shortened(found))) }
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        let nearest = did_you_mean(name, known.iter().copied());
        let meant = nearest.0.map(Into::into);
        Self { hint: or_known(nearest, known), meant, ..Self::new("unknown member") }
    }

    fn missing_field(name: &'static str) -> Self {
        Self { missing: Some(name), ..Self::new(format!("the member `{name}` is missing")) }
    }

    fn duplicate_field(_: &'static str) -> Self {
        Self::new(TWICE)
    }
}

/// Error for the second of two members with one name.
pub(super) const TWICE: &str = "another member has this name";

/// Most names of which an error lists all before it suggests one.
const MAX_ALTERNATIVES: usize = 6;

/// Names the nearest name, or all names if none is similar.
fn or_known(nearest: DidYouMean<'_>, known: &[&str]) -> Box<str> {
    match nearest {
        DidYouMean(None) => format!("; known here: {}", known.join(", ")).into(),
        nearest => nearest.to_string().into(),
    }
}

fn quoted(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("`{name}`")).collect()
}

/// Lists alternatives: `a`, `b` or `c`.
pub(super) fn one_of(names: &[&str]) -> String {
    match quoted(names).as_slice() {
        [] => "nothing".into(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// Describes a value that was found.
fn found_in_words(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(number) => format!("the number {number}"),
        Unexpected::Signed(number) => format!("the number {number}"),
        Unexpected::Float(number) => format!("the number {number}"),
        Unexpected::Str(text) => format!("the text {}", shortened(text)),
        Unexpected::Unit | Unexpected::Option => "null".into(),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "a map".into(),
        _ => "a value of another kind".into(),
    }
}

/// Longest part of a value that an error repeats, in characters.
pub(super) const MAX_SHOWN: usize = 60;

pub(super) fn shortened(text: &str) -> String {
    if text.chars().count() > MAX_SHOWN {
        let start: String = text.chars().take(MAX_SHOWN).collect();
        return format!("{:?}", start + "…");
    }
    format!("{text:?}")
}

/// Translates serde's names of types. A visitor of this crate describes what it expects itself.
fn in_words(wanted: &str) -> String {
    let words = match wanted {
        "a boolean" => "`true` or `false`",
        "a string" | "a borrowed string" | "a character" => "a text",
        "a sequence" => "a list",
        "unit" => "nothing",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number from 0",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        _ if wanted.starts_with("struct ") => "a map",
        _ if RUST.iter().any(|word| wanted.split(' ').any(|part| part == *word)) => "another value",
        _ => wanted,
    };
    words.to_owned()
}

/// Words by which serde describes a type that does not describe itself.
const RUST: [&str; 8] = ["struct", "enum", "variant", "identifier", "newtype", "tuple", "untagged", "sequence"];
