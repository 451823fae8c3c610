//! `log-events.md`: every event that the program logs, as the calls of `tracing` in `src/` have it.

mod meanings;

use std::collections::{BTreeMap, BTreeSet};

use self::meanings::MEANINGS;
use super::{assert_names, code, codes, page, plain, table};
use crate::tidy::{sources, statements};

const ABOUT: &str = "\
Every message of the log, with level, target and fields. Search for the message of a line that you
do not understand.";

const FORM: &str = r#"
A line is one JSON object ([`--log-format json`](options.md#log-format), the default unless standard
output is a terminal):

```json
{"timestamp":"2026-01-02T03:04:05.678901Z","level":"INFO","fields":{"message":"check","decision":"deny","reason":"expired","pool":"default","policy":"default","request_id":"5e1b…","duration_us":41},"target":"cognito_authz::check"}
```

- Messages can change in [any version](../operations-upgrades.md#versions). Alert on [metrics](metrics.md).
- Targets begin with `cognito_authz::`, which the tables leave out.
- Fields without a value are absent. `request_id` leads from a response to [its
  lines](../operations-metrics.md#a-request-that-a-user-quotes).
- `event` marks lines for an audit: `revocation`, `log_level` and `admin_token_refused`.
- No line contains a token, cookie, code, password, e-mail address or path of a request, at any
  level.
- [Log caps](../operations-metrics.md#log-caps) bounds the lines that clients cause, and [the level can
  change](../operations-admin.md#changing-the-log-level) while the service runs.
"#;

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Parts of the page: the title, the targets that it has by their start, and a sentence.
const PARTS: &[(&str, &[&str], &str)] = &[
    ("Checks", &["check"], "One line for each check."),
    ("Keys", &["jwks"], "Fetches of the key sets."),
    ("Policy file and certificates", &["reload"], "Reloads while the service runs."),
    ("Account API", &["account", "cognito"], "Requests of clients, and the calls of Cognito that they cause."),
    ("Revocation", &["revocation"], "The file or the shared store."),
    ("Listeners", &["net", "ext_authz"], "Connections."),
    ("Operators", &["admin", "logging"], "The admin port, and the log itself."),
    ("Traces", &["telemetry"], "The export of spans."),
    ("Process", &["app", "main"], "Startup and shutdown."),
];

/// An event: a call of a macro of `tracing`.
#[derive(Debug)]
struct Event {
    target: String,
    message: String,
    levels: Vec<String>,
    fields: Vec<String>,
}

/// Macro calls of a source, each with its name and its arguments.
fn calls<'c>(code: &'c str, name: &str) -> Vec<Vec<&'c str>> {
    code.match_indices(&format!("{name}!(")).map(|(start, name)| arguments(&code[start + name.len()..])).collect()
}

/// Splits arguments at commas, up to the parenthesis that ends them.
fn arguments(code: &str) -> Vec<&str> {
    let (mut depth, mut is_text, mut is_escaped, mut start, mut found) = (0, false, false, 0, Vec::new());
    for (at, c) in code.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_text => is_escaped = true,
            '"' => is_text = !is_text,
            _ if is_text => {}
            ')' if depth == 0 => {
                found.push(code[start..at].trim());
                break;
            }
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(code[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    found.retain(|argument| !argument.is_empty());
    found
}

/// A text without its line breaks: a line that ends with a backslash goes on in the next one.
fn joined(text: &str) -> String {
    text.split("\\\n").map(str::trim_start).collect()
}

/// Text of a constant that is a whole message, such as `{UNSERVED_RESOURCES}`.
fn constant(message: &str, sources: &[(String, String)]) -> Option<String> {
    let name = message.strip_prefix('{')?.strip_suffix('}')?;
    let start = format!("const {name}: &str = \"");
    let (_, rest) = sources.iter().find_map(|(_, code)| code.split_once(&start))?;
    Some(joined(rest.split('"').next()?))
}

/// Reads the arguments of a macro of `tracing`. What follows the message is for its placeholders.
fn event(arguments: &[&str], levels: &[&str], own_target: &str, code: &str) -> Event {
    let mut event = Event {
        target: own_target.to_owned(),
        message: String::new(),
        levels: levels.iter().map(|level| (*level).to_owned()).collect(),
        fields: Vec::new(),
    };
    for argument in arguments {
        if let Some(text) = argument.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
            event.message = joined(text);
            break;
        }
        if let Some(target) = argument.strip_prefix("target: ") {
            let text = code.split_once(&format!("const {target}: &str = \"")).map_or(target, |(_, rest)| rest);
            event.target = text.trim_matches('"').split('"').next().unwrap().into();
        } else {
            let name = argument.split('=').next().unwrap().trim().trim_start_matches(['%', '?']);
            assert!(name.chars().all(|c| c.is_alphanumeric() || c == '_'), "not a field: {argument}");
            event.fields.push(name.to_owned());
        }
    }
    assert!(!event.message.is_empty(), "an event has no message: {arguments:?}");
    event
}

/// Events of a file. Besides the macros of `tracing`, these are `announce!`, which is called with a level that can vary,
/// and local macros `event!` that are called with a level.
fn events(path: &str, code: &str) -> Vec<Event> {
    let module = path.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
    let target = if module == "main" { "cognito_authz".into() } else { format!("cognito_authz::{module}") };
    let is_template = |arguments: &[&str]| arguments.iter().any(|argument| argument.contains("$("));
    let mut found = Vec::new();
    for level in LEVELS {
        for arguments in calls(code, &format!("tracing::{level}")).iter().filter(|one| !is_template(one)) {
            found.push(event(arguments, &[level], &target, code));
        }
    }
    let called: BTreeSet<&str> =
        calls(code, " event").concat().into_iter().filter(|level| LEVELS.contains(level)).collect();
    let called: Vec<&str> = LEVELS.into_iter().filter(|level| called.contains(level)).collect();
    for arguments in calls(code, "tracing::$level") {
        found.push(event(&arguments, &called, &target, code));
    }
    for arguments in calls(code, "announce") {
        found.push(event(&arguments[1..], &["error", "warn", "info"], &target, code));
    }
    found
}

/// Every event of the program, merged by target and message.
fn of_program() -> BTreeMap<(String, String), Event> {
    let mut merged: BTreeMap<(String, String), Event> = BTreeMap::new();
    let sources = sources();
    for (path, code) in &sources {
        let code: String = statements(code).flat_map(|line| [line, "\n"]).collect();
        for mut event in events(path, &code) {
            event.message = constant(&event.message, &sources).unwrap_or(event.message);
            match merged.get_mut(&(event.target.clone(), event.message.clone())) {
                None => drop(merged.insert((event.target.clone(), event.message.clone()), event)),
                Some(known) => {
                    let new = |known: &[String], more: Vec<String>| {
                        more.into_iter().filter(|one| !known.contains(one)).collect::<Vec<_>>()
                    };
                    let (levels, fields) = (new(&known.levels, event.levels), new(&known.fields, event.fields));
                    known.levels.extend(levels);
                    known.fields.extend(fields);
                }
            }
        }
    }
    merged
}

#[test]
fn log_events() {
    let events = of_program();
    let messages: BTreeSet<&str> = events.keys().map(|(_, message)| &**message).collect();
    assert_names(MEANINGS.iter().map(|(message, _)| *message), messages, "MEANINGS");

    let mut parts: Vec<Vec<[String; 3]>> = PARTS.iter().map(|_| Vec::new()).collect();
    for ((target, message), event) in &events {
        let module = target.split("::").nth(1).unwrap_or("main");
        let part = PARTS.iter().position(|(_, modules, _)| modules.contains(&module));
        let part = part.unwrap_or_else(|| panic!("PARTS has no part with the module {module} of: {message}"));
        let (_, meaning) = MEANINGS.iter().find(|(known, _)| known == message).unwrap();
        let short = target.strip_prefix("cognito_authz::").unwrap_or(target);
        let first = format!("{}<br>{}, {}", code(message), event.levels.join(", "), code(short));
        parts[part].push([first, codes(&event.fields), plain(meaning)]);
    }
    let columns = ["message, level and target", "fields", "meaning"];
    let parts = PARTS.iter().zip(parts).map(|((title, _, about), rows)| {
        assert!(!rows.is_empty(), "the part {title} is empty");
        format!("## {title}\n\n{about}\n\n{}\n", table(columns, rows))
    });
    let parts: String = parts.collect();
    page("log-events.md", "Log events", ABOUT, &format!("{FORM}\n{parts}"));
}
