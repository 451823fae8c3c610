//! The `OpenAPI` document is valid and describes the server. A request generator (schemathesis) searches for differences
//! at the emulator.

use std::process::Command;

use serde_json::json;

use super::QUICK;
use super::sign_in::sign_in;
use crate::support::account::{AccountClient, Pool};
use crate::support::client::get;
use crate::support::emulator::Emulator;
use crate::support::policy_file::PolicyFile;
use crate::support::service::TestApp;
use crate::support::{PATIENCE, eventually, tool};

/// Sign-in flows that the document offers. The app client must allow them.
const FLOWS: [&str; 5] = [
    "ALLOW_USER_PASSWORD_AUTH",
    "ALLOW_REFRESH_TOKEN_AUTH",
    "ALLOW_USER_SRP_AUTH",
    "ALLOW_CUSTOM_AUTH",
    "ALLOW_USER_AUTH",
];

#[tokio::test]
async fn the_openapi_document_is_valid_and_matches_the_server() {
    let emulator = Emulator::start().await;
    let pool = Pool::create(&emulator, false, json!({"ExplicitAuthFlows": FLOWS})).await;
    let policy = PolicyFile::new(
        &json!({
            "policies": {"mcp": {}},
            "protected_resources": [{"resource": "https://mcp.example/mcp", "policy": "mcp", "client_id": pool.client,
                "redirect_uris": ["http://localhost:3118/callback"]}],
        })
        .to_string(),
    );
    let path = policy.path();
    let of_the_pool = [
        "--config",
        &path,
        "--user-pool-id",
        &pool.id,
        "--client-id",
        &pool.client,
        "--cognito-endpoint",
        &emulator.url,
        "--account-attributes=locale",
        "--hosted-ui-domain",
        &emulator.url,
        "--oauth-redirect-uris=https://app.example.com/callback",
    ];
    let app = serve(&of_the_pool).await;
    let url = document(&app);

    let client = AccountClient::new(&app.admin);
    let token = sign_in(&emulator, &client, "ada@example.com").await["accessToken"].as_str().unwrap().to_owned();
    let authorization = format!("Authorization: Bearer {token}");
    // Without a token, then with the token of a user. Routes that would end the session are left out, and those of
    // verification, which the emulator does not have.
    let stays = "--exclude-path-regex=/(logout|revoke|change-password|verify-attribute.*)$";
    for more in [&[][..], &["--header", &authorization, "--exclude-method=DELETE", stays]] {
        try_requests(&url, more).await;
    }
    let me = client.call(reqwest::Method::GET, "/me", &token, json!({})).await;
    assert_eq!(me.status, 200, "the token was valid until the end: {:?}", me.body);
}

#[tokio::test]
async fn the_openapi_document_matches_the_server_with_cookies() {
    let emulator = Emulator::start().await;
    let pool = Pool::create(&emulator, false, json!({"ExplicitAuthFlows": FLOWS})).await;
    let cognito = ["--user-pool-id", &pool.id, "--client-id", &pool.client, "--cognito-endpoint", &emulator.url];
    let app = serve(&[&cognito[..], &["--account-cookies"]].concat()).await;
    let origin = format!("Origin: http://{}", app.admin);
    try_requests(&document(&app), &["--header", &origin]).await;
    // Without an origin, every route that changes something responds with the documented error.
    try_requests(&document(&app), &["--exclude-checks=positive_data_acceptance,negative_data_rejection,ignored_auth"])
        .await;
}

async fn serve(flags: &[&str]) -> TestApp {
    let app = TestApp::start(&[&QUICK[..], flags].concat());
    eventually("ready", PATIENCE, async || get(&app.admin, "/readyz").await.0 == 200).await;
    app
}

/// Returns the URL of the document. Fails if the document is invalid.
fn document(app: &TestApp) -> String {
    let url = format!("http://{}/auth/openapi.json", app.admin);
    let lint = "import json, sys, urllib.request; from openapi_spec_validator import validate; \
                validate(json.load(urllib.request.urlopen(sys.argv[1])))";
    let output = Command::new(tool::program("python")).args(["-c", lint, &url]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    url
}

/// Sends generated requests, valid and invalid ones, and fails if a response differs from the document.
async fn try_requests(url: &str, more: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    // `positive_data_acceptance` expects a 2xx for every body that the schema allows, but a generated code or password is
    // wrong although its form is right.
    let arguments = [
        "run",
        url,
        "--max-examples=10",
        "--exclude-checks=positive_data_acceptance",
        "--generation-deterministic",
        "--no-color",
    ];
    let run = tokio::task::spawn_blocking({
        let arguments: Vec<_> = arguments.iter().chain(more).map(|argument| (*argument).to_owned()).collect();
        let directory = directory.path().to_owned();
        move || Command::new(tool::program("schemathesis")).args(arguments).current_dir(directory).output().unwrap()
    });
    let output = run.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
