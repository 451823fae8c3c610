//! Description of the routes about protected resources. They are no rows: they take no token and call no operation.

use serde_json::{Map, Value, json};

use super::{quoted_request_id, responses};
use crate::account::protected_resources::{REGISTRATION_PATH, Route, SERVER_PATH};
use crate::authz::protected_resource::METADATA_PATH;

/// Returns the paths. Those of the metadata are not below `prefix`.
pub(super) fn paths(prefix: &str) -> Map<String, Value> {
    let below = format!("{METADATA_PATH}/{{path}}");
    let path = json!([{"name": "path", "in": "path", "required": true, "schema": {"type": "string"},
        "description": "Path of the resource's URL, without its first slash."}]);
    let mut of_path =
        get(Route::Resource, "Returns the metadata of a protected resource (RFC 9728).", &resource(), &[404]);
    if let Some(operation) = of_path.as_object_mut() {
        operation.insert("parameters".into(), path);
        operation.insert("operationId".into(), format!("{}-at-path", Route::Resource.name()).into());
    }
    let only =
        "Returns the metadata of the only protected resource of this origin, or of the one without a path (RFC 9728).";
    let about = "Returns the metadata of the authorization server: the sign-in pages of the pool (RFC 8414).";
    Map::from_iter([
        (METADATA_PATH.to_owned(), json!({"get": get(Route::Resource, only, &resource(), &[404])})),
        (below, json!({ "get": of_path })),
        (SERVER_PATH.to_owned(), json!({"get": get(Route::Server, about, &server(), &[404, 503])})),
        (format!("{prefix}{REGISTRATION_PATH}"), json!({"post": registration()})),
    ])
}

fn get(route: Route, summary: &str, schema: &Value, statuses: &[u16]) -> Value {
    let mut responses = responses(&[statuses, &[405]].concat());
    let content = json!({"application/json": {"schema": schema}});
    responses.insert("200".into(), json!({"description": "The metadata.", "content": content}));
    json!({"operationId": route.name(), "summary": summary, "tags": ["account"], "responses": responses})
}

fn uri() -> Value {
    json!({"type": "string", "format": "uri"})
}

fn texts() -> Value {
    json!({"type": "array", "items": {"type": "string"}})
}

fn resource() -> Value {
    json!({
        "type": "object",
        "required": ["resource", "authorization_servers", "bearer_methods_supported"],
        "properties": {
            "resource": uri(), "authorization_servers": {"type": "array", "items": uri()},
            "bearer_methods_supported": texts(), "resource_name": {"type": "string"}, "scopes_supported": texts(),
        },
    })
}

fn server() -> Value {
    json!({
        "type": "object",
        "required": [
            "issuer", "authorization_endpoint", "token_endpoint", "response_types_supported", "grant_types_supported",
            "code_challenge_methods_supported", "token_endpoint_auth_methods_supported",
        ],
        "properties": {
            "issuer": uri(), "authorization_endpoint": uri(), "token_endpoint": uri(), "registration_endpoint": uri(),
            "response_types_supported": texts(), "grant_types_supported": texts(), "scopes_supported": texts(),
            "code_challenge_methods_supported": texts(), "token_endpoint_auth_methods_supported": texts(),
        },
    })
}

fn registration() -> Value {
    let list = |needed: &str| json!({"type": "array", "items": {"type": "string"}, "contains": {"const": needed}});
    let body = json!({
        "type": "object",
        "required": ["redirect_uris"],
        "properties": {
            "redirect_uris": {"type": "array", "items": {"type": "string"}, "minItems": 1,
                "description": "URIs of the client. Each has to be one of `redirect_uris` of the protected resource, exactly."},
            "token_endpoint_auth_method": {"type": "string", "description": "The response has `none`, whatever is asked for."},
            "grant_types": list("authorization_code"),
            "response_types": list("code"),
        },
    });
    let client = json!({
        "type": "object",
        "required": ["client_id", "redirect_uris", "token_endpoint_auth_method", "grant_types", "response_types"],
        "properties": {
            "client_id": {"type": "string"}, "redirect_uris": texts(), "grant_types": texts(), "response_types": texts(),
            "token_endpoint_auth_method": {"const": "none"},
        },
    });
    let error = json!({
        "type": "object",
        "required": ["error", "error_description", "request_id"],
        "properties": {
            "error": {"type": "string", "enum": ["invalid_redirect_uri", "invalid_client_metadata"]},
            "error_description": {"type": "string"},
            "request_id": quoted_request_id(),
        },
    });
    let account_error = json!({"$ref": "#/components/schemas/Error"});
    let mut responses = responses(&[404, 405, 413, 415, 429]);
    responses.insert(
        "201".into(),
        json!({"description": "The app client.", "content": {"application/json": {"schema": client}}}),
    );
    responses.insert(
        "400".into(),
        json!({
            "description": "The registration is not valid (RFC 7591 section 3.2.2), or the body did not arrive.",
            "content": {"application/json": {"schema": {"anyOf": [error, account_error]}}},
        }),
    );
    json!({
        "operationId": Route::Registration.name(),
        "summary": "Registers a client of the protected resources of this origin: returns the operator's app client (RFC 7591).",
        "description": "Nothing is stored. Members that are not listed are ignored.",
        "tags": ["account"],
        "requestBody": {"required": true, "content": {"application/json": {"schema": body}}},
        "responses": responses,
    })
}
