//! Faults of one policy file: those of its form, and those that show only when the parts are compiled together.
//!
//! A step that finds a fault adds it and goes on, so that one run reports everything. A fault that only follows from
//! another one is left out: [`Faults::add`] drops faults at a place that the form could not be read at, and
//! [`Faults::unknown`] knows names whose definition has a fault.

use crate::config::error::ConfigError;
use crate::config::file::fault::{Fault, YamlPath};
use crate::config::file::form;

/// Most faults that are kept; further ones are counted.
const MAX_KEPT: usize = 100;

/// Faults that were found so far.
#[derive(Debug, Default)]
pub(in crate::config) struct Faults {
    found: Vec<Fault>,
    /// Number of faults beyond [`MAX_KEPT`].
    more: usize,
    /// `true` if there may be more.
    is_cut: bool,
    /// Places that the form could not be read at. They are missing in what is compiled.
    removed: Vec<YamlPath>,
}

impl Faults {
    /// Begins with the faults of the form.
    pub(super) fn of_form(found: Vec<Fault>, removed: Vec<YamlPath>, is_cut: bool) -> Self {
        Self { found, more: 0, is_cut, removed }
    }

    pub(super) fn has_any(&self) -> bool {
        !self.found.is_empty()
    }

    /// Describes the faults of the file `text`, in the order of their lines; `None` if there are none.
    pub(in crate::config) fn describe(&self, text: &str) -> Option<ConfigError> {
        Some(form::describe(&self.found, text)?.and_more(self.more, self.is_cut))
    }

    /// Returns the place in the file of a part of what could be read.
    pub(super) fn in_file(&self, path: &YamlPath) -> YamlPath {
        path.before(&self.removed)
    }

    /// Adds a fault, unless it only follows from another one.
    pub(super) fn add(&mut self, fault: Fault) {
        let path = self.in_file(fault.path());
        if fault.is_consequence() || self.removed.iter().any(|removed| removed.overlaps(&path)) {
            return;
        }
        if self.found.len() < MAX_KEPT {
            self.found.push(fault.at(path));
        } else {
            self.more += 1;
        }
    }

    /// Adds a fault as [`Faults::add`] does, but does not create it if it would only be counted. Its text can be as long as
    /// a part of the file.
    pub(super) fn add_with(&mut self, fault: impl FnOnce(&Self) -> Fault) {
        if self.found.len() < MAX_KEPT {
            self.add(fault(self));
        } else {
            self.more += 1;
        }
    }

    /// Adds the fault of a step that failed, and returns the result of one that did not.
    pub(super) fn keep<T>(&mut self, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|fault| self.add(fault)).ok()
    }

    /// `true` if there is a fault at this place, in it, or around it. What depends on it cannot be judged.
    pub(super) fn touch(&self, path: &YamlPath) -> bool {
        let path = self.in_file(path);
        self.removed.iter().chain(self.found.iter().map(Fault::path)).any(|place| place.overlaps(&path))
    }

    /// Creates the fault of a reference at `at` to a `what` that does not exist. `definition` is where it would be.
    pub(super) fn unknown<'k>(
        &self,
        what: &str,
        name: &str,
        at: &YamlPath,
        definition: &YamlPath,
        known: impl IntoIterator<Item = &'k str>,
    ) -> Fault {
        if self.touch(definition) {
            return at.consequence();
        }
        self.unlike(at, format!("there is no {what} {name}"), name, known)
    }

    /// Creates the fault of a name at `at` that is not among the `known` ones, and suggests the nearest of them. The search
    /// compares all names, so there is none for a fault that is not described.
    pub(super) fn unlike<'k>(
        &self,
        at: &YamlPath,
        why: String,
        name: &str,
        known: impl IntoIterator<Item = &'k str>,
    ) -> Fault {
        if self.found.len() < form::MAX_DESCRIBED { at.unknown(why, name, known) } else { at.fault(why) }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn names_are_suggested_only_for_faults_that_are_described() {
        let names: Vec<String> = (0..500).map(|number| format!("policy-{number}")).collect();
        let compared = Cell::new(0);
        let known = || names.iter().map(String::as_str).inspect(|_| compared.set(compared.get() + 1));
        let mut faults = Faults::default();
        let root = YamlPath::default();
        for number in 0..500 {
            let at = root.member("routes").item(number);
            let fault = faults.unknown("policy", &format!("x{number}"), &at, &root.member("policies"), known());
            faults.add(fault);
        }
        assert_eq!(compared.get(), form::MAX_DESCRIBED * names.len());
        let lines = faults.describe("").unwrap().lines();
        assert_eq!(lines.last().unwrap(), "and 480 more errors");
    }
}
