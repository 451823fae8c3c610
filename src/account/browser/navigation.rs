//! Requests that the sign-in by redirect answers: navigations, and the origin of the page that caused one.

use http::Method;
use http::header::{self, HeaderMap, HeaderValue};

use crate::session_cookie::{Provenance, Sent, is_cross_site};

fn sent<'h>(headers: &'h HeaderMap, name: &str) -> Sent<'h> {
    Sent::of(headers.get_all(name).iter().map(HeaderValue::as_bytes))
}

/// `true` unless the browser says that the request is not a navigation (Fetch Metadata), or that the user may never see
/// the page (`Sec-Purpose: prefetch`). Old browsers and other clients say nothing.
pub(super) fn is_navigation(headers: &HeaderMap) -> bool {
    let is_guess = |name: &str| {
        let mut values = headers.get_all(name).iter();
        values.any(|value| value.as_bytes().windows(8).any(|part| part.eq_ignore_ascii_case(b"prefetch")))
    };
    let mode = sent(headers, "sec-fetch-mode");
    [Sent::Never, Sent::Once(b"navigate")].contains(&mode) && !["sec-purpose", "purpose"].into_iter().any(is_guess)
}

/// `true` if a page of another origin may have caused the navigation. `own` is the origin of the service if a proxy
/// rewrites the host. No other origin is listed here: a form of another origin cannot be told from a forged one.
///
/// For a GET, the browser says who caused it (`Sec-Fetch-Site`): a page of the same origin, or the user (`none`). Old
/// browsers and other clients say nothing, and count as the user. For another method, the `Origin` counts as everywhere
/// else.
pub(super) fn is_of_other_site(method: &Method, headers: &HeaderMap, own: Option<&[u8]>) -> bool {
    let fetch_site = sent(headers, "sec-fetch-site");
    if [Method::GET, Method::HEAD].contains(method) {
        return ![Sent::Never, Sent::Once(b"same-origin"), Sent::Once(b"none")].contains(&fetch_site);
    }
    let request = Provenance {
        method: method.as_str().as_bytes(),
        is_upgrade: false,
        host: sent(headers, header::HOST.as_str()),
        origin: sent(headers, header::ORIGIN.as_str()),
        fetch_site,
    };
    is_cross_site(&request, own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn requests_that_are_no_navigations_are_recognized() {
        for (pairs, expected) in [
            (&[][..], true),
            (&[("sec-fetch-mode", "navigate")], true),
            (&[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")], true),
            (&[("sec-fetch-mode", "cors")], false),
            (&[("sec-fetch-mode", "no-cors")], false),
            (&[("sec-fetch-mode", "same-origin")], false),
            (&[("sec-fetch-mode", "websocket")], false),
            (&[("sec-fetch-mode", "Navigate")], false),
            (&[("sec-fetch-mode", "")], false),
            (&[("sec-fetch-mode", "navigate"), ("sec-fetch-mode", "navigate")], false),
            (&[("sec-fetch-mode", "navigate"), ("sec-purpose", "prefetch")], false),
            (&[("sec-fetch-mode", "navigate"), ("sec-purpose", "prefetch;prerender")], false),
            (&[("purpose", "Prefetch")], false),
        ] {
            assert_eq!(is_navigation(&headers(pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn only_the_own_origin_and_the_user_cause_a_navigation_of_ours() {
        let own = [("host", "app.example.com"), ("origin", "https://app.example.com")];
        for (method, pairs, expected) in [
            (Method::GET, &[("sec-fetch-site", "same-origin")][..], false),
            (Method::GET, &[("sec-fetch-site", "none")], false),
            (Method::GET, &[], false),
            (Method::GET, &[("sec-fetch-site", "same-site")], true),
            (Method::GET, &[("sec-fetch-site", "cross-site")], true),
            (Method::GET, &[("sec-fetch-site", "none"), ("sec-fetch-site", "none")], true),
            (Method::POST, &own, false),
            (Method::POST, &own[..1], true),
            (Method::POST, &[own[0], ("origin", "https://api.example.com"), ("sec-fetch-site", "same-site")], true),
            (Method::POST, &[own[0], ("origin", "null"), ("sec-fetch-site", "cross-site")], true),
        ] {
            assert_eq!(is_of_other_site(&method, &headers(pairs), None), expected, "{method} {pairs:?}");
        }
    }
}
