//! CORS: the other origins whose pages may use the account API. They are listed and compared exactly. By default there
//! are none, and `*` is not accepted, because these routes handle passwords.

use std::str::FromStr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response};
use url::{Origin as UrlOrigin, Url};

/// Origin such as `https://app.example.com`, with a port if it is not the default port of the scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(HeaderValue);

impl FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('*') {
            return Err("every origin (*) is not an origin: list the ones that may");
        }
        let wrong = "not an origin such as https://app.example.com";
        let url = Url::parse(text).map_err(|_| wrong)?;
        // Only the form that browsers send can ever be equal to what they send.
        match url.origin() {
            origin @ UrlOrigin::Tuple(..) if origin.ascii_serialization() == text => {
                HeaderValue::from_str(text).map(Self).map_err(|_| wrong)
            }
            _ => Err(wrong),
        }
    }
}

impl Origin {
    /// The origin in the form that browsers send, as text.
    pub(crate) fn as_str(&self) -> &str {
        // Parsed from a text, and an origin is ASCII.
        self.0.to_str().unwrap_or_default()
    }

    /// The origin in the form that browsers send.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Headers that pages may send with browser sessions. The last one asks for tokens in the body.
const WITH_COOKIES: &str = "Authorization, Content-Type, X-Account-Tokens";

/// Headers of a response that pages may read.
const EXPOSED: HeaderValue = HeaderValue::from_static("Retry-After, X-Request-Id");

/// Maximum number of characters of an origin in the log: a scheme, a host name of 253 characters, and a port.
const MAX_SHOWN: usize = 280;

/// Other origins whose pages may use the account API.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    origins: Vec<Origin>,
    credentials: bool,
}

impl Cors {
    /// Allows these origins, without cookies.
    pub(crate) fn new(origins: Vec<Origin>) -> Self {
        Self { origins, credentials: false }
    }

    /// Also allows pages of these origins to send cookies.
    #[must_use]
    pub(crate) fn with_credentials(self) -> Self {
        Self { credentials: true, ..self }
    }

    /// Returns the origins in the form that browsers send.
    pub(crate) fn origins(&self) -> impl Iterator<Item = &[u8]> {
        self.origins.iter().map(Origin::as_bytes)
    }

    /// `true` if any origin is allowed.
    pub(crate) fn is_on(&self) -> bool {
        !self.origins.is_empty()
    }

    fn allowed(&self, headers: &HeaderMap) -> Option<&HeaderValue> {
        let mut sent = headers.get_all(header::ORIGIN).iter();
        let origin = sent.next().filter(|_| sent.next().is_none())?;
        self.origins.iter().map(|Origin(listed)| listed).find(|listed| *listed == origin)
    }

    /// `true` if the request comes from a page of a listed origin.
    pub(super) fn allows(&self, headers: &HeaderMap) -> bool {
        self.allowed(headers).is_some()
    }

    /// `true` if the request is a preflight, and CORS is enabled.
    pub(super) fn is_preflight(&self, method: &Method, headers: &HeaderMap) -> bool {
        self.is_on() && is_preflight(method, headers)
    }

    /// Adds the headers that allow a page to read the response. `methods` is set in responses to preflights.
    pub(super) fn apply<B>(&self, request: &HeaderMap, response: &mut Response<B>, methods: Option<HeaderValue>) {
        if !self.is_on() {
            return;
        }
        let headers = response.headers_mut();
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = self.allowed(request) else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let mut set = |name: HeaderName, value| drop(headers.insert(name, value));
        if self.credentials {
            set(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        match methods {
            None => set(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED),
            Some(methods) => {
                set(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
                let names = if self.credentials { WITH_COOKIES } else { "Authorization, Content-Type" };
                set(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(names));
                set(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
            }
        }
    }
}

/// Adds the headers that allow every page to read the response of a public route, without credentials. `methods` is set in
/// responses to preflights.
pub(super) fn allow_all<B>(response: &mut Response<B>, methods: Option<HeaderValue>) {
    let mut set = |name: HeaderName, value| drop(response.headers_mut().insert(name, value));
    let all = || HeaderValue::from_static("*");
    set(header::ACCESS_CONTROL_ALLOW_ORIGIN, all());
    match methods {
        None => set(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED),
        Some(methods) => {
            set(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
            set(header::ACCESS_CONTROL_ALLOW_HEADERS, all());
            set(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        }
    }
}

/// Returns the origin of a request for the log: as it was sent if it has the characters of an origin, such as
/// `http://localhost:3000`, `capacitor://localhost` or `null`.
pub(super) fn shown_origin(headers: &HeaderMap) -> &str {
    let mut sent = headers.get_all(header::ORIGIN).iter();
    let Some(origin) = sent.next() else { return "(none)" };
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:/[]+".contains(byte);
    let is_shown = |text: &&str| (1..=MAX_SHOWN).contains(&text.len()) && text.bytes().all(|byte| is_plain(&byte));
    let shown = origin.to_str().ok().filter(is_shown);
    shown.filter(|_| sent.next().is_none()).unwrap_or("(not an origin)")
}

/// `true` if the request is a preflight (Fetch standard, CORS-preflight request).
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_exact() {
        for good in ["https://app.example.com", "http://localhost:3000", "https://a.b:8443", "https://[::1]:1"] {
            assert!(good.parse::<Origin>().is_ok(), "{good}");
        }
        for bad in [
            "*",
            "",
            "null",
            "app.example.com",
            "https://app.example.com/",
            "https://app.example.com/x",
            "https://App.example.com",
            "https://app.example.com:443",
            "https://*.example.com",
            "https://a b",
            "file:///x",
            "https://u@a.b",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_what_looks_like_an_origin_is_shown() {
        let long = format!("https://{}", "a".repeat(273));
        let (none, wrong) = ("(none)", "(not an origin)");
        for (values, expected) in [
            (&[][..], none),
            (&["https://app.example.com:8443"], "https://app.example.com:8443"),
            (&["http://[::1]:3000"], "http://[::1]:3000"),
            (&["capacitor://localhost"], "capacitor://localhost"),
            (&["null"], "null"),
            (&[&long[..280]], &long[..280]),
            (&[&*long], wrong),
            (&[""], wrong),
            (&["https://a, https://b"], wrong),
            (&["https://a\" level=ERROR"], wrong),
            (&["https://user@a"], wrong),
            (&["https://a?token=x"], wrong),
            (&["https://\u{e4}"], wrong),
            (&["https://a", "https://b"], wrong),
        ] {
            let values =
                values.iter().map(|value| (header::ORIGIN, HeaderValue::from_bytes(value.as_bytes()).unwrap()));
            assert_eq!(shown_origin(&values.collect()), expected);
        }
    }
}
