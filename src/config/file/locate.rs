//! Where in a file a fault stands that only shows when its parts are put together.
//!
//! The file is read once more, along the way to the fault, and at its end reading fails with the fault's own words:
//! so the parser says line and column, in the same form as for its own errors.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A way into the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place(Vec<Key>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Key {
    Member(String),
    Item(usize),
}

impl Place {
    /// A member of what is here.
    pub(crate) fn member(&self, name: impl Into<String>) -> Self {
        Self(self.0.iter().cloned().chain([Key::Member(name.into())]).collect())
    }

    /// An item of the list that is here, from 0.
    pub(crate) fn item(&self, index: usize) -> Self {
        Self(self.0.iter().cloned().chain([Key::Item(index)]).collect())
    }

    /// What is wrong here.
    pub(crate) fn fault(&self, why: impl Into<String>) -> Fault {
        Fault { place: self.clone(), why: why.into() }
    }
}

/// What is wrong with the meaning of a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    place: Place,
    why: String,
}

/// One sentence with path, line and column.
pub(super) fn locate(text: &str, fault: &Fault) -> String {
    let seed = Failing { way: &fault.place.0, why: &fault.why };
    match seed.deserialize(yaml_serde::Deserializer::from_str(text)) {
        Err(error) => error.to_string(),
        // The way does not lead anywhere in this text: better without a place than not at all.
        Ok(()) => fault.why.clone(),
    }
}

/// Reads along the way and fails at its end.
struct Failing<'f> {
    way: &'f [Key],
    why: &'f str,
}

impl<'de> DeserializeSeed<'de> for Failing<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Failing<'_> {
    /// A value that cannot be entered: this is as close as it gets.
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
        if let Some((Key::Member(name), rest)) = self.way.split_first() {
            while let Some(known) = members.next_key::<String>()? {
                if known == *name {
                    return members.next_value_seed(Failing { way: rest, why: self.why });
                }
                members.next_value::<IgnoredAny>()?;
            }
        }
        self.fail()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        if let Some((Key::Item(index), rest)) = self.way.split_first() {
            for _ in 0..*index {
                items.next_element::<IgnoredAny>()?;
            }
            if items.next_element_seed(Failing { way: rest, why: self.why })?.is_some() {
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
        let root = Place::default();
        for (place, expected) in [
            (root.member("routes").item(1).member("policy"), "routes[1].policy: why at line 8 column 11"),
            (root.member("routes").item(0), "routes[0]: why at line 6 column 3"),
            (
                root.member("policies").member("admin").member("groups"),
                "policies.admin.groups: why at line 4 column 13",
            ),
            (root.member("policies").member("admin").member("absent"), "policies.admin: why at line 4 column 5"),
            (root.member("routes").item(7), "routes: why at line 6 column 1"),
        ] {
            assert_eq!(locate(text, &place.fault("why")), expected);
        }
        assert!(locate(text, &root.member("absent").fault("why")).contains("why"));
    }
}
