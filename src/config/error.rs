//! Error of the configuration, as one sentence.

/// Configuration error: one sentence on one line that names the option, variable or file, and what is wrong with it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// Creates an error. Control characters, which a quoted value can contain, become spaces: the error stays one line.
    pub(crate) fn new(sentence: impl AsRef<str>) -> Self {
        Self(sentence.as_ref().chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
    }
}
