//! Request ids: the id in a response is the one in the log. Behind Envoy: [`crate::envoy::request_ids`].

use std::time::Instant;

use reqwest::Method;
use serde_json::{Value, json};

use crate::account::QUICK;
use crate::support::account::AccountClient;
use crate::support::client::{Ask, connect, get};
use crate::support::fake_cognito::{FakeCognito, tokens};
use crate::support::http1::fetch;
use crate::support::jwks_server::Reply;
use crate::support::service::Program;
use crate::support::token::{SigningKey, TokenBuilder};
use crate::support::{PATIENCE, eventually};

/// Starts the program with these flags in front of a fake Cognito, and waits until it is ready.
async fn start(fake: &FakeCognito, flags: &[&str]) -> Program {
    let program = Program::start(&[&QUICK[..], &["--cognito-endpoint", &fake.url], flags].concat());
    eventually("ready", PATIENCE, async || get(&program.admin, "/readyz").await.0 == 200).await;
    program
}

/// Ends the program, and returns the fields of its log lines.
fn log(mut program: Program) -> Vec<Value> {
    program.signal("TERM");
    program.wait();
    let parsed = program.log.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    parsed.map(|mut line| line["fields"].take()).collect()
}

/// Id in the body of a refused check.
fn quoted(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap();
    body["request_id"].as_str().unwrap_or_else(|| panic!("{body} has no id")).to_owned()
}

/// `true` for a UUID, as the service makes it.
fn is_new(id: &str) -> bool {
    id.len() == 36 && id.split('-').map(str::len).eq([8, 4, 4, 4, 12])
}

/// Values of `x-request-id` that are not ids. The second one is two lines.
const NO_IDS: [&str; 4] = ["", "a\r\nx-request-id: b", "\"level\":\"ERROR\"", "eyJhbGciOiJSUzI1NiJ9.payload"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_check_has_an_id_in_its_body_and_in_its_log_line() {
    let fake = FakeCognito::start().await;
    let program = start(&fake, &["--http-listen", "127.0.0.1:0"]).await;
    let channel = connect(&program.grpc[0]).await;
    let mut seen = vec![quoted(&Ask::get("/").of(&channel).await.body)];
    for bad in ["", "a,b", "a b", "\"", "é", &"a".repeat(65)] {
        seen.push(quoted(&Ask::get("/").header("x-request-id", bad).of(&channel).await.body));
    }
    let paths = ["/ext-authz/", "/auth-request", "/forward-auth"];
    let own = ["X-Original-Method: GET", "X-Original-URL: /", "X-Forwarded-Method: GET", "X-Forwarded-Uri: /"];
    let own: Vec<String> = own.into_iter().chain(["X-Forwarded-Host: api.test"]).map(str::to_owned).collect();
    for path in paths {
        seen.push(quoted(&fetch(&program.http, path, &own).await.body));
        for bad in NO_IDS {
            let lines = [&own[..], &[format!("x-request-id: {bad}")]].concat();
            seen.push(quoted(&fetch(&program.http, path, &lines).await.body));
        }
    }
    for (number, id) in seen.iter().enumerate() {
        assert!(is_new(id), "{id}");
        assert!(!seen[..number].contains(id), "{id} twice");
    }
    let sent = ["4a8f0f61-2f5b-4c0e-9d53-0d3f6f5b7c11", "0", &"Z".repeat(64)];
    for id in sent {
        assert_eq!(quoted(&Ask::get("/").header("x-request-id", id).of(&channel).await.body), id);
        seen.push(id.to_owned());
        for path in paths {
            let lines = [&own[..], &[format!("X-Request-ID: {id}")]].concat();
            assert_eq!(quoted(&fetch(&program.http, path, &lines).await.body), id, "{path}");
            seen.push(id.to_owned());
        }
    }
    let logged: Vec<Value> = log(program).into_iter().filter(|line| line["message"] == "check").collect();
    let ids: Vec<&str> = logged.iter().map(|line| line["request_id"].as_str().unwrap()).collect();
    assert_eq!(ids, seen);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_about_an_account_request_has_its_id() {
    let fake = FakeCognito::start().await;
    let program = start(&fake, &["--log-level", "debug"]).await;
    let client = AccountClient::new(&program.admin);
    let token = TokenBuilder::access().sign(SigningKey::shared());
    let bearer = format!("Bearer {token}");
    let id_of = |reply: &crate::support::account::Reply| reply.headers["x-request-id"].to_str().unwrap().to_owned();
    let (refused, line) = ("Cognito refused a call", "account request");
    let mut expected: Vec<(String, Vec<&str>)> = Vec::new();

    // A refusal of Cognito: in the task of the request, in a task that outlives it, and of two calls.
    fake.refuses("NotAuthorizedException", "Incorrect username or password.");
    for (path, id, body, lines) in [
        ("/login", "login-1", json!({"email": "a", "password": "p"}), &[refused, line][..]),
        ("/refresh", "refresh-1", json!({"refreshToken": "r"}), &[refused, line]),
        ("/revoke", "revoke-1", json!({"refreshToken": "r"}), &[refused, line]),
        ("/logout", "logout-1", json!({"refreshToken": "r"}), &[refused, refused, "revocation", line]),
    ] {
        let reply = client.send(path, &[("authorization", &bearer), ("x-request-id", id)], body).await;
        assert_eq!(id_of(&reply), id, "{path}: {:?}", reply.body);
        expected.push((id.into(), lines.to_vec()));
    }
    // Lines of the account API about an answer of Cognito.
    let login = json!({"email": "a", "password": "p"});
    fake.answers(|_, _| Reply::ok("{}"));
    let reply = client.send("/login", &[("x-request-id", "nonsense")], login.clone()).await;
    assert_eq!(reply.verdict(), (502, "upstream_error"));
    expected.push(("nonsense".into(), vec!["Cognito's answer has neither tokens nor a challenge", line]));
    fake.answers(|_, _| {
        tokens(&json!({"AccessToken": TokenBuilder::access().claim("client_id", "other").sign(SigningKey::shared())}))
    });
    let reply = client.send("/login", &[("x-request-id", "wrong")], login.clone()).await;
    assert_eq!(reply.verdict(), (502, "upstream_error"));
    expected.push(("wrong".into(), vec!["Cognito issued a token that does not verify", line]));
    fake.refuses("ResourceNotFoundException", "private");
    let reply = client.send("/login", &[("x-request-id", "operator")], login.clone()).await;
    expected.push((id_of(&reply), vec![refused, "the account API needs its operator", line]));
    fake.answers(|_, _| Reply { status: 500, ..Reply::ok("") });
    let reply = client.send("/login", &[("x-request-id", "down")], login.clone()).await;
    expected.push((id_of(&reply), vec!["a call to Cognito failed", line]));

    // Without an id, or with a value that is none, the request gets one.
    fake.answers(|_, _| tokens(&json!({})));
    for header in [None, Some(""), Some("a b"), Some("\""), Some("a,b")] {
        let headers: Vec<_> = header.map(|value| ("x-request-id", value)).into_iter().collect();
        let reply = client.send("/login", &headers, login.clone()).await;
        assert_eq!(reply.status, 200, "{:?}", reply.body);
        assert!(is_new(&id_of(&reply)), "{:?}", reply.headers);
        expected.push((id_of(&reply), vec![line]));
    }
    for (method, path) in [
        (Method::GET, "/openapi.json"),
        (Method::GET, "/nothing"),
        (Method::PUT, "/login"),
        (Method::OPTIONS, "/login"),
    ] {
        let reply = client.raw(method, path, &[], "").await;
        assert!(is_new(&id_of(&reply)), "{path}");
    }

    let log = log(program);
    for (id, messages) in &expected {
        let lines = log.iter().filter(|line| line["request_id"] == **id);
        let found: Vec<&str> = lines.map(|line| line["message"].as_str().unwrap()).collect();
        assert_eq!(found, *messages, "{id} in {log:#?}");
    }
    let without = log.iter().filter(|line| line.get("outcome").is_some() && line.get("request_id").is_none());
    assert_eq!(without.count(), 0, "{log:#?}");
}

/// A client cannot write log lines at will: of many refused origins, one line a minute names one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_origin_is_one_line() {
    const MESSAGE: &str = "the origin of a page is not listed in --cors-origins";
    let fake = FakeCognito::start().await;
    let preflight =
        |origin: &str| [("origin", origin.to_owned()), ("access-control-request-method", "POST".to_owned())];
    let ask = async |client: &AccountClient, method: Method, path: &str, headers: &[(&str, String)]| {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
        client.raw(method, path, &headers, "{}").await
    };
    let listed = ["--cors-origins", "https://app.example.com", "--account-cookies"];
    for (flags, origin, status) in
        [(&listed[..], "https://app.example.com:8443", 204), (&[], "http://localhost:3000", 405)]
    {
        let program = start(&fake, flags).await;
        let client = AccountClient::new(&program.admin);
        if !flags.is_empty() {
            let reply = ask(&client, Method::OPTIONS, "/login", &preflight("https://app.example.com")).await;
            assert_eq!(reply.headers["access-control-allow-origin"], "https://app.example.com");
        }
        // Neither a page of the same origin, nor an unknown path, nor a client that is no browser.
        let json = ("content-type", "application/json".to_owned());
        let same = [("origin", format!("http://{}", program.admin)), ("sec-fetch-site", "same-origin".into()), json];
        ask(&client, Method::POST, "/login", &same).await;
        ask(&client, Method::OPTIONS, "/nothing", &preflight("https://a.example")).await;
        ask(&client, Method::OPTIONS, "/login", &[]).await;

        let first = Instant::now();
        let reply = ask(&client, Method::OPTIONS, "/login", &preflight(origin)).await;
        assert_eq!(reply.status, status);
        let id = reply.headers["x-request-id"].to_str().unwrap().to_owned();
        for number in 0..100 {
            ask(&client, Method::OPTIONS, "/login", &preflight(&format!("https://{number}.evil.example"))).await;
        }
        let minutes = 1 + first.elapsed().as_secs() / 60;
        let log = log(program);
        let lines: Vec<&Value> = log.iter().filter(|line| line.to_string().contains("\"origin\"")).collect();
        assert_eq!(*lines[0], json!({"message": MESSAGE, "origin": origin, "refused": 1, "request_id": id}));
        assert!(u64::try_from(lines.len()).unwrap() <= minutes, "{minutes} minutes: {lines:#?}");
    }
    // A request with cookies from another site, for which browsers send no preflight, and an origin that is none.
    for (origin, shown) in [("https://other.example", "https://other.example"), ("https://a b", "(not an origin)")] {
        let program = start(&fake, &listed).await;
        let client = AccountClient::new(&program.admin);
        let headers = [("origin", origin.to_owned()), ("cookie", "__Host-access=x".to_owned())];
        let reply = ask(&client, Method::POST, "/refresh", &headers).await;
        assert_eq!(reply.verdict(), (403, "cross_site"));
        let line = log(program).into_iter().find(|line| line["message"] == MESSAGE);
        assert_eq!(line.unwrap()["origin"], shown);
    }
}
