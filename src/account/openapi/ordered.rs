//! JSON objects whose members keep their order.

use serde::ser::{Serialize, Serializer};

/// JSON object that keeps the order of its members; an object of `serde_json` sorts them.
#[derive(Clone, Debug)]
pub(super) struct Ordered<V>(Vec<(String, V)>);

impl<V> Default for Ordered<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> Ordered<V> {
    /// Adds a member at the end.
    pub(super) fn push(&mut self, name: impl Into<String>, value: V) {
        self.0.push((name.into(), value));
    }

    /// Values in their order.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }
}

impl Ordered<Ordered<serde_json::Value>> {
    /// Adds a member to the object with this name, which is created at the end if there is none.
    pub(super) fn push_into(&mut self, name: String, member: String, value: serde_json::Value) {
        match self.0.iter_mut().find(|(other, _)| *other == name) {
            Some((_, object)) => object.push(member, value),
            None => self.push(name, Ordered(vec![(member, value)])),
        }
    }
}

impl<V: Serialize> Serialize for Ordered<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}
