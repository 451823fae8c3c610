//! HTTP/1.1 client that sends exactly the given bytes: header names in any case, repeated or invalid ones.

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::PATIENCE;
use super::upstream::Seen;

/// Response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Response {
    /// Value of a header, which must not occur twice.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(other, _)| other == name).map(|(_, value)| &**value);
        let value = values.next();
        assert_eq!(values.next(), None, "{name} twice");
        value
    }

    /// Body as JSON; `null` if it is not JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// Status, and the reason if the service denied the request.
    pub(crate) fn verdict(&self) -> (u16, String) {
        (self.status, self.json()["reason"].as_str().unwrap_or_default().to_owned())
    }

    /// Request as the upstream received it. The upstream returns it in the body.
    #[track_caller]
    pub(crate) fn seen(&self) -> Seen {
        assert_eq!(self.status, 200, "{self:?}");
        serde_json::from_str(&self.body).unwrap()
    }
}

/// Sends a GET with these lines as headers, in addition to `Host`.
pub(crate) async fn fetch<L: AsRef<[u8]>>(address: &str, path: &str, lines: &[L]) -> Response {
    send(address, "GET", path, lines).await
}

/// Sends a request without a body, with these lines as headers in addition to `Host`.
pub(crate) async fn send<L: AsRef<[u8]>>(address: &str, method: &str, path: &str, lines: &[L]) -> Response {
    let mut stream = TcpStream::connect(address).await.unwrap();
    send_on(&mut stream, method, path, lines).await
}

/// As [`send`], on an open connection.
pub(crate) async fn send_on<L: AsRef<[u8]>>(stream: &mut TcpStream, method: &str, path: &str, lines: &[L]) -> Response {
    let request = request(method, path, lines);
    timeout(PATIENCE, exchange(stream, &request)).await.unwrap_or_else(|_| panic!("no response"))
}

/// Sends these bytes on a connection of their own, and returns the only response.
pub(crate) async fn exchange_bytes(address: &str, request: &[u8]) -> Response {
    let mut stream = TcpStream::connect(address).await.unwrap();
    timeout(PATIENCE, exchange(&mut stream, request)).await.unwrap_or_else(|_| panic!("no response"))
}

/// As [`send`], from this address of the machine.
pub(crate) async fn send_from<L: AsRef<[u8]>>(
    source: &str,
    address: &str,
    method: &str,
    path: &str,
    lines: &[L],
) -> Response {
    let request = request(method, path, lines);
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
    timeout(PATIENCE, exchange(&mut stream, &request)).await.unwrap_or_else(|_| panic!("no response"))
}

/// Returns the bytes of a request without a body. `Host` is `api.test` unless a line begins with `host:`.
pub(crate) fn request<L: AsRef<[u8]>>(method: &str, path: &str, lines: &[L]) -> Vec<u8> {
    let mut request = format!("{method} {path} HTTP/1.1\r\n").into_bytes();
    if !lines.iter().any(|line| line.as_ref().starts_with(b"host:")) {
        request.extend(b"Host: api.test\r\n");
    }
    for line in lines {
        request.extend_from_slice(line.as_ref());
        request.extend(b"\r\n");
    }
    request.extend(b"\r\n");
    request
}

/// Returns an `Authorization` line with this token.
pub(crate) fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}")
}

/// Sends a request that opens a WebSocket. Returns the status, the response's headers, and the connection if it was
/// opened.
pub(crate) async fn open_websocket(address: &str, path: &str, lines: &[String]) -> (Response, Option<TcpStream>) {
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    let upgrade = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", key];
    let lines: Vec<&str> = upgrade.into_iter().chain(lines.iter().map(String::as_str)).collect();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = request("GET", path, &lines);
    let response = timeout(PATIENCE, exchange(&mut stream, &request)).await.unwrap_or_else(|_| panic!("no response"));
    let is_open = response.status == 101;
    (response, is_open.then_some(stream))
}

async fn exchange(stream: &mut TcpStream, request: &[u8]) -> Response {
    stream.write_all(request).await.unwrap();
    let mut received = Vec::new();
    let end = loop {
        if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end;
        }
        assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0, "the connection ends early");
    };
    let head = String::from_utf8(received[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header = |line: &str| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    let mut response = Response { status, headers: lines.map(header).collect(), body: String::new() };
    if status == 101 {
        return response;
    }
    let mut body = received.split_off(end + 4);
    if response.header("transfer-encoding") == Some("chunked") {
        while !body.ends_with(b"0\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut body).await.unwrap(), 0, "the connection ends early");
        }
        response.body = unchunked(std::str::from_utf8(&body).unwrap());
        return response;
    }
    let Some(length) = response.header("content-length") else {
        assert_eq!(response.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("close"), "{head}");
        while stream.read_buf(&mut body).await.unwrap() > 0 {}
        response.body = String::from_utf8(body).unwrap();
        return response;
    };
    let length: usize = length.parse().unwrap();
    while body.len() < length {
        assert_ne!(stream.read_buf(&mut body).await.unwrap(), 0, "the connection ends early");
    }
    assert_eq!(body.len(), length, "more than one response");
    response.body = String::from_utf8(body).unwrap();
    response
}

/// Joins the chunks of a body (RFC 9112 section 7.1).
fn unchunked(mut body: &str) -> String {
    let mut joined = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        joined.push_str(&rest[..length]);
        body = &rest[length + 2..];
    }
    joined
}
