//! How a request and its answer carry tokens: in the body and the `Authorization` header, or, with `--account-cookies`, in
//! cookies that scripts cannot read.
//!
//! What the cookies are and who may use them is for [`crate::session_cookie`] to say; here is when. A client that is no
//! browser asks for tokens in the body with a header, [`TOKENS`]: then its cookies are neither read nor written, so that
//! a script in a page gets no token out of a cookie by it. A request with a Bearer token has no cookies read, either.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use http::header::{self, AsHeaderName, HeaderMap, HeaderValue};
use serde_json::Value;

use super::error::{AccountError, Code};
use super::oauth::{random, state::LIFETIME};
use super::table::{Flow, Row};
use super::{Account, Reply};
use crate::authz::{Denial, credential};
use crate::cognito::Operation;
use crate::session_cookie::{self as session, Provenance, Sent, SessionCookie};

/// The header with which a client asks for tokens in the body: `X-Account-Tokens: body`.
pub const TOKENS: &str = "x-account-tokens";

const FETCH_SITE: &str = "sec-fetch-site";

/// Settings of browser sessions.
#[derive(Clone, Copy, Debug)]
pub struct Cookies {
    /// Seconds that the refresh cookie stays; as long as the browser if that is not set.
    pub max_age: Option<u64>,
}

/// How one request and its answer carry tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Carrier<'h> {
    headers: &'h HeaderMap,
    /// Whether the answer has its tokens in cookies.
    writes: bool,
    /// Whether the cookies of the request count.
    reads: bool,
}

fn values(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &[u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes)
}

impl<'h> Carrier<'h> {
    fn new(headers: &'h HeaderMap, cookies: bool) -> Self {
        let asks_for_body = Sent::of(values(headers, TOKENS)) == Sent::Once(b"body");
        let bearer = credential::bearer(values(headers, header::AUTHORIZATION));
        let writes = cookies && !asks_for_body;
        Self { headers, writes, reads: writes && bearer == Ok(None) }
    }

    /// Whether the cookies of the request count.
    pub(super) fn reads(&self) -> bool {
        self.reads
    }

    fn cookies(&self) -> impl Iterator<Item = &'h [u8]> {
        values(self.headers, header::COOKIE)
    }

    fn read(&self, cookie: SessionCookie) -> Result<Option<Cow<'h, str>>, Denial> {
        if self.reads { Ok(session::read(cookie, self.cookies())?) } else { Ok(None) }
    }

    /// The access token in the request's cookies.
    ///
    /// # Errors
    /// [`Denial`] for cookies that do not hold exactly one token.
    pub(super) fn access_token(&self) -> Result<Option<Cow<'h, str>>, Denial> {
        self.read(SessionCookie::Access)
    }

    /// The refresh token in the request's cookies.
    ///
    /// # Errors
    /// [`AccountError`] 401 for cookies that make no sense.
    pub(super) fn refresh_token(&self) -> Result<Option<Cow<'h, str>>, AccountError> {
        self.read(SessionCookie::Refresh).map_err(|_| AccountError::new(401, Code::InvalidToken))
    }

    /// Which browser began a sign-in, as its cookie says: empty where no cookies are used, `None` if it has none.
    ///
    /// # Errors
    /// [`AccountError`] 401 for cookies that make no sense.
    pub(super) fn browser(&self) -> Result<Option<Cow<'h, str>>, AccountError> {
        if !self.writes {
            return Ok(Some(Cow::Borrowed("")));
        }
        let cookie = session::read(SessionCookie::Browser, self.cookies());
        cookie.map_err(|_| AccountError::new(401, Code::InvalidToken))
    }

    /// The same at the beginning of a sign-in, with the cookies to set. A browser that has begun one before, in another
    /// tab, keeps its number, so that both can be finished.
    ///
    /// # Errors
    /// [`AccountError`] 503: the system has no random numbers at the moment.
    pub(super) fn begin_in_browser(&self) -> Result<(String, Vec<String>), AccountError> {
        let browser = match self.browser() {
            Ok(Some(browser)) => browser.into_owned(),
            Ok(None) | Err(_) => URL_SAFE_NO_PAD.encode(random::<16>()?),
        };
        if !self.writes {
            return Ok((browser, Vec::new()));
        }
        let cookies = session::set(SessionCookie::Browser, &browser, Some(LIFETIME.unsigned_abs()), self.cookies());
        Ok((browser, cookies.map_err(|_| AccountError::unavailable())?))
    }

    /// Cookies instead of the tokens in an answer.
    ///
    /// # Errors
    /// [`AccountError`] 502 for a token that no cookie can hold.
    fn pack(&self, reply: &mut Reply, settings: Cookies) -> Result<(), AccountError> {
        let Some(body) = reply.body.as_object_mut() else { return Ok(()) };
        let Some(access) = body.remove("accessToken") else { return Ok(()) };
        let lives = body.get("expiresIn").and_then(Value::as_u64);
        body.remove("idToken");
        let refresh = body.remove("refreshToken");
        let tokens =
            [(SessionCookie::Access, Some(access), lives), (SessionCookie::Refresh, refresh, settings.max_age)];
        for (cookie, token, max_age) in tokens {
            let Some(token) = token else { continue };
            let set = session::set(cookie, token.as_str().unwrap_or_default(), max_age, self.cookies());
            reply.cookies.extend(set.map_err(|error| {
                tracing::error!(cookie = cookie.name(), %error, "a token of Cognito's does not fit into cookies");
                AccountError::upstream()
            })?);
        }
        Ok(())
    }

    /// Takes both tokens away.
    fn clear(&self) -> impl Iterator<Item = String> {
        [SessionCookie::Access, SessionCookie::Refresh]
            .into_iter()
            .flat_map(|cookie| session::clear(cookie, self.cookies()))
    }
}

impl Account {
    /// How this request carries tokens.
    pub(super) fn carrier<'h>(&self, headers: &'h HeaderMap) -> Carrier<'h> {
        Carrier::new(headers, self.settings.cookies.is_some())
    }

    /// Refuses a request with cookies that may be the doing of another site's page.
    ///
    /// # Errors
    /// [`AccountError`] 403.
    pub(super) fn guard(&self, carrier: &Carrier<'_>, method: &Method) -> Result<(), AccountError> {
        let of = |name| Sent::of(values(carrier.headers, name));
        let request = Provenance {
            method: method.as_str().as_bytes(),
            is_upgrade: false,
            host: of(header::HOST),
            origin: of(header::ORIGIN),
            fetch_site: Sent::of(values(carrier.headers, FETCH_SITE)),
        };
        if carrier.reads && session::is_cross_site(&request, self.settings.cors.origins()) {
            return Err(AccountError::new(403, Code::CrossSite));
        }
        Ok(())
    }

    /// The same for a GET that sets a cookie: a browser says where such a request comes from, and has to say something
    /// good. Who says nothing is none, and has no cookies that another site could change.
    ///
    /// # Errors
    /// [`AccountError`] 403.
    pub(super) fn guard_beginning(&self, carrier: &Carrier<'_>) -> Result<(), AccountError> {
        let is_browser = [header::ORIGIN.as_str(), FETCH_SITE].iter().any(|name| carrier.headers.contains_key(*name));
        if is_browser { self.guard(carrier, &Method::POST) } else { Ok(()) }
    }

    /// Puts the tokens of an answer into cookies, or takes them away when somebody has signed out; what to set.
    ///
    /// What is over is taken away when Cognito has said so, or when there is nothing in the cookies that could be signed
    /// out. It stays while Cognito does not answer: who tries again needs it.
    pub(super) fn pack(
        &self,
        carrier: &Carrier<'_>,
        row: Option<&'static Row>,
        result: &mut Result<Reply, AccountError>,
    ) -> Vec<String> {
        let Some(settings) = self.settings.cookies.filter(|_| carrier.writes) else { return Vec::new() };
        if let Ok(reply) = result
            && let Err(error) = carrier.pack(reply, settings)
        {
            *result = Err(error);
        }
        let is_over = match result {
            Ok(_) if row.is_some_and(|row| row.operation == Operation::DeleteUser) => true,
            _ if row.is_none_or(|row| row.flow != Flow::Logout) => false,
            Ok(_) => true,
            Err(error) => carrier.reads && matches!(error.code, Code::InvalidToken | Code::ScopeMissing),
        };
        let mut cookies = result.as_mut().map(|reply| std::mem::take(&mut reply.cookies)).unwrap_or_default();
        if is_over {
            cookies.extend(carrier.clear());
        }
        cookies
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderName;

    #[test]
    fn cookies_count_when_nothing_else_does() {
        for (cookies, headers, expected) in [
            (false, &[][..], (false, false)),
            (true, &[], (true, true)),
            (true, &[("authorization", "Bearer t")], (true, false)),
            (true, &[("authorization", "Bearer")], (true, false)),
            (true, &[("authorization", "")], (true, true)),
            // Browsers add these by themselves, for pages of any site.
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
            let carrier = Carrier::new(&sent, cookies);
            assert_eq!((carrier.writes, carrier.reads), expected, "{headers:?}");
        }
    }
}
