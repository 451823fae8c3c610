//! Path patterns of routes: exact paths, templates with named segments, and prefixes.

use std::fmt;
use std::str::FromStr;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::path::{PlainPath, fold};

/// Maximum number of segments. A set of positions is one `u64` (see [`Ties`](super::ties::Ties)).
const MAX_SEGMENTS: usize = 64;
/// Characters of globs and regular expressions, and others that a URL never contains unencoded (RFC 3986 section 3.3). They
/// are errors in a pattern, because as literal text they would match almost no request.
const SIGNS: [char; 12] = ['*', '?', '[', ']', '^', '|', '\\', '<', '>', '"', '`', '\u{2026}'];

/// Pattern of the paths that a route matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathPattern {
    pub(super) segments: Vec<Segment>,
    pub(super) is_prefix: bool,
}

/// Segment of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// Matches this decoded text.
    Literal(Box<str>),
    /// Matches any text that is not empty: `{name}`.
    Variable(Box<str>),
}

/// Error in a pattern.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PatternError {
    /// No `/` at the start.
    #[error("does not begin with /")]
    Slash,
    /// Wildcard or part of a regular expression, as in the patterns of other tools.
    #[error(
        "has `{sign}`, and paths have no wildcards and no regular expressions: `path_prefix: {prefix}` is {prefix} and \
         everything below, {{name}} is any one segment{literally}"
    )]
    Sign {
        /// Characters that were found.
        sign: Box<str>,
        /// Prefix that is probably meant.
        prefix: Box<str>,
        /// Hint how to write the literal character; empty if requests with it are always denied.
        literally: Box<str>,
    },
    /// Path that is not in plain form: a request with it is always denied.
    #[error("is not in plain form: such a request is refused before any route is looked at")]
    Plain,
    /// `{` or `}` within a segment.
    #[error(
        "has a brace within a segment: a {{name}} stands for a whole segment, and other braces are written %7B and %7D"
    )]
    Brace,
    /// `{}`, or a name with other characters than letters, digits and `_`.
    #[error("has a {{segment}} whose name is not of letters, digits and _")]
    Name,
    /// Two segments with the same name.
    #[error("names two segments alike")]
    TwiceNamed,
    /// Prefix that ends with `/`, such as `/admin/`.
    #[error("ends with /: a prefix matches whole segments, with and without what follows")]
    TrailingSlash,
    /// More than [`MAX_SEGMENTS`] segments.
    #[error("has more than 64 segments")]
    Length,
}

impl FromStr for PathPattern {
    type Err = PatternError;

    /// Parses an exact path or, if it has a `{segment}`, a template.
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let rest = text.strip_prefix('/').ok_or(PatternError::Slash)?;
        if let Some(error) = foreign(text) {
            return Err(error);
        }
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
        // Parsed like the path of a request, so that both compare. Only a pattern may contain unencoded text such as `é`.
        let mut encoded = String::from("/");
        for c in text.chars() {
            if c.is_ascii() {
                encoded.push(c);
            } else {
                encoded.extend(c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("%{byte:02X}")));
            }
        }
        let path = PlainPath::new(encoded.as_bytes()).ok_or(PatternError::Plain)?;
        Ok(Self::Literal(path.segment(0).unwrap_or_default().into()))
    }
}

/// Finds the first sign of another tool's patterns in a segment, and its offset.
fn sign(segment: &str) -> Option<(usize, &str)> {
    let (at, length) = if let Some((at, sign)) = segment.char_indices().find(|(_, c)| SIGNS.contains(c)) {
        (at, sign.len_utf8())
    } else if segment == "..." || segment == "+" {
        (0, segment.len())
    } else if let Some(at) = segment.find(".+").or_else(|| segment.find(")+")) {
        (at + 1, 1)
    } else if segment.starts_with(':') && segment.len() > 1 {
        (0, 1)
    } else if segment.ends_with('$') {
        (segment.len() - 1, 1)
    } else {
        return None;
    };
    Some((at, segment.get(at..at + length)?))
}

/// Returns the error for the first sign of another tool's patterns in a pattern.
fn foreign(text: &str) -> Option<PatternError> {
    let mut start = 0;
    for segment in text.split('/') {
        if let Some((at, sign)) = sign(segment) {
            // In `/admin*`, `/admin?x` and `/admin$`, the text before the sign is part of what is meant.
            let end = if ["*", "?", "$"].contains(&sign) { start + at } else { start };
            let meant = |end| text.get(..end).map(|text| text.trim_end_matches(['/', '.']));
            let mut prefixes = [end, start].into_iter().filter_map(meant);
            let prefix = prefixes.find(|prefix| PathPattern::prefix(prefix).is_ok()).unwrap_or("/");
            let escape = escaped(sign);
            let passes = sign.chars().count() == 1 && PlainPath::new(format!("/{escape}").as_bytes()).is_some();
            let literally =
                if passes { format!(", and the character itself is written {escape}") } else { String::new() };
            return Some(PatternError::Sign { sign: sign.into(), prefix: prefix.into(), literally: literally.into() });
        }
        start += segment.len() + 1;
    }
    None
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Encodes a decoded segment as a pattern writes it.
fn written(segment: &str) -> String {
    let mut text = String::with_capacity(segment.len());
    for c in segment.chars() {
        if SIGNS.contains(&c) || matches!(c, '%' | '{' | '}' | ' ') {
            text.push_str(&escaped(c.encode_utf8(&mut [0; 4])));
        } else {
            text.push(c);
        }
    }
    // Signs that depend on their position: `:`, `+`, `$`.
    while let Some((at, found)) = sign(&text) {
        let escape = escaped(found);
        text.replace_range(at..at + found.len(), &escape);
    }
    text
}

impl PathPattern {
    /// Parses a prefix: the pattern of all paths that begin with these segments. `/` matches every path.
    ///
    /// # Errors
    /// [`PatternError`].
    pub(crate) fn prefix(text: &str) -> Result<Self, PatternError> {
        if text == "/" {
            return Ok(Self { segments: Vec::new(), is_prefix: true });
        }
        if text.ends_with('/') {
            return Err(PatternError::TrailingSlash);
        }
        text.parse().map(|pattern| Self { is_prefix: true, ..pattern })
    }

    /// Names of the variable segments, with their positions.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&str, usize)> {
        self.segments.iter().enumerate().filter_map(|(position, segment)| match segment {
            Segment::Variable(name) => Some((&**name, position)),
            Segment::Literal(_) => None,
        })
    }

    /// Folds literal segments to lower case, for comparison without regard to case.
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

    /// Precedence of the pattern. The greater value takes precedence.
    pub(super) fn rank(&self) -> (u8, usize, usize) {
        match (self.is_prefix, self.literals()) {
            (false, literals) if literals == self.segments.len() => (3, 0, 0),
            (false, literals) => (2, literals, 0),
            (true, literals) => (1, self.segments.len(), literals),
        }
    }
}

impl fmt::Display for PathPattern {
    /// Writes the pattern as in the file, and `/…` after a prefix.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for segment in &self.segments {
            match segment {
                Segment::Literal(text) => write!(f, "/{}", written(text))?,
                Segment::Variable(name) => write!(f, "/{{{name}}}")?,
            }
        }
        if self.is_prefix { f.write_str("/…") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn signs_of_other_tools_are_errors() {
        for (pattern, sign, prefix) in [
            ("/admin/*", "*", "/admin"),
            ("/admin*", "*", "/admin"),
            ("/admin/.*", "*", "/admin"),
            ("/*", "*", "/"),
            ("/**", "*", "/"),
            ("/a/*/b", "*", "/a"),
            ("/a/{*rest}", "*", "/a"),
            ("/a?", "?", "/a"),
            ("/a/?", "?", "/a"),
            ("/a/[bc]", "[", "/a"),
            ("/a/{id:[0-9]+}", "[", "/a"),
            ("/a]", "]", "/"),
            ("/^admin", "^", "/"),
            ("/admin$", "$", "/admin"),
            ("/a/(b|c)", "|", "/a"),
            ("/a/.+", "+", "/a"),
            ("/a/+/b", "+", "/a"),
            ("/a/(bc)+", "+", "/a"),
            ("/a/\\d", "\\", "/a"),
            ("/a/:id/b", ":", "/a"),
            ("/a/<int:id>", "<", "/a"),
            ("/a>", ">", "/"),
            ("/a/...", "...", "/a"),
            ("/a/\u{2026}", "\u{2026}", "/a"),
            ("/a`", "`", "/"),
            ("/\"a\"", "\"", "/"),
        ] {
            let Err(PatternError::Sign { sign: found, prefix: meant, literally }) = pattern.parse::<PathPattern>()
            else {
                panic!("{pattern}");
            };
            assert_eq!((&*found, &*meant), (sign, prefix), "{pattern}");
            assert!(PathPattern::prefix(pattern).is_err(), "{pattern}");
            // The suggested spelling is accepted and matches the character.
            if let Some((_, escape)) = literally.split_once("is written ") {
                let pattern: PathPattern = format!("/{escape}").parse().unwrap();
                assert_eq!(pattern.segments, [Segment::Literal(sign.into())], "{escape}");
            } else {
                assert!(["?", "\\", "..."].contains(&sign), "{pattern}");
            }
        }
        for pattern in ["/{rest...}", "/{id}+", "/a{b,c}"] {
            assert!(pattern.parse::<PathPattern>().is_err(), "{pattern}");
        }
        let error = PathPattern::prefix("/admin/*").unwrap_err().to_string();
        assert_eq!(
            error,
            "has `*`, and paths have no wildcards and no regular expressions: `path_prefix: /admin` is /admin and \
             everything below, {name} is any one segment, and the character itself is written %2A"
        );
    }

    /// Sub-delimiters and other characters of URLs (RFC 3986 section 3.3), where they have no meaning in other tools.
    #[test]
    fn characters_without_a_meaning_are_literal() {
        for pattern in
            ["/Products(7)", "/$metadata", "/things:batchGet", "/c++", "/a!b'c,d=e&f@g~h", "/.well-known", "/a.b", "/:"]
        {
            assert_eq!(pattern.parse::<PathPattern>().unwrap().to_string(), pattern);
        }
    }

    proptest! {
        #[test]
        fn a_displayed_pattern_can_be_parsed(text in "(/(\\{[ab]\\}|([a.+$:(){}*?^|<>\" %é]|%[2357][0-9A-F]){1,4})){1,3}") {
            let unique = text.split('/').enumerate().map(|(place, segment)| segment.replace("{a}", &format!("{{v{place}}}")));
            if let Ok(pattern) = unique.collect::<Vec<_>>().join("/").parse::<PathPattern>() {
                prop_assert_eq!(pattern.to_string().parse(), Ok(pattern));
            }
        }
    }
}
