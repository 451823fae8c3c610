//! Measures whether revocations slow checks down: the program answers 5,000 checks a second, alternately with and without
//! 10,000 revocations a minute, which come through its admin port and go to a Redis. On a shared machine only the
//! comparison is meaningful.
//!
//! `SECONDS=60 ROUNDS=1 cargo bench --bench revocation` sets the length of a window and the number of pairs. Needs
//! `redis-server`, on the path or from `tests/tools/setup --redis`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a benchmark")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tonic::transport::{Channel, Endpoint};

use crate::token::{CLIENT, POOL, SigningKey, TokenBuilder, jwks};

#[path = "../tests/support/token.rs"]
#[expect(dead_code, reason = "the integration tests use the rest")]
mod token;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cognito-authz");
const TOKEN: &str = "a-token-for-operators-of-the-benchmark";
const CHECKS_PER_SECOND: u32 = 5_000;
const REVOCATIONS_PER_MINUTE: u32 = 10_000;
const USERS: usize = 500;

/// Child process that ends with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn main() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (seconds, rounds) = (number("SECONDS", 20), number("ROUNDS", 3));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run(Duration::from_secs(seconds), rounds));
}

async fn run(window: Duration, rounds: u64) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::write(path.join("jwks.json"), jwks(&[SigningKey::shared()])).unwrap();
    fs::write(path.join("token"), TOKEN).unwrap();
    let store = free_port();
    let _store = start(&redis(), &["--port", &store, "--bind", "127.0.0.1", "--save", ""], path);
    let (grpc, admin) = (free_port(), free_port());
    let (grpc, admin) = (format!("127.0.0.1:{grpc}"), format!("127.0.0.1:{admin}"));
    let url = format!("redis://127.0.0.1:{store}");
    let flags = [
        ["--user-pool-id", POOL],
        ["--client-id", CLIENT],
        ["--grpc-listen", &grpc],
        ["--admin-listen", &admin],
        ["--jwks-file", "jwks.json"],
        ["--jwks-url", "http://127.0.0.1:9/"],
        ["--revocation-url", &url],
        ["--admin-token-file", "token"],
    ];
    let _service = start(PROGRAM, &flags.concat(), path);
    let http = reqwest::Client::new();
    let ready = format!("http://{admin}/readyz");
    while !http.get(&ready).send().await.is_ok_and(|response| response.status() == 200) {
        sleep(Duration::from_millis(20)).await;
    }
    let channel = Endpoint::from_shared(format!("http://{grpc}")).unwrap().connect().await.unwrap();
    let requests: Arc<Vec<CheckRequest>> = Arc::new((0..USERS).map(check).collect());

    let revoked = Arc::new(AtomicU32::new(0));
    println!("p50 and p99 of {CHECKS_PER_SECOND} checks/s in windows of {window:?}, in microseconds");
    for _ in 0..rounds {
        let (p50, p99) = checks(&channel, &requests, window).await;
        let before = revoked.load(Ordering::Relaxed);
        let stop = Arc::new(AtomicBool::new(false));
        let revoking = tokio::spawn(revoke(http.clone(), admin.clone(), Arc::clone(&revoked), Arc::clone(&stop)));
        let (with_p50, with_p99) = checks(&channel, &requests, window).await;
        stop.store(true, Ordering::Relaxed);
        revoking.await.unwrap();
        let count = revoked.load(Ordering::Relaxed) - before;
        println!(
            "without: {p50:.0} {p99:.0}; with {count} revocations: {with_p50:.0} {with_p99:.0}; ratio of p99 {:.2}",
            with_p99 / p99
        );
    }
}

/// Sends checks at a steady rate, whether or not earlier ones have been answered, and returns p50 and p99 from the time
/// at which each was due.
async fn checks(channel: &Channel, requests: &Arc<Vec<CheckRequest>>, window: Duration) -> (f64, f64) {
    let begin = Instant::now();
    let tick = Duration::from_millis(1);
    let per_tick = CHECKS_PER_SECOND / 1000;
    let mut ticks = interval(tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut running = Vec::new();
    let mut next = 0;
    while begin.elapsed() < window {
        let due = ticks.tick().await;
        for _ in 0..per_tick {
            next = (next + 1) % USERS;
            let (mut client, requests) = (AuthorizationClient::new(channel.clone()), Arc::clone(requests));
            running.push(tokio::spawn(async move {
                let answer = client.check(requests[next].clone()).await.unwrap();
                assert_eq!(answer.into_inner().status.unwrap().code, 0, "the users of checks are not revoked");
                due.elapsed().as_secs_f64() * 1e6
            }));
        }
    }
    let mut times = Vec::with_capacity(running.len());
    for task in running {
        times.push(task.await.unwrap());
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// Revokes one user after the other at a steady rate.
async fn revoke(http: reqwest::Client, admin: String, count: Arc<AtomicU32>, stop: Arc<AtomicBool>) {
    let mut ticks = interval(Duration::from_secs(60) / REVOCATIONS_PER_MINUTE);
    let mut running = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let number = count.fetch_add(1, Ordering::Relaxed);
        let request = http
            .post(format!("http://{admin}/revocations"))
            .header("content-type", "application/json")
            .bearer_auth(TOKEN)
            .body(format!("{{\"sub\":\"revoked-{number}\"}}"));
        running.push(tokio::spawn(async move { assert_eq!(request.send().await.unwrap().status(), 200) }));
    }
    for task in running {
        task.await.unwrap();
    }
}

fn check(number: usize) -> CheckRequest {
    let token = TokenBuilder::access().claim("sub", format!("user-{number}")).claim("origin_jti", number.to_string());
    let headers = [("authorization".to_owned(), format!("Bearer {}", token.sign(SigningKey::shared())))];
    let http = HttpRequest {
        method: "GET".into(),
        path: "/orders".into(),
        host: "api.test".into(),
        headers: headers.into(),
        ..Default::default()
    };
    let request = Request { http: Some(http), ..Default::default() };
    CheckRequest { attributes: Some(AttributeContext { request: Some(request), ..Default::default() }) }
}

fn start(program: &str, arguments: &[&str], directory: &Path) -> Process {
    let command = &mut Command::new(program);
    command.args(arguments).current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Process(command.spawn().unwrap())
}

fn redis() -> String {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/venv/bin/redis-server");
    if own.exists() { own.display().to_string() } else { "redis-server".into() }
}

/// A port that was free a moment ago.
fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}
