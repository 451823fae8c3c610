//! Errors of the configuration, each one sentence.

use std::fmt;

/// Most errors that are listed; further ones are counted.
const MAX_LISTED: usize = 20;

/// Errors of the configuration, at least one. Each is one sentence on one line that names the option, variable or file,
/// and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Not empty.
    sentences: Vec<String>,
    /// Number of further errors.
    more: usize,
    /// `true` if the search for errors was cut off.
    is_cut: bool,
    /// Explanation, of several lines.
    note: &'static str,
}

impl ConfigError {
    /// Creates an error. Control characters, which a quoted value can contain, become spaces: the error stays one line.
    pub(crate) fn new(sentence: impl AsRef<str>) -> Self {
        let sentence = sentence.as_ref().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { sentences: vec![sentence], more: 0, is_cut: false, note: "" }
    }

    /// Combines several errors; `None` if there is none.
    pub(crate) fn all(errors: impl IntoIterator<Item = Self>) -> Option<Self> {
        errors.into_iter().reduce(|mut all, Self { sentences, more, is_cut, .. }| {
            for sentence in sentences {
                // Several options can have the same error about the same file.
                if !all.sentences.contains(&sentence) {
                    all.sentences.push(sentence);
                }
            }
            Self { more: all.more + more, is_cut: all.is_cut || is_cut, ..all }
        })
    }

    /// Adds a number of errors that are not listed.
    pub(crate) fn and_more(self, more: usize, is_cut: bool) -> Self {
        Self { more: self.more + more, is_cut: self.is_cut || is_cut, ..self }
    }

    /// Rewrites each sentence.
    pub(crate) fn map(self, rewrite: impl Fn(&str) -> Self) -> Self {
        let sentences = self.sentences.iter().flat_map(|sentence| rewrite(sentence).sentences).collect();
        Self { sentences, ..self }
    }

    /// Adds an explanation for the person at the terminal.
    pub(super) fn with_note(self, note: &'static str) -> Self {
        Self { note, ..self }
    }

    /// Explanation to print after the errors; empty if there is none.
    pub fn note(&self) -> &'static str {
        self.note
    }

    /// Returns the errors, one line each. The last line says how many more there are.
    pub fn lines(&self) -> Vec<String> {
        let listed = self.sentences.iter().take(MAX_LISTED).cloned();
        listed.chain(self.rest(MAX_LISTED).map(|rest| format!("and {rest}"))).collect()
    }

    /// Says how many errors there are after the first `listed` ones.
    fn rest(&self, listed: usize) -> Option<String> {
        let rest = self.sentences.len().saturating_sub(listed) + self.more;
        match (rest, self.is_cut) {
            (0, false) => None,
            (0, true) => Some("perhaps more errors; the search was cut off".into()),
            (1, false) => Some("1 more error".into()),
            (rest, false) => Some(format!("{rest} more errors")),
            (rest, true) => Some(format!("at least {rest} more errors")),
        }
    }
}

impl fmt::Display for ConfigError {
    /// One line: the first error, and the number of further ones.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentences.first().map_or("", String::as_str))?;
        match self.rest(1) {
            Some(rest) => write!(f, " (and {rest}; check-config lists them)"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

/// Errors of independent steps, collected so that one run reports all of them.
#[derive(Debug, Default)]
pub(super) struct Errors(Vec<ConfigError>);

impl Errors {
    /// `true` if there is an error.
    pub(super) fn has_any(&self) -> bool {
        !self.0.is_empty()
    }

    /// Adds an error.
    pub(super) fn add(&mut self, error: ConfigError) {
        self.0.push(error);
    }

    /// Adds the error of a step that failed, and returns the result of one that did not.
    pub(super) fn keep<T>(&mut self, result: Result<T, ConfigError>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }

    /// Ends the collection.
    ///
    /// # Errors
    /// All errors, if there are any.
    pub(super) fn end(self) -> Result<(), ConfigError> {
        ConfigError::all(self.0).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_listed_up_to_a_limit() {
        let errors = |count: usize| ConfigError::all((0..count).map(|n| ConfigError::new(format!("e{n}")))).unwrap();
        assert_eq!(errors(1).to_string(), "e0");
        assert_eq!(errors(3).to_string(), "e0 (and 2 more errors; check-config lists them)");
        assert_eq!(errors(20).lines().last().unwrap(), "e19");
        assert_eq!(errors(21).lines()[19..], ["e19", "and 1 more error"]);
        assert_eq!(errors(19).and_more(4, true).lines()[18..], ["e18", "and at least 4 more errors"]);
        let twice = ConfigError::all([ConfigError::new("a\nb"), ConfigError::new("a b")]).unwrap();
        assert_eq!(twice.lines(), ["a b"]);
        assert!(Errors::default().end().is_ok());
    }
}
