//! Request paths in plain form, which every upstream reads in the same way ([`PlainPath::new`]).
//!
//! A rule that protects `/admin` is useless if `/%61dmin`, `/x/../admin` or `//admin` reach the same resource under another
//! rule. Upstreams disagree about the meaning of such paths. They are therefore rejected, not normalized.

use std::borrow::Cow;

/// Path in plain form, percent-decoded, without its query.
///
/// Decoding does not change the meaning, because `/`, `.`, `\` and other characters with a meaning must not be encoded.
pub(crate) struct PlainPath<'p> {
    decoded: Cow<'p, str>,
}

impl<'p> PlainPath<'p> {
    /// Parses the target of a request: a path, and a query, which is ignored (RFC 9112 section 3.2.1). `None` if the path is
    /// not in plain form:
    /// - It does not begin with `/` (`*`, an authority, a whole URL), or it contains `#`.
    /// - It has a segment `.` or `..`, or an empty segment (`//`) other than the last.
    /// - It contains `\`, `;`, a space, a control character, or bytes outside ASCII.
    /// - An escape is not two hexadecimal digits.
    /// - An escape stands for `/`, `\`, `;`, `?`, `#`, an unreserved character (RFC 3986 section 2.3), or a `%` that begins
    ///   another escape (`%2541`, `%25u0041`).
    /// - Its escapes do not decode to UTF-8 (overlong forms are not UTF-8), or they decode to a control character or a line
    ///   separator (U+0000 to U+001F, U+007F to U+009F, U+2028, U+2029).
    pub(crate) fn new(target: &'p [u8]) -> Option<Self> {
        let path = target.split(|byte| *byte == b'?').next()?;
        let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b';' | b'#');
        if path.first() != Some(&b'/') || !path.iter().all(plain) {
            return None;
        }
        let text = std::str::from_utf8(path).ok()?;
        let decoded = if text.contains('%') { Cow::Owned(decode(text)?) } else { Cow::Borrowed(text) };
        let mut segments = decoded.split('/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            let is_last = segments.peek().is_none();
            if matches!(segment, "." | "..") || (segment.is_empty() && !is_last) {
                return None;
            }
        }
        Some(Self { decoded })
    }

    /// Segments: the text after each `/`. `/` has one segment, which is empty; `/a/` has two.
    pub(crate) fn segments(&self) -> impl Iterator<Item = &str> + Clone {
        self.decoded.split('/').skip(1)
    }

    /// Returns the segment at this position, from 0.
    pub(crate) fn segment(&self, position: usize) -> Option<&str> {
        self.segments().nth(position)
    }
}

/// Decodes the escapes. `None` if one of them is not allowed in plain form.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let byte = hex(digits)?;
        let hides = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/' | b'\\' | b';' | b'?' | b'#');
        if hides || (byte == b'%' && decodes_again(rest)) {
            return None;
        }
        bytes.push(byte);
        bytes.extend_from_slice(rest.as_bytes());
    }
    // `char::is_control` is C0, DEL and C1.
    let ends = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    String::from_utf8(bytes).ok().filter(|decoded| !decoded.contains(ends))
}

/// `true` if a `%` followed by `rest` is an escape to an upstream that decodes twice: `%41`, or `%u0041`, which IIS and
/// JavaScript's `unescape` decode. `%25%34%31` is rejected elsewhere, because its digits are encoded.
fn decodes_again(rest: &str) -> bool {
    let is_hex = |text: &str, digits: usize| text.get(..digits).is_some_and(|digits| hex(digits).is_some());
    is_hex(rest, 2) || rest.strip_prefix(['u', 'U']).is_some_and(|rest| is_hex(rest, 1))
}

fn hex(digits: &str) -> Option<u8> {
    // `from_str_radix` would accept a sign.
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// Folds text to lower case, for comparison without regard to case.
pub(crate) fn fold(text: &str) -> Cow<'_, str> {
    if text.chars().any(|c| c.to_lowercase().ne([c])) { Cow::Owned(text.to_lowercase()) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{codes, table};
    use proptest::prelude::*;

    #[test]
    fn plain_paths_are_accepted() {
        for (target, segments) in [
            ("/", &[""][..]),
            ("/a", &["a"]),
            ("/a/", &["a", ""]),
            ("/a?b=../c;d", &["a"]),
            ("/a?", &["a"]),
            ("/?/..", &[""]),
            ("/a.b/...", &["a.b", "..."]),
            ("/.well-known/x", &[".well-known", "x"]),
            ("/caf%C3%A9/%20x", &["café", " x"]),
            ("/a%40b/c@d:e,f+g=h&i!j$k'l(m)n*o~p", &["a@b", "c@d:e,f+g=h&i!j$k'l(m)n*o~p"]),
            ("/100%25", &["100%"]),
            ("/100%25/ab", &["100%", "ab"]),
            ("/100%25-1", &["100%-1"]),
            ("/100%25us", &["100%us"]),
            ("/a%2Ab*", &["a*b*"]),
            ("/a./b%20/%C2%A0", &["a.", "b ", "\u{a0}"]),
            ("/[id]|{x}^`\"<>", &["[id]|{x}^`\"<>"]),
        ] {
            let path = PlainPath::new(target.as_bytes()).unwrap_or_else(|| panic!("{target}"));
            assert_eq!(path.segments().collect::<Vec<_>>(), segments, "{target}");
        }
    }

    /// Reads the table in `docs/security.md`, in which symbols stand for control characters.
    #[test]
    fn ambiguous_paths_are_rejected() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md")).unwrap();
        let shown = |text: &str| text.replace('\u{2400}', "\0").replace('\u{2409}', "\t").replace('\u{2421}', "\u{7f}");
        let rows = table(&page, "### Paths that are refused");
        let targets: Vec<String> = rows.iter().flat_map(|row| codes(&row[0])).map(shown).collect();
        assert!(targets.len() >= 50, "{targets:?}");
        for target in targets {
            assert!(PlainPath::new(target.as_bytes()).is_none(), "{target:?}");
        }
        assert!(PlainPath::new(b"").is_none());
        assert!(PlainPath::new(b"/\xff").is_none());
    }

    /// Resolves a path as browsers and servers do: without query, parameters, empty and dot segments.
    fn resolved(path: &str) -> String {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let mut resolved: Vec<&str> = Vec::new();
        for segment in path.split(['/', '\\']) {
            match segment {
                "" | "." => {}
                ".." => drop(resolved.pop()),
                other => resolved.push(other.split(';').next().unwrap_or_default()),
            }
        }
        resolved.join("/")
    }

    /// Decodes all escapes once, as lenient upstreams do.
    fn decoded_leniently(path: &str) -> String {
        let mut bytes = Vec::new();
        let mut rest = path.as_bytes();
        while let Some((first, tail)) = rest.split_first() {
            let digits = tail.get(..2).and_then(|digits| hex(std::str::from_utf8(digits).ok()?));
            // IIS and JavaScript's `unescape` decode this form.
            let wide = tail.get(..5).and_then(|escape| std::str::from_utf8(escape).ok());
            let wide = wide.and_then(|escape| u32::from_str_radix(escape.strip_prefix(['u', 'U'])?, 16).ok());
            (bytes, rest) = match (first, digits) {
                (b'%', Some(byte)) => ([bytes, vec![byte]].concat(), &tail[2..]),
                (b'%', None) if let Some(c) = wide.and_then(char::from_u32) => {
                    ([bytes, c.to_string().into_bytes()].concat(), &tail[5..])
                }
                (byte, _) => ([bytes, vec![*byte]].concat(), tail),
            };
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        /// An upstream that decodes twice, or resolves dots before or after decoding, sees the same segments.
        #[test]
        fn every_upstream_reads_a_plain_path_in_the_same_way(path in "(/|\\.|%2[eEfF5]|%5[cC]|%6[1-3]|%3[bBfF]|%23|%C3%A9|%25|%|u002[ef]|u00|[a-c2-6]|;|\\\\){1,10}") {
            let path = format!("/{path}");
            if let Some(plain) = PlainPath::new(path.as_bytes()) {
                let ours: Vec<&str> = plain.segments().filter(|segment| !segment.is_empty()).collect();
                let once = decoded_leniently(&path);
                prop_assert_eq!(&resolved(&once), &ours.join("/"));
                prop_assert_eq!(&decoded_leniently(&resolved(&path)), &ours.join("/"));
                prop_assert_eq!(&resolved(&decoded_leniently(&once)), &ours.join("/"));
            }
        }

        #[test]
        fn any_bytes_can_be_parsed(target in prop::collection::vec(any::<u8>(), 0..30)) {
            drop(PlainPath::new(&target));
        }
    }

    #[test]
    fn text_is_folded_to_lower_case() {
        for (text, folded) in [("admin", "admin"), ("Admin", "admin"), ("\u{c9}", "\u{e9}"), ("\u{212a}", "k")] {
            assert_eq!(fold(text), folded);
        }
    }
}
