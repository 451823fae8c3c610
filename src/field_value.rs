//! White space and control characters in values of HTTP header fields.
//!
//! Only spaces and tabs are optional white space (`OWS`, RFC 9110 section 5.6.3). All code that trims a value from a
//! client uses these functions. `str::trim` also removes line breaks, form feeds, vertical tabs and Unicode white
//! space, which other parsers of the same value keep.

/// Removes spaces and tabs at both ends of a value.
pub fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Removes spaces and tabs at both ends of a string.
pub fn trim_text(value: &str) -> &str {
    value.trim_matches([' ', '\t'])
}

/// `true` if the value contains a control character other than a tab, which no field value may have (RFC 9110 section
/// 5.5).
pub fn has_controls(value: &[u8]) -> bool {
    // Without a way out of the loop, the compiler looks at many bytes at once. Every check reads a whole token here.
    value.iter().fold(false, |found, byte| found | (byte.is_ascii_control() && *byte != b'\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_spaces_and_tabs_are_trimmed() {
        for (value, trimmed) in [
            ("", ""),
            (" \t \t", ""),
            ("\t a b\tc ", "a b\tc"),
            ("\na\n", "\na\n"),
            (" \ra\r ", "\ra\r"),
            ("\x0ba\x0c", "\x0ba\x0c"),
            ("\u{a0}a\u{2003}", "\u{a0}a\u{2003}"),
        ] {
            assert_eq!(trim(value.as_bytes()), trimmed.as_bytes(), "{value:?}");
            assert_eq!(trim_text(value), trimmed, "{value:?}");
        }
        for (value, expected) in [("a\tb é", false), ("a\nb", true), ("\0", true), ("\x7f", true), ("\x0b", true)] {
            assert_eq!(has_controls(value.as_bytes()), expected, "{value:?}");
        }
    }
}
