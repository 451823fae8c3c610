//! Connections that are not TLS 1.2 or 1.3, handshakes that never end, and clients that do not read.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

use super::Stage;
use crate::support::client::metric;
use crate::support::tls::{SERVICE, TlsClient};
use crate::support::{PATIENCE, eventually};

/// Time limit of a handshake, and the time after which its end has to be visible on a busy machine.
const HANDSHAKE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(25));

fn dial(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address.trim_start_matches('m').trim_start_matches("tls:")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends these bytes, and returns everything that the server sends until it closes the connection.
fn answer_to(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = dial(address);
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => answer,
    }
}

/// Returns a `ClientHello` (RFC 5246 section 7.4.1.2) whose version is its newest, as clients before TLS 1.3 send it.
fn client_hello(version: [u8; 2]) -> Vec<u8> {
    let mut body = version.to_vec();
    body.extend([7; 32]); // random
    body.push(0); // no session
    body.extend([0, 4, 0xc0, 0x13, 0, 0x2f]); // ECDHE-RSA and RSA with AES-128-CBC-SHA, of TLS 1.0
    body.extend([1, 0]); // no compression
    body.extend([0, 8, 0, 13, 0, 4, 0, 2, 4, 3]); // signature_algorithms: ECDSA with P-256 and SHA-256
    let with_length = |kind: &[u8], content: &[u8], bytes: usize| {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [kind, &length[4 - bytes..], content].concat()
    };
    let handshake = with_length(&[1], &body, 3);
    with_length(&[22, 3, 1], &handshake, 2)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_versions_and_other_protocols_are_refused_at_once() {
    let flags = ["--grpc-listen", "tls:127.0.0.1:0", "--account-listen", "mtls:127.0.0.1:0"];
    let stage = Stage::start(&flags).await;
    for address in [stage.grpc(), &stage.program.account] {
        for (minor, name) in [(0, "SSL 3.0"), (1, "TLS 1.0"), (2, "TLS 1.1")] {
            // A record of two bytes: an alert (21) that is fatal (2), protocol_version (70).
            let answer = answer_to(address, &client_hello([3, minor]));
            assert!(answer.ends_with(&[0, 2, 2, 70]) && answer[0] == 21, "{name}: {answer:?}");
        }
        let requests: [&[u8]; 3] = [
            b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
            &[0xff; 64],
        ];
        for request in requests {
            let begin = Instant::now();
            let answer = answer_to(address, request);
            assert!(answer.is_empty() || answer[0] == 21, "nothing but an alert: {answer:?}");
            assert!(begin.elapsed() < HANDSHAKE.0, "{:?}", begin.elapsed());
        }
    }
    let client = TlsClient::grpc(&[&stage.authority], None);
    assert_eq!(client.check(stage.grpc(), &stage.token).await, Ok(200));
}

/// First bytes of clients that never complete a handshake: none, a part of a record, and a whole `ClientHello`.
fn half_open(authority: &crate::support::certificates::Authority) -> [Vec<u8>; 3] {
    let config = Arc::clone(&TlsClient::grpc(&[authority], None).config);
    let mut client = ClientConnection::new(config, ServerName::try_from(SERVICE).unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    [Vec::new(), hello[..hello.len() / 2].to_vec(), hello]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_half_open_handshakes_delay_no_client_and_end_at_their_deadline() {
    let flags = ["--grpc-listen", "tls:127.0.0.1:0", "--account-listen", "tls:127.0.0.1:0"];
    let stage = Stage::start(&flags).await;
    let starts = half_open(&stage.authority);
    let client = TlsClient::grpc(&[&stage.authority], None);
    let open = crate::support::tls::check_over;
    let mut kept = client.http2(stage.grpc()).await.unwrap();
    let begin = Instant::now();
    let half_open: Vec<_> = (0..1000)
        .map(|number| {
            let mut stream = dial(stage.grpc());
            stream.write_all(&starts[number % starts.len()]).unwrap();
            stream
        })
        .collect();
    assert!(begin.elapsed() < HANDSHAKE.0, "the first ones are still open: {:?}", begin.elapsed());
    for _ in 0..20 {
        let asked = Instant::now();
        assert_eq!(client.check(stage.grpc(), &stage.token).await, Ok(200), "a new connection");
        assert_eq!(open(&mut kept, &stage.token).await, Ok(200), "an open connection");
        assert!(asked.elapsed() < HANDSHAKE.0, "{:?}", asked.elapsed());
    }
    let last = tokio::task::spawn_blocking(move || {
        for mut stream in half_open {
            stream.set_read_timeout(Some(HANDSHAKE.1)).unwrap();
            let ended = stream.read_to_end(&mut Vec::new());
            assert!(ended.is_ok_and(|_| true) || begin.elapsed() < HANDSHAKE.1, "a handshake has no deadline");
        }
        begin.elapsed()
    });
    let last = last.await.unwrap();
    assert!((HANDSHAKE.0..HANDSHAKE.1 + HANDSHAKE.0).contains(&last), "{last:?}");
    assert_eq!(open(&mut kept, &stage.token).await, Ok(200));

    // The HTTP ports have the same deadline.
    let mut stream = dial(&stage.program.account);
    stream.set_read_timeout(Some(HANDSHAKE.1)).unwrap();
    stream.write_all(&starts[1]).unwrap();
    let begin = Instant::now();
    tokio::task::spawn_blocking(move || stream.read_to_end(&mut Vec::new()).unwrap()).await.unwrap();
    assert!((Duration::from_secs(9)..HANDSHAKE.1).contains(&begin.elapsed()), "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_open_handshakes_count_in_the_limit_of_connections() {
    let stage = Stage::start(&["--grpc-listen", "tls:127.0.0.1:0", "--grpc-max-connections", "4"]).await;
    let client = TlsClient::grpc(&[&stage.authority], None);
    assert_eq!(client.check(stage.grpc(), &stage.token).await, Ok(200));
    let counted = async |name: &str, value: f64| {
        let condition = async || metric(&stage.program.admin, name).await == value;
        eventually(name, PATIENCE, condition).await;
    };
    // The service may notice the end of that connection later.
    counted("connections{listener=\"grpc\"}", 0.0).await;
    let begin = Instant::now();
    let waiting: Vec<_> = (0..4).map(|_| dial(stage.grpc())).collect();
    counted("connections{listener=\"grpc\"}", 4.0).await;
    let mut fifth = dial(stage.grpc());
    let closed = fifth.read(&mut [0]);
    assert!(matches!(closed, Ok(0)) || closed.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    counted("connections_refused_total{listener=\"grpc\",reason=\"limit\"}", 1.0).await;
    assert!(begin.elapsed() < HANDSHAKE.0, "the first ones are still open: {:?}", begin.elapsed());
    assert!(client.check(stage.grpc(), &stage.token).await.is_err());
    drop(waiting);
    eventually("connections are accepted again", PATIENCE, async || {
        client.check(stage.grpc(), &stage.token).await == Ok(200)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_waits_for_no_handshake() {
    let flags = ["--grpc-listen", "tls:127.0.0.1:0", "--account-listen", "tls:127.0.0.1:0"];
    let mut stage = Stage::start(&[&flags[..], &["--shutdown-deadline", "9s"]].concat()).await;
    let hello = &half_open(&stage.authority)[1];
    let _open = [stage.grpc(), &stage.program.account].map(|address| {
        let mut stream = dial(address);
        stream.write_all(hello).unwrap();
        stream
    });
    // A later connection is served, so the others have been accepted.
    let client = TlsClient::grpc(&[&stage.authority], None);
    assert_eq!(client.check(stage.grpc(), &stage.token).await, Ok(200));
    stage.program.signal("TERM");
    stage.program.wait_for_line("shutting down");
    let begin = Instant::now();
    assert_eq!(stage.program.wait().code(), Some(0), "{:#?}", stage.program.log);
    assert!(begin.elapsed() < Duration::from_secs(9), "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_disconnected_below_tls() {
    let stage = Stage::start(&["--account-listen", "tls:127.0.0.1:0"]).await;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address: SocketAddr = stage.program.account.trim_start_matches("tls:").parse().unwrap();
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(HANDSHAKE.1)).unwrap();
    let config = Arc::clone(&TlsClient::http(&[&stage.authority], None).config);
    let connection = ClientConnection::new(config, ServerName::try_from(SERVICE).unwrap()).unwrap();
    let mut client = StreamOwned::new(connection, stream);
    let requests = "GET /auth/openapi.json HTTP/1.1\r\nHost: api.test\r\n\r\n".repeat(100);
    client.write_all(requests.as_bytes()).unwrap();
    // The test is about time: the client reads nothing for longer than the server waits.
    tokio::time::sleep(Duration::from_secs(14)).await;
    let mut received = Vec::new();
    // The connection ends without a TLS alert, because the client does not read one either.
    drop(client.read_to_end(&mut received));
    let whole = TlsClient::http(&[&stage.authority], None).get(&stage.program.account, "/auth/openapi.json").await;
    let all = 100 * whole.unwrap().1.len();
    assert!(received.len() < all / 2, "{} of {all} bytes", received.len());
}
