//! Text that another computer has a part in, such as an error of TLS or of a store, made fit for the log.

use std::fmt;

/// Maximum length in characters. No error that helps an operator is longer.
const MAX: usize = 200;

/// Returns the text with at most 200 characters, and with a `?` in place of each one that is not visible ASCII or a
/// space. A server can put any bytes into its certificate, the end of a connection or an error.
pub(crate) fn foreign(text: &dyn fmt::Display) -> String {
    let mut kept = Kept(String::new(), 0);
    // Stops the formatting at the limit: the text is never held as a whole.
    fmt::write(&mut kept, format_args!("{text}")).ok();
    let Kept(mut text, length) = kept;
    if length > MAX {
        text.push_str("...");
    }
    text
}

/// The text so far, and the number of its characters.
struct Kept(String, usize);

impl fmt::Write for Kept {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for c in part.chars() {
            self.1 += 1;
            if self.1 > MAX {
                return Err(fmt::Error);
            }
            self.0.push(if c == ' ' || c.is_ascii_graphic() { c } else { '?' });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_short_visible_text_remains() {
        for (text, expected) in [
            ("Connection refused (os error 111)", "Connection refused (os error 111)"),
            ("", ""),
            ("a\nb\u{1b}[31mc\u{2028}é\0\t", "a?b?[31mc????"),
        ] {
            assert_eq!(foreign(&text), expected);
        }
        let long = foreign(&"é".repeat(1_000_000));
        assert_eq!((long.len(), &long[199..]), (MAX + 3, "?..."));
        assert_eq!(foreign(&"a".repeat(MAX)), "a".repeat(MAX));
    }
}
