//! Reads the preference for HTML in `Accept` (RFC 9110 section 12.5.1).
//!
//! Reading is strict: a value that does not follow the grammar states no preference. Start from [`prefers_html`].

use super::is_token;
use crate::field_value::trim;

/// `true` if the most preferred media range of these `Accept` values is HTML: the one with the highest weight, and the
/// first of several with that weight.
///
/// Several values count as one list, in their order (RFC 9110 section 5.3).
pub(super) fn prefers_html<'h>(values: impl Iterator<Item = &'h [u8]>) -> bool {
    let mut best = (0, false);
    for value in values {
        let Some(elements) = split(value, b',') else { return false };
        for element in elements.into_iter().map(trim).filter(|element| !element.is_empty()) {
            let Some((weight, is_html)) = media_range(element) else { return false };
            if weight > best.0 {
                best = (weight, is_html);
            }
        }
    }
    best.1
}

/// Reads a media range: its weight in thousandths, and `true` if it is HTML. `None` if it is malformed.
fn media_range(element: &[u8]) -> Option<(u16, bool)> {
    let parts = split(element, b';')?;
    let (range, parameters) = parts.split_first()?;
    let range = trim(range);
    let (kind, subtype) = split_once(range, b'/')?;
    if !is_token(kind) || !is_token(subtype) || (kind == b"*" && subtype != b"*") {
        return None;
    }
    let mut given = None;
    for parameter in parameters.iter().copied().map(trim).filter(|parameter| !parameter.is_empty()) {
        let (name, value) = split_once(parameter, b'=')?;
        if name.eq_ignore_ascii_case(b"q") {
            if given.replace(weight(value)?).is_some() {
                return None;
            }
        } else if !is_token(name) || !(is_token(value) || is_quoted(value)) {
            return None;
        }
    }
    let is_html = [&b"text/html"[..], b"application/xhtml+xml"].iter().any(|html| range.eq_ignore_ascii_case(html));
    Some((given.unwrap_or(1000), is_html))
}

/// Reads a `qvalue` (RFC 9110 section 12.4.2), in thousandths.
fn weight(value: &[u8]) -> Option<u16> {
    let (whole, digits) = match value {
        [whole] => (whole, &[][..]),
        [whole, b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => (whole, digits),
        _ => return None,
    };
    let digit = |place: usize| digits.get(place).map_or(0, |digit| u16::from(digit - b'0'));
    match (whole, digit(0) * 100 + digit(1) * 10 + digit(2)) {
        (b'0', thousandths) => Some(thousandths),
        (b'1', 0) => Some(1000),
        _ => None,
    }
}

/// `true` for a quoted string (RFC 9110 section 5.6.4) without escapes. No client needs an escape in `Accept`.
fn is_quoted(value: &[u8]) -> bool {
    matches!(value, [b'"', inner @ .., b'"'] if !inner.iter().any(|byte| matches!(byte, b'"' | b'\\')))
}

/// Splits at each `separator` outside quoted strings. `None` if a quoted string does not end.
fn split(value: &[u8], separator: u8) -> Option<Vec<&[u8]>> {
    let mut is_in_quotes = false;
    let parts = value.split(|byte| {
        is_in_quotes ^= *byte == b'"';
        !is_in_quotes && *byte == separator
    });
    let parts = parts.collect();
    (!is_in_quotes).then_some(parts)
}

fn split_once(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == separator)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_highest_weight_counts_and_the_first_of_equals() {
        for (values, expected) in [
            (&[][..], false),
            (&[""], false),
            (&[" , ,"], false),
            (&["text/html"], true),
            (&["TEXT/Html"], true),
            (&["application/xhtml+xml"], true),
            (&["text/html;charset=utf-8"], true),
            (&["text/html ; level=\"1,2;3\" ;q=0.4"], true),
            (&["text/*"], false),
            (&["*/*"], false),
            (&["text/htmlx"], false),
            (&["text/html,application/json"], true),
            (&["application/json,text/html"], false),
            (&["*/*,text/html"], false),
            (&["text/html,*/*"], true),
            (&["application/json;q=0.9,text/html"], true),
            (&["text/html;q=0.9,application/json"], false),
            (&["text/html;q=0.899,application/json;q=0.9"], false),
            (&["text/html;Q=0.901,application/json;q=0.9"], true),
            (&["application/json;q=1.000,text/html;q=1"], false),
            (&["text/html;q=0"], false),
            (&["text/html;q=0.000, */*;q=0"], false),
            (&["text/html;q=0.001"], true),
            // A list may have empty elements, and parameters may be empty (RFC 9110 sections 5.6.1.2 and 5.6.6).
            (&[",text/html,,*/*;q=0.8,"], true),
            (&["text/html;;q=0.5;"], true),
            // Repeated headers are one list.
            (&["text/html", "application/json"], true),
            (&["application/json", "text/html"], false),
            (&["application/json;q=0.5", "text/html"], true),
            (&["application/json;q=0.5", "text/html", "x"], false),
            // Malformed values, in any place, state no preference.
            (&["text/html;q=2"], false),
            (&["text/html;q=1.001"], false),
            (&["text/html;q=0.1234"], false),
            (&["text/html;q=.5"], false),
            (&["text/html;q=0,5"], false),
            (&["text/html;q=-0.5"], false),
            (&["text/html;q=1e0"], false),
            (&["text/html;q= 1"], false),
            (&["text/html;q =1"], false),
            (&["text/html;q=\"1\""], false),
            (&["text/html;q="], false),
            (&["text/html;q"], false),
            (&["text/html;q=1;q=1"], false),
            (&["text/html;level"], false),
            (&["text/html;level=\"1"], false),
            (&["text/html;level=\"\\\"\""], false),
            (&["text/html;=1"], false),
            (&["text/html/x"], false),
            (&["text /html"], false),
            (&["text/html x"], false),
            (&["text/"], false),
            (&["/html"], false),
            (&["*/html"], false),
            (&["text/html, application"], false),
            (&["text/html\0"], false),
            (&["text/html\u{a0}"], false),
            (&["text/html\n"], false),
        ] {
            assert_eq!(prefers_html(values.iter().map(|value| value.as_bytes())), expected, "{values:?}");
        }
        let long = "a/b;q=0.1,".repeat(10_000) + "text/html";
        assert!(prefers_html(std::iter::once(long.as_bytes())));
    }

    proptest! {
        #[test]
        fn arbitrary_values_are_read(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4)) {
            prefers_html(values.iter().map(Vec::as_slice));
        }

        #[test]
        fn order_decides_only_among_equal_weights(html in 1_u16..1000, other in 1_u16..1000, first: bool) {
            let weighted = |kind: &str, weight: u16| format!("{kind};q=0.{weight:03}");
            let (html_range, other_range) = (weighted("text/html", html), weighted("a/b", other));
            let value = if first { format!("{html_range}, {other_range}") } else { format!("{other_range} ,{html_range}") };
            let expected = html > other || (html == other && first);
            prop_assert_eq!(prefers_html(std::iter::once(value.as_bytes())), expected);
        }
    }
}
