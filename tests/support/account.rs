//! Client of the account API; a pool and an app client for it at the emulator; mail that the emulator has sent.

use http::HeaderMap;
use reqwest::Method;
use serde_json::{Value, json};

use super::emulator::Emulator;

pub(crate) use super::emulator::PASSWORD;

/// Client of the account API of one service.
#[derive(Clone)]
pub(crate) struct AccountClient {
    http: reqwest::Client,
    base: String,
    /// Headers of every request.
    always: Vec<(&'static str, &'static str)>,
}

/// Response of the account API.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Reply {
    /// Text of a member of the body; empty if the member is not a string.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_default()
    }

    /// Status and error code.
    pub(crate) fn verdict(&self) -> (u16, &str) {
        (self.status, self.text("code"))
    }
}

impl AccountClient {
    /// Returns a client of the API at this address, below `/auth`.
    pub(crate) fn new(address: &str) -> Self {
        Self { http: reqwest::Client::new(), base: format!("http://{address}/auth"), always: Vec::new() }
    }

    /// Adds a header to every request.
    pub(crate) fn always(mut self, header: (&'static str, &'static str)) -> Self {
        self.always.push(header);
        self
    }

    /// Posts JSON.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(path, &[], body).await
    }

    /// Posts JSON with a Bearer token.
    pub(crate) async fn bearer(&self, path: &str, token: &str, body: Value) -> Reply {
        self.send(path, &[("authorization", &format!("Bearer {token}"))], body).await
    }

    /// Sends JSON with a Bearer token.
    pub(crate) async fn call(&self, method: Method, path: &str, token: &str, body: Value) -> Reply {
        let bearer = format!("Bearer {token}");
        let headers = [("content-type", "application/json"), ("authorization", &*bearer)];
        self.raw(method, path, &headers, body.to_string()).await
    }

    /// Posts JSON with headers.
    pub(crate) async fn send(&self, path: &str, headers: &[(&str, &str)], body: Value) -> Reply {
        let headers = [&[("content-type", "application/json")], headers].concat();
        self.raw(Method::POST, path, &headers, body.to_string()).await
    }

    /// Sends a request with any body. Checks that the response is JSON that no cache may store, that it has an id, and that
    /// an error has exactly the members `message`, `code` and `request_id`, and `field` only if the request is not valid. The
    /// id, which differs between requests, is not part of the returned body.
    pub(crate) async fn raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Reply {
        let mut request = self.http.request(method.clone(), format!("{}{path}", self.base)).body(body);
        for (name, value) in headers.iter().chain(&self.always) {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        if status != 204 && method != Method::HEAD {
            assert_eq!(headers["content-type"], "application/json", "{path}: {text}");
            assert_eq!(headers["cache-control"], "no-store");
        }
        let mut body: Value = serde_json::from_str(&text).unwrap_or_default();
        let id = headers["x-request-id"].to_str().unwrap();
        if status >= 400 && method != Method::HEAD {
            assert_eq!(body.as_object_mut().unwrap().remove("request_id"), Some(json!(id)), "{path}: {text}");
            assert!(body["message"].is_string() && body["code"].is_string(), "{path}: {text}");
            let names_a_member = body.get("field").is_some();
            assert!(!names_a_member || body["code"] == "invalid_request", "{path}: {text}");
            assert_eq!(body.as_object().unwrap().len(), if names_a_member { 3 } else { 2 }, "{text}");
            assert_eq!(headers.contains_key("retry-after"), matches!(status, 429 | 503), "{path}: {text}");
        }
        Reply { status, headers, body }
    }
}

/// Pool at the emulator whose users sign in with an e-mail address, and an app client of it.
pub(crate) struct Pool {
    pub(crate) id: String,
    pub(crate) client: String,
    pub(crate) secret: Option<String>,
}

impl Pool {
    /// Creates the pool and the app client. `settings` are members of the request for the app client.
    pub(crate) async fn create(emulator: &Emulator, with_secret: bool, settings: Value) -> Self {
        let pool = json!({"PoolName": "account", "UsernameAttributes": ["email"], "AutoVerifiedAttributes": ["email"]});
        let pool = emulator.call("CreateUserPool", pool).await;
        let id = pool["UserPool"]["Id"].as_str().unwrap().to_owned();
        let mut client = json!({"UserPoolId": id, "ClientName": "web", "GenerateSecret": with_secret,
            "ExplicitAuthFlows": ["ALLOW_USER_PASSWORD_AUTH", "ALLOW_REFRESH_TOKEN_AUTH"]});
        client.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let client = emulator.call("CreateUserPoolClient", client).await;
        let client = &client["UserPoolClient"];
        let secret = client["ClientSecret"].as_str().map(str::to_owned);
        Self { id, client: client["ClientId"].as_str().unwrap().to_owned(), secret }
    }
}

/// Returns the code in the newest mail to this address.
pub(crate) async fn mailed_code(emulator: &Emulator, email: &str) -> String {
    let url = format!("{}/_ministack/ses/messages", emulator.url);
    let outbox: Value = serde_json::from_str(&reqwest::get(url).await.unwrap().text().await.unwrap()).unwrap();
    let mails =
        outbox["messages"].as_object().unwrap().values().flat_map(|mails| mails.as_array().unwrap().iter().rev());
    let to_them = mails.filter(|mail| mail["To"].to_string().contains(email));
    let code = to_them.filter_map(|mail| {
        let text = mail["BodyText"].as_str()?;
        let words = text.split(|c: char| !c.is_ascii_digit());
        words.filter(|word| word.len() == 6).map(str::to_owned).next()
    });
    code.into_iter().next().unwrap_or_else(|| panic!("no mail with a code to {email}"))
}
