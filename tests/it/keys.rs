//! Fetching keys over HTTP, from a server that fails. Unit tests with a paused clock cover the schedule of fetches.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use cognito_authz::jwks::fetch::{FetchError, JwksClient};
use serde_json::{Value, json};
use url::Url;

use crate::support::certificates::Authority;
use crate::support::client::{connect, get, metric, verdict};
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::service::{Program, TestApp};
use crate::support::tls::TlsFiles;
use crate::support::token::{POOL, SigningKey, TokenBuilder, jwks};
use crate::support::{PATIENCE, eventually};

async fn fetch(server: &JwksServer, paths: &[&str]) -> Result<Vec<u8>, FetchError> {
    let urls: Vec<Url> = paths.iter().map(|path| format!("{}{path}", server.url).parse().unwrap()).collect();
    JwksClient::default().fetch(&urls).await
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new("gzip").arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout
}

#[tokio::test]
async fn only_status_200_is_accepted() {
    let server = JwksServer::start(Reply::ok("body")).await;
    assert_eq!(fetch(&server, &["/a"]).await.unwrap(), b"body");
    for status in [201, 204, 301, 302, 307, 400, 404, 429, 500, 503] {
        let location = vec![("location", format!("{}/elsewhere", server.url))];
        server.answers(Reply { headers: location, ..Reply::status(status) });
        assert_eq!(fetch(&server, &["/a"]).await, Err(FetchError::Status(status)));
    }
    assert!(!server.paths().contains(&"/elsewhere".to_owned()), "redirects are not followed");
}

#[tokio::test]
async fn the_size_limit_applies_after_decompression() {
    let limit = 512 * 1024;
    let server = JwksServer::start(Reply::ok(vec![b' '; limit])).await;
    assert_eq!(fetch(&server, &["/"]).await.unwrap().len(), limit);
    server.answers(Reply::ok(vec![b' '; limit + 1]));
    assert_eq!(fetch(&server, &["/"]).await, Err(FetchError::TooLarge));

    let packed = |bytes: &[u8]| Reply { headers: vec![("content-encoding", "gzip".into())], ..Reply::ok(gzip(bytes)) };
    server.answers(packed(b"packed"));
    assert_eq!(fetch(&server, &["/"]).await.unwrap(), b"packed");
    server.answers(packed(&vec![b' '; 100 * limit]));
    assert_eq!(fetch(&server, &["/"]).await, Err(FetchError::TooLarge));
    server.answers(Reply { body: b"not gzip".to_vec(), ..packed(b"") });
    assert!(matches!(fetch(&server, &["/"]).await, Err(FetchError::Body(_))));
}

#[tokio::test]
async fn the_updated_issuer_format_is_tried_only_after_403_and_404() {
    let server = JwksServer::start(Reply::ok("")).await;
    for (status, answer, asked) in [
        (403, Ok(b"updated".to_vec()), 2),
        (404, Ok(b"updated".to_vec()), 2),
        (500, Err(FetchError::Status(500)), 1),
        (200, Ok(Vec::new()), 1),
    ] {
        server.answers_by_path(
            move |path| if path == "/original" { Reply::status(status) } else { Reply::ok("updated") },
        );
        let before = server.requests();
        assert_eq!(fetch(&server, &["/original", "/updated"]).await, answer);
        assert_eq!(server.requests() - before, asked, "{status}");
    }
}

#[tokio::test]
async fn a_fetch_ends_if_the_server_is_slow_or_unreachable() {
    let server = JwksServer::start(Reply { delay: Duration::from_secs(60), ..Reply::ok("") }).await;
    assert_eq!(fetch(&server, &["/"]).await, Err(FetchError::Timeout));
    // The port was bound and released, so connections are refused.
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = JwksClient::default().fetch(&[format!("http://{away}/").parse().unwrap()]).await;
    assert_eq!(refused, Err(FetchError::Refused));
    // No label of a host name has 64 characters, so the name is not asked for anywhere.
    let unknown = JwksClient::default().fetch(&[format!("http://{}.test/", "a".repeat(64)).parse().unwrap()]).await;
    assert!(matches!(unknown, Err(FetchError::Resolve(_))), "{unknown:?}");
    // A server with a certificate of an unknown CA.
    let authority = Authority::new("service");
    let files = TlsFiles::new(&authority.issue(&["127.0.0.1"]), &authority.certificate());
    let tls = files.flags();
    let flags = [
        &["--jwks-url", "http://127.0.0.1:9/", "--admin-listen", "tls:127.0.0.1:0"],
        &tls.each_ref().map(|flag| &**flag)[..],
    ];
    let app = TestApp::start(&flags.concat());
    let url = format!("https://{}/", app.admin.trim_start_matches("tls:"));
    let untrusted = JwksClient::default().fetch(&[url.parse().unwrap()]).await;
    let Err(FetchError::Handshake(why)) = untrusted else { panic!("{untrusted:?}") };
    assert!(why.contains("UnknownIssuer"), "{why}");
}

/// The log and `/readyz` say which URL was asked, what went wrong, and what to look at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_fetch_names_its_url_and_error_and_a_hint() {
    let server = JwksServer::start(Reply::status(404)).await;
    let url = format!("{}/{POOL}/.well-known/jwks.json", server.url);
    let readyz = async |program: &Program| -> (u16, Value) {
        let (status, body) = get(&program.admin, "/readyz").await;
        (status, serde_json::from_str(&body).unwrap())
    };
    let html = format!("<html>{}\u{1b}[31m", "x".repeat(10_000));
    for (answer, error, hint) in [
        (Reply::status(404), "the response has status 404", "is there a pool eu-west-1_Test00001 in eu-west-1?"),
        (Reply::ok(html), "not a JSON document", "another server, such as a proxy or a sign-in page, answers"),
        (Reply::ok("{\"keys\":[]}"), "no usable key in the set", "is this the key set of eu-west-1_Test00001?"),
        (Reply::status(302), "the response has status 302", "redirects are not followed"),
        (Reply::status(503), "the response has status 503", "fetches are repeated"),
    ] {
        server.answers(answer);
        let mut program = Program::start(&["--cognito-endpoint", &server.url]);
        let line = program.wait_for_line("keys could not be fetched");
        assert!(line.len() < 1000, "{line}");
        let line: Value = serde_json::from_str(&line).unwrap();
        let fields = &line["fields"];
        assert_eq!([&fields["url"], &fields["pool"], &fields["error"]], [&*url, "default", error], "{line}");
        assert!(fields["hint"].as_str().unwrap().contains(hint), "{line}");
        assert_eq!((&fields["failures"], &fields["serving"]), (&json!(1), &json!(false)), "{line}");
        let (status, body) = readyz(&program).await;
        assert_eq!((status, &body["pending"]), (503, &json!(["keys of the pool default"])));
        let told = body["keys"]["default"].as_str().unwrap();
        assert!(told.starts_with(&format!("not fetched: {url}: {error}; ")) && told.contains(hint), "{told}");
    }
    // With keys of an earlier fetch the service stays ready, and tells why it has no newer ones.
    server.answers(Reply::ok(jwks(&[SigningKey::shared()])));
    let program = Program::start(&["--cognito-endpoint", &server.url, "--jwks-refresh-interval", "1s"]);
    eventually("ready", PATIENCE, async || readyz(&program).await.0 == 200).await;
    assert_eq!(readyz(&program).await.1, json!({"status": "ready", "pending": []}));
    server.answers(Reply::status(500));
    eventually("told", PATIENCE, async || readyz(&program).await.1["keys"]["default"].is_string()).await;
    assert_eq!(readyz(&program).await.0, 200);
    server.answers(Reply::ok(jwks(&[SigningKey::shared()])));
    eventually("over", PATIENCE, async || readyz(&program).await.1["keys"].is_null()).await;
}

#[tokio::test]
async fn the_service_starts_without_cognito() {
    let server = JwksServer::start(Reply::status(500)).await;
    let app = TestApp::start(&["--jwks-url", &server.url]);
    let channel = connect(&app.grpc[0]).await;
    let token = TokenBuilder::access().sign(SigningKey::shared());
    assert_eq!(verdict(&channel, &token).await, (503, "keys_unavailable".into()));
    let (status, body) = get(&app.admin, "/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("keys of the pool default"), "{body}");
    assert_eq!(get(&app.admin, "/livez").await.0, 200);
    assert_eq!(verdict(&channel, "x").await.1, "malformed_token", "checks before the key lookup work");

    server.answers(Reply::ok(jwks(&[SigningKey::shared()])));
    eventually("ready", PATIENCE, async || get(&app.admin, "/readyz").await.0 == 200).await;
    assert_eq!(verdict(&channel, &token).await.0, 200);
    assert!(metric(&app.admin, "jwks_fetches_total{pool=\"default\",result=\"status\"}").await >= 1.0);
    assert!(metric(&app.admin, "jwks_last_success_timestamp_seconds{pool=\"default\"}").await > 1e9);
}

#[tokio::test]
async fn seeded_keys_serve_until_the_first_fetch() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), jwks(&[SigningKey::shared()])).unwrap();
    let server = JwksServer::start(Reply::status(500)).await;
    let seed = file.path().to_str().unwrap();
    let app = TestApp::start(&["--jwks-url", &server.url, "--jwks-file", seed, "--jwks-refresh-interval", "1s"]);
    let channel = connect(&app.grpc[0]).await;
    let (seeded, fetched) =
        (TokenBuilder::access().sign(SigningKey::shared()), TokenBuilder::access().sign(SigningKey::other()));
    assert_eq!(get(&app.admin, "/readyz").await.0, 200, "a seeded pool is ready");
    // Often enough that the worker remembers the token.
    for _ in 0..4 {
        assert_eq!(verdict(&channel, &seeded).await.0, 200);
    }
    assert_eq!(verdict(&channel, &fetched).await, (503, "keys_unavailable".into()));

    server.answers(Reply::ok(jwks(&[SigningKey::other()])));
    eventually("fetched", PATIENCE, async || verdict(&channel, &fetched).await.0 == 200).await;
    assert_eq!(verdict(&channel, &seeded).await, (401, "unknown_kid".into()), "a fetch replaces the seeded keys");
}

#[tokio::test]
async fn keys_stay_in_effect_during_an_outage() {
    let server = JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await;
    let app = TestApp::start(&["--jwks-url", &server.url, "--jwks-refresh-interval", "1s"]);
    let channel = connect(&app.grpc[0]).await;
    let token = |number: u32| TokenBuilder::access().claim("jti", number).sign(SigningKey::shared());
    eventually("ready", PATIENCE, async || get(&app.admin, "/readyz").await.0 == 200).await;
    for (number, answer) in [
        (1, Reply::status(500)),
        (2, Reply::ok("")),
        (3, Reply::ok("<html>")),
        (4, Reply::ok("{\"keys\":[]}")),
        (5, Reply::ok("{\"keys\":[{\"kty\":\"EC\",\"kid\":\"c2hhcmVk+/=\"}]}")),
    ] {
        server.answers(answer);
        let seen = server.requests();
        eventually("fetched again", PATIENCE, async || server.requests() > seen + 1).await;
        assert_eq!(verdict(&channel, &token(number)).await.0, 200, "{number}");
        assert_eq!(get(&app.admin, "/readyz").await.0, 200, "the service stays ready");
    }
    assert!(metric(&app.admin, "jwks_keys{pool=\"default\"}").await > 0.0);
}
