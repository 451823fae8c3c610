//! The two documents: members, hosts, reloads, methods, pages of other origins, ports.

use reqwest::Method;
use serde_json::{Value, json};

use super::{Answer, HOST, RESOURCE, SERVER, Stage, URIS, at, cognitos, file, quick, send};
use crate::support::account::Pool;
use crate::support::client::get;
use crate::support::emulator::Emulator;
use crate::support::policy_file::PolicyFile;
use crate::support::service::{Program, TestApp, run};
use crate::support::token::{CLIENT, POOL};
use crate::support::{PATIENCE, eventually};

#[tokio::test]
async fn the_documents_lead_from_the_resource_to_the_sign_in() {
    let stage = Stage::new(&file(), &quick()).await;
    let resource = json!({
        "resource": "https://mcp.example/mcp",
        "resource_name": "Orders",
        "authorization_servers": ["https://mcp.example"],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["openid", "orders/read"],
    });
    for path in [at("/mcp"), at("")] {
        let answer = stage.get(HOST, &path).await;
        assert_eq!((answer.status, answer.body), (200, resource.clone()), "{path}");
    }
    assert!(stage.fetches().is_empty(), "Cognito is not asked");

    let server = stage.get(HOST, SERVER).await;
    assert_eq!(server.status, 200, "{}", server.text);
    let mut expected = cognitos("https://pages.example");
    for (name, value) in json!({
        "issuer": "https://mcp.example",
        "response_types_supported": ["code"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
        "scopes_supported": ["openid", "orders/read"],
        "registration_endpoint": "https://mcp.example/auth/oauth/register",
    })
    .as_object()
    .unwrap()
    {
        expected[name] = value.clone();
    }
    assert_eq!(server.body, expected);
    assert_eq!(stage.get(HOST, SERVER).await.text, server.text);
    let [fetch] = &stage.fetches()[..] else { panic!("{:?}", stage.fetches()) };
    assert_eq!(fetch.body, json!(format!("/{POOL}/.well-known/openid-configuration")));

    for (operation, count) in [("oauth-protected-resource", 2.0), ("oauth-authorization-server", 2.0)] {
        let series = format!("account_requests_total{{operation=\"{operation}\",outcome=\"success\"}}");
        assert_eq!(stage.metric(&series).await, count, "{operation}");
    }
    let series = "cognito_requests_total{operation=\"OpenidConfiguration\",outcome=\"success\"}";
    assert_eq!(stage.metric(series).await, 1.0);
}

#[tokio::test]
async fn the_documents_of_the_emulator_are_complete() {
    let emulator = Emulator::start().await;
    let pool = Pool::create(&emulator, false, json!({})).await;
    let mut policy = file();
    policy["protected_resources"][0]["client_id"] = json!(pool.client);
    let policy = PolicyFile::new(&policy.to_string());
    let path = policy.path();
    let app = TestApp::start(&[
        "--user-pool-id",
        &pool.id,
        "--client-id",
        &pool.client,
        "--cognito-endpoint",
        &emulator.url,
        "--config",
        &path,
    ]);
    eventually("ready", PATIENCE, async || get(&app.admin, "/readyz").await.0 == 200).await;
    let server = send(&app.admin, Method::GET, SERVER, &[("host", HOST)], "").await;
    assert_eq!(server.status, 200, "{}", server.text);
    for (name, path) in [
        ("authorization_endpoint", "/oauth2/authorize"),
        ("token_endpoint", "/oauth2/token"),
        ("jwks_uri", &format!("/{}/.well-known/jwks.json", pool.id)),
    ] {
        assert_eq!(server.body[name], json!(format!("{}{path}", emulator.url)), "{name}");
    }
    let uris = json!({"redirect_uris": [URIS[1]]}).to_string();
    let headers = [("host", HOST), ("content-type", "application/json")];
    let registered = send(&app.admin, Method::POST, "/auth/oauth/register", &headers, &uris).await;
    assert_eq!((registered.status, &registered.body["client_id"]), (201, &json!(pool.client)), "{}", registered.text);
}

/// Resources of three origins, two of them of one host.
fn several() -> Value {
    let uris = ["http://localhost:1/"];
    json!({
        "policies": {"a": {}, "b": {}, "c": {}, "d": {}},
        "protected_resources": [
            {"resource": "https://one.example/a", "policy": "a", "scopes_supported": ["s"], "client_id": CLIENT, "redirect_uris": uris},
            {"resource": "https://one.example/b/", "policy": "b", "scopes_supported": ["t", "s"], "client_id": CLIENT, "redirect_uris": URIS},
            {"resource": "https://one.example:8443", "policy": "c"},
            {"resource": "http://localhost:8080/d", "policy": "d", "name": "Dé"},
        ],
    })
}

#[tokio::test]
async fn the_host_selects_among_the_resources_of_the_file() {
    let stage = Stage::new(&several(), &quick()).await;
    let named = |answer: &Answer| answer.body["resource"].as_str().unwrap_or_default().to_owned();
    for (host, path, expected) in [
        ("one.example", at("/a"), "https://one.example/a"),
        ("ONE.example:443", at("/a"), "https://one.example/a"),
        ("one.example", at("/b/"), "https://one.example/b/"),
        ("one.example", at("/b"), ""),
        ("one.example", at(""), ""),
        ("one.example", at("/d"), ""),
        ("one.example", at("/%61"), ""),
        ("one.example", at("/a/"), ""),
        ("one.example", at("//a"), ""),
        ("one.example:8443", at(""), "https://one.example:8443"),
        ("one.example:8443", at("/"), ""),
        ("one.example:8443", at("/a"), ""),
        ("localhost:8080", at("/d"), "http://localhost:8080/d"),
        ("localhost:8080", at(""), "http://localhost:8080/d"),
        ("localhost", at("/d"), ""),
        ("two.example", at("/a"), ""),
        ("one.example.", at("/a"), ""),
        ("one.example@two.example", at("/a"), ""),
        ("one.example:80", at("/a"), ""),
    ] {
        let answer = stage.get(host, &path).await;
        assert_eq!(named(&answer), expected, "{host} {path}: {}", answer.text);
        let verdict = if expected.is_empty() { (404, "not_found") } else { (200, "") };
        assert_eq!(answer.verdict(), verdict, "{host} {path}");
        assert!(!answer.text.contains("two.example"), "nothing is made from the host");
    }
    for path in ["/a/.well-known/oauth-protected-resource", &format!("{RESOURCE}x"), &format!("{SERVER}/a")] {
        assert_eq!(get(&stage.app.admin, path).await.0, 404, "{path}");
    }
    let forwarded = [("host", "two.example"), ("x-forwarded-host", "one.example"), ("forwarded", "host=one.example")];
    assert_eq!(send(&stage.app.admin, Method::GET, &at("/a"), &forwarded, "").await.status, 404);

    for (host, issuer, registration, scopes) in [
        ("one.example", "https://one.example", Some("https://one.example/auth/oauth/register"), json!(["s", "t"])),
        ("one.example:8443", "https://one.example:8443", None, cognitos("")["scopes_supported"].clone()),
        ("localhost:8080", "http://localhost:8080", None, cognitos("")["scopes_supported"].clone()),
    ] {
        let server = stage.get(host, SERVER).await.body;
        assert_eq!((&server["issuer"], &server["scopes_supported"]), (&json!(issuer), &scopes), "{host}");
        assert_eq!(server["registration_endpoint"].as_str(), registration, "{host}");
    }
    assert_eq!(stage.get("two.example", SERVER).await.verdict(), (404, "not_found"));
    assert_eq!(stage.fetches().len(), 1, "one pool, one fetch");

    // The app client belongs to its origin; its redirect URIs are those of all resources there.
    let register = async |host: &str, uri: &str| {
        let headers = [("host", host), ("content-type", "application/json")];
        let body = json!({"redirect_uris": [uri]}).to_string();
        send(&stage.app.admin, Method::POST, "/auth/oauth/register", &headers, &body).await.status
    };
    assert_eq!(register("one.example", "http://localhost:1/").await, 201);
    assert_eq!(register("one.example", URIS[2]).await, 201);
    assert_eq!(register("one.example:8443", "http://localhost:1/").await, 404);
    assert_eq!(register("two.example", "http://localhost:1/").await, 404);
}

/// A proxy may rewrite `Host`. If all resources have one origin, there is nothing to select.
#[tokio::test]
async fn resources_of_one_origin_are_found_under_every_host() {
    let stage = Stage::new(&file(), &quick()).await;
    for host in ["mcp.example", "cognito-authz.svc:9192", "127.0.0.1"] {
        let answer = stage.get(host, &at("/mcp")).await;
        assert_eq!(answer.body["authorization_servers"], json!(["https://mcp.example"]), "{host}");
        assert_eq!(stage.get(host, SERVER).await.body["issuer"], json!("https://mcp.example"), "{host}");
    }
}

#[tokio::test]
async fn a_reload_changes_the_documents() {
    let mut without = file();
    without.as_object_mut().unwrap().remove("protected_resources");
    let stage = Stage::new(&without, &quick()).await;
    let status = async |path: &str| get(&stage.app.admin, path).await.0;
    assert_eq!((status(&at("/mcp")).await, status(SERVER).await), (404, 404));
    assert_eq!(status("/auth/oauth/register").await, 404);
    let openapi = async || get(&stage.app.admin, "/auth/openapi.json").await.1;
    assert!(!openapi().await.contains("oauth-protected-resource"));

    let mut changed = file();
    for name in ["Orders", "Invoices"] {
        changed["protected_resources"][0]["name"] = json!(name);
        stage.file.replace(&changed.to_string());
        stage.app.reload_requests.notify_one();
        eventually(name, PATIENCE, async || {
            let (status, text) = get(&stage.app.admin, &at("/mcp")).await;
            status == 200 && text.contains(name)
        })
        .await;
    }
    assert!(openapi().await.contains("/.well-known/oauth-protected-resource/{path}"));
    assert_eq!((status(SERVER).await, status("/auth/oauth/register").await), (200, 405));

    stage.file.replace(&without.to_string());
    stage.app.reload_requests.notify_one();
    eventually("no resources", PATIENCE, async || status(&at("/mcp")).await == 404).await;
    assert_eq!((status(SERVER).await, status("/auth/oauth/register").await), (404, 404));
}

#[tokio::test]
async fn methods_heads_and_pages_of_other_origins() {
    let stage = Stage::new(&file(), &quick()).await;
    let admin = &stage.app.admin;
    for (path, allow, taken) in [
        (at("/mcp"), "GET, HEAD", Method::GET),
        (SERVER.into(), "GET, HEAD", Method::GET),
        ("/auth/oauth/register".into(), "POST", Method::POST),
    ] {
        let all =
            [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
        for method in all.into_iter().filter(|method| !allow.split(", ").any(|allowed| *method == *allowed)) {
            let answer = send(admin, method.clone(), &path, &[("host", HOST)], "").await;
            assert_eq!((answer.status, answer.headers["allow"].as_bytes()), (405, allow.as_bytes()), "{method} {path}");
        }
        // Pages of MCP clients send headers of their own with the discovery.
        let preflight = [
            ("host", HOST),
            ("origin", "https://inspector.example"),
            ("access-control-request-method", taken.as_str()),
            ("access-control-request-headers", "content-type,mcp-protocol-version"),
        ];
        let answer = send(admin, Method::OPTIONS, &path, &preflight, "").await;
        assert_eq!(answer.status, 204, "{path}");
        for (name, value) in [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-headers", "*"),
            ("access-control-allow-methods", allow),
        ] {
            assert_eq!(answer.headers[name], value, "{path}");
        }
        let answer = send(admin, taken, &path, &[("host", HOST), ("origin", "https://inspector.example")], "").await;
        assert_eq!(answer.headers["access-control-allow-origin"], "*", "{path}");
    }
    let head = send(admin, Method::HEAD, SERVER, &[("host", HOST)], "").await;
    let length = stage.get(HOST, SERVER).await.text.len().to_string();
    assert_eq!((head.status, &*head.text, head.headers["content-length"].as_bytes()), (200, "", length.as_bytes()));
    // The rest of the account API still has no other origins.
    let login = reqwest::Client::new().post(format!("http://{admin}/auth/login")).header("origin", "https://a.example");
    assert!(!login.send().await.unwrap().headers().contains_key("access-control-allow-origin"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_of_its_own_serves_the_documents_and_the_admin_port_does_not() {
    let policy = PolicyFile::new(&file().to_string());
    let path = policy.path();
    let program =
        Program::start(&["--config", &path, "--account-listen", "127.0.0.1:0", "--jwks-url", "http://127.0.0.1:9/"]);
    let answer = send(&program.account, Method::GET, &at("/mcp"), &[("host", HOST)], "").await;
    assert_eq!((answer.status, &answer.body["resource"]), (200, &json!("https://mcp.example/mcp")));
    assert_eq!(get(&program.admin, &at("/mcp")).await.0, 404);
    assert_eq!(get(&program.account, "/metrics").await.0, 404);
    assert_eq!(get(&program.account, "/.well-known/openid-configuration").await.0, 404);
}

#[test]
fn an_account_api_that_is_off_is_a_warning() {
    let policy = PolicyFile::new(&file().to_string());
    let path = policy.path();
    let flags = ["check-config", "--user-pool-id", POOL, "--client-id", CLIENT, "--config", &path];
    let warning = "the account API is off: challenges name metadata that this process does not serve";
    for (more, warned) in [(&[][..], false), (&["--account-api=false"], true)] {
        let (code, _, stderr) = run(&[&flags[..], more].concat(), &[]);
        assert_eq!((code, stderr.contains(warning)), (Some(0), warned), "{stderr}");
    }
}
