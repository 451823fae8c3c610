//! Sign-in by redirect (policy member `sign_in: redirect`): a browser that opens a page without a good session is sent
//! to the sign-in of the account API, which sends it back to the page afterwards.
//!
//! The request determines nothing of the address but the value of `return_to`, in which every byte that is not
//! unreserved (RFC 3986 section 2.3) is percent-encoded. Start from [`SignIn::location`].

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::credential::find_in;
use super::credential::places::Places;
use super::denial::Denial;
use super::request::RequestContext;

/// Longest path and query that is sent along, in bytes. Proxies and browsers refuse addresses that are much longer.
pub(crate) const MAX_RETURN_TO_BYTES: usize = 2_048;

/// Characters of a parameter that are percent-encoded: all but the unreserved ones (RFC 3986 section 2.3).
pub(crate) const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Sign-in of the account API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignIn {
    /// Path of the folder with all routes of the sign-in, such as `/auth/oauth/`.
    folder: Box<str>,
}

impl SignIn {
    /// Sign-in of an account API with this path prefix, such as `/auth`.
    pub fn below(prefix: &str) -> Self {
        Self { folder: format!("{prefix}/oauth/").into() }
    }

    /// Returns the address to which a browser is redirected after `denial`, or `None` if the denial stays as it is.
    ///
    /// A request is redirected if it is a navigation, has no credential but session cookies (also no malformed one), and
    /// a sign-in can help (401). The routes of the sign-in itself are never redirected, because that would not end.
    pub(crate) fn location(&self, denial: Denial, request: &RequestContext<'_>, places: &Places) -> Option<String> {
        let is_here = request.path.starts_with(self.folder.as_bytes());
        let has_no_token = || matches!(find_in(request, places, || Ok(None)), Ok(None));
        if denial.status() != 401 || is_here || !request.is_navigation() || !has_no_token() {
            return None;
        }
        let mut location = format!("{}sign-in", self.folder);
        let mut separator = "?";
        let mut add = |name: &str, value: &str| {
            location.extend([separator, name, "=", value]);
            separator = "&";
        };
        if request.path.first() == Some(&b'/') && request.path.len() <= MAX_RETURN_TO_BYTES {
            add("return_to", &percent_encode(request.path, ENCODED).to_string());
        }
        // The user may still be signed in at the hosted pages, and that sign-in is not good enough (RFC 9470 section 5).
        if matches!(denial, Denial::Revoked | Denial::AuthTooOld) {
            add("prompt", "login");
        }
        Some(location)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::Header;
    use percent_encoding::percent_decode_str;
    use proptest::prelude::*;

    const NAVIGATE: Header<'_> = Header { name: b"sec-fetch-mode", value: b"navigate" };

    fn location(denial: Denial, path: &[u8], headers: &[(&str, &str)]) -> Option<String> {
        let headers = headers.iter().map(|(name, value)| Header { name: name.as_bytes(), value: value.as_bytes() });
        let headers = std::iter::once(NAVIGATE).chain(headers).collect();
        let request = RequestContext { method: b"GET", path, headers, ..Default::default() };
        let places = Places { header: Some("x-token".parse().unwrap()), ..Places::default() };
        SignIn::below("/auth").location(denial, &request, &places)
    }

    #[test]
    fn only_a_denial_that_a_sign_in_can_help_is_redirected() {
        for &denial in Denial::ALL {
            let query = match denial {
                Denial::Revoked | Denial::AuthTooOld => "return_to=%2Fa&prompt=login",
                _ => "return_to=%2Fa",
            };
            let expected = (denial.status() == 401).then(|| format!("/auth/oauth/sign-in?{query}"));
            assert_eq!(location(denial, b"/a", &[]), expected, "{denial:?}");
        }
    }

    #[test]
    fn a_request_with_a_token_of_its_own_is_not_redirected() {
        for (name, value, redirected) in [
            ("cookie", "__Host-access_token=x; a=b", true),
            ("authorization", "Basic dTpw", true),
            ("authorization", "", true),
            ("authorization", "Bearer x", false),
            ("authorization", "bearer", false),
            ("authorization", "Bearer a, Bearer b", false),
            ("authorization", "\u{b}", false),
            ("x-token", "x", false),
        ] {
            let denial = Denial::MissingCredential;
            assert_eq!(location(denial, b"/a", &[(name, value)]).is_some(), redirected, "{name}: {value}");
        }
    }

    #[test]
    fn the_page_is_sent_along_if_it_is_a_path_that_is_not_too_long() {
        let long = |bytes: usize| [b"/", "a".repeat(bytes - 1).as_bytes()].concat();
        let path = "/auth/oauth/sign-in";
        for (page, expected) in [
            (b"/".to_vec(), Some(format!("{path}?return_to=%2F"))),
            (b"/a?b=c&d=%2F#e+f".to_vec(), Some(format!("{path}?return_to=%2Fa%3Fb%3Dc%26d%3D%252F%23e%2Bf"))),
            (b"/~-._".to_vec(), Some(format!("{path}?return_to=%2F~-._"))),
            (b"/\r\nset-cookie: a=b".to_vec(), Some(format!("{path}?return_to=%2F%0D%0Aset-cookie%3A%20a%3Db"))),
            (b"/\"'<>\\\0\xff\xc3\xa9".to_vec(), Some(format!("{path}?return_to=%2F%22%27%3C%3E%5C%00%FF%C3%A9"))),
            (b"//evil.example".to_vec(), Some(format!("{path}?return_to=%2F%2Fevil.example"))),
            (
                b"/a?return_to=/b&prompt=none".to_vec(),
                Some(format!("{path}?return_to=%2Fa%3Freturn_to%3D%2Fb%26prompt%3Dnone")),
            ),
            (long(2048), Some(format!("{path}?return_to=%2F{}", "a".repeat(2047)))),
            (long(2049), Some(path.into())),
            (b"".to_vec(), Some(path.into())),
            (b"https://evil.example/".to_vec(), Some(path.into())),
            // The routes of the sign-in never send a browser to the sign-in.
            (b"/auth/oauth/sign-in".to_vec(), None),
            (b"/auth/oauth/callback?code=x".to_vec(), None),
            (b"/auth/oauth".to_vec(), Some(format!("{path}?return_to=%2Fauth%2Foauth"))),
        ] {
            let page_text = String::from_utf8_lossy(&page);
            assert_eq!(location(Denial::Expired, &page, &[]), expected, "{page_text}");
        }
        assert_eq!(location(Denial::Revoked, &long(2049), &[]), Some(format!("{path}?prompt=login")));
    }

    proptest! {
        #[test]
        fn the_request_chooses_nothing_but_return_to(rest in prop::collection::vec(any::<u8>(), 0..2047), revoked: bool) {
            let page = [b"/", &rest[..]].concat();
            let denial = if revoked { Denial::Revoked } else { Denial::Expired };
            let location = location(denial, &page, &[]);
            if page.starts_with(b"/auth/oauth/") {
                prop_assert_eq!(location, None);
                return Ok(());
            }
            let location = location.unwrap();
            prop_assert!(location.bytes().all(|byte| byte.is_ascii_graphic()), "{}", location);
            let value = location.strip_prefix("/auth/oauth/sign-in?return_to=").unwrap();
            let value = if revoked { value.strip_suffix("&prompt=login").unwrap() } else { value };
            let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte);
            prop_assert!(value.bytes().all(unreserved), "{}", value);
            prop_assert_eq!(percent_decode_str(value).collect::<Vec<u8>>(), page);
        }
    }
}
