//! Startup and shutdown of the program: exit codes, health, draining, signals, the log.
//!
//! Tests have two threads: while one waits for the program to end, the other runs the clients.

use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::support::client::{bearer, check, connect, get, verdict};
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::service::{Program, run};
use crate::support::token::{CLIENT, POOL, SigningKey, TokenBuilder, jwks};
use crate::support::{PATIENCE, eventually};

/// Returns a JWKS file with the shared key.
fn seed() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(jwks(&[SigningKey::shared()]).as_bytes()).unwrap();
    file
}

/// JWKS URL that refuses connections.
const NOWHERE: [&str; 2] = ["--jwks-url", "http://127.0.0.1:9/"];

fn start(seed: &tempfile::NamedTempFile, more: &[&str]) -> Program {
    Program::start(&[&NOWHERE[..], &["--jwks-file", seed.path().to_str().unwrap()], more].concat())
}

const NAMES: [&str; 2] = ["", "envoy.service.auth.v3.Authorization"];

#[test]
fn a_usage_error_exits_with_64_and_one_line() {
    let good = [("COGNITO_USER_POOL_ID", POOL), ("COGNITO_CLIENT_ID", CLIENT)];
    for (args, environment) in [
        (&[][..], &[][..]),
        (&["--nonsense"], &good),
        (&["nonsense"], &good),
        (&["--leeway", "2m"], &good),
        (&["check-config"], &good[..1]),
        (&["--jwks-file", "/nonexistent"], &good),
    ] {
        let begin = Instant::now();
        let (code, stdout, stderr) = run(args, environment);
        assert_eq!((code, &*stdout), (Some(64), ""), "{args:?}: {stderr}");
        assert!(
            stderr.starts_with("cognito-authz: ") && stderr.ends_with('\n') && stderr.lines().count() == 1,
            "{stderr}"
        );
        assert!(begin.elapsed() < PATIENCE);
    }
    let (code, stdout, stderr) = run(&["check-config"], &good);
    assert_eq!((code, &*stderr), (Some(0), ""));
    assert!(stdout.ends_with("\nthe configuration is right\n"), "{stdout}");
    assert_eq!(run(&["--version"], &[]).0, Some(0));
    assert_eq!(run(&["--help"], &[]).0, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bind_failure_exits_with_69() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let _live = UnixListener::bind(path("live")).unwrap();
    std::fs::write(path("file"), "precious").unwrap();
    let (live, file) = (format!("unix:{}", path("live")), format!("unix:{}", path("file")));
    let base = ["--user-pool-id", POOL, "--client-id", CLIENT, NOWHERE[0], NOWHERE[1]];
    for (grpc, admin) in [
        (&*taken, "127.0.0.1:0"),
        ("127.0.0.1:0", &*taken),
        (&*live, "127.0.0.1:0"),
        (&*file, "127.0.0.1:0"),
        ("unix:/nonexistent/a", "127.0.0.1:0"),
    ] {
        let _held = std::net::TcpListener::bind(&taken);
        let (code, _, stderr) = run(&[&base[..], &["--grpc-listen", grpc, "--admin-listen", admin]].concat(), &[]);
        assert_eq!(code, Some(69), "{grpc} {admin}: {stderr}");
        assert!(stderr.starts_with("cognito-authz: cannot listen on "), "{stderr}");
    }
    assert_eq!(std::fs::read_to_string(path("file")).unwrap(), "precious");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_health_agrees_with_readyz() {
    let server = JwksServer::start(Reply::status(500)).await;
    let program = Program::start(&["--jwks-url", &server.url]);
    let mut health = HealthClient::new(connect(&program.grpc[0]).await);
    let ask = |service: &str| HealthCheckRequest { service: service.into() };
    for name in NAMES {
        let status = health.check(ask(name)).await.unwrap().into_inner().status;
        assert_eq!(status, ServingStatus::NotServing as i32, "{name:?} has no keys yet");
    }
    assert_eq!(health.check(ask("nonsense")).await.unwrap_err().code(), tonic::Code::NotFound);
    let admin = format!("http://{}", program.admin);
    let (code, _, stderr) = run(&["healthcheck", "--admin", &admin], &[]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("keys of the pool default"), "{stderr}");

    let mut watches = Vec::new();
    for name in NAMES {
        let mut watch = health.watch(ask(name)).await.unwrap().into_inner();
        let status = watch.message().await.unwrap().unwrap().status;
        assert_eq!(status, ServingStatus::NotServing as i32, "{name:?}");
        watches.push(watch);
    }
    server.answers(Reply::ok(jwks(&[SigningKey::shared()])));
    // The names change one after the other, so the checks below wait for both.
    for watch in &mut watches {
        assert_eq!(watch.message().await.unwrap().unwrap().status, ServingStatus::Serving as i32);
    }
    for name in NAMES {
        assert_eq!(health.check(ask(name)).await.unwrap().into_inner().status, ServingStatus::Serving as i32);
    }
    assert_eq!(run(&["healthcheck", "--admin", &admin], &[]), (Some(0), "ready\n".into(), String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_lists_the_services() {
    let seed = seed();
    let program = start(&seed, &[]);
    let mut reflection = ServerReflectionClient::new(connect(&program.grpc[0]).await);
    let mut ask = async |message_request| {
        let request = ServerReflectionRequest { message_request: Some(message_request), ..Default::default() };
        let mut answers = reflection.server_reflection_info(tokio_stream_of(request)).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap().message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(services) = ask(MessageRequest::ListServices(String::new())).await else {
        panic!()
    };
    let names: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
    assert!(names.contains(&NAMES[1].to_owned()) && names.contains(&"grpc.health.v1.Health".to_owned()), "{names:?}");
    let symbol = MessageRequest::FileContainingSymbol(NAMES[1].into());
    assert!(
        matches!(ask(symbol).await, MessageResponse::FileDescriptorResponse(files) if !files.file_descriptor_proto.is_empty())
    );
}

/// Returns a stream of one message.
fn tokio_stream_of<T: Send + 'static>(message: T) -> impl futures_core::Stream<Item = T> + Send + 'static {
    tokio_stream::once(message)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_reports_not_ready_before_it_closes_connections() {
    let seed = seed();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("authz.sock");
    let unix = format!("--grpc-listen=unix:{}", socket.display());
    let mut program = start(&seed, &[&unix, "--shutdown-delay", "5s", "--shutdown-deadline", "10s"]);
    let tcp = connect(&program.grpc[0]).await;
    let uds = connect(&program.grpc[1]).await;
    let token = TokenBuilder::access().sign(SigningKey::shared());
    assert_eq!(verdict(&tcp, &token).await.0, 200);
    assert_eq!(verdict(&uds, &token).await.0, 200);
    let mut health = HealthClient::new(tcp.clone());
    let mut watch = health.watch(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status, ServingStatus::Serving as i32);

    program.signal("TERM");
    assert_eq!(watch.message().await.unwrap().unwrap().status, ServingStatus::NotServing as i32);
    let (status, body) = get(&program.admin, "/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("shutting down"), "{body}");
    // During `--shutdown-delay`, the service reports not ready but still serves, also new connections.
    assert_eq!(verdict(&connect(&program.grpc[0]).await, &token).await.0, 200);
    assert_eq!(verdict(&uds, &token).await.0, 200);

    // The server ends the watch, so the watch does not delay the shutdown.
    let ended = watch.message().await;
    assert_eq!(ended.unwrap_err().code(), tonic::Code::Unavailable);
    let begin = Instant::now();
    assert_eq!(program.wait().code(), Some(0), "{:#?}", program.log);
    assert!(begin.elapsed() < Duration::from_secs(9), "the program ended before the deadline");
    assert!(program.log.iter().any(|line| line.contains("\"stopped\"")), "{:#?}", program.log);
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_check_finishes_unless_the_deadline_passes() {
    let seed = seed();
    for (deadline, finishes) in [("10s", true), ("300ms", false)] {
        let mut program = start(&seed, &["--shutdown-deadline", deadline]);
        let (mut sender, answer) = crate::limits::slow_check(&program.grpc[0]).await;
        program.signal("TERM");
        program.wait_for_line("shutting down");
        if finishes {
            sender.send_data(crate::limits::framed(&bearer("x")), true).unwrap();
            assert_eq!(answer.await.unwrap().status(), 200);
            drop(sender);
        }
        let status = program.wait();
        assert_eq!(status.code(), Some(0), "{deadline}: {:#?}", program.log);
        let cut = program.log.iter().any(|line| line.contains("requests in flight"));
        assert_eq!(cut, !finishes, "{:#?}", program.log);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_exits_at_once() {
    let seed = seed();
    let mut program = start(&seed, &["--shutdown-delay", "1h", "--shutdown-deadline", "1h"]);
    program.signal("INT");
    program.wait_for_line("shutting down");
    program.signal("TERM");
    let status = program.wait();
    assert!(!status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_json_and_contains_no_secrets() {
    let seed = seed();
    let mut program = start(&seed, &["--log-level", "trace", "--token-use", "any"]);
    let channel = connect(&program.grpc[0]).await;
    let (access, id) =
        (TokenBuilder::access().sign(SigningKey::shared()), TokenBuilder::id().sign(SigningKey::shared()));
    let bad = TokenBuilder::access().header("kid", "evil\n\u{1b}[31mkid".repeat(20)).sign(SigningKey::shared());
    for token in [&access, &id, &bad, &format!("{access}x")] {
        let mut request = bearer(token);
        let http = request.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap();
        http.headers.insert("x-request-id".into(), "4a8f0f61-2f5b".into());
        http.headers.insert("cookie".into(), "session=hush".into());
        check(&channel, request).await.unwrap();
    }
    program.signal("TERM");
    program.wait();
    let log = program.log.join("\n");
    for secret in [
        access.rsplit('.').next().unwrap(),
        id.rsplit('.').next().unwrap(),
        "someone@example.test",
        "hush",
        "q=1",
        "\u{1b}",
        "Bearer",
    ] {
        assert!(!log.contains(secret), "{secret} is in\n{log}");
    }
    let payload = access.split('.').nth(1).unwrap();
    assert!(!log.contains(payload));
    let lines: Vec<serde_json::Value> = program.log.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let checks: Vec<_> = lines.iter().filter(|line| line["fields"]["message"] == "check").collect();
    assert_eq!(checks.len(), 4, "{log}");
    assert_eq!((&checks[0]["level"], &checks[0]["fields"]["decision"]), (&"DEBUG".into(), &"allow".into()));
    assert_eq!((&checks[2]["level"], &checks[2]["fields"]["reason"]), (&"WARN".into(), &"keys_unavailable".into()));
    assert!(checks[2]["fields"]["kid"].as_str().unwrap().chars().count() <= 64);
    for line in checks {
        assert_eq!(line["fields"]["request_id"], "4a8f0f61-2f5b");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_port_is_read_only() {
    let seed = seed();
    let program = start(&seed, &[]);
    let (status, config) = get(&program.admin, "/config").await;
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!((status, config["options"]["user-pool-id"]["value"].as_str()), (200, Some(POOL)));
    assert_eq!(config["options"]["user-pool-id"]["source"], "the flag");
    assert_eq!(get(&program.admin, "/nonsense").await.0, 404);
    let url = format!("http://{}/readyz", program.admin);
    let refused = reqwest::Client::new().post(url).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["allow"].to_str().unwrap()), (405, "GET, HEAD"));
    eventually("metrics", PATIENCE, async || {
        get(&program.admin, "/metrics").await.1.contains("process_resident_memory_bytes")
    })
    .await;
}
