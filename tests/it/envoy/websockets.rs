//! Credentials of the request that opens a WebSocket: in a subprotocol, and in the query.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{Stage, good_token, published_key};
use crate::support::PATIENCE;
use crate::support::envoy::LISTENERS;
use crate::support::http1::{bearer, fetch, open_websocket};
use crate::support::policy_file::PolicyFile;
use crate::support::token::{SUB, TokenBuilder};

const FILE: &str =
    "default: live\npolicies: {live: {from: {websocket_protocol: bearer, websocket_query: access_token}}}\n";

/// The header of subprotocols, as `deploy/envoy/README.md` adds it.
const PROTOCOL: &str = "sec[-_.]websocket[-_.]protocol";

/// Application that opens every WebSocket with the first subprotocol that it is offered, and returns each byte.
struct Echo {
    address: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(echo(stream, Arc::clone(&all)));
            }
        });
        Self { address, heads }
    }

    /// Request line and headers of the last request.
    fn last(&self) -> String {
        self.heads.lock().unwrap().last().unwrap().clone()
    }
}

async fn echo(mut stream: TcpStream, heads: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let offered = head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
    let chosen = offered.and_then(|offered| offered.split(", ").next());
    let chosen = chosen.map(|name| format!("sec-websocket-protocol: {name}\r\n")).unwrap_or_default();
    heads.lock().unwrap().push(head);
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n{chosen}\r\n"
    );
    stream.write_all(response.as_bytes()).await.unwrap();
    let (mut from, mut to) = stream.split();
    drop(tokio::io::copy(&mut from, &mut to).await);
}

#[tokio::test]
async fn a_websocket_opens_with_a_token_that_the_application_never_sees() {
    let (file, keys, echo) = (PolicyFile::new(FILE), published_key().await, Echo::start().await);
    let stage = Stage::as_shipped(&file, &keys, |bootstrap| {
        for listener in LISTENERS {
            bootstrap.serve_websockets(listener, &echo.address);
            bootstrap.show_headers(listener, PROTOCOL);
            bootstrap.let_change_headers(listener, PROTOCOL);
        }
    })
    .await;
    let token = good_token();
    let payload = token.split('.').nth(1).unwrap();
    let other = TokenBuilder::access().claim("sub", "other").sign(crate::support::token::SigningKey::shared());
    let protocol = |value: &str| vec![format!("Sec-WebSocket-Protocol: {value}")];
    let in_query = format!("/query?b=1&access_token={token}&a=%2F");
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        for (path, lines, line, chosen) in [
            ("/pair", protocol(&format!("bearer, {token}, chat")), "/pair", Some("bearer")),
            ("/prefix", protocol(&format!("bearer.{token}, chat")), "/prefix", Some("chat")),
            ("/alone", protocol(&format!("bearer.{token}")), "/alone", None),
            (&in_query, vec![], "/query?a=%2F&b=1", None),
        ] {
            let (response, stream) = open_websocket(envoy, path, &lines).await;
            assert_eq!(response.status, 101, "{listener} {path}: {response:?}");
            assert_eq!(response.header("sec-websocket-protocol"), chosen, "{path}");
            let head = echo.last();
            assert!(head.starts_with(&format!("GET {line} HTTP/1.1\r\n")), "{head}");
            assert!(head.contains(&format!("\r\nx-auth-sub: {SUB}\r\n")), "{head}");
            assert!(!head.contains(payload), "{head}");
            let mut stream = stream.unwrap();
            stream.write_all(b"ping").await.unwrap();
            let mut returned = [0; 4];
            timeout(PATIENCE, stream.read_exact(&mut returned)).await.unwrap().unwrap();
            assert_eq!(&returned, b"ping");
            drop(stream);
            let log = stage.envoy.access_log(path.split('?').next().unwrap(), 1).await;
            assert!(log.iter().all(|line| !line.to_string().contains(payload)), "{log:?}");
        }
        let opened = echo.heads.lock().unwrap().len();
        for (path, lines, reason) in [
            ("/", vec![], "missing_credential"),
            ("/", protocol("chat"), "missing_credential"),
            ("/", protocol("bearer, chat"), "malformed_token"),
            ("/", protocol(&format!("bearer.{token}, bearer.{other}")), "multiple_credentials"),
            (&*in_query, protocol(&format!("bearer.{other}")), "multiple_credentials"),
            (&*in_query, vec![bearer(&other)], "multiple_credentials"),
        ] {
            let (response, _) = open_websocket(envoy, path, &lines).await;
            assert_eq!(response.verdict(), (401, reason.into()), "{listener} {path}");
        }
        // An ordinary request has no credential in its query.
        assert_eq!(fetch(envoy, &in_query, &[""; 0]).await.verdict(), (401, "missing_credential".into()));
        assert_eq!(echo.heads.lock().unwrap().len(), opened, "a refused request has reached the application");
    }
}
