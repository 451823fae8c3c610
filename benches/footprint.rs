//! Measures the program's startup time, memory and size. Goals:
//!
//! - startup to first answered check, with keys from a file: 50 ms
//! - resident memory when idle: 15 MB; with 100,000 cached tokens: 120 MB
//! - size of the executable: 12 MB
//!
//! `cognito-authz --version` is measured as well, as the time that starting and ending a process takes on its own.
//! `TOKENS=20000 cargo bench --bench footprint` fills the cache with fewer tokens; signing them takes most of the time.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "a benchmark")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use tonic::transport::{Channel, Endpoint};

use crate::token::{CLIENT, POOL, SigningKey, TokenBuilder, jwks};

#[path = "../tests/support/token.rs"]
#[expect(dead_code, reason = "the integration tests use the rest")]
mod token;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cognito-authz");
const STARTS: usize = 20;

fn main() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("jwks.json"), jwks(&[SigningKey::shared()])).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let token = TokenBuilder::access().sign(SigningKey::shared());

    let mut starts: Vec<(f64, f64)> = (0..STARTS)
        .map(|_| {
            let begin = Instant::now();
            Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).status().unwrap();
            let version = begin.elapsed();
            let begin = Instant::now();
            let service = Service::start(directory.path());
            runtime.block_on(async { assert_eq!(code(&mut service.connect().await, &token).await, 0) });
            (begin.elapsed().as_secs_f64() * 1e3, version.as_secs_f64() * 1e3)
        })
        .collect();
    starts.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (least, median, most) = (starts[0].0, starts[STARTS / 2].0, starts[STARTS - 1].0);
    let version = starts.iter().map(|start| start.1).fold(f64::INFINITY, f64::min);
    println!(
        "start to first answered check: {least:.1} ms, median {median:.1} ms, most {most:.1} ms ({STARTS} starts; --version: {version:.1} ms)"
    );

    let service = Service::start(directory.path());
    runtime.block_on(async {
        let mut client = service.connect().await;
        println!("resident when idle: {:.1} MB", service.resident_megabytes());
        let count = std::env::var("TOKENS").map_or(100_000, |count| count.parse().unwrap());
        for number in 0..count {
            let token = TokenBuilder::access()
                .claim("jti", number)
                .claim("cognito:groups", vec!["admins", "editors"])
                .sign(SigningKey::shared());
            assert_eq!(code(&mut client, &token).await, 0);
        }
        println!("resident with {count} cached tokens: {:.1} MB", service.resident_megabytes());
    });
    println!("size of the program: {:.1} MB", megabytes(fs::metadata(PROGRAM).unwrap().len()));
}

/// Running program with one thread for checks. Dropping it kills the process.
struct Service {
    child: Child,
    socket: String,
}

impl Service {
    fn start(directory: &Path) -> Self {
        let socket = directory.join("authz.sock");
        drop(fs::remove_file(&socket));
        let child = Command::new(PROGRAM)
            .args([
                "--user-pool-id",
                POOL,
                "--client-id",
                CLIENT,
                "--grpc-threads",
                "1",
                "--admin-listen",
                "127.0.0.1:0",
            ])
            .args([
                "--jwks-url",
                "http://127.0.0.1:9/",
                "--token-cache-capacity",
                "200000",
                "--token-cache-max-bytes",
                "1GiB",
            ])
            .args(["--log-level", "error"])
            .arg("--jwks-file")
            .arg(directory.join("jwks.json"))
            .arg(format!("--grpc-listen=unix:{}", socket.display()))
            .env_clear()
            .current_dir(directory)
            .spawn()
            .unwrap();
        Self { child, socket: format!("unix:{}", socket.display()) }
    }

    /// Connects, and retries for up to 10 seconds until the program listens.
    async fn connect(&self) -> AuthorizationClient<Channel> {
        let begin = Instant::now();
        loop {
            if let Ok(channel) = Endpoint::from_shared(self.socket.clone()).unwrap().connect().await {
                return AuthorizationClient::new(channel);
            }
            assert!(begin.elapsed() < Duration::from_secs(10), "the program does not listen");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }

    /// Resident memory, from `VmRSS` (`proc_pid_status(5)`).
    fn resident_megabytes(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
        megabytes(kilobytes * 1024)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

async fn code(client: &mut AuthorizationClient<Channel>, token: &str) -> i32 {
    let headers = [("authorization".to_owned(), format!("Bearer {token}"))].into();
    let request = Request { http: Some(HttpRequest { headers, ..Default::default() }), ..Default::default() };
    let check = CheckRequest { attributes: Some(AttributeContext { request: Some(request), ..Default::default() }) };
    client.check(check).await.unwrap().into_inner().status.unwrap().code
}
