//! The page that a sign-in returns to: a path and query of this origin. Everything else becomes `/`, so that no link can
//! send a user to another site after a sign-in, or end the new session.

use percent_encoding::{percent_decode_str, utf8_percent_encode};
use url::Url;

use crate::account::settings::Prefix;
use crate::authz::sign_in::{ENCODED, MAX_RETURN_TO_BYTES};

/// Path and query of this origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReturnTo(Box<str>);

impl ReturnTo {
    /// Returns `text` if it is a path of this origin that a sign-in may return to, else `/`.
    pub(super) fn parse(text: &str, prefix: &Prefix) -> Self {
        let is_safe = is_own_path(text) && !is_of_sign_in(text, prefix);
        Self(if is_safe { text.into() } else { "/".into() })
    }

    /// The path and query, for `Location`.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The value as a parameter of a query.
    pub(super) fn encoded(&self) -> String {
        utf8_percent_encode(&self.0, ENCODED).to_string()
    }
}

/// `true` for an absolute path that every browser reads as a path. Browsers read `//host` as another host, treat a
/// backslash as a slash, and drop tabs and line breaks (WHATWG URL standard).
fn is_own_path(text: &str) -> bool {
    let path = text.split('?').next().unwrap_or_default();
    text.len() <= MAX_RETURN_TO_BYTES
        && text.starts_with('/')
        && !path.contains("//")
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\#".contains(&byte))
}

/// `true` for the routes of the sign-in itself, such as the sign-out, in any spelling that a proxy could normalize.
fn is_of_sign_in(text: &str, prefix: &Prefix) -> bool {
    let routes = format!("{}/oauth/", prefix.as_str());
    let mut path = text.split('?').next().unwrap_or_default().to_owned();
    // Each round removes dot segments, double slashes and one level of percent-encoding. It makes the path shorter.
    loop {
        // Without a query, a question mark that was encoded stays part of the path.
        let url = Url::parse("https://own.invalid").map(|mut url| {
            url.set_path(&path);
            url
        });
        let Ok(url) = url else { return true };
        let plain = percent_decode_str(url.path()).decode_utf8_lossy().replace("//", "/");
        let start = plain.get(..routes.len()).unwrap_or(&plain);
        if start.eq_ignore_ascii_case(&routes) || plain.eq_ignore_ascii_case(routes.trim_end_matches('/')) {
            return true;
        }
        if plain.len() >= path.len() {
            return false;
        }
        path = plain;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> String {
        ReturnTo::parse(text, &"/auth".parse().unwrap()).as_str().to_owned()
    }

    #[test]
    fn paths_of_this_origin_are_kept() {
        for path in [
            "/",
            "/orders",
            "/orders?state=open&page=2",
            "/search?q=a%20b%2F%2Fc",
            "/login?next=https://other.example//x",
            "/a/../b",
            "/@x",
            "/auth/openapi.json",
            "/auth/oauthx",
            "/authors/oauth/",
            "/caf%C3%A9",
        ] {
            assert_eq!(parsed(path), path);
        }
        let longest = format!("/{}", "a".repeat(MAX_RETURN_TO_BYTES - 1));
        assert_eq!(parsed(&longest), longest);
        assert_eq!(parsed(&format!("{longest}a")), "/");
        assert_eq!(ReturnTo::parse("/a?b=c d", &"/auth".parse().unwrap()).encoded(), "%2F");
        assert_eq!(ReturnTo::parse("/a-b_c.d~?e=f", &"/auth".parse().unwrap()).encoded(), "%2Fa-b_c.d~%3Fe%3Df");
    }

    #[test]
    fn routes_of_the_sign_in_are_rejected_in_every_spelling() {
        for path in [
            "/auth/oauth/sign-out",
            "/auth/oauth/sign-out?x=y",
            "/auth/oauth/",
            "/auth/oauth",
            "/Auth/OAuth/sign-out",
            "/auth/./oauth/sign-out",
            "/x/../auth/oauth/sign-out",
            "/auth/x/%2e%2e/oauth/sign-out",
            "/auth/%6fauth/sign-out",
            "/%61uth/oauth/sign-out",
            "/auth%2foauth%2fsign-out",
            "/auth%5coauth%5csign-out",
            "/auth/%256fauth/sign-out",
            "/auth/x%252f..%252foauth/sign-out",
            "/auth%2f%2f%2foauth/sign-out",
        ] {
            assert_eq!(parsed(path), "/", "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_browser_stays_at_the_origin(text in "[/\\\\.:@?#%a-c0-9\\t\\n é-]{0,24}", host in "[a-z]{1,8}\\.example") {
            let origin = Url::parse(&format!("https://{host}/x/y?z")).unwrap();
            let target = origin.join(&parsed(&text)).unwrap();
            prop_assert_eq!(target.origin(), origin.origin());
            prop_assert!(target.username().is_empty() && target.fragment().is_none());
            prop_assert_eq!(parsed(&parsed(&text)), parsed(&text));
        }
    }
}
