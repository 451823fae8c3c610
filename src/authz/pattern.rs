//! The paths that a route matches: exact, with named segments, or by their first segments.

use std::fmt;
use std::str::FromStr;

use super::path::{PlainPath, fold};

/// Most segments of a pattern.
const MAX_SEGMENTS: usize = 64;

/// The paths that a route matches, segment by segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    pub(super) segments: Vec<Segment>,
    pub(super) is_prefix: bool,
}

/// A segment of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// This text, decoded.
    Literal(Box<str>),
    /// Any text but the empty one: `{name}`.
    Variable(Box<str>),
}

/// What is wrong with a pattern.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PatternError {
    /// No `/` at the start.
    #[error("does not begin with /")]
    Slash,
    /// No request with such a path would be let in.
    #[error("is not in plain form: such a request is refused before any route is looked at")]
    Plain,
    /// `{` or `}` within a segment.
    #[error(
        "has a brace within a segment: a {{name}} stands for a whole segment, and other braces are written %7B and %7D"
    )]
    Brace,
    /// `{}`, or other characters than a name has.
    #[error("has a {{segment}} whose name is not of letters, digits and _")]
    Name,
    /// One name for two segments.
    #[error("names two segments alike")]
    TwiceNamed,
    /// `/admin/` as a prefix.
    #[error("ends with /: a prefix matches whole segments, with and without what follows")]
    TrailingSlash,
    /// Too many segments.
    #[error("has more than 64 segments")]
    Length,
}

impl FromStr for PathPattern {
    type Err = PatternError;

    /// An exact path, or a template if it has a `{segment}`.
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let rest = text.strip_prefix('/').ok_or(PatternError::Slash)?;
        let segments = rest.split('/').map(Segment::from_str).collect::<Result<Vec<_>, _>>()?;
        let is_empty = |segment: &Segment| matches!(segment, Segment::Literal(text) if text.is_empty());
        if segments.iter().rev().skip(1).any(is_empty) {
            return Err(PatternError::Plain);
        }
        if segments.len() > MAX_SEGMENTS {
            return Err(PatternError::Length);
        }
        let pattern = Self { segments, is_prefix: false };
        let mut names: Vec<&str> = pattern.variables().map(|(name, _)| name).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(PatternError::TwiceNamed);
        }
        Ok(pattern)
    }
}

impl FromStr for Segment {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            return if is_name { Ok(Self::Variable(name.into())) } else { Err(PatternError::Name) };
        }
        if text.contains(['{', '}']) {
            return Err(PatternError::Brace);
        }
        // As requests are read, so that the two compare; `é` may stand as it is, and only here.
        let mut encoded = String::from("/");
        for c in text.chars() {
            if c.is_ascii() {
                encoded.push(c);
            } else {
                encoded.extend(c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("%{byte:02X}")));
            }
        }
        // A `?` would end the path, and the rest be lost without a word.
        let path = Some(encoded.as_bytes()).filter(|path| !path.contains(&b'?')).and_then(PlainPath::new);
        let path = path.ok_or(PatternError::Plain)?;
        Ok(Self::Literal(path.segment(0).unwrap_or_default().into()))
    }
}

impl PathPattern {
    /// A pattern of all paths that begin with these segments; `/` is every path.
    ///
    /// # Errors
    /// [`PatternError`].
    pub fn prefix(text: &str) -> Result<Self, PatternError> {
        if text == "/" {
            return Ok(Self { segments: Vec::new(), is_prefix: true });
        }
        if text.ends_with('/') {
            return Err(PatternError::TrailingSlash);
        }
        text.parse().map(|pattern| Self { is_prefix: true, ..pattern })
    }

    /// The named segments and their places.
    pub fn variables(&self) -> impl Iterator<Item = (&str, usize)> {
        self.segments.iter().enumerate().filter_map(|(place, segment)| match segment {
            Segment::Variable(name) => Some((&**name, place)),
            Segment::Literal(_) => None,
        })
    }

    /// Whether upper and lower case will be the same.
    pub(super) fn folded(mut self) -> Self {
        for segment in &mut self.segments {
            if let Segment::Literal(text) = segment {
                *text = fold(text).into();
            }
        }
        self
    }

    fn literals(&self) -> usize {
        self.segments.iter().filter(|segment| matches!(segment, Segment::Literal(_))).count()
    }

    /// What goes before what, as far as paths are concerned.
    pub(super) fn rank(&self) -> (u8, usize, usize) {
        match (self.is_prefix, self.literals()) {
            (false, literals) if literals == self.segments.len() => (3, 0, 0),
            (false, literals) => (2, literals, 0),
            (true, literals) => (1, self.segments.len(), literals),
        }
    }

    /// Whether some path matches both, of two patterns of one rank.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let compatible = |pair: (&Segment, &Segment)| match pair {
            (Segment::Literal(one), Segment::Literal(other)) => one == other,
            // A variable is never the empty segment after a slash at the end.
            (Segment::Literal(text), Segment::Variable(_)) | (Segment::Variable(_), Segment::Literal(text)) => {
                !text.is_empty()
            }
            (Segment::Variable(_), Segment::Variable(_)) => true,
        };
        self.segments.len() == other.segments.len() && self.segments.iter().zip(&other.segments).all(compatible)
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{text}")?,
                Segment::Variable(name) => write!(f, "/{{{name}}}")?,
            }
        }
        if self.is_prefix { f.write_str("/…") } else { Ok(()) }
    }
}
