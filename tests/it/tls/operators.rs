//! Operators at an admin port with TLS: the commands, and client certificates as authorization.

use http::Method;
use serde_json::{Value, json};

use super::Stage;
use crate::support::certificates::{Authority, Identity};
use crate::support::client::{connect, get, verdict};
use crate::support::service::run;
use crate::support::tls::{SERVICE, TlsClient};
use crate::support::token::SUB;

const TOKEN: &str = "operators-token-for-tests-2";

/// File with the token of the operators.
fn token_file() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, TOKEN).unwrap();
    (directory, path.to_str().unwrap().to_owned())
}

impl Stage {
    /// Flags of a command for the admin port, which verify its certificate.
    fn trusted(&self) -> Vec<String> {
        let url = self.program.admin.replace("mtls:", "tls:").replace("tls:", "https://");
        let ca = self.write("service.pem", &self.authority.certificate());
        ["--admin", &url, "--admin-ca-file", &ca, "--admin-server-name", SERVICE].map(str::to_owned).into()
    }

    /// Flags of a command that present this certificate.
    fn presenting(&self, Identity { certificate, key }: &Identity) -> [String; 4] {
        let (certificate, key) = (self.write("own.crt", certificate), self.write("own.key", key));
        ["--admin-cert-file".into(), certificate, "--admin-key-file".into(), key]
    }

    /// Sends a request for `/revocations` over a new connection. Returns status and body.
    async fn revocations(&self, client: &TlsClient, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let request = http::Request::builder().method(method).uri(format!("/revocations{path}"));
        let request = request.header("content-type", "application/json");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = client.send(&self.program.admin, request.body(body.into()).unwrap()).await.unwrap();
        (answer.status().as_u16(), serde_json::from_str(answer.body()).unwrap())
    }

    /// Ends the program, and returns the lines about changes by operators.
    fn audit(&mut self) -> Vec<Value> {
        self.program.signal("TERM");
        self.program.wait();
        let lines = self.program.log.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["fields"].take());
        lines.filter(|fields| fields["event"] == "revocation").collect()
    }
}

/// Runs a command that prints one line and succeeds.
fn succeeds(args: &[&[String]]) -> String {
    let args: Vec<&str> = args.iter().copied().flatten().map(String::as_str).collect();
    let (code, stdout, stderr) = run(&args, &[]);
    assert_eq!((code, &*stderr, stdout.lines().count()), (Some(0), "", 1), "{args:?}: {stdout}");
    stdout
}

/// Runs a command that fails with one line.
fn fails(args: &[&[String]], expected_code: i32, expected: &str) {
    let args: Vec<&str> = args.iter().copied().flatten().map(String::as_str).collect();
    let (code, stdout, stderr) = run(&args, &[]);
    assert_eq!((code, &*stdout, stderr.lines().count()), (Some(expected_code), "", 1), "{args:?}: {stderr}");
    assert!(stderr.contains(expected) && !stderr.contains(TOKEN), "{args:?}: {stderr}");
}

fn words<const N: usize>(words: [&str; N]) -> [String; N] {
    words.map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoke_and_revocations_ask_over_https_and_verify_the_certificate() {
    let (_directory, path) = token_file();
    let stage = Stage::start(&["--admin-listen", "tls:127.0.0.1:0", "--admin-token-file", &path]).await;
    let (revoke, list, token) =
        (words(["revoke", "--sub", SUB]), words(["revocations"]), words(["--admin-token-file", &path]));
    let trusted = stage.trusted();
    let wrong = words(["--admin-ca-file", &stage.write("wrong.pem", &Authority::new("x").certificate())]);
    let plain = words(["--admin", &trusted[1].replace("https", "http")]);
    for command in [&revoke[..], &list, &words(["revocations", "lift", "5f0c9a7d3e1b48269c02d1e4a7b86f35"])] {
        fails(&[command, &trusted[..2], &token], 1, "https needs --admin-ca-file");
        fails(&[command, &trusted[..4], &token], 1, "not valid for name");
        fails(&[command, &trusted[..2], &trusted[4..], &wrong, &token], 1, "UnknownIssuer");
        fails(&[command, &plain, &token], 1, "use a URL that starts with https://");
        fails(&[command, &plain, &trusted[2..], &token], 1, "need a URL that starts with https://");
        fails(&[command, &trusted, &token, &words(["--admin-cert-file", "x"])], 64, "--admin-key-file <FILE> is requ");
        fails(
            &[command, &trusted[..4], &words(["--admin-server-name", "a b"]), &token],
            1,
            "\"a b\" is not a host name",
        );
    }
    let channel = connect(&stage.program.grpc[0]).await;
    assert_eq!(verdict(&channel, &stage.token).await.0, 200, "nothing was revoked");
    let made = succeeds(&[&revoke, &words(["--json"]), &trusted, &token]);
    assert_eq!(verdict(&channel, &stage.token).await.0, 401);
    let made: Value = serde_json::from_str(&made).unwrap();
    let id = made["id"].as_str().unwrap();
    assert!(succeeds(&[&list, &trusted, &token]).starts_with(id));
    assert!(succeeds(&[&words(["revocations", "lift", id]), &trusted, &token]).starts_with("lifted: "));
    assert_eq!(verdict(&channel, &stage.token).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_of_an_mtls_port_authorizes_an_operator() {
    let mut stage = Stage::start(&["--admin-listen", "mtls:127.0.0.1:0", "--log-format", "json"]).await;
    let channel = connect(&stage.program.grpc[0]).await;
    let named = |name: &str| TlsClient::http(&[&stage.authority], Some(&stage.clients.issue(&[name])));
    let ops = named("spiffe://mesh.test/ops");
    let (status, made) = stage.revocations(&ops, Method::POST, "", &json!({"sub": SUB})).await;
    assert_eq!((status, verdict(&channel, &stage.token).await.0), (200, 401), "{made}");
    let (status, page) = stage.revocations(&ops, Method::GET, "", &Value::Null).await;
    assert_eq!((status, page["revocations"].as_array().unwrap().len()), (200, 1));
    // Without --admin-token-file, an Authorization header has no meaning.
    let request = http::Request::get("/revocations").header("authorization", "Bearer anything");
    assert_eq!(
        ops.send(&stage.program.admin, request.body(String::new().into()).unwrap()).await.unwrap().status(),
        200
    );
    // Browsers present certificates, too: a page of another origin can send none of the requests that change anything.
    let simple = http::Request::post("/revocations").header("content-type", "text/plain");
    let simple = simple.body(json!({"sub": "ada"}).to_string().into()).unwrap();
    assert_eq!(ops.send(&stage.program.admin, simple).await.unwrap().status(), 415);
    let preflight = http::Request::options("/revocations").header("origin", "https://evil.test");
    let preflight = preflight.header("access-control-request-method", "POST").body(String::new().into()).unwrap();
    let preflight = ops.send(&stage.program.admin, preflight).await.unwrap();
    assert_eq!((preflight.status().as_u16(), preflight.headers().get("access-control-allow-origin")), (405, None));
    let lifted = format!("/{}", made["id"].as_str().unwrap());
    // A DNS name that looks like the name of the token in the log.
    assert_eq!(stage.revocations(&named("admin-token"), Method::DELETE, &lifted, &Value::Null).await.0, 200);
    assert_eq!(verdict(&channel, &stage.token).await.0, 200);
    let audit = stage.audit();
    let fields = ["action", "by", "credential", "peer", "result"];
    let seen: Vec<_> = audit.iter().map(|line| fields.map(|name| line[name].as_str().unwrap())).collect();
    assert_eq!(
        seen,
        [
            ["revoke", "spiffe://mesh.test/ops", "certificate", "127.0.0.1", "recorded"],
            ["lift", "admin-token", "certificate", "127.0.0.1", "recorded"],
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_certificate_that_the_handshake_has_verified_authorizes_an_operator() {
    let flags = ["--admin-listen", "mtls:127.0.0.1:0", "--tls-client-names", "ops.test"];
    let stage = Stage::start(&flags).await;
    let trusted = [&stage.authority];
    let (forged, foreign) = (Authority::new("clients").issue(&["ops.test"]), stage.clients.issue(&["web.test"]));
    for identity in [None, Some(&forged), Some(&foreign)] {
        let client = TlsClient::http(&trusted, identity);
        assert!(client.get(&stage.program.admin, "/revocations").await.is_err());
    }
    let named = TlsClient::http(&trusted, Some(&stage.clients.issue(&["ops.test"])));
    assert_eq!(stage.revocations(&named, Method::GET, "", &Value::Null).await.0, 200);
    // A `tls:` port asks for no certificate, even if another listener does.
    let stage = Stage::start(&["--admin-listen", "tls:127.0.0.1:0", "--grpc-listen", "mtls:127.0.0.1:0"]).await;
    let ops = TlsClient::http(&[&stage.authority], Some(&stage.clients.issue(&["ops.test"])));
    let (status, body) = stage.revocations(&ops, Method::GET, "", &Value::Null).await;
    assert_eq!((status, &body["code"]), (403, &json!("not_configured")));
    let message = body["message"].as_str().unwrap();
    for part in ["--admin-token-file", "Authorization: Bearer", "mtls:", "client certificate"] {
        assert!(message.contains(part), "{message}");
    }
    // A header that a proxy would set proves nothing.
    let stage = Stage::start(&["--grpc-listen", "tls:127.0.0.1:0"]).await;
    assert_eq!(get(&stage.program.admin, "/revocations").await.0, 403);
    let line = "x-forwarded-client-cert: URI=spiffe://mesh.test/ops";
    assert_eq!(crate::support::http1::fetch(&stage.program.admin, "/revocations", &[line]).await.status, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_enough_to_read_the_status() {
    let (_directory, path) = token_file();
    let tokens = ["--admin-token-file", &path];
    let stage = Stage::start(&[&["--admin-listen", "mtls:127.0.0.1:0"], &tokens[..]].concat()).await;
    let ops = TlsClient::http(&[&stage.authority], Some(&stage.clients.issue(&["ops.test"])));
    let (status, body) = ops.get(&stage.program.admin, "/status").await.unwrap();
    let shown: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &shown["certificates"][0]["listener"]), (200, &json!("admin")));
    let left = shown["certificates"][0]["left"].as_f64().unwrap();
    assert!(left > 0.0, "{left}");
    // Without a certificate, the token is needed.
    let stage = Stage::start(&[&["--admin-listen", "tls:127.0.0.1:0"], &tokens[..]].concat()).await;
    let anyone = TlsClient::http(&[&stage.authority], None);
    assert_eq!(anyone.get(&stage.program.admin, "/status").await.unwrap().0, 401);
    assert_eq!(anyone.get(&stage.program.admin, "/").await.unwrap().0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_need_a_token_or_a_certificate() {
    let (_directory, path) = token_file();
    let mutual = ["--admin-listen", "mtls:127.0.0.1:0", "--log-format", "json"];
    let mut stage = Stage::start(&[&mutual[..], &["--admin-token-file", &path]].concat()).await;
    let (revoke, token) = (words(["revoke", "--sub", SUB]), words(["--admin-token-file", &path]));
    let (trusted, own) = (stage.trusted(), stage.presenting(&stage.clients.issue(&["ops.test"])));
    fails(
        &[&revoke, &trusted],
        64,
        "--admin-token-file: the file with the token of the operators, or --admin-cert-file,",
    );
    fails(&[&words(["revocations"]), &trusted], 64, "or --admin-cert-file, is required");
    fails(&[&revoke, &trusted, &token], 1, "");
    let channel = connect(&stage.program.grpc[0]).await;
    assert_eq!(verdict(&channel, &stage.token).await.0, 200, "nothing was revoked");
    let made = succeeds(&[&revoke, &words(["--json"]), &trusted, &own]);
    assert_eq!(verdict(&channel, &stage.token).await.0, 401);
    let made: Value = serde_json::from_str(&made).unwrap();
    let lift = words(["revocations", "lift", made["id"].as_str().unwrap()]);
    succeeds(&[&lift, &trusted, &own, &token]);
    assert_eq!(verdict(&channel, &stage.token).await.0, 200);
    let audit = stage.audit();
    let seen: Vec<_> = audit.iter().map(|line| (line["action"].as_str(), line["by"].as_str())).collect();
    assert_eq!(seen, [(Some("revoke"), Some("ops.test")), (Some("lift"), Some("ops.test"))]);
}
