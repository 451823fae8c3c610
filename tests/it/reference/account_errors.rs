//! `account-errors.md`: every code of the account API, from `src/account/error.rs` and its doc comments; the routes that
//! return it, from the metrics of a running service; and their paths, from its `OpenAPI` document.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::metrics::of_all_features;
use super::{code, codes, page, plain, source, table};
use crate::support::client::get;
use crate::support::policy_file::PolicyFile;
use crate::support::service::{SIGN_IN, TestApp};
use crate::tidy::sources;

const ABOUT: &str = "\
Every error of the [account API](../account-api.md). The list of codes is closed: clients can rely
on it, and show texts of their own for each code.";

const FORM: &str = "\
[Errors](../account-limits.md#errors) describes the form of an error, and lists the errors of Cognito and
the codes that they become.

- **The status of the route** is 401 on `login`, `challenge` and `refresh`, and 400 on all other
  routes.
- Responses with 429 and 503 have `Retry-After`, and those with 405 `Allow`.
- The operator has to fix the cause of a 502. The [log](log-events.md#account-api) has the name of the
  error and, if known, the fix.
- The routes of the [sign-in by redirect](../account-browsers.md#sign-in-by-redirect) show the same codes on
  HTML pages.
";

const ROUTES: &str = "\
## Codes by route

Codes that a route can return, in a service with all features. `/auth` stands for
[`--account-prefix`](options.md#account-prefix). The names of the operations are those of the
OpenAPI document and of the label `operation` of the [metrics](metrics.md). `none` stands for
unknown paths.
";

/// Policy file with a protected resource, whose routes the `OpenAPI` document then has.
const RESOURCE: &str = "
protected_resources: [{resource: 'https://mcp.example.com/mcp', policy: default}]
policies: {default: {}}
";

/// A code: its text, the message, and the description.
struct Entry {
    name: String,
    code: String,
    message: String,
    about: String,
}

/// Reads the table of codes.
fn entries(code: &str) -> Vec<Entry> {
    let (_, rows) = code.split_once("\ncodes! {\n").unwrap();
    let (rows, _) = rows.split_once("\n}\n").unwrap();
    let mut found = Vec::new();
    let mut about = String::new();
    for line in rows.lines().map(str::trim_start) {
        if let Some(more) = line.strip_prefix("///") {
            about.push_str(more);
        } else {
            let (name, rest) = line.split_once(" = \"").unwrap_or_else(|| panic!("not a code: {line}"));
            let (code, message) = rest.split_once("\": \"").unwrap();
            let message = message.trim_end_matches("\",").to_owned();
            let about = plain(&std::mem::take(&mut about));
            found.push(Entry { name: name.to_owned(), code: code.to_owned(), message, about });
        }
    }
    found
}

/// Texts before a code whose status is the one of the route.
const OF_ROUTE: [&str; 10] = [
    "caller(",
    "unless_hidden(",
    "bad_password(row,",
    "Code(",
    "SessionOr(",
    "As(",
    "row.refusal,",
    "invalid_parameter:",
    "invalid_password:",
    "hidden_taken_name:",
];

/// Statuses of a code: those that the code is returned with, and the status of the route if that is one of them.
fn statuses(sources: &str, name: &str) -> String {
    let wanted = format!("Code::{name}");
    let is_whole = |start: usize| !sources[start + wanted.len()..].starts_with(|c: char| c.is_alphanumeric());
    let mut found = BTreeSet::new();
    for (start, _) in sources.match_indices(&wanted).filter(|(start, _)| is_whole(*start)) {
        let before = sources[..start].trim_end();
        let number = before.strip_suffix(',').and_then(|before| before.rsplit_once("new(")).map(|(_, number)| number);
        if let Some(number) = number.and_then(|number| number.parse::<u16>().ok()) {
            found.insert(number.to_string());
        } else if OF_ROUTE.iter().any(|text| before.ends_with(text)) {
            found.insert("that of the route".to_owned());
        }
    }
    assert!(!found.is_empty(), "no status of {name} was found in src/account");
    found.into_iter().collect::<Vec<_>>().join(" or ")
}

/// Methods and paths of the operations.
async fn routes() -> BTreeMap<String, Vec<String>> {
    let file = PolicyFile::new(RESOURCE);
    let app =
        TestApp::start(&[&["--jwks-url", "http://127.0.0.1:9/", "--config", &file.path()], &SIGN_IN[..]].concat());
    let (status, text) = get(&app.admin, "/auth/openapi.json").await;
    assert_eq!(status, 200, "{text}");
    let document: Value = serde_json::from_str(&text).unwrap();
    let mut routes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if let Some(name) = operation["operationId"].as_str() {
                // The metadata of a resource with a path counts as the same operation.
                let name = name.strip_suffix("-at-path").unwrap_or(name);
                routes.entry(name.to_owned()).or_default().push(format!("{} {path}", method.to_uppercase()));
            }
        }
    }
    routes
}

#[tokio::test]
async fn account_errors() {
    let entries = entries(&source("account/error.rs"));
    let sources: String =
        sources().into_iter().filter(|(path, _)| path.starts_with("account/")).map(|(_, code)| code).collect();
    let rows = entries.iter().map(|entry| {
        let Entry { name, code, message, about } = entry;
        assert!(!about.is_empty(), "{name} has no description");
        let anchored = format!("<a id=\"{code}\"></a>`{code}`");
        [anchored, statuses(&sources, name), plain(about), plain(message)]
    });
    let overview = table(["code", "status", "meaning", "message"], rows);

    let families = of_all_features().await;
    let mut by_operation: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for series in &families["cognito_authz_account_requests_total"].series {
        let value = |name: &str| series.iter().find(|(known, _)| known == name).map(|(_, value)| &**value).unwrap();
        let outcome = value("outcome");
        if !["success", "challenge"].contains(&outcome) {
            assert!(entries.iter().any(|entry| entry.code == outcome), "{outcome} is not in src/account/error.rs");
            by_operation.entry(value("operation")).or_default().insert(outcome);
        }
    }
    let routes = routes().await;
    let rows = by_operation.iter().map(|(operation, found)| {
        let paths = routes.get(*operation).map(codes).unwrap_or_default();
        assert!(!paths.is_empty() || *operation == "none", "{operation} is not in the OpenAPI document");
        let paths = if paths.is_empty() { "–".to_owned() } else { paths.replace(", ", "<br>") };
        [paths, code(operation), codes(found)]
    });
    let by_route = table(["route", "operation", "codes"], rows);
    page(
        "account-errors.md",
        "Account errors",
        ABOUT,
        &format!("{FORM}\n## Codes\n\n{overview}\n{ROUTES}\n{by_route}"),
    );
}
