//! A browser's session as a credential: the access token in the cookies that the account API has set
//! (`--account-cookies`).
//!
//! A cookie is sent by the browser whoever made it send the request, so it only counts where no other site's page can
//! have done so. A Bearer token is nobody's but the sender's, and goes before cookies.

use std::borrow::Cow;

use super::denial::Denial;
use super::request::RequestContext;
use crate::session_cookie::{self, CookieError, Provenance, Sent, SessionCookie};

/// What a check has to know about browser sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrowserSessions {
    /// Other origins whose pages may use them, as browsers write them (`--cors-origins`).
    pub origins: Vec<Box<[u8]>>,
}

impl BrowserSessions {
    /// The access token in a request's cookies, if there is one.
    ///
    /// # Errors
    /// [`Denial::CrossSite`]; [`Denial::MultipleCredentials`], [`Denial::MalformedToken`] and [`Denial::TokenTooLarge`] for
    /// cookies that are no one token.
    pub fn access_token<'r>(&self, request: &RequestContext<'r>) -> Result<Option<Cow<'r, str>>, Denial> {
        let token =
            session_cookie::read(SessionCookie::Access, request.header_values("cookie")).map_err(
                |error| match error {
                    CookieError::Repeated => Denial::MultipleCredentials,
                    CookieError::Malformed => Denial::MalformedToken,
                    CookieError::TooLarge => Denial::TokenTooLarge,
                },
            )?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::request::Header;

    #[test]
    fn a_session_counts_only_where_no_other_site_can_use_it() {
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
