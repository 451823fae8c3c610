//! Finds the credential of a request: a Bearer token or, without one, the access token in session cookies.
//!
//! The account API uses [`find`]. The check uses [`find_in`], which also looks in the places that the policy names.
//! Header values are bytes, because HTTP allows values that are not text
//! (RFC 9110 section 5.5).

pub(crate) mod places;

use std::borrow::Cow;

use self::places::Places;
use super::denial::Denial;
use super::request::{RequestContext, is_token};
use crate::field_value::{has_controls, trim, trim_text};
use crate::session_cookie::{self, CookieError, Provenance, Sent, SessionCookie};

/// Credential of a request.
pub(crate) struct Credential<'r> {
    /// Token, not verified.
    pub(crate) token: Cow<'r, str>,
    /// `true` if the token was in session cookies.
    pub(crate) is_session: bool,
}

/// Finds the credential of a request with these `Authorization` values.
///
/// A Bearer token takes precedence, even if it is not valid. `session` reads the access token in session cookies; it is
/// called only if there is no Bearer token.
///
/// # Errors
/// Those of [`bearer`] and of `session`.
pub(crate) fn find<'r>(
    authorization: impl Iterator<Item = &'r [u8]>,
    session: impl FnOnce() -> Result<Option<Cow<'r, str>>, Denial>,
) -> Result<Option<Credential<'r>>, Denial> {
    Ok(match bearer(authorization)? {
        Some(token) => Some(Credential { token: Cow::Borrowed(token), is_session: false }),
        None => session()?.map(|token| Credential { token, is_session: true }),
    })
}

/// As [`find`], for the credential of a request that may also be in `places`.
///
/// # Errors
/// Those of [`find`] and of [`Places::token`], and [`Denial::MultipleCredentials`] if `Authorization` has a token as well.
pub(crate) fn find_in<'r>(
    request: &RequestContext<'r>,
    places: &Places,
    session: impl FnOnce() -> Result<Option<Cow<'r, str>>, Denial>,
) -> Result<Option<Credential<'r>>, Denial> {
    let authorization = request.header_values("authorization");
    match places.token(request)? {
        None => find(authorization, session),
        Some(_) if bearer(authorization)?.is_some() => Err(Denial::MultipleCredentials),
        Some(token) => Ok(Some(Credential { token: Cow::Borrowed(token), is_session: false })),
    }
}

/// Returns the Bearer token in the `Authorization` values of a request (RFC 6750 section 2.1). `None` if there is no value,
/// and for other schemes.
///
/// Several values count as several credentials, whether the header is repeated or, as by Envoy, joined with commas.
///
/// # Errors
/// - [`Denial::MultipleCredentials`]
/// - [`Denial::MalformedToken`] for a value of any scheme that is not UTF-8 or contains a control character other than a
///   tab, and for a Bearer value with only one part between commas. [`Decoded::new`](super::token::Decoded::new) checks the
///   token itself.
pub(crate) fn bearer<'r>(authorization: impl Iterator<Item = &'r [u8]>) -> Result<Option<&'r str>, Denial> {
    let mut present = authorization.map(trim).filter(|value| !value.is_empty());
    let Some(value) = present.next() else { return Ok(None) };
    if present.next().is_some() {
        return Err(Denial::MultipleCredentials);
    }
    let value = std::str::from_utf8(value).map_err(|_| Denial::MalformedToken)?;
    if has_controls(value.as_bytes()) {
        return Err(Denial::MalformedToken);
    }
    if value.contains(',') {
        let mut parts = value.split(',').map(trim_text).filter(|part| !part.is_empty());
        // Other schemes, such as Digest, separate parameters by commas. They are not credentials for this service.
        let has_bearer = parts.clone().any(|part| bearer_token(part).is_some());
        let several = parts.nth(1).is_some();
        return match (has_bearer, several) {
            (false, _) => Ok(None),
            (true, false) => Err(Denial::MalformedToken),
            (true, true) => Err(Denial::MultipleCredentials),
        };
    }
    Ok(bearer_token(value))
}

/// Returns the text after the scheme `Bearer`, which is compared without regard to case, and the spaces after it. Any other
/// character that ends the name of the scheme counts as part of the token, which is then malformed.
fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, rest) = value.split_at_checked("bearer".len())?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    match rest.as_bytes().first() {
        None => Some(""),
        Some(b' ') => Some(rest.trim_start_matches(' ')),
        Some(byte) if is_token(&[*byte]) => None,
        Some(_) => Some(rest),
    }
}

/// Settings for session cookies as credentials (`--account-cookies`). The account API sets these cookies.
///
/// A browser sends cookies with a request regardless of the page that caused it. A session is therefore accepted only if no
/// page of another site can have caused the request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrowserSessions {
    /// Other origins whose pages may use sessions, as browsers send them in `Origin` (`--cors-origins`).
    pub(crate) origins: Vec<Box<[u8]>>,
}

impl BrowserSessions {
    /// Returns the access token in the cookies of a request, if there is one.
    ///
    /// # Errors
    /// - [`Denial::CrossSite`]
    /// - [`Denial::MultipleCredentials`], [`Denial::MalformedToken`] or [`Denial::TokenTooLarge`] if the cookies do not
    ///   contain exactly one token.
    pub(crate) fn access_token<'r>(&self, request: &RequestContext<'r>) -> Result<Option<Cow<'r, str>>, Denial> {
        let token = session_cookie::read(SessionCookie::Access, request.header_values("cookie"))?;
        if token.is_some() && self.is_cross_site(request) {
            return Err(Denial::CrossSite);
        }
        Ok(token)
    }

    fn is_cross_site(&self, request: &RequestContext<'_>) -> bool {
        let provenance = Provenance {
            method: request.method,
            is_upgrade: request.header_values("upgrade").next().is_some(),
            host: if request.host.is_empty() { Sent::Never } else { Sent::Once(request.host) },
            origin: Sent::of(request.header_values("origin")),
            fetch_site: Sent::of(request.header_values("sec-fetch-site")),
        };
        session_cookie::is_cross_site(&provenance, self.origins.iter().map(|origin| &**origin))
    }
}

impl From<CookieError> for Denial {
    fn from(error: CookieError) -> Self {
        match error {
            CookieError::Repeated => Self::MultipleCredentials,
            CookieError::Malformed => Self::MalformedToken,
            CookieError::TooLarge => Self::TokenTooLarge,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::request::Header;

    #[test]
    fn a_request_has_at_most_one_bearer_token() {
        use Denial::{MalformedToken, MultipleCredentials};
        for (values, expected) in [
            (&[][..], Ok(None)),
            (&[""], Ok(None)),
            (&["  "], Ok(None)),
            (&["Basic dTpw"], Ok(None)),
            (&["Bearerabc"], Ok(None)),
            (&["Bear"], Ok(None)),
            (&["ééé"], Ok(None)),
            (&["Digest username=\"a\", realm=\"b\""], Ok(None)),
            (&["Bearer"], Ok(Some(""))),
            (&["Bearer "], Ok(Some(""))),
            (&["Bearer a b"], Ok(Some("a b"))),
            (&["Bearer a\tb"], Ok(Some("a\tb"))),
            (&["Bearer a,"], Err(MalformedToken)),
            (&[",Bearer a"], Err(MalformedToken)),
            (&["Bearer a"], Ok(Some("a"))),
            (&["bEARER a"], Ok(Some("a"))),
            (&["  Bearer   a  "], Ok(Some("a"))),
            (&["", "Bearer a"], Ok(Some("a"))),
            (&["Bearer a,Bearer a"], Err(MultipleCredentials)),
            (&["Bearer a, Bearer b"], Err(MultipleCredentials)),
            (&["Bearer a,b"], Err(MultipleCredentials)),
            (&["Basic a, Bearer b"], Err(MultipleCredentials)),
            (&["Bearer a", "Bearer a"], Err(MultipleCredentials)),
            (&["Basic a", "Bearer b"], Err(MultipleCredentials)),
            // Only spaces and tabs are optional white space (RFC 9110 section 5.6.3).
            (&["\t Bearer  a \t"], Ok(Some("a"))),
            (&[" \t ", "Bearer a"], Ok(Some("a"))),
            (&["\tBasic dTpw\t"], Ok(None)),
            (&["\nBearer a"], Err(MalformedToken)),
            (&["Bearer a\n"], Err(MalformedToken)),
            (&["Bearer a\r\n"], Err(MalformedToken)),
            (&["Bearer a\r"], Err(MalformedToken)),
            (&["\x0cBearer a"], Err(MalformedToken)),
            (&["Bearer a\x0c"], Err(MalformedToken)),
            (&["\x0bBearer a"], Err(MalformedToken)),
            (&["Bearer \x0ba"], Err(MalformedToken)),
            (&["Bearer\na"], Err(MalformedToken)),
            (&["\n"], Err(MalformedToken)),
            (&["\x0b", "Bearer a"], Err(MultipleCredentials)),
            (&["Bearer a,\n"], Err(MalformedToken)),
            (&["\u{a0}Bearer a"], Ok(None)),
            (&["Bearer a\u{a0}"], Ok(Some("a\u{a0}"))),
            // A character that cannot be part of a scheme's name makes a malformed token, not another scheme.
            (&["Bearer\ta"], Ok(Some("\ta"))),
            (&["Bearer:a"], Ok(Some(":a"))),
        ] {
            assert_eq!(bearer(values.iter().map(|value| value.as_bytes())), expected, "{values:?}");
        }
    }

    #[test]
    fn a_session_is_rejected_if_another_site_can_have_caused_the_request() {
        let sessions = BrowserSessions { origins: vec![(*b"https://app.example").into()] };
        let cookie = ("cookie", "theme=dark; __Host-access_token=a.b.c");
        for (method, headers, expected) in [
            ("GET", &[cookie][..], Ok(Some("a.b.c"))),
            ("GET", &[("cookie", "theme=dark")], Ok(None)),
            ("GET", &[], Ok(None)),
            ("GET", &[cookie, ("origin", "https://evil.example")], Ok(Some("a.b.c"))),
            ("GET", &[cookie, ("upgrade", "websocket"), ("origin", "https://evil.example")], Err(Denial::CrossSite)),
            ("POST", &[cookie], Err(Denial::CrossSite)),
            ("POST", &[("cookie", "theme=dark")], Ok(None)),
            ("POST", &[cookie, ("origin", "https://api.example")], Ok(Some("a.b.c"))),
            ("POST", &[cookie, ("origin", "https://app.example")], Ok(Some("a.b.c"))),
            ("POST", &[cookie, ("origin", "https://evil.example")], Err(Denial::CrossSite)),
            ("POST", &[cookie, ("origin", "null")], Err(Denial::CrossSite)),
            ("POST", &[cookie, ("sec-fetch-site", "same-origin")], Ok(Some("a.b.c"))),
            ("POST", &[cookie, ("sec-fetch-site", "same-site")], Err(Denial::CrossSite)),
            ("DELETE", &[cookie, ("sec-fetch-site", "cross-site")], Err(Denial::CrossSite)),
            ("GET", &[cookie, cookie], Err(Denial::MultipleCredentials)),
        ] {
            let header = |(name, value): &(&'static str, &'static str)| Header {
                name: name.as_bytes(),
                value: value.as_bytes(),
            };
            let request = RequestContext {
                method: method.as_bytes(),
                host: b"api.example",
                headers: headers.iter().map(header).collect(),
                ..RequestContext::default()
            };
            assert_eq!(
                sessions.access_token(&request).as_ref().map(Option::as_deref),
                expected.as_ref().copied(),
                "{method} {headers:?}"
            );
        }
    }
}
