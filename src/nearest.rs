//! Nearest known name for an unknown one, for "did you mean" in messages: [`nearest`].

use std::fmt;

/// Longest name that is compared, in bytes. A longer one is no typing error, and comparing costs its length times the
/// length of the known name.
const MAX_NAME_BYTES: usize = 64;
/// Shortest name that is looked for as a part of the known ones.
const MIN_PART_BYTES: usize = 3;

/// Returns the known name that `name` is most likely a typing error of; `None` if no known name is similar.
///
/// A known name is similar if at most a third of the characters differ, or at most one in short names. Two swapped
/// neighbors are one difference; upper and lower case, and `-` and `_`, are equal. If no name is similar in this sense,
/// the shortest one that has `name` as whole words is returned: `client_ids` for `client`. The first of several equally
/// similar names is returned.
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES {
        return None;
    }
    let name = plain(name);
    let length = name.chars().count();
    // Nearest similar name, and its distance.
    let mut similar: Option<(&str, usize)> = None;
    // Shortest name that has `name` as words, and its length.
    let mut with_part: Option<(&str, usize)> = None;
    for known in known {
        let plain = plain(known);
        let known_length = plain.chars().count();
        let longer = length.max(known_length);
        // A distance is at least the difference in length, and only a shorter one than the shortest so far counts.
        let most = similar.map_or((longer / 3).max(1), |(_, distance)| (longer / 3).max(1).min(distance - 1));
        if length.abs_diff(known_length) <= most {
            let distance = strsim::osa_distance(&name, &plain);
            if distance == 0 {
                return Some(known);
            }
            if distance <= most && distance < longer {
                similar = Some((known, distance));
            }
        }
        let is_part = name.len() >= MIN_PART_BYTES && has_words(&plain, &name);
        if is_part && with_part.is_none_or(|(_, shortest)| plain.len() < shortest) {
            with_part = Some((known, plain.len()));
        }
    }
    similar.or(with_part).map(|(known, _)| known)
}

/// Number of typing errors that turn one name into the other, as [`nearest`] counts them.
pub fn distance(one: &str, other: &str) -> usize {
    strsim::osa_distance(&plain(one), &plain(other))
}

/// End of a message about an unknown name: `"; did you mean leeway?"`, or nothing if no known name is similar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DidYouMean<'k>(pub Option<&'k str>);

/// Returns the end of a message about the unknown `name`. See [`nearest`].
pub fn did_you_mean<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> DidYouMean<'k> {
    DidYouMean(nearest(name, known))
}

impl fmt::Display for DidYouMean<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |known| write!(f, "; did you mean {known}?"))
    }
}

/// Returns the form of a name that is compared.
fn plain(name: &str) -> String {
    name.to_lowercase().replace('_', "-")
}

/// `true` if `part` is at the start or the end of `whole`, and a word ends or begins there. A plural is the same word.
fn has_words(whole: &str, part: &str) -> bool {
    let part = part.strip_suffix('s').unwrap_or(part);
    let after = whole.strip_prefix(part).is_some_and(|rest| rest.trim_start_matches('s').starts_with('-'));
    let before = whole.trim_end_matches('s').strip_suffix(part).is_some_and(|rest| rest.ends_with('-'));
    after || before
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: [&str; 8] =
        ["user-pool-id", "client-id", "leeway", "grpc-listen", "http-listen", "config", "cors-origins", "realm"];
    const MEMBERS: [&str; 7] = ["groups", "scopes", "client_ids", "token_use", "any", "all", "user_pool_id"];

    #[test]
    fn the_nearest_name_is_the_one_with_the_fewest_changes() {
        for (name, known, expected) in [
            ("leway", &OPTIONS[..], Some("leeway")),
            ("laeeway", &OPTIONS, Some("leeway")),
            ("elewya", &OPTIONS, Some("leeway")),
            ("user_pool_id", &OPTIONS, Some("user-pool-id")),
            ("USER-POOL-ID", &OPTIONS, Some("user-pool-id")),
            ("htpp-listen", &OPTIONS, Some("http-listen")),
            ("grpclisten", &OPTIONS, Some("grpc-listen")),
            ("client-ids", &OPTIONS, Some("client-id")),
            ("pool-id", &OPTIONS, Some("user-pool-id")),
            ("cors", &OPTIONS, Some("cors-origins")),
            ("listen", &OPTIONS, Some("grpc-listen")),
            ("group", &MEMBERS, Some("groups")),
            ("scpoes", &MEMBERS, Some("scopes")),
            ("clients", &MEMBERS, Some("client_ids")),
            ("an", &MEMBERS, Some("any")),
            ("alll", &MEMBERS, Some("all")),
            ("userPoolId", &MEMBERS, Some("user_pool_id")),
        ] {
            assert_eq!(nearest(name, known.iter().copied()), expected, "{name}");
        }
    }

    #[test]
    fn a_name_that_is_like_no_other_has_no_nearest() {
        let long = "leeway".repeat(11);
        for name in ["", "x", "è", "frobnicate", "id", "timeout", &long] {
            assert_eq!(nearest(name, OPTIONS.iter().copied()), None, "{name}");
        }
        assert_eq!(nearest("leeway", []), None);
    }

    #[test]
    fn the_question_is_the_end_of_a_message() {
        assert_eq!(format!("unknown{}", did_you_mean("leway", OPTIONS)), "unknown; did you mean leeway?");
        assert_eq!(format!("unknown{}", did_you_mean("frobnicate", OPTIONS)), "unknown");
    }
}
