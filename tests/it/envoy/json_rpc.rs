//! Policies that depend on the body, with the settings of `deploy/envoy/README.md`.

use std::fs;

use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{Stage, published_key};
use crate::support::envoy::{EXT_AUTHZ, LISTENERS};
use crate::support::http1::{Response, bearer, exchange_bytes, open_websocket, request, send};
use crate::support::policy_file::PolicyFile;
use crate::support::token::{SigningKey, TokenBuilder};

const FILE: &str = r"
default: members
policies:
  members: {}
  mcp:
    scopes: {all: [orders/read]}
    resource_metadata: https://mcp.example.com/.well-known/oauth-protected-resource/mcp
    json_rpc:
      max_body: 2KiB
      calls:
      - {method: tools/call, name: [delete_order], policy: mcp-write}
  mcp-write: {scopes: {all: [orders/write]}}
routes:
- {path_prefix: /mcp, policy: mcp}
- {path_prefix: /partial, policy: mcp}
- {path_prefix: /unbuffered, policy: mcp}
";

/// Settings in `deploy/envoy/README.md`: those of the filter, the virtual host, and the route.
fn documented() -> [Value; 3] {
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/envoy/README.md")).unwrap();
    let (_, section) = document.split_once("\n## Policies that read the body\n").unwrap();
    let examples = section.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let mut examples = examples.map(|example| yaml_serde::from_str(example).unwrap());
    std::array::from_fn(|_| examples.next().unwrap())
}

async fn stage(file: &PolicyFile) -> Stage {
    let keys = published_key().await;
    Stage::as_shipped(file, &keys, |bootstrap| {
        for listener in LISTENERS {
            let [filter, host, route] = documented();
            bootstrap.ext_authz(listener)["with_request_body"] = filter["with_request_body"].clone();
            let of_host =
                &mut bootstrap.manager(listener)["route_config"]["virtual_hosts"][0]["typed_per_filter_config"];
            of_host[EXT_AUTHZ] = host["typed_per_filter_config"][EXT_AUTHZ].clone();
            let settings = json!({"check_settings": route["typed_per_filter_config"][EXT_AUTHZ]["check_settings"]});
            let partial = json!({"allow_partial_message": true, "max_request_bytes": 200});
            let partial = json!({"check_settings": {"with_request_body": partial}});
            bootstrap.add_route(listener, "/mcp", Some(settings), None);
            bootstrap.add_route(listener, "/partial", Some(partial), None);
            bootstrap.manager(listener)["upgrade_configs"] = json!([{"upgrade_type": "websocket"}]);
        }
        // The copy sends bodies as text.
        bootstrap.copy_listener(LISTENERS[1], TEXT);
        bootstrap.ext_authz(TEXT)["with_request_body"]["pack_as_bytes"] = json!(false);
    })
    .await
}

/// Listener whose Envoy sends bodies as text.
const TEXT: &str = "text";

fn token(scope: &str) -> String {
    bearer(&TokenBuilder::access().claim("scope", scope).sign(SigningKey::shared()))
}

fn call(tool: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": {}}})
}

/// Sends a body with these lines as further headers.
async fn post(envoy: &str, path: &str, lines: &[&str], body: &[u8]) -> Response {
    let length = format!("content-length: {}", body.len());
    let lines = [lines, &["content-type: application/json", &length]].concat();
    exchange_bytes(envoy, &[&request("POST", path, &lines), body].concat()).await
}

/// Sends a body in chunks of this size.
async fn post_chunked(envoy: &str, path: &str, lines: &[&str], body: &[u8], size: usize) -> Response {
    let lines = [lines, &["content-type: application/json", "transfer-encoding: chunked"]].concat();
    let mut bytes = request("POST", path, &lines);
    for chunk in body.chunks(size) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        bytes.extend([chunk, b"\r\n"].concat());
    }
    bytes.extend(b"0\r\n\r\n");
    exchange_bytes(envoy, &bytes).await
}

#[tokio::test]
async fn tools_need_the_scopes_of_their_policy() {
    let file = PolicyFile::new(FILE);
    let stage = stage(&file).await;
    let (reader, writer) = (token("orders/read"), token("orders/read orders/write"));
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        let before = stage.upstream.seen().len();
        let list = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"});
        let mut allowed = 0;
        for (document, token, expected) in [
            (call("get_order"), &reader, 200),
            (call("delete_order"), &writer, 200),
            (call("delete_order"), &reader, 403),
            (json!([list, call("get_order")]), &reader, 200),
            (json!([list, call("delete_order"), call("get_order")]), &reader, 403),
            (json!([list, call("delete_order"), call("get_order")]), &writer, 200),
        ] {
            let body = document.to_string();
            for chunk in [0, 1000, 7] {
                let response = match chunk {
                    0 => post(envoy, "/mcp", &[token], body.as_bytes()).await,
                    size => post_chunked(envoy, "/mcp", &[token], body.as_bytes(), size).await,
                };
                assert_eq!(response.status, expected, "{listener} {document} {chunk}: {response:?}");
                allowed += usize::from(expected == 200);
                if expected == 403 {
                    let challenge = response.header("www-authenticate").unwrap();
                    assert!(challenge.contains(r#"error="insufficient_scope""#), "{challenge}");
                    assert!(challenge.contains(r#"scope="orders/read orders/write""#), "{challenge}");
                    let metadata =
                        "resource_metadata=\"https://mcp.example.com/.well-known/oauth-protected-resource/mcp\"";
                    assert!(challenge.contains(metadata), "{challenge}");
                }
            }
        }
        assert_eq!(stage.upstream.seen().len() - before, allowed);
    }
}

#[tokio::test]
async fn bodies_that_do_not_arrive_completely_are_refused() {
    let file = PolicyFile::new(FILE);
    let stage = stage(&file).await;
    let reader = token("orders/read");
    let list = br#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#;
    let padded = |length: usize| [&list[..], &vec![b' '; length - list.len()]].concat();
    let refused = (403, "no_http_request".to_owned());
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        let before = stage.upstream.seen().len();
        // Our maximum, and that of Envoy.
        assert_eq!(post(envoy, "/mcp", &[&reader], &padded(2048)).await.status, 200);
        assert_eq!(post(envoy, "/mcp", &[&reader], &padded(2049)).await.verdict(), refused);
        assert_eq!(post_chunked(envoy, "/mcp", &[&reader], &padded(2049), 100).await.verdict(), refused);
        assert_eq!(post(envoy, "/mcp", &[&reader], &padded(128 * 1024)).await.status, 413);
        // Envoy cuts these. It says so, except if it cuts a chunk exactly at its maximum.
        assert_eq!(post(envoy, "/partial", &[&reader], &padded(150)).await.status, 200);
        for (length, chunk) in [(201, 201), (400, 400), (400, 200)] {
            let body = padded(length);
            assert_eq!(post(envoy, "/partial", &[&reader], &body).await.verdict(), refused, "{length}");
            if chunk > 200 {
                assert_eq!(
                    post_chunked(envoy, "/partial", &[&reader], &body, chunk).await.verdict(),
                    refused,
                    "{length}"
                );
            }
        }
        // A client cannot say in Envoy's place that the body is complete.
        let forged = ["x-envoy-auth-partial-body: false", &*reader];
        assert_eq!(post(envoy, "/partial", &forged, &padded(400)).await.verdict(), refused);
        // As text, and not at all.
        assert_eq!(post(stage.envoy.address(TEXT), "/mcp", &[&reader], list).await.verdict(), refused);
        assert_eq!(post(envoy, "/unbuffered", &[&reader], list).await.verdict(), refused);
        let hidden = [&request("GET", "/unbuffered", &[&*reader, "content-length: 2"])[..], b"{}"].concat();
        assert_eq!(exchange_bytes(envoy, &hidden).await.verdict(), refused);
        assert_eq!(post(envoy, "/mcp", &[&reader, "content-encoding: gzip"], list).await.verdict(), refused);
        assert_eq!(stage.upstream.seen().len() - before, 2);
    }
}

#[tokio::test]
async fn streams_and_sessions_need_no_body() {
    let file = PolicyFile::new(FILE);
    let stage = stage(&file).await;
    let reader = token("orders/read");
    for listener in LISTENERS {
        let envoy = stage.envoy.address(listener);
        for (method, line) in
            [("GET", "accept: text/event-stream"), ("DELETE", "mcp-session-id: 7"), ("DELETE", "content-length: 0")]
        {
            let response = send(envoy, method, "/mcp", &[&*reader, line]).await;
            assert_eq!(response.status, 200, "{listener} {method}: {response:?}");
        }
        let body = call("delete_order").to_string();
        for method in ["GET", "DELETE"] {
            let lines = [&*reader, "content-type: application/json", &format!("content-length: {}", body.len())];
            let hidden = [&request(method, "/mcp", &lines)[..], body.as_bytes()].concat();
            let response = exchange_bytes(envoy, &hidden).await;
            assert_eq!(response.verdict(), (403, "insufficient_scope".into()), "{listener} {method}");
            let lines = [&*reader, "content-type: application/json", "transfer-encoding: chunked"];
            let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
            let hidden = [&request(method, "/mcp", &lines)[..], chunk.as_bytes()].concat();
            let response = exchange_bytes(envoy, &hidden).await;
            assert_eq!(response.verdict(), (403, "insufficient_scope".into()), "{listener} {method} in chunks");
        }
        assert_eq!(send(envoy, "POST", "/mcp", &[&reader]).await.verdict(), (403, "no_http_request".into()));
        let (response, stream): (Response, Option<TcpStream>) =
            open_websocket(envoy, "/mcp", std::slice::from_ref(&reader)).await;
        assert_eq!((response.verdict(), stream.is_none()), ((403, "no_http_request".into()), true));
    }
}
