//! The account API over HTTP, in front of the Cognito emulator. A fake server produces the faults.
//!
//! - [`sign_in`]: sign-up, sign-in, sign-out; [`profile`]: the account of a signed-in user, and second factors;
//!   [`totp_issuer`]; [`passkeys`]; [`refresh`]; [`oauth`]: hosted pages; [`cookies`]: browser sessions; [`browser`]:
//!   sign-in by redirect.
//! - [`abuse`], [`limits`]: attacks and rate limits; [`faults`]: failures of Cognito; [`reload`]: changes of the policy
//!   file.
//! - [`protected_resources`]: metadata and registration for clients such as MCP clients.
//! - [`errors`]: members at fault, and what to send; [`http`]: methods, media types, sizes, CORS, ports; [`openapi`]: form and examples of the
//!   `OpenAPI` document; [`schema`]: the document and generated requests; [`outcomes`]: metrics.

mod abuse;
mod browser;
mod cookies;
mod errors;
mod faults;
mod http;
mod limits;
pub(crate) mod oauth;
mod openapi;
mod outcomes;
mod passkeys;
mod profile;
mod protected_resources;
mod refresh;
mod reload;
mod schema;
pub(crate) mod sign_in;
mod sign_out;
mod totp_issuer;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::account::AccountClient;
use crate::support::client::get;
use crate::support::fake_cognito::FakeCognito;
use crate::support::service::TestApp;
use crate::support::{PATIENCE, eventually};

/// Flags without rate limits and without the minimum time for failures.
pub(crate) const QUICK: [&str; 4] =
    ["--account-min-failure-time=0s", "--limit-address=100000/1s", "--limit-user=100000/1s", "--limit-sends=100000/1s"];

/// Starts a service in front of a fake Cognito, and waits until it is ready.
async fn with_fake(flags: &[&str]) -> (TestApp, AccountClient, FakeCognito) {
    let fake = FakeCognito::start().await;
    let app = TestApp::start(&[flags, &["--cognito-endpoint", &fake.url]].concat());
    eventually("ready", PATIENCE, async || get(&app.admin, "/readyz").await.0 == 200).await;
    let client = AccountClient::new(&app.admin);
    (app, client, fake)
}

/// Returns each route with its method and a valid body.
pub(crate) fn routes() -> Vec<(Method, &'static str, Value)> {
    let posts = bodies().into_iter().map(|(path, body)| (Method::POST, path, body));
    let own = [
        (Method::GET, "/me", json!({})),
        (Method::PATCH, "/me", json!({"attributes": {"name": "Ada"}})),
        (Method::DELETE, "/me", json!({})),
        (Method::POST, "/verify-attribute/code", json!({"attribute": "email"})),
        (Method::POST, "/verify-attribute", json!({"attribute": "email", "code": "123456"})),
        (Method::POST, "/mfa/totp", json!({})),
        (Method::POST, "/mfa/totp/verify", json!({"code": "123456"})),
        (Method::PUT, "/mfa/preference", json!({"totp": {"enabled": true, "preferred": true}})),
        (Method::POST, "/webauthn/registration", json!({})),
        (Method::PUT, "/webauthn/registration", json!({"credential": {"id": "AbC-_1", "response": {}}})),
        (Method::GET, "/webauthn/credentials", json!({})),
        (Method::DELETE, "/webauthn/credentials/AbC-_1", json!({})),
    ];
    posts.chain(own).collect()
}

/// Returns the routes of sign-up, sign-in, sign-out and passwords, each with a valid body. All of them are POST.
fn bodies() -> Vec<(&'static str, Value)> {
    vec![
        ("/register", json!({"email": "ada@example.test", "password": "p", "name": "Ada"})),
        ("/verify", json!({"email": "ada@example.test", "code": "123456"})),
        ("/resend-code", json!({"email": "ada@example.test"})),
        ("/login", json!({"email": "ada@example.test", "password": "p"})),
        (
            "/challenge",
            json!({"challenge": "SMS_MFA", "session": "s", "email": "ada@example.test", "responses": {"SMS_MFA_CODE": "1"}}),
        ),
        ("/refresh", json!({"refreshToken": "r"})),
        ("/forgot-password", json!({"email": "ada@example.test"})),
        ("/reset-password", json!({"email": "ada@example.test", "code": "1", "newPassword": "p"})),
        ("/logout", json!({"refreshToken": "r"})),
        ("/revoke", json!({"refreshToken": "r"})),
        ("/change-password", json!({"oldPassword": "o", "newPassword": "n"})),
    ]
}
