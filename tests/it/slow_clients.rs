//! HTTP clients that do not read, send slowly, or open too many connections.
//!
//! Tests have two threads: while one waits for the program to end, the other runs the clients.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::support::client::{connect, get, verdict};
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::service::Program;
use crate::support::token::{SigningKey, TokenBuilder, jwks};
use crate::support::{PATIENCE, eventually};

const ACCOUNT: [&str; 2] = ["--account-listen", "127.0.0.1:0"];
/// Time limit for the program to disconnect a client that does not read, with a margin.
const CUT: Duration = Duration::from_secs(25);

const ATTACKER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

async fn start(descriptors: u32, more: &[&str]) -> (Program, JwksServer, String) {
    let server = JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await;
    let program = Program::start_limited(descriptors, &[&["--jwks-url", &server.url], more].concat());
    eventually("ready", PATIENCE, async || get(&program.admin, "/readyz").await.0 == 200).await;
    let token = TokenBuilder::access().sign(SigningKey::shared());
    (program, server, token)
}

/// Connects from an address of the loopback network, with a small receive buffer.
fn dial(from: Ipv4Addr, to: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&to.parse::<SocketAddr>().unwrap().into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    stream.set_read_timeout(Some(CUT)).unwrap();
    stream
}

/// Requests the largest response many times, and reads none of them.
fn hog(from: Ipv4Addr, to: &str) -> TcpStream {
    let mut stream = dial(from, to);
    let requests = "GET /auth/openapi.json HTTP/1.1\r\nHost: api.test\r\n\r\n".repeat(500);
    // The write may end early: the buffers are full, or the connection is refused.
    drop(stream.write_all(requests.as_bytes()));
    stream
}

/// Reads until the server ends the connection, and returns the number of bytes.
fn drain(mut stream: TcpStream) -> usize {
    let mut buffer = vec![0; 64 * 1024];
    let mut received = 0;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return received,
            Ok(length) => received += length,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return received,
            Err(error) => panic!("{error} after {received} bytes"),
        }
    }
}

async fn openapi(from: Ipv4Addr, account: &str) -> Option<u16> {
    let client = reqwest::Client::builder().local_address(IpAddr::from(from)).timeout(Duration::from_secs(3));
    let answer = client.build().unwrap().get(format!("http://{account}/auth/openapi.json")).send().await.ok()?;
    let status = answer.status().as_u16();
    answer.bytes().await.ok()?;
    Some(status)
}

async fn livez(admin: &str) -> Option<u16> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(3)).build().unwrap();
    let answer = client.get(format!("http://{admin}/livez")).send().await.ok()?;
    Some(answer.status().as_u16())
}

/// Sends a check over a new connection, and returns the status.
async fn new_check(grpc: &str, token: &str) -> Option<u16> {
    let check = async { verdict(&connect(grpc).await, token).await.0 };
    tokio::time::timeout(Duration::from_secs(5), check).await.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_are_disconnected_and_delay_no_check_or_probe() {
    // The account API is on its own port, then on the admin port.
    for flags in [&ACCOUNT[..], &[]] {
        let (program, _server, token) = start(256, flags).await;
        let account = if flags.is_empty() { &program.admin } else { &program.account };
        let hogs: Vec<_> = (0..400).map(|_| hog(ATTACKER, account)).collect();
        for _ in 0..5 {
            assert_eq!(livez(&program.admin).await, Some(200), "{flags:?}: /livez");
            let check = new_check(&program.grpc[0], &token).await;
            assert_eq!(check, Some(200), "{flags:?}: a check over a new connection");
        }
        assert_eq!(
            openapi(Ipv4Addr::LOCALHOST, account).await,
            Some(200),
            "{flags:?}: clients at another address are served"
        );
        eventually("clients that do not read are disconnected", CUT, async || {
            openapi(ATTACKER, account).await == Some(200)
        })
        .await;
        drop(hogs);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_disconnected_and_a_slow_reader_is_not() {
    let (program, _server, _) = start(256, &ACCOUNT).await;
    let idle = hog(ATTACKER, &program.account);
    let mut slow = hog(Ipv4Addr::LOCALHOST, &program.account);
    let begin = Instant::now();
    // The test is about time: for 14 seconds, longer than the limit, one client reads a little now and then, and the
    // other reads nothing.
    while begin.elapsed() < Duration::from_secs(14) {
        slow.read_exact(&mut vec![0; 128 * 1024]).unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let received = drain(idle);
    assert!(
        received < 5 * 1024 * 1024,
        "{received} bytes: the connection was still served when the client began to read"
    );
    slow.read_exact(&mut vec![0; 64 * 1024]).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_does_not_wait_for_stalled_clients() {
    let (mut program, _server, _) = start(256, &[&ACCOUNT[..], &["--shutdown-deadline", "30s"]].concat()).await;
    let _hogs: Vec<_> = (0..5).map(|_| hog(Ipv4Addr::LOCALHOST, &program.account)).collect();
    let mut half_a_head = dial(Ipv4Addr::LOCALHOST, &program.account);
    half_a_head.write_all(b"GET /auth/openapi.json HTTP/1.1\r\nHost: api").unwrap();
    let mut half_a_body = dial(Ipv4Addr::LOCALHOST, &program.account);
    let head =
        "POST /auth/login HTTP/1.1\r\nHost: api.test\r\ncontent-type: application/json\r\ncontent-length: 50\r\n";
    half_a_body.write_all(format!("{head}\r\n{{").as_bytes()).unwrap();
    // A later connection is served, so everything before it has arrived.
    assert_eq!(openapi(Ipv4Addr::LOCALHOST, &program.account).await, Some(200));
    program.signal("TERM");
    program.wait_for_line("shutting down");
    let begin = Instant::now();
    assert_eq!(program.wait().code(), Some(0), "{:#?}", program.log);
    assert!(begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
    assert!(program.log.iter().any(|line| line.contains("\"stopped\"")), "{:#?}", program.log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_soft_limit_of_descriptors_is_raised_to_the_hard_one() {
    let program = Program::start_under("ulimit -Sn 100; ulimit -Hn 700", &["--jwks-url", "http://127.0.0.1:9/"]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", program.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["700", "700"], "{limits}");
}
