//! Client of a scenario.

use std::cell::RefCell;
use std::collections::BTreeSet;

use http::HeaderMap;
use reqwest::Method;
use serde_json::Value;
use url::Url;

/// Content type of a request.
const JSON: (&str, &str) = ("content-type", "application/json");
/// Header of a client that keeps its tokens itself.
const IN_BODY: (&str, &str) = ("x-account-tokens", "body");

/// Members of requests and responses whose values come from a closed list, or are made by this service.
const HARMLESS: &str = "challenge tokenType medium attribute scope message request_id availableChallenges id kind causes pool \
                        reason level configured redirectUri";
/// Shortest text that is looked for. A shorter one occurs by chance.
const SHORTEST: usize = 6;

/// Client that keeps what it sends and receives.
pub(super) struct Wire {
    http: reqwest::Client,
    admin: String,
    /// Texts that may not be in the log.
    pub(super) secrets: RefCell<BTreeSet<String>>,
    /// Cookies of a browser.
    jar: RefCell<Vec<(String, String)>>,
}

/// Response.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Heard {
    pub(super) fn text(&self, name: &str) -> String {
        self.body[name].as_str().unwrap_or_else(|| panic!("no {name} in {self:?}")).to_owned()
    }

    pub(super) fn location(&self) -> String {
        assert_eq!(self.status, 302, "{self:?}");
        self.headers["location"].to_str().unwrap().to_owned()
    }
}

impl Wire {
    pub(super) fn new(admin: &str) -> Self {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { http, admin: admin.into(), secrets: RefCell::default(), jar: RefCell::default() }
    }

    /// Keeps a text, and the parts of it that a token has.
    pub(super) fn keep(&self, text: &str) {
        let parts = text.split('.').filter(|part| part.len() >= 30);
        let all = parts.chain([text]).filter(|part| part.chars().count() >= SHORTEST);
        self.secrets.borrow_mut().extend(all.map(str::to_owned));
    }

    /// Keeps each text in a JSON value. `is_error` says that a member `code` is a word of this service.
    fn keep_all(&self, value: &Value, is_error: bool) {
        match value {
            Value::String(text) => self.keep(text),
            Value::Array(items) => items.iter().for_each(|item| self.keep_all(item, is_error)),
            Value::Object(members) => {
                for (name, value) in members {
                    let is_code_of_error = is_error && name == "code";
                    if !is_code_of_error && !HARMLESS.split_whitespace().any(|harmless| harmless == name) {
                        self.keep_all(value, is_error);
                    }
                }
            }
            _ => {}
        }
    }

    /// Keeps the parameters of a URL.
    pub(super) fn keep_query(&self, url: &str) {
        let url = Url::parse("https://app.example.com").unwrap().join(url).unwrap();
        for (name, value) in url.query_pairs() {
            if !["response_type", "client_id", "redirect_uri", "scope", "code_challenge_method", "pool"]
                .contains(&&*name)
            {
                self.keep(&value);
            }
        }
    }

    pub(super) async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &Value) -> Heard {
        self.keep_all(body, false);
        self.keep_query(path);
        let mut request = self.http.request(method.clone(), format!("http://{}{path}", self.admin));
        for (name, value) in headers {
            if *name == "authorization" {
                self.keep(value.split_once(' ').map_or(value, |(_, token)| token));
            }
            request = request.header(*name, *value);
        }
        let jar =
            self.jar.borrow().iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
        if !jar.is_empty() {
            request = request.header("cookie", jar);
        }
        if !body.is_null() {
            request = request.header(JSON.0, JSON.1).body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        for cookie in headers.get_all("set-cookie") {
            let (name, value) = cookie.to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
            self.keep(value);
            let mut jar = self.jar.borrow_mut();
            jar.retain(|(other, _)| other != name);
            if !value.is_empty() {
                jar.push((name.into(), value.into()));
            }
        }
        if let Some(location) = headers.get("location") {
            self.keep_query(location.to_str().unwrap());
        }
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_default();
        if path != "/auth/openapi.json" {
            self.keep_all(&body, status >= 400);
        }
        Heard { status, headers, body }
    }

    /// Posts to the account API, as a client that is not a browser.
    pub(super) async fn post(&self, path: &str, body: Value) -> Heard {
        self.send(Method::POST, &format!("/auth{path}"), &[IN_BODY], &body).await
    }

    pub(super) async fn bearer(&self, method: Method, path: &str, token: &str, body: Value) -> Heard {
        let bearer = format!("Bearer {token}");
        self.send(method, &format!("/auth{path}"), &[IN_BODY, ("authorization", &bearer)], &body).await
    }

    pub(super) async fn operator(&self, method: Method, path: &str, token: &str, body: Value) -> Heard {
        let bearer = format!("Bearer {token}");
        self.send(method, path, &[("authorization", &bearer)], &body).await
    }
}
