//! Policies of the file, with an index of their names: a generated file can name thousands of them.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

use crate::authz::Policy;
use crate::authz::policy::PolicyIndex;

/// All policies, in the order of their [`PolicyIndex`].
pub(super) struct KnownPolicies {
    all: Vec<Policy>,
    by_name: HashMap<Box<str>, PolicyIndex>,
}

impl KnownPolicies {
    pub(super) fn new(all: Vec<Policy>) -> Self {
        let by_name = all.iter().enumerate().map(|(index, policy)| (policy.name.clone(), index)).collect();
        Self { all, by_name }
    }

    /// Returns the index of the policy with this name.
    pub(super) fn index(&self, name: &str) -> Option<PolicyIndex> {
        self.by_name.get(name).copied()
    }

    /// Returns the policy with this name, and its index.
    pub(super) fn named(&self, name: &str) -> Option<(PolicyIndex, &Policy)> {
        let index = self.index(name)?;
        Some((index, self.all.get(index)?))
    }

    pub(super) fn into_inner(self) -> Vec<Policy> {
        self.all
    }
}

impl Deref for KnownPolicies {
    type Target = [Policy];

    fn deref(&self) -> &[Policy] {
        &self.all
    }
}

impl DerefMut for KnownPolicies {
    fn deref_mut(&mut self) -> &mut [Policy] {
        &mut self.all
    }
}
