//! Description of the routes about protected resources. They are no rows: they take no token and call no operation.

use serde_json::{Value, json};

use super::answers::{self, Failures, reference};
use super::examples::REDIRECT_URI;
use super::{Paths, schemas};
use crate::account::error::Code;
use crate::account::protected_resources::{REGISTRATION_PATH, Route, SERVER_PATH};
use crate::account::table::Tag;
use crate::authz::protected_resource::METADATA_PATH;

/// Adds the paths. Those of the metadata are not below `prefix`.
pub(super) fn add(paths: &mut Paths, prefix: &str) {
    let mut of_path = get(Route::Resource, "Returns the metadata of a protected resource (RFC 9728).");
    if let Some(operation) = of_path.as_object_mut() {
        let path = json!([{"name": "path", "in": "path", "required": true, "schema": {"type": "string"}, "example": "mcp",
            "description": "Path of the resource's URL, without its first slash."}]);
        operation.insert("parameters".into(), path);
        operation.insert("operationId".into(), format!("{}-at-path", Route::Resource.name()).into());
    }
    let only =
        "Returns the metadata of the only protected resource of this origin, or of the one without a path (RFC 9728).";
    let server = "Returns the metadata of the authorization server: the sign-in pages of the pool (RFC 8414).";
    paths.push_into(format!("{METADATA_PATH}/{{path}}"), "get".into(), of_path);
    paths.push_into(METADATA_PATH.to_owned(), "get".into(), get(Route::Resource, only));
    paths.push_into(SERVER_PATH.to_owned(), "get".into(), get(Route::Server, server));
    paths.push_into(format!("{prefix}{REGISTRATION_PATH}"), "post".into(), registration());
}

/// Named schemas of the routes.
pub(super) fn schemas() -> [(String, Value); 5] {
    [
        ("ProtectedResource", resource()),
        ("AuthorizationServer", server()),
        ("ClientRegistrationRequest", registration_request()),
        ("ClientRegistration", client()),
        ("ClientRegistrationError", registration_error()),
    ]
    .map(|(name, schema)| (name.to_owned(), schema))
}

/// Errors of a route: status and code, without those of a registration that is not valid.
fn failures(route: Route) -> Failures {
    let status = |code: &Code| match code {
        Code::NotFound => Some(404),
        Code::MethodNotAllowed => Some(405),
        Code::TooLarge => Some(413),
        Code::UnsupportedMediaType => Some(415),
        Code::RateLimited => Some(429),
        Code::UpstreamUnavailable => Some(503),
        _ => None,
    };
    route.codes().iter().filter_map(|code| Some((status(code)?, *code))).collect()
}

fn get(route: Route, summary: &str) -> Value {
    let (schema, example) = match route {
        Route::Server => (
            "AuthorizationServer",
            json!({
                "issuer": "https://mcp.example.com",
                "authorization_endpoint": "https://example.auth.eu-west-1.amazoncognito.com/oauth2/authorize",
                "token_endpoint": "https://example.auth.eu-west-1.amazoncognito.com/oauth2/token",
                "registration_endpoint": "https://mcp.example.com/auth/oauth/register",
                "response_types_supported": ["code"], "grant_types_supported": ["authorization_code", "refresh_token"],
                "code_challenge_methods_supported": ["S256"], "token_endpoint_auth_methods_supported": ["none"],
            }),
        ),
        Route::Resource | Route::Registration => (
            "ProtectedResource",
            json!({
                "resource": "https://mcp.example.com/mcp", "authorization_servers": ["https://mcp.example.com"],
                "bearer_methods_supported": ["header"], "resource_name": "Orders", "scopes_supported": ["openid", "orders/read"],
            }),
        ),
    };
    let mut responses = answers::errors(&failures(route), None);
    responses.insert("200".into(), answers::success("The metadata.", schema, &[("success", example)]));
    json!({
        "operationId": route.name(),
        "summary": summary,
        "tags": [Tag::Metadata.name()],
        "security": [],
        "responses": responses,
    })
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

fn registration_request() -> Value {
    let list = |needed: &str| json!({"type": "array", "items": {"type": "string"}, "contains": {"const": needed}});
    json!({
        "type": "object",
        "required": ["redirect_uris"],
        "properties": {
            "redirect_uris": {"type": "array", "items": {"type": "string"}, "minItems": 1,
                "description": "URIs of the client. Each has to be one of `redirect_uris` of the protected resource, exactly."},
            "token_endpoint_auth_method": {"type": "string", "description": "The response has `none`, whatever is asked for."},
            "grant_types": list("authorization_code"),
            "response_types": list("code"),
        },
    })
}

fn client() -> Value {
    json!({
        "type": "object",
        "required": ["client_id", "redirect_uris", "token_endpoint_auth_method", "grant_types", "response_types"],
        "properties": {
            "client_id": {"type": "string"}, "redirect_uris": texts(), "grant_types": texts(), "response_types": texts(),
            "token_endpoint_auth_method": {"type": "string", "const": "none"},
        },
    })
}

fn registration_error() -> Value {
    json!({
        "type": "object",
        "required": ["error", "error_description", "request_id"],
        "properties": {
            "error": {"type": "string", "enum": ["invalid_redirect_uri", "invalid_client_metadata"]},
            "error_description": {"type": "string"},
            "request_id": schemas::quoted_request_id(),
        },
    })
}

fn registration() -> Value {
    let mut responses = answers::errors(&failures(Route::Registration), None);
    let registered = json!({
        "client_id": "4mcp5client6id7of8it", "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
    });
    responses
        .insert("201".into(), answers::success("The app client.", "ClientRegistration", &[("success", registered)]));
    let refused = json!({
        "error": "invalid_redirect_uri", "error_description": "redirect_uris is required.",
        "request_id": "5e1b9a0c-6f0e-4c4e-9d5e-0d1f5d2f0b11",
    });
    let schema = json!({"anyOf": [reference("schemas", "ClientRegistrationError"), reference("schemas", "Error")]});
    responses.insert(
        "400".into(),
        json!({
            "description": "The registration is not valid (RFC 7591 section 3.2.2), or the body did not arrive.",
            "headers": answers::headers(&[]),
            "content": {"application/json": {"schema": schema, "examples": {"invalid_redirect_uri": {"value": refused}}}},
        }),
    );
    let body = json!({"schema": reference("schemas", "ClientRegistrationRequest"), "example": {"redirect_uris": [REDIRECT_URI]}});
    json!({
        "operationId": Route::Registration.name(),
        "summary": "Registers a client of the protected resources of this origin: returns the operator's app client (RFC 7591).",
        "description": "Nothing is stored. Members that are not listed are ignored.",
        "tags": [Tag::Metadata.name()],
        "security": [],
        "requestBody": {"required": true, "content": {"application/json": body}},
        "responses": responses,
    })
}
