//! Transport of tokens in a request and its response: in the body and the `Authorization` header, or, with
//! `--account-cookies`, in cookies that scripts cannot read.
//!
//! [`crate::session_cookie`] defines the cookies and which requests may use them. A client that is not a browser asks
//! for tokens in the body with the header [`TOKENS`]; its cookies are neither read nor written, so that a script in a
//! page cannot use the header to get a token out of a cookie. The cookies of a request with a Bearer token are not read
//! either.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use http::header::{self, AsHeaderName, HeaderMap, HeaderValue};
use serde_json::Value;

use super::answer::Reply;
use super::cors::Cors;
use super::error::{AccountError, Code};
use super::oauth::state::{LIFETIME, random};
use super::settings::Cookies;
use super::table::{EndsSession, Flow, Row};
use crate::authz::{Denial, credential};
use crate::request_id;
use crate::session_cookie::{self as session, CookieError, Provenance, SameSite, Sent, SessionCookie};

/// Header with which a client asks for tokens in the body: `X-Account-Tokens: body`.
const TOKENS: &str = "x-account-tokens";

const FETCH_SITE: &str = "sec-fetch-site";

/// Transport of tokens in one request and its response.
#[derive(Clone, Copy, Debug)]
pub(super) struct TokenTransport<'h> {
    headers: &'h HeaderMap,
    /// Settings of the cookies in the response; `None` if its tokens are in the body.
    writes: Option<Cookies>,
    /// `true` if the cookies of the request count.
    reads: bool,
}

fn values(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &[u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes)
}

impl<'h> TokenTransport<'h> {
    /// Determines the transport of a request. `cookies` are the settings of browser sessions, if they are enabled.
    pub(super) fn new(headers: &'h HeaderMap, cookies: Option<Cookies>) -> Self {
        let asks_for_body = Sent::of(values(headers, TOKENS)) == Sent::Once(b"body");
        let bearer = credential::bearer(values(headers, header::AUTHORIZATION));
        let writes = cookies.filter(|_| !asks_for_body);
        Self { headers, writes, reads: writes.is_some() && bearer == Ok(None) }
    }

    /// Transport of a navigation, which has its tokens in cookies whatever its other headers say.
    pub(super) fn of_navigation(headers: &'h HeaderMap, cookies: Cookies) -> Self {
        Self { headers, writes: Some(cookies), reads: true }
    }

    /// `true` if the cookies of the request count.
    pub(super) fn reads(&self) -> bool {
        self.reads
    }

    /// Returns the values of all `Cookie` headers of the request.
    pub(super) fn cookies(&self) -> impl Iterator<Item = &'h [u8]> {
        values(self.headers, header::COOKIE)
    }

    fn read(&self, cookie: SessionCookie) -> Result<Option<Cow<'h, str>>, Denial> {
        if self.reads { Ok(session::read(cookie, self.cookies())?) } else { Ok(None) }
    }

    /// Returns the access token in the request's cookies.
    ///
    /// # Errors
    /// [`Denial`] for cookies that do not hold exactly one token.
    pub(super) fn access_token(&self) -> Result<Option<Cow<'h, str>>, Denial> {
        self.read(SessionCookie::Access)
    }

    /// Returns the refresh token in the request's cookies.
    ///
    /// # Errors
    /// [`AccountError`] 401 for cookies that do not hold exactly one token.
    pub(super) fn refresh_token(&self) -> Result<Option<Cow<'h, str>>, AccountError> {
        self.read(SessionCookie::Refresh).map_err(|_| AccountError::new(401, Code::InvalidToken))
    }

    /// Returns the identifier of the browser that started a sign-in, from its cookie. It is empty if no cookies are
    /// used, and `None` if the browser has none.
    ///
    /// # Errors
    /// [`AccountError`] 401 for cookies that are damaged or repeated.
    pub(super) fn browser(&self) -> Result<Option<Cow<'h, str>>, AccountError> {
        if self.writes.is_none() {
            return Ok(Some(Cow::Borrowed("")));
        }
        let cookie = session::read(SessionCookie::Browser, self.cookies());
        cookie.map_err(|_| AccountError::new(401, Code::InvalidToken))
    }

    /// Returns the browser's identifier at the start of a sign-in, and the cookies to set. A browser that has started
    /// another sign-in before, in another tab, keeps its identifier, so that both can be completed.
    ///
    /// # Errors
    /// [`AccountError`] 503 if the system has no random numbers at the moment.
    pub(super) fn begin_in_browser(&self) -> Result<(String, Vec<String>), AccountError> {
        let browser = match self.browser() {
            Ok(Some(browser)) => browser.into_owned(),
            Ok(None) | Err(_) => URL_SAFE_NO_PAD.encode(random::<16>()?),
        };
        if self.writes.is_none() {
            return Ok((browser, Vec::new()));
        }
        let cookies = session::set(
            SessionCookie::Browser,
            &browser,
            Some(LIFETIME.unsigned_abs()),
            SameSite::Strict,
            self.cookies(),
        );
        Ok((browser, cookies.map_err(|_| AccountError::unavailable())?))
    }

    /// Moves the tokens of a response from its body to cookies. A new session without a refresh token deletes the
    /// refresh cookie, which belongs to another session.
    ///
    /// # Errors
    /// [`AccountError`] 502 for a token that does not fit into cookies.
    fn move_tokens(&self, reply: &mut Reply, settings: Cookies, is_new_session: bool) -> Result<(), AccountError> {
        let Some(body) = reply.body.as_object_mut() else { return Ok(()) };
        let Some(access) = body.remove("accessToken") else { return Ok(()) };
        let lifetime = body.get("expiresIn").and_then(Value::as_u64);
        body.remove("idToken");
        let refresh = body.remove("refreshToken");
        if refresh.is_none() && is_new_session {
            reply.cookies.extend(session::clear(SessionCookie::Refresh, settings.same_site, self.cookies()));
        }
        let tokens =
            [(SessionCookie::Access, Some(access), lifetime), (SessionCookie::Refresh, refresh, settings.max_age)];
        for (cookie, token, max_age) in tokens {
            let Some(token) = token else { continue };
            let token = token.as_str().unwrap_or_default();
            let set = session::set(cookie, token, max_age, settings.same_site, self.cookies());
            reply.cookies.extend(set.map_err(|error| {
                let (request_id, cookie) = (request_id::current(), cookie.name());
                tracing::error!(request_id, cookie, %error, "a token of Cognito's does not fit into cookies");
                match error {
                    CookieError::TooLarge => AccountError::new(502, Code::SessionTooLarge),
                    CookieError::Repeated | CookieError::Malformed => AccountError::upstream(),
                }
            })?);
        }
        Ok(())
    }

    /// Deletes the cookies of both tokens.
    pub(super) fn clear(&self) -> Vec<String> {
        let Some(Cookies { same_site, .. }) = self.writes else { return Vec::new() };
        let tokens = [SessionCookie::Access, SessionCookie::Refresh];
        tokens.into_iter().flat_map(|cookie| session::clear(cookie, same_site, self.cookies())).collect()
    }

    /// Rejects a request with cookies that a page of another site may have caused.
    ///
    /// # Errors
    /// [`AccountError`] 403.
    pub(super) fn reject_cross_site(&self, method: &Method, cors: &Cors) -> Result<(), AccountError> {
        let of = |name| Sent::of(values(self.headers, name));
        let request = Provenance {
            method: method.as_str().as_bytes(),
            is_upgrade: false,
            host: of(header::HOST),
            origin: of(header::ORIGIN),
            fetch_site: Sent::of(values(self.headers, FETCH_SITE)),
        };
        if self.reads && session::is_cross_site(&request, cors.origins()) {
            return Err(AccountError::new(403, Code::CrossSite));
        }
        Ok(())
    }

    /// The same for a GET that sets a cookie. Browsers send the origin of such a request, and it has to be allowed. A
    /// client that sends none is not a browser, and has no cookies that another site could change.
    ///
    /// # Errors
    /// [`AccountError`] 403.
    pub(super) fn reject_cross_site_start(&self, cors: &Cors) -> Result<(), AccountError> {
        let is_browser = [header::ORIGIN.as_str(), FETCH_SITE].iter().any(|name| self.headers.contains_key(*name));
        if is_browser { self.reject_cross_site(&Method::POST, cors) } else { Ok(()) }
    }

    /// Moves the tokens of a response to cookies, or deletes the cookies if the session has ended. Returns the values
    /// of `Set-Cookie`.
    ///
    /// The cookies are deleted once Cognito has confirmed the end, or if they hold nothing that could be signed out.
    /// They stay while Cognito is unavailable, because the browser needs them to try again.
    pub(super) fn pack(&self, row: Option<&'static Row>, result: &mut Result<Reply, AccountError>) -> Vec<String> {
        let Some(settings) = self.writes else { return Vec::new() };
        if let Ok(reply) = result
            && let is_new_session = row.is_none_or(|row| row.flow != Flow::Refresh)
            && let Err(error) = self.move_tokens(reply, settings, is_new_session)
        {
            *result = Err(error);
        }
        let has_ended = match (row.map_or(EndsSession::Never, |row| row.ends_session), &*result) {
            (EndsSession::Never, _) | (EndsSession::OnSuccess, Err(_)) => false,
            (EndsSession::OnSuccess | EndsSession::OnSuccessOrDeadToken, Ok(_)) => true,
            (EndsSession::OnSuccessOrDeadToken, Err(error)) => {
                self.reads && matches!(error.code, Code::InvalidToken | Code::ScopeMissing)
            }
        };
        let mut cookies = result.as_mut().map(|reply| std::mem::take(&mut reply.cookies)).unwrap_or_default();
        if has_ended {
            cookies.extend(self.clear());
        }
        cookies
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    #[test]
    fn cookies_are_used_unless_another_transport_is() {
        for (cookies, headers, expected) in [
            (false, &[][..], (false, false)),
            (true, &[], (true, true)),
            (true, &[("authorization", "Bearer t")], (true, false)),
            (true, &[("authorization", "Bearer")], (true, false)),
            (true, &[("authorization", "")], (true, true)),
            // Browsers add these on their own, for pages of any site.
            (true, &[("authorization", "Basic dTpw")], (true, true)),
            (true, &[("authorization", "Negotiate x")], (true, true)),
            (true, &[("x-account-tokens", "body")], (false, false)),
            (true, &[("x-account-tokens", "cookie")], (true, true)),
            (true, &[("x-account-tokens", "body"), ("x-account-tokens", "body")], (true, true)),
        ] {
            let mut sent = HeaderMap::new();
            for (name, value) in headers {
                sent.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            let transport =
                TokenTransport::new(&sent, cookies.then_some(Cookies { max_age: None, same_site: SameSite::Strict }));
            assert_eq!((transport.writes.is_some(), transport.reads), expected, "{headers:?}");
        }
    }
}
