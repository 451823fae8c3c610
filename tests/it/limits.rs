//! Limits of the gRPC port, with clients that violate the protocol.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, SendStream};
use prost::Message;
use prost::bytes::{BufMut, Bytes, BytesMut};
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;

use crate::support::client::{bearer, connect, get, metric, verdict};
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::service::{Program, TestApp};
use crate::support::token::{SigningKey, TokenBuilder, jwks};
use crate::support::{PATIENCE, eventually};

async fn start(flags: &[&str]) -> TestApp {
    let server = JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await;
    let app = TestApp::start(&[flags, &["--jwks-url", &server.url]].concat());
    eventually("ready", PATIENCE, async || get(&app.admin, "/readyz").await.0 == 200).await;
    app
}

/// Opens an HTTP/2 connection.
pub(crate) async fn h2(address: &str) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender.ready().await.unwrap()
}

/// Returns the head of a gRPC request.
pub(crate) fn head(path: &str, headers: &[(&str, &str)]) -> http::Request<()> {
    let mut request = http::Request::post(format!("http://authz{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

pub(crate) const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Encodes a message with the prefix of gRPC.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut bytes).unwrap();
    bytes.freeze()
}

/// Sends the head of a check, waits until the server has received it, and returns the stream for the body.
pub(crate) async fn slow_check(address: &str) -> (SendStream<Bytes>, ResponseFuture) {
    let mut client = h2(address).await;
    let (answer, body) = client.send_request(head(CHECK, &[]), false).unwrap();
    // The response to a second check on the same connection shows that the head before it has arrived.
    let (other, mut rest) = client.ready().await.unwrap().send_request(head(CHECK, &[]), false).unwrap();
    rest.send_data(framed(&bearer("x")), true).unwrap();
    assert_eq!(other.await.unwrap().status(), 200);
    (body, answer)
}

/// Returns the `grpc-status` of a response, from its trailers or its headers.
pub(crate) async fn grpc_status(answer: ResponseFuture) -> i32 {
    let response = answer.await.unwrap();
    let in_headers = response.headers().get("grpc-status").cloned();
    let mut body = response.into_body();
    while let Some(data) = body.data().await {
        body.flow_control().release_capacity(data.unwrap().len()).unwrap();
    }
    let trailers = body.trailers().await.unwrap();
    let status = in_headers.or_else(|| trailers?.get("grpc-status").cloned()).unwrap();
    status.to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_call_has_a_deadline() {
    let app = start(&[]).await;
    let mut client = h2(&app.grpc[0]).await;
    for (headers, least, most) in [
        (&[("grpc-timeout", "200m")][..], Duration::from_millis(200), Duration::from_secs(4)),
        (&[("grpc-timeout", "1H")], Duration::from_secs(5), Duration::from_secs(15)),
        (&[], Duration::from_secs(5), Duration::from_secs(15)),
    ] {
        let begin = Instant::now();
        let (answer, mut body) = client.ready().await.unwrap().send_request(head(CHECK, headers), false).unwrap();
        client = h2(&app.grpc[0]).await;
        body.send_data(Bytes::from_static(&[0, 0, 0]), false).unwrap(); // an incomplete message
        assert_eq!(grpc_status(answer).await, 4, "DEADLINE_EXCEEDED");
        assert!((least..most).contains(&begin.elapsed()), "{headers:?}: {:?}", begin.elapsed());
    }
    assert_eq!(metric(&app.admin, "checks_in_flight").await, 0.0);
}

#[tokio::test]
async fn streams_of_a_connection_are_limited() {
    let app = start(&["--grpc-max-streams", "3"]).await;
    let stream = TcpStream::connect(&app.grpc[0]).await.unwrap();
    // A client may open more streams than allowed until it has received the settings of the server.
    let (sender, mut connection) =
        h2::client::Builder::new().initial_max_send_streams(100).handshake::<_, Bytes>(stream).await.unwrap();
    let mut sender = sender;
    let mut opened = Vec::new();
    for _ in 0..5 {
        opened.push(sender.send_request(head(CHECK, &[]), false).unwrap());
    }
    tokio::spawn(async move { std::future::poll_fn(|cx| std::pin::Pin::new(&mut connection).poll(cx)).await });
    let mut refused = 0;
    for (answer, body) in opened.drain(3..) {
        let error = answer.await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::REFUSED_STREAM));
        refused += 1;
        drop(body);
    }
    assert_eq!(refused, 2);
}

#[tokio::test]
async fn connections_are_limited() {
    let app = start(&["--grpc-max-connections", "2"]).await;
    let token = TokenBuilder::access().sign(SigningKey::shared());
    let (first, second) = (connect(&app.grpc[0]).await, connect(&app.grpc[0]).await);
    assert_eq!((verdict(&first, &token).await.0, verdict(&second, &token).await.0), (200, 200));
    let mut third = std::net::TcpStream::connect(&app.grpc[0]).unwrap();
    third.set_read_timeout(Some(PATIENCE)).unwrap();
    let closed = third.read(&mut [0; 64]);
    assert!(matches!(closed, Ok(0)) || closed.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    drop(second);
    eventually("a new connection is served", PATIENCE, async || {
        let Ok(stream) = TcpStream::connect(&app.grpc[0]).await else { return false };
        let Ok((client, connection)) = h2::client::handshake::<_>(stream).await else { return false };
        tokio::spawn(connection);
        let Ok(mut client) = client.ready().await else { return false };
        let Ok((answer, mut body)) = client.send_request(head(CHECK, &[]), false) else { return false };
        body.send_data(framed(&bearer(&token)), true).is_ok() && answer.await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn messages_are_limited_in_size_and_must_be_valid() {
    let app = start(&["--grpc-max-message-bytes", "4KiB"]).await;
    let send = async |message: Bytes, path: &str| {
        let (answer, mut body) = h2(&app.grpc[0]).await.send_request(head(path, &[]), false).unwrap();
        body.send_data(message, true).unwrap();
        grpc_status(answer).await
    };
    assert_eq!(send(framed(&bearer("x")), CHECK).await, 0);
    assert_eq!(send(framed(&bearer(&"x".repeat(5000))), CHECK).await, 8, "RESOURCE_EXHAUSTED");
    assert_eq!(send(Bytes::from_static(&[0, 0, 0, 0, 2, 0x0a, 0x05]), CHECK).await, 3, "INVALID_ARGUMENT");
    assert_eq!(send(Bytes::new(), CHECK).await, 13, "INTERNAL: no message");
    assert_eq!(send(framed(&bearer("x")), "/envoy.service.auth.v3.Authorization/Other").await, 12, "UNIMPLEMENTED");
    assert_eq!(send(framed(&bearer("x")), "/").await, 12);
    let health = |name: &str| framed(&HealthCheckRequest { service: name.into() });
    assert_eq!(send(health(""), "/grpc.health.v1.Health/Check").await, 0);
    assert_eq!(send(health(&"x".repeat(5000)), "/grpc.health.v1.Health/Check").await, 11, "OUT_OF_RANGE");
}

#[tokio::test]
async fn header_lists_are_limited() {
    let app = start(&[]).await;
    let mut client = h2(&app.grpc[0]).await;
    let long = "a".repeat(10_000);
    let headers: Vec<_> = (0..8).map(|_| ("x-long", &*long)).collect();
    let (answer, _body) = client.send_request(head(CHECK, &headers), true).unwrap();
    let refused = answer.await;
    assert!(refused.as_ref().is_err() || refused.as_ref().unwrap().status() == 431, "{refused:?}");
}

/// Returns how long the server keeps a connection on which the client sends `bytes` and then nothing.
fn kept(address: &str, bytes: &[u8]) -> Duration {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let begin = Instant::now();
    stream.write_all(bytes).unwrap();
    let mut rest = Vec::new();
    // The server may reset or close the connection.
    drop(stream.read_to_end(&mut rest));
    begin.elapsed()
}

#[tokio::test]
async fn a_connection_without_a_valid_preface_is_closed() {
    let app = start(&[]).await;
    let magic = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let with = |frame: &[u8]| [&magic[..], frame].concat();
    let cases = [
        (Vec::new(), true),
        (magic[..10].to_vec(), true),
        (magic.to_vec(), true),
        (with(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3]), true), // incomplete SETTINGS frame
        (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(), false),
        (with(&[0, 0, 0, 6, 0, 0, 0, 0, 0]), false), // PING first
        (with(&[0xff, 0xff, 0xff, 4, 0, 0, 0, 0, 0]), false),
    ];
    let waiting: Vec<_> = cases
        .into_iter()
        .map(|(bytes, waits)| {
            let address = app.grpc[0].clone();
            (waits, tokio::task::spawn_blocking(move || kept(&address, &bytes)))
        })
        .collect();
    for (waits, kept) in waiting {
        let kept = kept.await.unwrap();
        let expected = if waits {
            Duration::from_secs(10)..Duration::from_secs(20)
        } else {
            Duration::ZERO..Duration::from_secs(9)
        };
        assert!(expected.contains(&kept), "{kept:?}");
    }
}

#[tokio::test]
async fn a_connection_that_answers_no_ping_is_closed() {
    let app = start(&[]).await;
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let hello = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &settings].concat();
    let address = app.grpc[0].clone();
    // The server sends a ping after 30 seconds, and waits 15 seconds for the response.
    let kept = tokio::task::spawn_blocking(move || kept(&address, &hello)).await.unwrap();
    assert!((Duration::from_secs(40)..Duration::from_secs(60)).contains(&kept), "{kept:?}");
}

/// Processor time of a process, in clock ticks (`proc_pid_stat(5)`).
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test]
async fn running_out_of_descriptors_does_not_spin() {
    let server = JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await;
    let mut program = Program::start_limited(40, &["--jwks-url", &server.url]);
    let token = TokenBuilder::access().sign(SigningKey::shared());
    let channel = connect(&program.grpc[0]).await;
    eventually("ready", PATIENCE, async || verdict(&channel, &token).await.0 == 200).await;
    let hogs: Vec<_> = (0..60).map(|_| std::net::TcpStream::connect(&program.grpc[0]).unwrap()).collect();
    program.wait_for_line("cannot accept connections");
    let before = cpu_ticks(program.pid());
    // The test measures the processor time of two seconds, so it waits for time to pass, not for a condition.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let used = cpu_ticks(program.pid()) - before;
    assert!(used < 50, "{used} ticks of 200 in two seconds of waiting");
    assert_eq!(verdict(&channel, &token).await.0, 200, "open connections are served");
    drop(hogs);
    eventually("new connections are accepted again", PATIENCE, async || {
        let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(&program.grpc[0])).await
        else {
            return false;
        };
        let handshake = tokio::time::timeout(Duration::from_secs(2), h2::client::handshake::<_>(stream)).await;
        let Ok(Ok((client, connection))) = handshake else { return false };
        tokio::spawn(connection);
        let Ok(mut client) = client.ready().await else { return false };
        let Ok((answer, mut body)) = client.send_request(head(CHECK, &[]), false) else { return false };
        body.send_data(framed(&bearer(&token)), true).is_ok() && answer.await.is_ok()
    })
    .await;
}
