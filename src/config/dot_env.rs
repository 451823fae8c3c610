//! Lines of `.env`: [`read`] returns the setting of a line, or the rule that the line breaks. No message contains a
//! value, because it can be a secret.

use std::borrow::Cow;

use super::error::ConfigError;

/// Line that sets a variable.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Name of a wanted variable, and its value.
    Setting(String, String),
    /// Name of another variable.
    Other(String),
    /// Name of a wanted variable, and the rule that the line breaks.
    Malformed(String, &'static str),
}

const NO_EQUALS: &str = "no `=` follows the name";
const COLON: &str = "`:` follows the name; write NAME=value";
const NOT_EQUALS: &str = "something other than `=` follows the name; write NAME=value";
const PREFIX: &str = "only `export` may precede the name, and a name has no spaces; write NAME=value";
const NOT_UTF_8: &str = "the value has bytes that are not UTF-8";
const OPEN_QUOTE: &str = "the value has an opening quote without a closing one; a value ends in its line";
const OPEN_BRACE: &str = "the value has `${` without `}`; put a value with `$` in single quotes";
const ESCAPE: &str = "`\\` may only precede one of \\ ' \" $, a space or n; put a value with `\\` in single quotes";
const TEXT_AFTER_SPACE: &str = "text follows the space after the value; put a value with spaces in quotes";

/// Splits `.env` into its lines. Bytes that are not UTF-8 become replacement characters.
///
/// # Errors
/// The file has NUL bytes, as text in UTF-16 has.
pub(super) fn lines(content: &[u8]) -> Result<impl Iterator<Item = Cow<'_, [u8]>>, ConfigError> {
    if content.contains(&0) {
        return Err(ConfigError::new(".env is not text in UTF-8: it contains NUL bytes, as text in UTF-16 does"));
    }
    let content = content.strip_prefix("\u{feff}".as_bytes()).unwrap_or(content);
    Ok(content.split(|byte| *byte == b'\n').map(Cow::from))
}

/// Reads one line; `None` if it sets nothing. Lines that set no `wanted` variable are settings of other programs, in
/// dialects of their own, so they are never malformed.
pub(super) fn read(line: &[u8], wanted: &[String]) -> Option<Line> {
    let text = String::from_utf8_lossy(line);
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return None;
    }
    let is_wanted = |name: &str| wanted.iter().any(|wanted| wanted == name);
    let assignment =
        text.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(text).trim_start();
    let (name, rest) = assignment.split_at(assignment.find(['=', ':', ' ', '\t']).unwrap_or(assignment.len()));
    if !is_wanted(name) {
        let before = assignment.split('=').next().unwrap_or_default();
        return Some(
            match before.split_whitespace().next_back().filter(|last| before != assignment && is_wanted(last)) {
                Some(last) => Line::Malformed(last.to_owned(), PREFIX),
                None => Line::Other(name.to_owned()),
            },
        );
    }
    let rest = rest.trim_start();
    let malformed = |rule| Some(Line::Malformed(name.to_owned(), rule));
    let Some(value) = rest.strip_prefix('=') else {
        return malformed(match rest.chars().next() {
            None => NO_EQUALS,
            Some(':') => COLON,
            Some(_) => NOT_EQUALS,
        });
    };
    match dotenvy::from_read_iter(assignment.as_bytes()).next() {
        Some(Ok((_, value))) if value.contains(char::REPLACEMENT_CHARACTER) && str::from_utf8(line).is_err() => {
            malformed(NOT_UTF_8)
        }
        Some(Ok((_, value))) => Some(Line::Setting(name.to_owned(), value)),
        Some(Err(_)) | None => malformed(broken_rule(value.trim())),
    }
}

/// Returns the rule that a value breaks. The rules are those of the crate `dotenvy`, whose errors contain the value.
fn broken_rule(value: &str) -> &'static str {
    let mut quote = None;
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (Some('\''), _) => {}
            (_, '\\') if chars.next().is_some_and(|escaped| !"\\'\"$ n".contains(escaped)) => return ESCAPE,
            (_, '\\') => {}
            (_, '$') if chars.as_str().starts_with('{') && !chars.any(|c| c == '}') => return OPEN_BRACE,
            (None, '\'' | '"') => quote = Some(c),
            (None, ' ' | '\t') => return TEXT_AFTER_SPACE,
            _ => {}
        }
    }
    OPEN_QUOTE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(line: &str) -> Option<Line> {
        read(line.as_bytes(), &["COGNITO_CLIENT_ID".to_owned(), "COGNITO_CLIENT_SECRET".to_owned()])
    }

    #[test]
    fn a_line_sets_a_variable_as_dotenv_files_do() {
        for (line, value) in [
            ("COGNITO_CLIENT_ID=a", "a"),
            ("  COGNITO_CLIENT_ID = a  ", "a"),
            ("export COGNITO_CLIENT_ID=a", "a"),
            ("export\tCOGNITO_CLIENT_ID=a\r", "a"),
            ("COGNITO_CLIENT_ID='a b' # mine", "a b"),
            ("COGNITO_CLIENT_ID=\"a\\\"b\"", "a\"b"),
            ("COGNITO_CLIENT_ID=a=b", "a=b"),
            ("COGNITO_CLIENT_ID=http://a", "http://a"),
            ("COGNITO_CLIENT_ID='$a{'", "$a{"),
            ("COGNITO_CLIENT_ID=", ""),
            ("COGNITO_CLIENT_ID=# none", ""),
        ] {
            let expected = Some(Line::Setting("COGNITO_CLIENT_ID".into(), value.into()));
            assert_eq!(read_text(line), expected, "{line}");
        }
        let with_bad_comment = read(b"COGNITO_CLIENT_ID=a # caf\xe9", &["COGNITO_CLIENT_ID".into()]);
        assert_eq!(with_bad_comment, Some(Line::Setting("COGNITO_CLIENT_ID".into(), "a".into())));
    }

    #[test]
    fn lines_of_other_programs_are_never_malformed() {
        for (line, name) in [
            ("OTHER='open", "OTHER"),
            ("OTHER is not", "OTHER"),
            ("COGNITO_CLIENT_ID-OLD=a", "COGNITO_CLIENT_ID-OLD"),
            ("COGNITO_CLIENT_ID_2: a", "COGNITO_CLIENT_ID_2"),
            ("OTHER=\"COGNITO_CLIENT_ID=a\"", "OTHER"),
            ("unset COGNITO_CLIENT_ID", "unset"),
        ] {
            assert_eq!(read_text(line), Some(Line::Other(name.into())), "{line}");
        }
        for line in ["", "  \t\r", "# COGNITO_CLIENT_ID", "  #COGNITO_CLIENT_ID='a"] {
            assert_eq!(read_text(line), None, "{line}");
        }
    }

    #[test]
    fn a_malformed_line_has_the_rule_that_it_breaks() {
        for (line, rule) in [
            ("COGNITO_CLIENT_ID", NO_EQUALS),
            ("export COGNITO_CLIENT_ID", NO_EQUALS),
            ("COGNITO_CLIENT_ID: a", COLON),
            ("COGNITO_CLIENT_ID a", NOT_EQUALS),
            ("COGNITO_CLIENT_ID OLD=a", NOT_EQUALS),
            ("set COGNITO_CLIENT_ID=a", PREFIX),
            ("- COGNITO_CLIENT_ID=a", PREFIX),
            ("Export COGNITO_CLIENT_ID = a", PREFIX),
            ("export MY COGNITO_CLIENT_ID=a", PREFIX),
            ("COGNITO_CLIENT_ID='a", OPEN_QUOTE),
            ("COGNITO_CLIENT_ID=\"a", OPEN_QUOTE),
            ("COGNITO_CLIENT_ID=\"a'", OPEN_QUOTE),
            ("COGNITO_CLIENT_ID='a\\'b'", OPEN_QUOTE),
            ("COGNITO_CLIENT_ID=a b", TEXT_AFTER_SPACE),
            ("COGNITO_CLIENT_ID='a' b", TEXT_AFTER_SPACE),
            ("COGNITO_CLIENT_ID=a\\b", ESCAPE),
            ("COGNITO_CLIENT_ID=\"a\\b\"", ESCAPE),
            ("COGNITO_CLIENT_ID=${a", OPEN_BRACE),
        ] {
            let expected = Some(Line::Malformed("COGNITO_CLIENT_ID".into(), rule));
            assert_eq!(read_text(line), expected, "{line}");
        }
        let bytes = read(b"COGNITO_CLIENT_SECRET=caf\xe9", &["COGNITO_CLIENT_SECRET".into()]);
        assert_eq!(bytes, Some(Line::Malformed("COGNITO_CLIENT_SECRET".into(), NOT_UTF_8)));
    }

    #[test]
    fn a_byte_order_mark_is_ignored_and_utf_16_rejected() {
        let text: Vec<_> = lines("\u{feff}A=1\r\nB=2".as_bytes()).unwrap().collect();
        assert_eq!(text, [b"A=1\r".as_slice(), b"B=2"].map(Cow::from));
        assert!(lines(b"\xff\xfeA\x00=\x001\x00").is_err());
    }
}
