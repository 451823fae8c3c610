//! Operators at the admin port: `/revocations`, its token, its log, the commands that use it, and the status page.

mod commands;
mod revocations;
mod status;
mod token;

use std::io::Write as _;

use http::HeaderMap;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::service::{Program, TestApp};
use crate::support::token::{SigningKey, TokenBuilder, jwks};

/// Content of the token's file.
pub(crate) const TOKEN: &str = "operators-token-for-tests-1";

/// Directory with the files of a service: its keys, and the operators' token.
pub(crate) struct Files(tempfile::TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        std::fs::write(files.path("jwks"), jwks(&[SigningKey::shared()])).unwrap();
        std::fs::write(files.path("token"), format!("{TOKEN}\n")).unwrap();
        files
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Replaces the token's file by one with this content.
    fn replace_token(&self, content: &str) {
        let mut file = std::fs::File::create(self.path("new")).unwrap();
        file.write_all(content.as_bytes()).unwrap();
        std::fs::rename(self.path("new"), self.path("token")).unwrap();
    }

    /// Flags of a service with the token and these ones.
    fn flags<'f>(keys: &'f str, token: &'f str, more: &[&'f str]) -> Vec<&'f str> {
        let flags = [
            "--jwks-url",
            "http://127.0.0.1:9/",
            "--jwks-file",
            keys,
            "--admin-token-file",
            token,
            "--account-api=false",
        ];
        [&flags[..], more].concat()
    }

    fn start(&self, more: &[&str]) -> TestApp {
        TestApp::start(&Self::flags(&self.path("jwks"), &self.path("token"), more))
    }

    pub(crate) fn start_program(&self, more: &[&str]) -> Program {
        Program::start(&Self::flags(&self.path("jwks"), &self.path("token"), more))
    }
}

/// Response of the admin port.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    headers: HeaderMap,
    pub(crate) body: Value,
}

impl Reply {
    /// Status and error code.
    pub(crate) fn verdict(&self) -> (u16, &str) {
        (self.status, self.body["code"].as_str().unwrap_or_default())
    }

    /// Id of the revocation.
    fn id(&self) -> String {
        assert_eq!(self.status, 200, "{:?}", self.body);
        self.body["id"].as_str().unwrap().to_owned()
    }
}

thread_local! {
    /// Client of one test: a thread has one runtime.
    static CLIENT: reqwest::Client = reqwest::Client::new();
}

/// Sends a request, and checks the form of the response.
pub(crate) async fn send(
    admin: &str,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> Reply {
    let mut request = CLIENT.with(Clone::clone).request(method, format!("http://{admin}{path}")).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    for (name, value) in [("content-type", "application/json"), ("cache-control", "no-store")] {
        assert_eq!(headers[name], value, "{path}");
    }
    let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default();
    if status >= 400 {
        let members: Vec<&String> = body.as_object().unwrap().keys().collect();
        assert_eq!(members, ["code", "message"], "{body}");
        assert_eq!(headers.contains_key("retry-after"), matches!(status, 429 | 503), "{body}");
        assert_eq!(headers.contains_key("www-authenticate"), status == 401, "{body}");
        assert_eq!(headers.contains_key("allow"), status == 405, "{body}");
    }
    Reply { status, headers, body }
}

/// Sends a request with the token.
pub(crate) async fn call(admin: &str, method: Method, path: &str, body: Value) -> Reply {
    let bearer = format!("Bearer {TOKEN}");
    let mut headers = vec![("authorization", &*bearer)];
    let body = if body.is_null() {
        String::new()
    } else {
        headers.push(("content-type", "application/json"));
        body.to_string()
    };
    send(admin, method, path, &headers, body).await
}

async fn list(admin: &str, query: &str) -> Reply {
    call(admin, Method::GET, &format!("/revocations{query}"), Value::Null).await
}

async fn revoke(admin: &str, body: Value) -> Reply {
    call(admin, Method::POST, "/revocations", body).await
}

async fn lift(admin: &str, id: &str) -> Reply {
    call(admin, Method::DELETE, &format!("/revocations/{id}"), Value::Null).await
}

/// Returns a token of this user, session and sign-in.
fn token_of(sub: &str, session: &str, jti: &str, auth_time: i64) -> String {
    let token = TokenBuilder::access().claim("sub", sub).claim("origin_jti", session).claim("jti", jti);
    token.claim("auth_time", auth_time).sign(SigningKey::shared())
}

/// Request of a user.
fn sub(sub: &str) -> Value {
    json!({"sub": sub})
}
