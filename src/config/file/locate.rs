//! Line and column of a fault. The parser keeps no positions, so [`position`] reads the file again along the path to the
//! fault, and fails there: the parser's error has the position.

use std::cell::Cell;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::fault::{Fault, Key};

/// Place of a fault in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: usize,
    pub(super) column: usize,
    /// Number of keys of the fault's path that the text has. It lacks those of an absent member, and the index of an item
    /// that is written without a list.
    pub(super) depth: usize,
}

/// Returns the position of a fault in `text`, or of the closest value that contains it.
pub(super) fn position(text: &str, fault: &Fault) -> Option<Position> {
    let path = fault.path().keys();
    let rest = Cell::new(path.len());
    let seed = Failing { path, is_key: fault.is_key(), rest: &rest };
    let error = seed.deserialize(yaml_serde::Deserializer::from_str(text)).err()?;
    let location = error.location()?;
    Some(Position { line: location.line(), column: location.column(), depth: path.len() - rest.get() })
}

/// Deserializer seed that follows a path and fails at its end.
#[derive(Clone, Copy)]
struct Failing<'p> {
    path: &'p [Key],
    /// `true` to fail at the name of the last member, and not at its value.
    is_key: bool,
    /// Length of the path after the last value that was reached.
    rest: &'p Cell<usize>,
}

/// Fails at this value: it is the end of the path, or as close to it as the document gets.
fn fail<E: Error>() -> Result<(), E> {
    Err(E::custom("here"))
}

impl<'de> DeserializeSeed<'de> for Failing<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.rest.set(self.path.len());
        deserializer.deserialize_any(self)
    }
}

/// Name of a member. Fails at it if it is the one that is looked for.
struct Name<'p> {
    failing: Failing<'p>,
    /// Number of members with this name to skip.
    skipped: &'p mut usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    /// `true` for the member that is looked for.
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, found: &str) -> Result<bool, E> {
        let Some((Key::Member(name) | Key::Again(name), rest)) = self.failing.path.split_first() else {
            return Ok(false);
        };
        if found != name {
            return Ok(false);
        }
        if *self.skipped > 0 {
            *self.skipped -= 1;
            return Ok(false);
        }
        if self.failing.is_key && rest.is_empty() {
            self.failing.rest.set(0);
            return Err(E::custom("here"));
        }
        Ok(true)
    }
}

impl<'de> Visitor<'de> for Failing<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        if let Some((first, rest)) = self.path.split_first() {
            let mut skipped = usize::from(matches!(first, Key::Again(_)));
            while let Some(is_it) = members.next_key_seed(Name { failing: self, skipped: &mut skipped })? {
                if is_it {
                    return members.next_value_seed(Failing { path: rest, ..self });
                }
                members.next_value::<IgnoredAny>()?;
            }
        }
        fail()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if let Some((Key::Item(index), rest)) = self.path.split_first() {
            for _ in 0..*index {
                items.next_element::<IgnoredAny>()?;
            }
            // Past the end of the list, the seed is not used.
            if items.next_element_seed(Failing { path: rest, ..self })?.is_some() {
                return Ok(());
            }
        }
        fail()
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        fail()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        fail()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        fail()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        fail()
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        fail()
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        fail()
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        let _ = tagged.variant::<IgnoredAny>()?;
        fail()
    }
}

#[cfg(test)]
mod tests {
    use crate::config::file::fault::YamlPath;

    #[test]
    fn a_fault_is_found_in_the_text() {
        let text = "# first line\npolicies:\n  admin:\n    groups: {any: [a, b]}\nroutes:\n- {path: /a, policy: x}\n- path: /b\n  policy: y\n";
        let root = YamlPath::default();
        for (path, expected) in [
            (root.member("routes").item(1).member("policy"), "routes[1].policy: why at line 8 column 11"),
            (root.member("routes").item(0), "routes[0]: why at line 6 column 3"),
            (
                root.member("policies").member("admin").member("groups"),
                "policies.admin.groups: why at line 4 column 13",
            ),
            (root.member("policies").member("admin").member("absent"), "policies.admin: why at line 4 column 5"),
            (root.member("routes").item(7), "routes: why at line 6 column 1"),
        ] {
            assert_eq!(path.fault("why").located(text).1, expected);
        }
    }
}
