//! Metrics that show how much of a limit is used, and what was refused: connections, threads, messages, versions.

use std::io::{Read, Write};
use std::net::TcpStream;

use aws_lc_rs::digest::{SHA256, digest};
use prost::bytes::Bytes;
use serde_json::Value;

use crate::limits::{CHECK, h2, head};
use crate::support::certificates::Authority;
use crate::support::client::{connect, get, metric, verdict};
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::policy_file::PolicyFile;
use crate::support::service::TestApp;
use crate::support::token::{SigningKey, TokenBuilder, jwks, unix_now};
use crate::support::{PATIENCE, eventually};

/// Waits until a metric has this value.
async fn becomes(app: &TestApp, series: &str, value: f64) {
    eventually(series, PATIENCE, async || metric(&app.admin, series).await == value).await;
}

#[tokio::test]
async fn connections_are_counted_until_they_end() {
    let app = TestApp::start(&["--jwks-url", "http://127.0.0.1:9/", "--grpc-max-connections", "2"]);
    let grpc = |name: &str| format!("{name}{{listener=\"grpc\"}}");
    let (_, metrics) = get(&app.admin, "/metrics").await;
    for series in [
        "connections{listener=\"grpc\"} 0",
        "connections_limit{listener=\"grpc\"} 2",
        "connections_accepted_total{listener=\"grpc\"} 0",
        "connections_refused_total{listener=\"grpc\",reason=\"limit\"} 0",
        "connections_refused_total{listener=\"admin\",reason=\"peer_limit\"} 0",
        "worker_connections{worker=\"check-0\"} 0",
        "worker_streams{worker=\"check-0\"} 0",
        "ready 0",
    ] {
        assert!(metrics.contains(&format!("\ncognito_authz_{series}\n")), "{series} is not in\n{metrics}");
    }
    assert!(!metrics.contains("reason=\"caller\""), "only the HTTP form has a list of callers");
    assert!(!metrics.contains("tls_handshake_failures_total{"), "no listener has TLS");
    assert!(metric(&app.admin, "connections{listener=\"admin\"}").await >= 1.0, "the connection of the scraper");

    let open = [TcpStream::connect(&app.grpc[0]).unwrap(), TcpStream::connect(&app.grpc[0]).unwrap()];
    becomes(&app, &grpc("connections"), 2.0).await;
    becomes(&app, "worker_connections{worker=\"check-0\"}", 2.0).await;
    let mut third = TcpStream::connect(&app.grpc[0]).unwrap();
    third.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(!matches!(third.read(&mut [0; 8]), Ok(1..)));
    becomes(&app, "connections_refused_total{listener=\"grpc\",reason=\"limit\"}", 1.0).await;
    drop(open);
    becomes(&app, &grpc("connections"), 0.0).await;
    assert_eq!(metric(&app.admin, &grpc("connections_accepted_total")).await, 2.0);
}

#[tokio::test]
async fn callers_and_handshakes_that_are_refused_are_counted() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let identity = Authority::new("test").issue(&["authz.test"]);
    let (certificate, key) = (write("tls.crt", &identity.certificate), write("tls.key", &identity.key));
    let files = ["--tls-cert-file", &certificate, "--tls-key-file", &key];
    let flags =
        ["--jwks-url", "http://127.0.0.1:9/", "--grpc-listen", "tls:127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
    let app = TestApp::start(&[&flags[..], &files, &["--http-callers", "192.0.2.0/24"]].concat());
    let tls = app.grpc.iter().find_map(|address| address.strip_prefix("tls:")).unwrap_or(app.grpc.last().unwrap());
    let mut refused = TcpStream::connect(&app.http).unwrap();
    let mut answer = String::new();
    refused.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    becomes(&app, "connections_refused_total{listener=\"http\",reason=\"caller\"}", 1.0).await;
    assert!(metric(&app.admin, "connections_accepted_total{listener=\"http\"}").await < 1.0);

    let mut plain = TcpStream::connect(tls).unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    becomes(&app, "tls_handshake_failures_total{listener=\"grpc\"}", 1.0).await;
}

#[tokio::test]
async fn threads_are_busy_while_they_work() {
    let server = JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await;
    let app = TestApp::start(&["--jwks-url", &server.url, "--grpc-threads", "2"]);
    becomes(&app, "ready", 1.0).await;
    let busy = async || {
        let of = |worker: &str| format!("worker_busy_seconds_total{{worker=\"{worker}\"}}");
        let mut all = Vec::new();
        for worker in ["check-0", "check-1", "main"] {
            all.push(metric(&app.admin, &of(worker)).await);
        }
        all
    };
    let before = busy().await;
    let channel = connect(&app.grpc[0]).await;
    // Each token is new, so each takes a signature to verify.
    for number in 0..100 {
        let token = TokenBuilder::access().claim("jti", number.to_string()).sign(SigningKey::shared());
        assert_eq!(verdict(&channel, &token).await.0, 200);
    }
    let after = busy().await;
    let rise: Vec<f64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    assert!(rise[0].max(rise[1]) > 1e-3, "a signature takes some 20 us: {rise:?}");
    assert!(rise[0].min(rise[1]) < rise[0].max(rise[1]) / 2.0, "one connection is served by one thread: {rise:?}");
    assert!(rise[2] > 0.0, "the scrapes: {rise:?}");
    becomes(&app, "worker_streams{worker=\"check-0\"}", 0.0).await;
    assert!(metric(&app.admin, "token_cache_used_ratio").await > 0.0);
}

#[tokio::test]
async fn calls_and_messages_that_wait_are_counted() {
    let app = TestApp::start(&["--jwks-url", "http://127.0.0.1:9/", "--grpc-max-message-bytes", "1048576"]);
    let mut client = h2(&app.grpc[0]).await;
    // Longer than a small message, and incomplete: the memory of a connection has room for two of the largest.
    let mut message = vec![0, 0, 15, 255, 0];
    message.resize(70_000, 0);
    let mut open = Vec::new();
    for _ in 0..5 {
        client = client.ready().await.unwrap();
        let (answer, mut body) = client.send_request(head(CHECK, &[("grpc-timeout", "20S")]), false).unwrap();
        body.send_data(Bytes::from(message.clone()), false).unwrap();
        open.push((answer, body));
    }
    becomes(&app, "worker_streams{worker=\"check-0\"}", 5.0).await;
    becomes(&app, "grpc_messages_waiting{size=\"large\"}", 3.0).await;
    let reserved = metric(&app.admin, "grpc_message_memory_bytes{size=\"large\"}").await;
    assert!((2_000_000.0..2_200_000.0).contains(&reserved), "{reserved}");
    assert!(metric(&app.admin, "grpc_message_memory_limit_bytes{size=\"large\"}").await > 4e6);
    assert!(metric(&app.admin, "checks_in_flight").await < 1.0, "no message is complete");
    drop(open);
    drop(client);
    becomes(&app, "worker_streams{worker=\"check-0\"}", 0.0).await;
    becomes(&app, "grpc_messages_waiting{size=\"large\"}", 0.0).await;
    becomes(&app, "grpc_message_memory_bytes{size=\"large\"}", 0.0).await;
}

#[tokio::test]
async fn the_version_of_the_policy_file_is_shown() {
    let hash = |text: &str| {
        let bytes = digest(&SHA256, text.as_bytes());
        bytes.as_ref()[..6].iter().fold(0, |number, byte| number << 8 | i64::from(*byte))
    };
    #[expect(clippy::cast_precision_loss, reason = "48 bits")]
    let shown = |text: &str| hash(text) as f64;
    let (first, second) = ("policies: {a: {}}\ndefault: a\n", "policies: {b: {}}\ndefault: b\n");
    let file = PolicyFile::new(first);
    let begun = unix_now();
    let app = TestApp::start(&["--jwks-url", "http://127.0.0.1:9/", "--config", &file.path()]);
    becomes(&app, "config_hash", shown(first)).await;
    let time = "config_last_reload_success_timestamp_seconds{part=\"policy\"}";
    let loaded = metric(&app.admin, time).await;
    #[expect(clippy::cast_precision_loss, reason = "times are below 2^53")]
    let begun = begun as f64;
    assert!((begun..begun + 100.0).contains(&loaded), "{loaded}");
    let (_, config) = get(&app.admin, "/config").await;
    let config: Value = serde_json::from_str(&config).unwrap();
    let whole = config["policy_file"]["sha256"].as_str().unwrap();
    assert_eq!((whole.len(), i64::from_str_radix(&whole[..12], 16).unwrap()), (64, hash(first)));

    file.replace("policies: {");
    app.reload_requests.notify_one();
    becomes(&app, "config_last_reload_successful", 0.0).await;
    becomes(&app, "config_hash", shown(first)).await;
    file.replace(second);
    app.reload_requests.notify_one();
    becomes(&app, "config_hash", shown(second)).await;
    becomes(&app, "config_last_reload_successful", 1.0).await;
    assert!(metric(&app.admin, time).await >= loaded);

    let without = TestApp::start(&["--jwks-url", "http://127.0.0.1:9/"]);
    assert!(metric(&without.admin, "config_hash").await < 1.0);
}
