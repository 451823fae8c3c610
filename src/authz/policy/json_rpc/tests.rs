//! Tests of the messages in a body: hostile bodies, transports that do not carry all of it, and a property that compares
//! the reader with lenient parsers.

mod spellings;

use super::*;
use crate::authz::Header;
use Unreadable::{AsText, Batch, ContentEncoding, ContentType, Message, Missing, Name, Partial, TooLarge, Upgrade};

fn texts(texts: &[&str]) -> Vec<Box<str>> {
    texts.iter().map(|text| (*text).into()).collect()
}

/// Calls 0: two tools. 1: one method. 2: all prompts but one. 3: every tool of another method, too.
fn rules() -> JsonRpc {
    let call = |method: &str, names, policy| Call { methods: texts(&[method]), names, policy };
    JsonRpc {
        max_body: 4096,
        calls: vec![
            call("tools/call", Names::Only(texts(&["delete_order", "refund"])), 1),
            call("resources/write", Names::Any, 1),
            call("prompts/get", Names::Except(texts(&["safe"])), 1),
            call("tools/call", Names::Only(texts(&["refund"])), 2),
        ],
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");

fn calls_in(method: &str, headers: &[(&str, &str)], body: Body<'_>) -> Result<Vec<CallIndex>, Unreadable> {
    let headers = headers.iter().map(|(name, value)| Header { name: name.as_bytes(), value: value.as_bytes() });
    let request =
        RequestContext { method: method.as_bytes(), headers: headers.collect(), body, ..RequestContext::default() };
    rules().calls_in(&request)
}

fn judge(body: &[u8]) -> Result<Vec<CallIndex>, Unreadable> {
    calls_in("POST", &[JSON], Body::Bytes(body))
}

#[test]
fn messages_match_calls() {
    for (body, expected) in [
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"delete_order"}}"#, &[0][..]),
        (r#"{"params":{"arguments":{"name":"x"},"name":"delete_order"},"method":"tools/call"}"#, &[0]),
        (r#"{"method":"tools/call","params":{"name":"get_order","arguments":{"name":"delete_order"}}}"#, &[]),
        (r#"{"method":"tools/call","params":{"name":"refund"}}"#, &[0, 3]),
        (r#"{"method":"tools/call","params":{"name":"Refund"}}"#, &[]),
        (r#"{"method":"tools/list"}"#, &[]),
        (r#"{"method":"tools/list","params":[1,"x",{"name":1}]}"#, &[]),
        (r#"{"method":"initialize","params":{"clientInfo":{"name":"x","Name":"y"},"capabilities":{}}}"#, &[]),
        (r#"{"method":"resources/write","params":["positional"]}"#, &[1]),
        (r#"{"method":"resources/write"}"#, &[1]),
        (r#"{"method":"prompts/get","params":{"name":"safe"}}"#, &[]),
        (r#"{"method":"prompts/get","params":{"name":"other"}}"#, &[2]),
        (r#"{"method":"notifications/initialized"}"#, &[]),
        (r#"{"jsonrpc":"2.0","id":1,"result":{"method":"tools/call","params":{"name":"refund"}}}"#, &[]),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"x"}}"#, &[]),
        (r#"{"jsonrpc":"2.0","id":1,"result":null,"error":{}}"#, &[]),
        ("\r\n\t {\"method\":\"tools/call\",\"params\":{\"name\":\"refund\"}} \n", &[0, 3]),
        (r#"[{"method":"tools/list"},{"method":"resources/write"},{"id":1,"result":1}]"#, &[1]),
        (
            r#"[{"method":"resources/write"},{"method":"tools/call","params":{"name":"refund"}},{"method":"resources/write"}]"#,
            &[1, 0, 3],
        ),
        // Text is compared as it decodes.
        (r#"{"m\u0065thod":"tools\/call","par\u0061ms":{"n\u0061me":"delete\u005forder"}}"#, &[0]),
        (r#"{"method":"tools/call","params":{"name":"delete_\uD835\uDC5C"}}"#, &[]),
    ] {
        assert_eq!(judge(body.as_bytes()), Ok(expected.to_vec()), "{body}");
    }
}

/// Bodies that a parser could read in another way than this one, or that hide a call.
#[test]
fn hostile_bodies_are_refused() {
    let call = r#"{"method":"tools/call","params":{"name":"refund"}}"#;
    let safe = r#"{"method":"tools/list"}"#;
    let deep = |levels: usize| {
        format!(r#"{{"method":"tools/list","params":{{"a":{}1{}}}}}"#, "[".repeat(levels), "]".repeat(levels))
    };
    let batch = |messages: usize| format!("[{}]", vec![safe; messages].join(","));
    assert_eq!(judge(deep(100).as_bytes()), Ok(vec![]));
    assert_eq!(judge(batch(100).as_bytes()), Ok(vec![]));
    let text = |text: &str| text.as_bytes().to_vec();
    let utf16: Vec<u8> = call.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let utf16_be: Vec<u8> = call.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let utf32: Vec<u8> = call.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
    let table: Vec<(Vec<u8>, Unreadable)> = vec![
        // Two members with one name: Go, Python and JavaScript take the last one, others the first.
        (text(r#"{"method":"tools/list","method":"tools/call","params":{"name":"refund"}}"#), Message),
        (text(r#"{"method":"tools/call","method":"tools/list","params":{"name":"refund"}}"#), Message),
        (text(r#"{"method":"tools/list","m\u0065thod":"tools/call","params":{"name":"refund"}}"#), Message),
        (text(r#"{"method":"tools/call","params":{"name":"x"},"params":{"name":"refund"}}"#), Message),
        (text(r#"{"method":"tools/call","params":{"name":"x"},"params":null}"#), Message),
        (text(r#"{"method":"tools/call","params":{"name":"x","name":"refund"}}"#), Message),
        (text(r#"{"method":"tools/call","params":{"name":"x","n\u0061me":"refund"}}"#), Message),
        (text(r#"{"id":1,"id":2,"method":"tools/list"}"#), Message),
        (text(r#"{"jsonrpc":"2.0","jsonrpc":"1.0","method":"tools/list"}"#), Message),
        // Go's encoding/json ignores the case of names, with the folding of Unicode.
        (text(r#"{"method":"tools/list","Method":"tools/call","params":{"name":"refund"}}"#), Message),
        (text(r#"{"METHOD":"tools/call","params":{"name":"refund"},"result":1}"#), Message),
        (text(r#"{"method":"tools/call","params":{"name":"x"},"PARAMS":{"name":"refund"}}"#), Message),
        (text(r#"{"method":"tools/call","params":{"name":"x"},"paramſ":{"name":"refund"}}"#), Message),
        (text(r#"{"method":"tools/call","params":{"name":"x","Name":"refund"}}"#), Message),
        (text(r#"{"method":"tools/call","params":{"name":"x","NAME":"refund"}}"#), Message),
        (text(r#"{"method":"tools/call","params":{"NAME":"refund"}}"#), Message),
        (text(r#"{"method":"tools/list","Id":1}"#), Message),
        (text(r#"{"method":"tools/list","\u0130d":1}"#), Message),
        (text(r#"{"method":"tools/list","ıd":1}"#), Message),
        (text(r#"{"method":"tools/list","JsonRpc":"2.0"}"#), Message),
        // Names that other parsers trim, normalize or cut.
        (text(r#"{"method":"tools/list","method ":"tools/call"}"#), Message),
        (text(r#"{"method":"tools/list","\u200bmethod":"tools/call"}"#), Message),
        (text(r#"{"method":"tools/list","me-thod":"tools/call"}"#), Message),
        (text(r#"{"method":"tools/list","method\u0000x":"tools/call"}"#), Message),
        (text(r#"{"method":"tools/call","params":{"name\u0000":"refund","name":"x"}}"#), Message),
        (text(r#"{"method":"tools/call\u0000","params":{"name":"refund"}}"#), Message),
        (text(r#"{"method":"tools/call","params":{"name":"refund\u0000"}}"#), Message),
        (text(r#"{"method":"tools/call","params":{"name":"refund\u0000x"}}"#), Message),
        // JavaScript: a copy of the object inherits these.
        (text(r#"{"__proto__":{"method":"tools/call","params":{"name":"refund"}},"result":1}"#), Message),
        (text(r#"{"method":"tools/call","params":{"__proto__":{"name":"refund"}}}"#), Message),
        (text(r#"{"method":"tools/list","\u005f_proto__":{"method":"tools/call"}}"#), Message),
        // A name that is no text, where the name matters.
        (text(r#"{"method":"tools/call"}"#), Name),
        (text(r#"{"method":"tools/call","params":null}"#), Name),
        (text(r#"{"method":"tools/call","params":{}}"#), Name),
        (text(r#"{"method":"tools/call","params":["refund"]}"#), Name),
        (text(r#"{"method":"tools/call","params":"refund"}"#), Name),
        (text(r#"{"method":"tools/call","params":{"name":["refund"]}}"#), Name),
        (text(r#"{"method":"tools/call","params":{"name":{"name":"refund"}}}"#), Name),
        (text(r#"{"method":"tools/call","params":{"name":null}}"#), Name),
        (text(r#"{"method":"tools/call","params":{"name":1}}"#), Name),
        (text(r#"{"method":"prompts/get","params":{"name":true}}"#), Name),
        (text(r#"{"method":"tools/call","params":[{"name":"refund"}]}"#), Name),
        // No message, or one that is request and response at once.
        (text(r"{}"), Message),
        (text(r#"{"jsonrpc":"2.0","id":1}"#), Message),
        (text(r#"{"method":null,"result":1}"#), Message),
        (text(r#"{"method":["tools/call"],"params":{"name":"refund"}}"#), Message),
        (text(r#"{"method":1}"#), Message),
        (text(r#"{"method":"tools/call","params":{"name":"x"},"result":1}"#), Message),
        (text(r#"{"method":"tools/list","error":{}}"#), Message),
        (text(r#""tools/call""#), Message),
        (text("null"), Message),
        (text("1"), Message),
        (text(" \n"), Message),
        // Batches.
        (text("[]"), Batch),
        (text("[ ]"), Batch),
        (text(&batch(101)), Batch),
        (text(&format!("[{safe},[{call}]]")), Message),
        (text(&format!("[{safe},null]")), Message),
        (text(&format!("[{safe},{{}}]")), Message),
        (text(&format!("[{safe},{call}")), Message),
        (text(&format!("[{safe},{call},]")), Message),
        (text(&format!("[{safe} {call}]")), Message),
        // More than one document: some parsers stop after the first, or read a line at a time.
        (text(&format!("{safe}{call}")), Message),
        (text(&format!("{safe}\n{call}")), Message),
        (text(&format!("{safe}\0")), Message),
        (text(&format!("{safe},")), Message),
        (text(&format!("\u{1e}{call}\n")), Message),
        // Dialects of JSON.
        (text(r#"{/*"*/"method":"tools/list"/*"*/}"#), Message),
        (text("{\"method\":\"tools/list\" // x\n}"), Message),
        (text("{'method':'tools/call','params':{'name':'refund'}}"), Message),
        (text(r#"{method:"tools/call","params":{"name":"refund"}}"#), Message),
        (text(r#"{"method":"tools/list",}"#), Message),
        (text(r#"{"method":"tools/list","id":NaN}"#), Message),
        (text(r#"{"method":"tools/list","id":-Infinity}"#), Message),
        (text(r#"{"method":"tools/list","id":0x1}"#), Message),
        (text(r#"{"method":"tools/list","id":01}"#), Message),
        (text(r#"{"method":"tools/list","id":1e999}"#), Message),
        (text(r#"{"method":"tools/list","params":{"a":-1e999}}"#), Message),
        (text("{\"method\":\"tools\n/list\"}"), Message),
        (text("{\"method\":\u{a0}\"tools/list\"}"), Message),
        (text("{\"method\":\u{c}\"tools/list\"}"), Message),
        (text(r#"{"method":"tools/\x63all"}"#), Message),
        (text("method=tools%2Fcall&name=refund"), Message),
        (text("method: tools/call"), Message),
        // Encodings.
        (text(&format!("\u{feff}{call}")), Message),
        (utf16.clone(), Message),
        ([&[0xff, 0xfe], &utf16[..]].concat(), Message),
        (utf16_be, Message),
        (utf32, Message),
        (b"{\"method\":\"tools/\xff\x63all\"}".to_vec(), Message),
        (b"{\"method\":\"tools/list\",\"params\":{\"a\":\"\xc0\xaf\"}}".to_vec(), Message),
        (b"{\"method\":\"tools/list\",\"params\":{\"a\":\"\xed\xa0\x80\"}}".to_vec(), Message),
        (text(r#"{"method":"tools/list","params":{"a":"\ud800"}}"#), Message),
        (text(r#"{"method":"tools/call","params":{"name":"refund\udfff"}}"#), Message),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00".to_vec(), Message),
        // Size and depth.
        (text(&deep(200)), Message),
        (text(&"[".repeat(4000)), Message),
        (text(&format!("{safe}{}", " ".repeat(4096))), TooLarge),
        (text(&format!("{{\"method\":\"tools/list\",\"x\":\"{}", "a".repeat(3000))), Message),
    ];
    assert!(table.len() >= 60);
    for (body, expected) in table {
        assert_eq!(judge(&body), Err(expected), "{}", String::from_utf8_lossy(&body));
    }
}

#[test]
fn the_check_has_to_carry_the_whole_body() {
    let body = br#"{"method":"tools/list"}"#;
    let whole = Body::Bytes(body);
    let length = body.len().to_string();
    let length = ("content-length", &*length);
    for (method, headers, body, expected) in [
        ("POST", &[JSON][..], whole, Ok(vec![])),
        ("POST", &[JSON, length], whole, Ok(vec![])),
        ("POST", &[("Content-Type", "Application/JSON; Charset=UTF-8"), length], whole, Ok(vec![])),
        ("POST", &[("content-type", "application/json;charset=\"utf-8\"")], whole, Ok(vec![])),
        ("POST", &[JSON, ("x-envoy-auth-partial-body", "false")], whole, Ok(vec![])),
        ("POST", &[JSON, ("content-encoding", "identity")], whole, Ok(vec![])),
        ("POST", &[JSON, ("transfer-encoding", "chunked")], whole, Ok(vec![])),
        // Methods without a body.
        ("GET", &[], Body::Absent, Ok(vec![])),
        ("HEAD", &[], Body::Absent, Ok(vec![])),
        ("OPTIONS", &[("content-length", "0")], Body::Bytes(b""), Ok(vec![])),
        ("DELETE", &[("mcp-session-id", "x")], Body::Absent, Ok(vec![])),
        ("GET", &[JSON], whole, Ok(vec![])),
        ("GET", &[], whole, Err(ContentType)),
        ("DELETE", &[JSON], Body::Bytes(b"{}"), Err(Message)),
        ("GET", &[("content-length", "5")], Body::Absent, Err(Missing)),
        ("GET", &[("transfer-encoding", "chunked")], Body::Absent, Err(Missing)),
        ("DELETE", &[("content-length", "0"), ("content-length", "5")], Body::Absent, Err(Missing)),
        // Other methods have one.
        ("POST", &[JSON], Body::Absent, Err(Missing)),
        ("POST", &[JSON, ("content-length", "0")], Body::Bytes(b""), Err(Missing)),
        ("PUT", &[], Body::Absent, Err(Missing)),
        ("get", &[], Body::Absent, Err(Missing)),
        ("QUERY", &[], Body::Absent, Err(Missing)),
        ("", &[], Body::Absent, Err(Missing)),
        // Envoy replaced or cut something.
        ("POST", &[JSON], Body::AsText, Err(AsText)),
        ("GET", &[JSON], Body::AsText, Err(AsText)),
        ("POST", &[JSON, ("x-envoy-auth-partial-body", "true")], whole, Err(Partial)),
        (
            "POST",
            &[JSON, ("X-Envoy-Auth-Partial-Body", "false"), ("x-envoy-auth-partial-body", "true")],
            whole,
            Err(Partial),
        ),
        ("POST", &[JSON, ("x-envoy-auth-partial-body", "False")], whole, Err(Partial)),
        ("POST", &[JSON, ("content-length", "24")], whole, Err(Partial)),
        ("POST", &[JSON, ("content-length", "22")], whole, Err(Partial)),
        ("POST", &[JSON, length, ("content-length", "24")], whole, Err(Partial)),
        ("POST", &[JSON, ("content-length", "23, 23")], whole, Err(Partial)),
        // Media type and coding.
        ("POST", &[], whole, Err(ContentType)),
        ("POST", &[JSON, JSON], whole, Err(ContentType)),
        ("POST", &[("content-type", "")], whole, Err(ContentType)),
        ("POST", &[("content-type", "text/plain")], whole, Err(ContentType)),
        ("POST", &[("content-type", "application/x-www-form-urlencoded")], whole, Err(ContentType)),
        ("POST", &[("content-type", "application/json, text/plain")], whole, Err(ContentType)),
        ("POST", &[("content-type", "application/json; charset=utf-7")], whole, Err(ContentType)),
        ("POST", &[("content-type", "application/json; charset=utf-16")], whole, Err(ContentType)),
        ("POST", &[("content-type", "application/json; charset=utf-8; charset=utf-7")], whole, Err(ContentType)),
        ("POST", &[("content-type", "application/json; boundary=x")], whole, Err(ContentType)),
        ("POST", &[("content-type", "application/json;")], whole, Err(ContentType)),
        ("POST", &[JSON, ("content-encoding", "gzip")], whole, Err(ContentEncoding)),
        ("POST", &[JSON, ("content-encoding", "identity, br")], whole, Err(ContentEncoding)),
        ("POST", &[JSON, ("content-encoding", "identity"), ("content-encoding", "br")], whole, Err(ContentEncoding)),
        // The messages of a WebSocket come later.
        ("GET", &[("upgrade", "websocket")], Body::Absent, Err(Upgrade)),
        ("POST", &[JSON, ("Upgrade", "h2c")], whole, Err(Upgrade)),
    ] {
        assert_eq!(calls_in(method, headers, body), expected, "{method} {headers:?}");
    }
    let long = format!("{}{}", String::from_utf8_lossy(body), " ".repeat(4096 - body.len()));
    assert_eq!(judge(long.as_bytes()), Ok(vec![]), "exactly the maximum");
    assert_eq!(judge(format!("{long} ").as_bytes()), Err(TooLarge));
}
