//! Reads a file into its form, and finds every fault of the form: after a fault, the faulty part is removed, and the rest
//! is read again.

use serde::de::DeserializeOwned;

use super::fault::{Fault, YamlPath};
use super::node::Node;
use super::reader::{Reader, Rules};
use crate::config::error::ConfigError;

/// Most faults of one file that are looked for.
const MAX_FAULTS: usize = 100;
/// Most values that are read for that, over all passes. It bounds the time for a large file with many faults.
const MAX_READ: usize = 1_000_000;

/// Most faults that are described: the first ones.
pub(crate) const MAX_DESCRIBED: usize = 20;
/// Most bytes that are read to find the lines of faults. Finding one reads the file up to it.
const MAX_SEARCHED: usize = 16 << 20;

/// Result of reading a file.
#[derive(Debug)]
pub(crate) struct Form<T> {
    /// Content without the faulty parts; `None` if nothing else is left. It can be used to look for further faults only,
    /// unless there are no faults.
    pub(crate) content: Option<T>,
    /// Faults, in the order in which they were found.
    pub(crate) faults: Vec<Fault>,
    /// Places of the parts that were removed, and of the members that unknown ones were meant to be.
    pub(crate) removed: Vec<YamlPath>,
    /// Places that are not judged, because another error concerns them.
    pub(crate) unknown: Vec<YamlPath>,
    /// `true` if there may be more faults.
    pub(crate) is_cut: bool,
}

impl<T> Default for Form<T> {
    fn default() -> Self {
        Self { content: None, faults: Vec::new(), removed: Vec::new(), unknown: Vec::new(), is_cut: false }
    }
}

/// Parses `text`, and reads its form.
///
/// # Errors
/// One sentence if the text is empty, or is not YAML.
pub(crate) fn read<T: DeserializeOwned>(text: &str, rules: Rules) -> Result<Form<T>, String> {
    // An empty file is a mistake, or a file that is being written.
    if text.lines().all(|line| line.trim_start().starts_with('#') || matches!(line.trim(), "" | "---")) {
        return Err("the file is empty".into());
    }
    let mut document = Node::parse(text).map_err(|error| error.to_string())?;
    if document == Node::Map(Vec::new()) {
        return Err("the file is empty".into());
    }
    let passes = (MAX_READ / document.size()).clamp(1, MAX_FAULTS);
    let mut form = Form::default();
    for _ in 0..passes {
        let fault = match T::deserialize(Reader::new(&document, rules)) {
            Ok(content) => {
                form.content = Some(content);
                return Ok(form);
            }
            Err(fault) => fault,
        };
        let place = fault.path().clone();
        form.removed.extend(fault.meant().filter(|meant| !document.has(meant)));
        if !document.explains(&fault, &form.removed) {
            form.faults.push(fault);
        }
        let is_removed = document.remove(place.keys());
        form.removed.push(place);
        if !is_removed {
            return Ok(form);
        }
    }
    form.is_cut = true;
    Ok(form)
}

/// Describes faults of the file `text`, in the order of their lines; `None` if there are none.
pub(crate) fn describe(faults: &[Fault], text: &str) -> Option<ConfigError> {
    let located = (MAX_SEARCHED / text.len().max(1)).max(1);
    let mut described: Vec<_> = faults
        .iter()
        .take(MAX_DESCRIBED)
        .enumerate()
        .map(|(place, fault)| fault.located(if place < located { text } else { "" }))
        .collect();
    described.sort_by_key(|(position, _)| position.unwrap_or((usize::MAX, 0)));
    let all = ConfigError::all(described.into_iter().map(|(_, why)| ConfigError::new(why)))?;
    Some(all.and_more(faults.len().saturating_sub(MAX_DESCRIBED), false))
}
