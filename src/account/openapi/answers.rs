//! Responses of the document: those of successes, and those of errors with an example of each code.

use serde_json::{Map, Value, json};

use super::examples;
use crate::account::error::Code;

/// Errors that have one code, one form and one cause on every route: status, and name in the document.
const SHARED: [(u16, &str, Code); 6] = [
    (403, "CrossSite", Code::CrossSite),
    (405, "MethodNotAllowed", Code::MethodNotAllowed),
    (413, "TooLarge", Code::TooLarge),
    (415, "UnsupportedMediaType", Code::UnsupportedMediaType),
    (429, "RateLimited", Code::RateLimited),
    (503, "Unavailable", Code::UpstreamUnavailable),
];

/// Errors of an operation: status and code.
pub(super) type Failures = Vec<(u16, Code)>;

/// Makes the response of a success. `examples` have a name each.
pub(super) fn success(description: &str, schema: &str, examples: &[(&str, Value)]) -> Value {
    let examples: Map<_, _> = examples.iter().map(|(name, value)| ((*name).into(), json!({"value": value}))).collect();
    json!({
        "description": description,
        "headers": headers(&[]),
        "content": {"application/json": {"schema": reference("schemas", schema), "examples": examples}},
    })
}

/// Makes the responses of errors. `invalid` is the operation's example of [`Code::InvalidRequest`].
pub(super) fn errors(failures: &[(u16, Code)], invalid: Option<&Value>) -> Map<String, Value> {
    let statuses = failures.iter().map(|(status, _)| *status);
    statuses
        .map(|status| {
            let shared = SHARED.iter().find(|(shared, ..)| *shared == status);
            let response = match shared {
                Some((_, name, _)) => reference("responses", name),
                None => error(status, failures, invalid),
            };
            (status.to_string(), response)
        })
        .collect()
}

fn error(status: u16, failures: &[(u16, Code)], invalid: Option<&Value>) -> Value {
    let codes = Code::ALL.iter().filter(|code| failures.contains(&(status, **code)));
    let example = |code: &Code| match invalid {
        // With another status it is Cognito that refuses the request, and no member is named.
        Some(invalid) if (status, *code) == (400, Code::InvalidRequest) => json!({"value": invalid}),
        _ => reference("examples", code.as_str()),
    };
    let examples: Map<_, _> = codes.map(|code| (code.as_str().to_owned(), example(code))).collect();
    with_examples(status, &examples)
}

fn with_examples(status: u16, examples: &Map<String, Value>) -> Value {
    json!({
        "description": description(status),
        "headers": headers(names_of_headers(status)),
        "content": {"application/json": {"schema": reference("schemas", "Error"), "examples": examples}},
    })
}

/// Responses that operations refer to.
pub(super) fn shared() -> Map<String, Value> {
    let response = |(status, name, code): &(u16, &str, Code)| {
        let examples = Map::from_iter([(code.as_str().to_owned(), reference("examples", code.as_str()))]);
        ((*name).to_owned(), with_examples(*status, &examples))
    };
    SHARED.iter().map(response).collect()
}

/// Examples of errors, by their code.
pub(super) fn examples_of_errors() -> Map<String, Value> {
    let example = |code: &Code| (code.as_str().to_owned(), json!({"value": examples::error(*code, None)}));
    Code::ALL.iter().map(example).collect()
}

/// Makes a reference to a component.
pub(super) fn reference(section: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{section}/{name}")})
}

/// Headers of a response: `X-Request-Id`, which every response has, and those with these names.
pub(super) fn headers(names: &[(&str, &str)]) -> Map<String, Value> {
    let all = [("X-Request-Id", "RequestId")];
    let header = |(name, component): &(&str, &str)| ((*name).to_owned(), reference("headers", component));
    all.iter().chain(names).map(header).collect()
}

/// Headers that operations refer to.
pub(super) fn components_of_headers(request_id: &Value) -> Value {
    let header = |about: &str, kind: &str, example: Value| json!({"description": about, "required": true, "schema": {"type": kind}, "example": example});
    json!({
        "RequestId": {
            "description": "Id of the request: the one that it had, if well-formed, or a new one. The service logs it.",
            "required": true,
            "schema": request_id,
        },
        "Authenticate": header("Authentication scheme.", "string", "Bearer realm=\"api\"".into()),
        "Allow": header("Methods of the path.", "string", "POST".into()),
        "RetryAfter": header("Seconds to wait.", "integer", 5.into()),
    })
}

fn names_of_headers(status: u16) -> &'static [(&'static str, &'static str)] {
    match status {
        401 => &[("WWW-Authenticate", "Authenticate")],
        405 => &[("Allow", "Allow")],
        429 | 503 => &[("Retry-After", "RetryAfter")],
        _ => &[],
    }
}

/// Meaning of an error's status.
pub(super) fn description(status: u16) -> &'static str {
    match status {
        400 => "The request is not valid, or cannot be fulfilled.",
        401 => "The credentials are missing or wrong.",
        403 => "The request can use session cookies, and does not show that it comes from a page that may.",
        404 => "There is nothing at this path, or the resource that it names does not exist.",
        405 => "The path does not take this method.",
        413 => "The body is larger than 16 KiB.",
        415 => "The body is not JSON, or is compressed.",
        429 => "Too many requests.",
        502 => "Cognito's response makes no sense, or the pool is not configured for this.",
        _ => "Cognito is unavailable.",
    }
}
