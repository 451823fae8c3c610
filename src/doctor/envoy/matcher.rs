//! Envoy's matchers of header names: `StringMatcher`, `ListStringMatcher` and `HeaderMutationRules`.

use regex_lite::Regex;
use serde_json::Value;

use super::{get, items};

/// `true` if one of the `patterns` of a `ListStringMatcher` matches a name in lower case, as Envoy keeps header names.
pub(super) fn any_matches(list: &Value, name: &str) -> bool {
    items(list, "patterns").any(|pattern| matches(pattern, name))
}

/// `true` if a `StringMatcher` matches. A form that is not known here counts as a match, so that it is not reported.
pub(super) fn matches(pattern: &Value, name: &str) -> bool {
    let ignores_case = get(pattern, "ignore_case").and_then(Value::as_bool) == Some(true);
    let text = |form: &str| {
        let text = get(pattern, form)?.as_str()?;
        Some(if ignores_case { text.to_ascii_lowercase() } else { text.to_owned() })
    };
    if let Some(exact) = text("exact") {
        return name == exact;
    }
    if let Some(prefix) = text("prefix") {
        return name.starts_with(&prefix);
    }
    if let Some(suffix) = text("suffix") {
        return name.ends_with(&suffix);
    }
    if let Some(part) = text("contains") {
        return name.contains(&part);
    }
    get(pattern, "safe_regex").is_none_or(|regex| is_full_match(regex, name).unwrap_or(true))
}

/// `true` if a `RegexMatcher` matches the whole name, as Envoy's do. `None` for an expression that is not known here.
fn is_full_match(matcher: &Value, name: &str) -> Option<bool> {
    let regex = get(matcher, "regex")?.as_str()?;
    Some(Regex::new(&format!("^(?:{regex})$")).ok()?.is_match(name))
}

/// `true` if `HeaderMutationRules` allow a change of a header: `disallow_expression` forbids, else `allow_expression`
/// allows, else `disallow_all` forbids.
pub(super) fn may_change(rules: &Value, name: &str) -> bool {
    let matches = |rule: &str, unknown: bool| {
        get(rules, rule).is_some_and(|matcher| is_full_match(matcher, name).unwrap_or(unknown))
    };
    let is_set = |rule: &str| get(rules, rule).and_then(Value::as_bool) == Some(true);
    if matches("disallow_expression", false) {
        return false;
    }
    matches("allow_expression", true) || !is_set("disallow_all")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn header_names_match_as_in_envoy() {
        for (pattern, expected) in [
            (json!({"exact": "x-auth-sub"}), true),
            (json!({"exact": "X-Auth-Sub"}), false),
            (json!({"exact": "X-Auth-Sub", "ignore_case": true}), true),
            (json!({"prefix": "x-auth-"}), true),
            (json!({"suffix": "-sub"}), true),
            (json!({"contains": "auth"}), true),
            (json!({"contains": "other"}), false),
            (json!({"safe_regex": {"regex": "(?i)X[-_.]auth[-_.].*"}}), true),
            (json!({"safe_regex": {"regex": "auth"}}), false),
            (json!({"safeRegex": {"regex": "x|x-auth-sub"}}), true),
            (json!({"safe_regex": {"regex": "("}}), true),
            (json!({"custom": {}}), true),
        ] {
            assert_eq!(matches(&pattern, "x-auth-sub"), expected, "{pattern}");
        }
    }

    #[test]
    fn mutation_rules_decide_as_in_envoy() {
        let ours = json!({"regex": "^(x[-_.]auth[-_.].*|authorization|cookie)$"});
        for (rules, name, expected) in [
            (json!({}), "x-tenant", true),
            (json!({"disallow_all": true}), "x-auth-sub", false),
            (json!({"disallow_all": true, "allow_expression": ours}), "x-auth-sub", true),
            (json!({"disallow_all": true, "allow_expression": ours}), "x-tenant", false),
            (json!({"allow_expression": ours}), "x-tenant", true),
            (json!({"disallow_expression": ours}), "x-auth-sub", false),
            (json!({"disallow_expression": ours, "allow_expression": ours}), "x-auth-sub", false),
        ] {
            assert_eq!(may_change(&rules, name), expected, "{rules} {name}");
        }
    }
}
