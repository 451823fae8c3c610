//! Which web pages of other origins may use the account API (CORS): those that are listed, compared exactly. None by
//! default, and never all of them: what is behind these routes is worth a password.

use std::str::FromStr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response};
use url::{Origin as UrlOrigin, Url};

/// An origin: `https://app.example.com`, with a port if it is not the usual one.
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
        // As browsers write it, or it would never be equal to what they send.
        match url.origin() {
            origin @ UrlOrigin::Tuple(..) if origin.ascii_serialization() == text => {
                HeaderValue::from_str(text).map(Self).map_err(|_| wrong)
            }
            _ => Err(wrong),
        }
    }
}

impl Origin {
    /// As browsers write it.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Headers that pages may send where sessions are in cookies: with the last one they ask for tokens instead.
const WITH_COOKIES: &str = "Authorization, Content-Type, X-Account-Tokens";

/// The origins that may.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    origins: Vec<Origin>,
    credentials: bool,
}

impl Cors {
    /// These origins.
    pub fn new(origins: Vec<Origin>) -> Self {
        Self { origins, credentials: false }
    }

    /// The same, and their pages may have the browser send its cookies along.
    #[must_use]
    pub fn with_credentials(self) -> Self {
        Self { credentials: true, ..self }
    }

    /// The origins, as browsers write them.
    pub fn origins(&self) -> impl Iterator<Item = &[u8]> {
        self.origins.iter().map(Origin::as_bytes)
    }

    /// Whether there are any.
    pub fn is_on(&self) -> bool {
        !self.origins.is_empty()
    }

    fn allowed(&self, headers: &HeaderMap) -> Option<&HeaderValue> {
        let mut sent = headers.get_all(header::ORIGIN).iter();
        let origin = sent.next().filter(|_| sent.next().is_none())?;
        self.origins.iter().map(|Origin(listed)| listed).find(|listed| *listed == origin)
    }

    /// Whether a request asks beforehand what it may do.
    pub fn is_preflight(&self, method: &Method, headers: &HeaderMap) -> bool {
        self.is_on() && method == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Tells the browser that its page may read the answer, if it may. `methods` is set for an answer to a preflight.
    pub fn apply<B>(&self, request: &HeaderMap, response: &mut Response<B>, methods: Option<HeaderValue>) {
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
            None => set(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After")),
            Some(methods) => {
                set(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
                let names = if self.credentials { WITH_COOKIES } else { "Authorization, Content-Type" };
                set(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(names));
                set(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
            }
        }
    }
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
}
