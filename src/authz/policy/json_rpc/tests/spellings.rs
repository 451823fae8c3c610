//! A property: if the reader accepts a body, then parsers of other kinds see the same calls in it.

use proptest::prelude::*;
use serde_json::Value as Json;

use super::{judge, rules};
use crate::authz::policy::json_rpc::CallIndex;

/// Value of a document, with duplicate members.
#[derive(Clone, Debug)]
enum Value {
    Text(String),
    Number,
    Null,
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
}

/// How a lenient parser finds a member.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent")]
struct Lenience {
    /// Ignores the case of names (Go).
    folds: bool,
    /// Takes the last of two members, not the first.
    takes_last: bool,
    /// Ends a text at a NUL (C).
    cuts: bool,
    /// Reads members of `__proto__` that the object itself lacks (JavaScript).
    inherits: bool,
}

impl Lenience {
    fn same(self, one: &str, other: &str) -> bool {
        let cut = |text: &str| if self.cuts { text.split('\0').next().unwrap().to_owned() } else { text.to_owned() };
        let fold = |text: String| if self.folds { text.to_uppercase().to_lowercase() } else { text };
        fold(cut(one)) == fold(cut(other))
    }

    fn member<'v>(self, members: &'v [(String, Value)], name: &str) -> Option<&'v Value> {
        let mut found = members.iter().filter(|(key, _)| self.same(key, name)).map(|(_, value)| value);
        let own = if self.takes_last { found.next_back() } else { found.next() };
        let prototype = || match members.iter().rfind(|(key, _)| key == "__proto__") {
            Some((_, Value::Object(members))) if self.inherits => self.member(members, name),
            _ => None,
        };
        own.or_else(prototype)
    }

    fn text(self, value: Option<&Value>) -> Option<String> {
        match value? {
            Value::Text(text) if self.cuts => text.split('\0').next().map(str::to_owned),
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// Calls that a parser of this kind sees in a message.
    fn calls(self, message: &Value) -> Vec<CallIndex> {
        let Value::Object(members) = message else { return Vec::new() };
        let Some(method) = self.text(self.member(members, "method")) else { return Vec::new() };
        let name = match self.member(members, "params") {
            Some(Value::Object(params)) => self.text(self.member(params, "name")),
            // A parser of positional parameters.
            Some(Value::List(items)) => self.text(items.first()),
            _ => None,
        };
        matching(&method, name.as_deref())
    }
}

/// Calls that a message with this method and name matches. Without a name, none that depends on one.
fn matching(method: &str, name: Option<&str>) -> Vec<CallIndex> {
    let calls = rules().calls.into_iter().enumerate();
    calls.filter(|(_, call)| call.applies_to(method, name) == Ok(true)).map(|(index, _)| index).collect()
}

/// Writes a text as JSON. Each bit of `escapes` decides whether a character is escaped.
fn write_text(out: &mut String, text: &str, escapes: u64) {
    out.push('"');
    for (index, c) in text.chars().enumerate() {
        let is_escaped = escapes >> (index % 64) & 1 == 1 || c.is_control() || matches!(c, '"' | '\\');
        if is_escaped {
            let mut units = [0; 2];
            out.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            out.push(c);
        }
    }
    out.push('"');
}

fn write(out: &mut String, value: &Value, escapes: u64) {
    match value {
        Value::Text(text) => write_text(out, text, escapes),
        Value::Number => out.push_str("1.5e3"),
        Value::Null => out.push_str("null"),
        Value::List(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { "," });
                write(out, item, escapes.rotate_left(7));
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (index, (name, value)) in members.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_text(out, name, escapes.rotate_left(13));
                out.push(':');
                write(out, value, escapes.rotate_left(29));
            }
            out.push('}');
        }
    }
}

fn pick(texts: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    prop::sample::select(texts).prop_map(str::to_owned)
}

fn name() -> impl Strategy<Value = Value> {
    let names = pick(&["refund", "get_order", "safe", "Refund", "refund\0x", "delete_order", "x\u{1f600}"]);
    prop_oneof![8 => names.prop_map(Value::Text), 1 => Just(Value::Null), 1 => Just(Value::Number)]
}

fn params() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        6 => pick(&["name"]),
        3 => pick(&["arguments", "_meta", "x"]),
        1 => pick(&["Name", "NAME", "name\0", " name"]),
    ];
    let members = prop::collection::vec((key, name()), 0..3);
    let object = (members, prop::option::weighted(0.1, name())).prop_map(|(mut members, inherited)| {
        let inherited = inherited.map(|name| Value::Object(vec![("name".to_owned(), name)]));
        members.extend(inherited.map(|members| ("__proto__".to_owned(), members)));
        Value::Object(members)
    });
    prop_oneof![8 => object, 1 => prop::collection::vec(name(), 0..2).prop_map(Value::List), 1 => name()]
}

/// Members of a message, in any order, some of them twice, or with names that only some parsers recognize.
fn message() -> impl Strategy<Value = Value> {
    let methods = pick(&["tools/call", "tools/list", "resources/write", "prompts/get", "tools/call\0"]);
    let method = (prop_oneof![9 => pick(&["method"]), 1 => pick(&["Method", "METHOD", "method\0"])], methods)
        .prop_map(|(name, method)| (name, Value::Text(method)));
    let all = (prop_oneof![9 => pick(&["params"]), 1 => pick(&["Params", "paramſ", "params\0"])], params());
    let others = pick(&["jsonrpc", "id", "x", "result", "__proto__"])
        .prop_flat_map(|name| (Just(name), prop_oneof![Just(Value::Number), params()]));
    let some = |most, one| prop::collection::vec(one, 0..most);
    (some(3, method.boxed()), some(3, all.boxed()), some(2, others.boxed()))
        .prop_map(|(methods, params, others)| [methods, params, others].concat())
        .prop_shuffle()
        .prop_map(Value::Object)
}

/// What `serde_json` sees, as Python and JavaScript do: the last of two members.
fn by_serde(message: &Json) -> Vec<CallIndex> {
    let name = message["params"]["name"].as_str();
    message["method"].as_str().map(|method| matching(method, name)).unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn accepted_bodies_have_one_reading(
        messages in prop::collection::vec(message(), 1..3),
        is_batch: bool,
        escapes in prop_oneof![Just(0), any::<u64>()],
        before in prop_oneof![20 => pick(&["", " \r\n"]), 1 => pick(&["\u{feff}", "\u{b}", "//\n"])],
        after in prop_oneof![20 => pick(&["", "\n"]), 1 => pick(&["{\"method\":\"resources/write\"}", "\0", ",", "\u{1a}"])],
    ) {
        let messages = if is_batch { messages } else { messages[..1].to_vec() };
        let mut body = before;
        let document = if is_batch { Value::List(messages.clone()) } else { messages[0].clone() };
        write(&mut body, &document, escapes);
        body.push_str(&after);
        let sorted = |lists: &mut dyn Iterator<Item = Vec<CallIndex>>| {
            let mut calls: Vec<_> = lists.flatten().collect();
            calls.sort_unstable();
            calls.dedup();
            calls
        };
        if let Ok(calls) = judge(body.as_bytes()) {
            let calls = sorted(&mut std::iter::once(calls));
            for bits in 0..16_u8 {
                let [folds, takes_last, cuts, inherits] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
                let parser = Lenience { folds, takes_last, cuts, inherits };
                let seen = sorted(&mut messages.iter().map(|message| parser.calls(message)));
                prop_assert_eq!(&seen, &calls, "{:?} {}", parser, body);
            }
            let json: Json = serde_json::from_str(&body).unwrap();
            let all = if is_batch { json.as_array().unwrap().as_slice() } else { std::slice::from_ref(&json) };
            prop_assert_eq!(sorted(&mut all.iter().map(by_serde)), calls, "{}", body);
        }
    }

    #[test]
    fn plain_messages_are_accepted(
        method in pick(&["tools/call", "prompts/get"]),
        name in pick(&["refund", "delete_order", "get_order", "safe"]),
        escapes: u64,
        swap: bool,
    ) {
        let params = Value::Object(vec![("name".into(), Value::Text(name.clone()))]);
        let mut members = vec![("method".to_owned(), Value::Text(method.clone())), ("params".to_owned(), params)];
        if swap {
            members.reverse();
        }
        let mut body = String::new();
        write(&mut body, &Value::Object(members), escapes);
        prop_assert_eq!(judge(body.as_bytes()), Ok(matching(&method, Some(&name))), "{}", body);
    }
}
