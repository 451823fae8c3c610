//! Memory for incoming messages of the gRPC port, measured at the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use h2::SendStream;
use prost::bytes::{BufMut, Bytes, BytesMut};

use crate::limits::{CHECK, framed, grpc_status, h2, head};
use crate::support::client::{Ask, bearer, connect, get, verdict};
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::service::Program;
use crate::support::token::{SigningKey, TokenBuilder, jwks};
use crate::support::{PATIENCE, eventually};

pub(crate) const MIB: usize = 1024 * 1024;
/// Time limit for a small check beside large ones. A check takes less than a millisecond; the rest allows for a busy
/// machine.
const PROMPT: Duration = Duration::from_secs(4);

async fn start() -> (Program, JwksServer, String) {
    let server = JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await;
    let program = Program::start(&["--jwks-url", &server.url]);
    eventually("ready", PATIENCE, async || get(&program.admin, "/readyz").await.0 == 200).await;
    let token = TokenBuilder::access().sign(SigningKey::shared());
    assert_eq!(verdict(&connect(&program.grpc[0]).await, &token).await.0, 200);
    (program, server, token)
}

/// Returns a value of `/proc/PID/status`, in bytes.
pub(crate) fn memory(program: &Program, name: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Returns all but the last byte of a message of this size.
fn unfinished(size: usize) -> Bytes {
    let mut bytes = BytesMut::zeroed(5 + size - 1);
    (&mut bytes[1..5]).put_u32(u32::try_from(size).unwrap());
    bytes.freeze()
}

/// Opens a connection with this many streams, and sends `message` on each without ending the stream.
async fn fill(address: &str, streams: usize, message: &Bytes) -> Vec<(SendStream<Bytes>, h2::client::ResponseFuture)> {
    let mut client = h2(address).await;
    let mut open = Vec::new();
    for _ in 0..streams {
        client = client.ready().await.unwrap();
        let (answer, mut body) = client.send_request(head(CHECK, &[]), false).unwrap();
        body.send_data(message.clone(), false).unwrap();
        open.push((body, answer));
    }
    open
}

/// Returns the rise of the peak memory while this many connections hold twelve unfinished messages of 8 MiB each. Small
/// checks run beside them.
async fn rise(connections: usize) -> usize {
    let (program, _server, token) = start().await;
    let before = memory(&program, "VmRSS");
    let message = unfinished(8 * MIB);
    let mut calls = Vec::new();
    for _ in 0..connections {
        for (body, answer) in fill(&program.grpc[0], 12, &message).await {
            calls.push(tokio::spawn(async move {
                drop(answer.await);
                drop(body);
            }));
        }
    }
    let channel = connect(&program.grpc[0]).await;
    let begin = Instant::now();
    let mut checks = 0;
    // Until the service has given up all unfinished calls.
    while !calls.iter().all(tokio::task::JoinHandle::is_finished) {
        assert!(begin.elapsed() < PATIENCE, "an unfinished call has no deadline");
        let asked = Instant::now();
        assert_eq!(verdict(&channel, &token).await.0, 200);
        assert_eq!(verdict(&connect(&program.grpc[0]).await, &token).await.0, 200);
        assert!(asked.elapsed() < PROMPT, "{:?}", asked.elapsed());
        checks += 2;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(checks > 20, "{checks}");
    memory(&program, "VmHWM") - before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_for_messages_is_bounded_per_connection() {
    let rise = rise(1).await;
    // The bound is two messages of the largest size (16 MiB), plus buffers.
    assert!(rise < 48 * MIB, "{} MiB", rise / MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_for_messages_is_bounded_per_process() {
    let rise = rise(8).await;
    // The bound is four messages of the largest size, what waits unread, and buffers.
    assert!(rise < 112 * MIB, "{} MiB", rise / MIB);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_messages_take_turns_and_small_ones_on_their_connection_do_not_wait() {
    let (program, _server, token) = start().await;
    let large = Ask::get("/orders").bearer(&token).header("x-body", &"b".repeat(8 * MIB));
    let (large, small) = (framed(&CheckRequest::from(large)), framed(&bearer(&token)));
    let mut client = h2(&program.grpc[0]).await;
    let stuck = unfinished(8 * MIB);
    let mut held = Vec::new();
    for _ in 0..2 {
        client = client.ready().await.unwrap();
        let (answer, mut body) = client.send_request(head(CHECK, &[]), false).unwrap();
        body.send_data(stuck.clone(), false).unwrap();
        held.push((answer, body));
    }
    let mut answers = Vec::new();
    for _ in 0..12 {
        client = client.ready().await.unwrap();
        let (answer, mut body) = client.send_request(head(CHECK, &[]), false).unwrap();
        body.send_data(large.clone(), true).unwrap();
        answers.push(tokio::spawn(grpc_status(answer)));
    }
    let done = Arc::new(AtomicBool::new(false));
    let beside = {
        let done = Arc::clone(&done);
        let mut client = client.clone();
        tokio::spawn(async move {
            let mut checks = 0;
            while !done.load(Ordering::Relaxed) {
                client = client.ready().await.unwrap();
                let (answer, mut body) = client.send_request(head(CHECK, &[]), false).unwrap();
                body.send_data(small.clone(), true).unwrap();
                let status = tokio::time::timeout(PROMPT, grpc_status(answer)).await;
                assert_eq!(status.ok(), Some(0), "a small check waits for large ones");
                checks += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            checks
        })
    };
    for answer in answers {
        assert_eq!(answer.await.unwrap(), 0, "a large message is not served");
    }
    done.store(true, Ordering::Relaxed);
    assert!(beside.await.unwrap() > 0);
    drop(held);
}
