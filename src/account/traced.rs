//! Spans of requests of the account API. They have the route and the result, and nothing that a client sends.

use super::browser::Place;
use super::http::{OPENAPI_NAME, OPENAPI_PATH};
use super::oauth::{AUTHORIZE_NAME, AUTHORIZE_PATH};
use super::settings::Prefix;
use super::table::rows;
use crate::telemetry::current;

/// Notes the operation of the request and its outcome.
pub(super) fn record(prefix: &Prefix, operation: &'static str, outcome: &'static str) {
    current::change(|span| {
        if let Some(path) = path(operation) {
            span.set_route(format!("{}{path}", prefix.as_str()));
        }
        span.set("cognito_authz.operation", operation);
        span.set("cognito_authz.outcome", outcome);
    });
}

/// Notes the status of the response.
pub(super) fn answered(status: u16) {
    current::change(|span| {
        span.set("http.response.status_code", i64::from(status));
        if status >= 500 {
            span.fail(status.to_string());
        }
    });
}

/// Path of an operation below the prefix. `None` for unknown paths, and for metadata of protected resources.
fn path(operation: &str) -> Option<&'static str> {
    let row = rows().find(|row| row.name == operation).map(|row| row.path);
    let place = || Place::ALL.into_iter().find(|place| place.name() == operation).map(Place::path);
    let documents = [(AUTHORIZE_NAME, AUTHORIZE_PATH), (OPENAPI_NAME, OPENAPI_PATH)];
    let document = || documents.into_iter().find(|(name, _)| *name == operation).map(|(_, path)| path);
    row.or_else(place).or_else(document)
}
