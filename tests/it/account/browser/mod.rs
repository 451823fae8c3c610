//! Sign-in by redirect: navigations of a browser that keeps cookies and runs no script. The hosted pages are the emulator's
//! in [`journey`]; elsewhere a fake Cognito produces the cases that the emulator cannot.

mod attacks;
mod callback;
mod hostile;
mod journey;
mod pages;
mod renewal;
mod sign_out;

use std::sync::Arc;

use http::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use url::Url;

use super::QUICK;
use super::sign_in::ready;
use crate::support::client::get;
use crate::support::fake_cognito::{FakeCognito, oauth_tokens};
use crate::support::service::TestApp;

/// Host of the application in the browser's address bar. A proxy leads it to the service.
const HOST: &str = "app.example.com";
const CALLBACK: &str = "https://app.example.com/auth/oauth/callback";
const GOODBYE: &str = "https://app.example.com/goodbye";
const ACCESS: &str = "__Host-access_token";
const REFRESH: &str = "__Host-refresh_token";

/// Returns flags for sign-in by redirect with the hosted pages at `domain`.
fn flags(domain: &str) -> Vec<String> {
    let pairs = [("--hosted-ui-domain", domain), ("--oauth-redirect-uris", CALLBACK), ("--oauth-logout-uris", GOODBYE)];
    let pairs = pairs.iter().flat_map(|(flag, value)| [(*flag).to_owned(), (*value).to_owned()]);
    pairs.chain(QUICK.map(str::to_owned)).chain(["--account-cookies".to_owned()]).collect()
}

/// Starts a service in front of a fake Cognito that is also the hosted pages, and issues tokens for every code.
async fn with_fake_pages(more: &[&str]) -> (TestApp, Browser, FakeCognito) {
    let fake = FakeCognito::start().await;
    fake.answers(|_, _| oauth_tokens(&json!({})));
    let flags = flags(&fake.url);
    let flags = flags.iter().map(String::as_str).chain(["--cognito-endpoint", &fake.url]).chain(more.iter().copied());
    let app = TestApp::start(&flags.collect::<Vec<_>>());
    ready(&app.admin).await;
    let browser = Browser::new(&app.admin);
    (app, browser, fake)
}

/// Query of a callback with an invented code.
fn with_code(state: &str) -> String {
    format!("code=c&state={state}")
}

/// Browser without scripts. It does not follow redirects by itself.
#[derive(Clone)]
struct Browser {
    http: Client,
    address: String,
    /// Cookies, the oldest first, as browsers send them.
    jar: Vec<(String, String)>,
    /// Lines of `Set-Cookie` of the last response.
    set: Vec<String>,
    /// `OpenAPI` document of the service, with which every response is compared.
    document: Option<Arc<Value>>,
}

/// Response to a navigation.
#[derive(Debug)]
struct Seen {
    status: u16,
    headers: HeaderMap,
    html: String,
}

impl Seen {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    fn location(&self) -> &str {
        assert_eq!(self.status, 302, "{self:?}");
        assert_eq!((self.header("cache-control"), self.header("referrer-policy")), ("no-store", "no-referrer"));
        self.header("location")
    }

    /// Code that the page shows.
    fn code(&self) -> &str {
        assert!(self.header("content-type").starts_with("text/html"), "{self:?}");
        self.html.split_once("Code: ").unwrap().1.split_once('<').unwrap().0
    }

    fn verdict(&self) -> (u16, &str) {
        (self.status, self.code())
    }

    /// Path of the link of the page.
    fn link(&self) -> String {
        let href = self.html.split_once("<a href=\"").unwrap().1.split_once('"').unwrap().0;
        href.replace("&#38;", "&")
    }

    /// Parameter of the URL that the browser was sent to.
    fn parameter(&self, name: &str) -> String {
        let url = Url::parse(self.location()).unwrap();
        url.query_pairs().find(|(other, _)| other == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
    }
}

impl Browser {
    fn new(address: &str) -> Self {
        let http = Client::builder().redirect(Policy::none()).build().unwrap();
        Self { http, address: address.into(), jar: Vec::new(), set: Vec::new(), document: None }
    }

    /// The same browser at another replica.
    fn at(&self, address: &str) -> Self {
        Self { address: address.into(), ..self.clone() }
    }

    fn cookie(&self, name: &str) -> &str {
        self.jar.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value)
    }

    fn header(&self) -> String {
        self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    /// Names of the cookies whose name starts with this text.
    fn names(&self, start: &str) -> Vec<&str> {
        self.jar.iter().map(|(name, _)| &**name).filter(|name| name.starts_with(start)).collect()
    }

    fn keep(&mut self, name: &str, value: &str) {
        match self.jar.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.jar.push((name.into(), value.into())),
        }
    }

    fn lose(&mut self, name: &str) {
        self.jar.retain(|(other, _)| !other.starts_with(name));
    }

    /// Opens an address that the user typed.
    async fn open(&mut self, path: &str) -> Seen {
        self.navigate(Method::GET, path, &[("sec-fetch-site", "none")]).await
    }

    /// Follows a redirect of the hosted pages.
    async fn come_back(&mut self, query: &str) -> Seen {
        let path = format!("/auth/oauth/callback?{query}");
        self.navigate(Method::GET, &path, &[("sec-fetch-site", "cross-site")]).await
    }

    /// Navigates, and stores the cookies of the response.
    async fn navigate(&mut self, method: Method, path: &str, headers: &[(&str, &str)]) -> Seen {
        let headers = [&[("host", HOST), ("sec-fetch-mode", "navigate")], headers].concat();
        self.send(method, path, &headers).await
    }

    async fn send(&mut self, method: Method, path: &str, headers: &[(&str, &str)]) -> Seen {
        let mut request = self.http.request(method, format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !self.jar.is_empty() {
            request = request.header("cookie", self.header());
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        self.set = headers.get_all("set-cookie").iter().map(|line| line.to_str().unwrap().to_owned()).collect();
        for line in self.set.clone() {
            assert!(line.ends_with("; HttpOnly; Secure; SameSite=Lax"), "{line}");
            assert!(line.starts_with("__Host-") && line.contains("; Path=/;") && !line.contains("Domain"), "{line}");
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            assert!(name.len() + value.len() <= 4096, "{name}");
            if line.contains("; Max-Age=0;") {
                self.jar.retain(|(other, _)| other != name);
            } else {
                self.keep(name, value);
            }
        }
        self.assert_documented(path, status, &headers).await;
        let html = response.text().await.unwrap();
        let id = headers["x-request-id"].to_str().unwrap();
        let is_page = headers.get("content-type").is_some_and(|kind| kind == "text/html; charset=utf-8");
        assert_eq!(html.contains(&format!("Request: {id}<")), is_page && !html.is_empty(), "{path}: {html}");
        Seen { status, headers, html }
    }

    /// Fails if the `OpenAPI` document does not describe a response of one of the routes.
    async fn assert_documented(&mut self, path: &str, status: u16, headers: &HeaderMap) {
        if self.document.is_none() {
            let (_, document) = get(&self.address, "/auth/openapi.json").await;
            self.document = Some(Arc::new(serde_json::from_str(&document).unwrap()));
        }
        let path = path.split('?').next().unwrap();
        let document = self.document.as_ref().unwrap();
        for operation in document["paths"][path].as_object().unwrap().values() {
            let answer = &operation["responses"][status.to_string()];
            let shared = answer["$ref"].as_str().map(|pointer| document.pointer(&pointer[1..]).unwrap());
            let answer = shared.unwrap_or(answer);
            assert!(answer.is_object(), "{path} {status} is not documented");
            if let Some(kind) = headers.get("content-type") {
                let kind = kind.to_str().unwrap().split(';').next().unwrap();
                assert!(answer["content"][kind].is_object(), "{path} {status} {kind}");
            }
            for name in answer["headers"].as_object().into_iter().flat_map(|headers| headers.keys()) {
                assert!(headers.contains_key(name), "{path} {status} {name}");
            }
        }
    }

    /// Starts a sign-in that returns to `return_to`, and returns its state.
    async fn begin(&mut self, return_to: &str) -> String {
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("return_to", return_to).finish();
        let seen = self.open(&format!("/auth/oauth/sign-in?{query}")).await;
        assert!(seen.location().contains("/oauth2/authorize?"), "{seen:?}");
        seen.parameter("state")
    }

    /// As [`Browser::begin`], whatever session the browser has.
    async fn begin_anew(&mut self, return_to: &str) -> String {
        let query = url::form_urlencoded::Serializer::new(String::new()).append_pair("return_to", return_to).finish();
        self.open(&format!("/auth/oauth/sign-in?prompt=login&{query}")).await.parameter("state")
    }

    /// Signs in at the fake hosted pages.
    async fn sign_in(&mut self) {
        let state = self.begin("/").await;
        let seen = self.come_back(&format!("code=c&state={state}")).await;
        assert_eq!(seen.location(), "/");
    }
}
