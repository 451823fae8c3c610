//! Places in the policy file: finds line and column of a fault that shows only when the parts are compiled.
//!
//! [`locate`] reads the file again along the path to the fault, and fails there with the reason of the fault. The parser
//! then adds path, line and column, in the same form as for its own errors.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Path to a value in a YAML document. The default is the document itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct YamlPath(Vec<Key>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Member(String),
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
        Fault { path: self.clone(), why: why.into() }
    }
}

/// Fault in the content of a policy file: its path and its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    path: YamlPath,
    why: String,
}

impl fmt::Display for Fault {
    /// The reason alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// Describes a fault in `text` with path, line and column. If `text` does not contain the path, returns the reason alone.
pub(crate) fn locate(text: &str, fault: &Fault) -> String {
    let seed = Failing { path: &fault.path.0, why: &fault.why };
    match seed.deserialize(yaml_serde::Deserializer::from_str(text)) {
        Err(error) => error.to_string(),
        Ok(()) => fault.why.clone(),
    }
}

/// Deserializer seed that follows a path and fails at its end.
struct Failing<'f> {
    path: &'f [Key],
    why: &'f str,
}

impl<'de> DeserializeSeed<'de> for Failing<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Failing<'_> {
    /// Fails at this value: it is the end of the path, or as close to it as the document gets.
    fn fail<E: Error>(&self) -> Result<(), E> {
        Err(E::custom(self.why))
    }
}

impl<'de> Visitor<'de> for Failing<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        if let Some((Key::Member(name), rest)) = self.path.split_first() {
            while let Some(known) = members.next_key::<String>()? {
                if known == *name {
                    return members.next_value_seed(Failing { path: rest, why: self.why });
                }
                members.next_value::<IgnoredAny>()?;
            }
        }
        self.fail()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if let Some((Key::Item(index), rest)) = self.path.split_first() {
            for _ in 0..*index {
                items.next_element::<IgnoredAny>()?;
            }
            if items.next_element_seed(Failing { path: rest, why: self.why })?.is_some() {
                return Ok(());
            }
        }
        self.fail()
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.fail()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.fail()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.fail()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.fail()
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.fail()
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.fail()
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        let _ = tagged.variant::<IgnoredAny>()?;
        self.fail()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(locate(text, &path.fault("why")), expected);
        }
        assert!(locate(text, &root.member("absent").fault("why")).contains("why"));
    }
}
