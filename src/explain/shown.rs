//! Values of a token as `explain` shows them: e-mail addresses are masked, and long values are cut.

use serde_json::{Value, json};

use crate::authz::UnixTime;
use crate::clock::format_rfc3339;

/// Longest text that is shown, in characters. A claim of an attacker's token must not fill a terminal.
const MAX_CHARS: usize = 200;
/// Most members of a list that are shown.
const MAX_MEMBERS: usize = 32;

/// Returns a claim as it may be shown.
pub(super) fn shown(value: &Value) -> Value {
    match value {
        Value::String(text) => shown_text(text).into(),
        Value::Array(members) => members.iter().take(MAX_MEMBERS).map(shown).collect(),
        Value::Object(members) => {
            members.iter().take(MAX_MEMBERS).map(|(name, value)| (shown_text(name), shown(value))).collect()
        }
        other => other.clone(),
    }
}

/// Returns a text as it may be shown. A control character becomes `\u{…}`.
pub(super) fn shown_text(text: &str) -> String {
    let masked: Vec<String> = text.split(' ').map(masked).collect();
    let mut cut = String::new();
    for (count, c) in masked.join(" ").chars().enumerate() {
        if count == MAX_CHARS {
            cut.push('…');
            break;
        }
        if c.is_control() { cut.extend(c.escape_unicode()) } else { cut.push(c) }
    }
    cut
}

/// Masks a word that may be an e-mail address, as Cognito does: `a***@e***`.
fn masked(word: &str) -> String {
    match word.split_once('@') {
        Some((user, domain)) => {
            let first = |part: &str| part.chars().next().map(String::from).unwrap_or_default();
            format!("{}***@{}***", first(user), first(domain))
        }
        None => word.to_owned(),
    }
}

/// Returns a time as text, with its distance from `now`.
pub(super) fn time(value: UnixTime, now: UnixTime) -> Value {
    let distance = match now.saturating_sub(value) {
        ago @ 0.. => format!("{ago} s ago"),
        ahead => format!("in {} s", ahead.saturating_neg()),
    };
    json!(format!("{} ({distance})", format_rfc3339(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_masked_and_long_values_cut() {
        let found = shown(&json!({"email": "alice@example.com", "names": ["x bob@b.test y", "é"], "n": 7}));
        assert_eq!(found, json!({"email": "a***@e***", "names": ["x b***@b*** y", "é"], "n": 7}));
        assert_eq!(shown_text(&"a".repeat(300)).chars().count(), MAX_CHARS + 1);
        assert_eq!(shown(&json!(vec![1; 100])).as_array().unwrap().len(), MAX_MEMBERS);
        assert_eq!(shown_text("\u{1b}[2J\n"), "\\u{1b}[2J\\u{a}");
    }

    #[test]
    fn a_time_has_its_distance() {
        assert_eq!(time(1_800_000_000, 1_800_000_060), "2027-01-15T08:00:00Z (60 s ago)");
        assert_eq!(time(1_800_000_000, 1_799_999_999), "2027-01-15T08:00:00Z (in 1 s)");
    }
}
