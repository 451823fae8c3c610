//! `OpenAPI` 3.1 document of the account API, made from the rows of the table.

mod navigation;
mod resources;

use serde_json::{Map, Value, json};

use super::call::Allowed;
use super::error::Code;
use super::oauth::{AUTHORIZE_NAME, AUTHORIZE_PATH};
use super::passkeys::{creation_options_schema, passkeys_schema};
use super::table::{AUTH_FLOWS, Credential, Field, MAX_ID, Need, Place, Row, Shape, Success, Target, rows};
use crate::request_id::MAX_LENGTH;
use crate::session_cookie::SessionCookie;

/// Optional parts of the account API.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent {
    /// `true` if hosted sign-in pages are used.
    pub(super) hosted_ui: bool,
    /// Use of cookies.
    pub(super) cookies: CookieUse,
    /// `true` if there are protected resources.
    pub(super) resources: bool,
}

/// Use of cookies for browser sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum CookieUse {
    /// None: tokens are in bodies.
    #[default]
    Off,
    /// Sessions of scripts.
    Scripts,
    /// Sessions of scripts and of pages, with the routes of the sign-in by redirect.
    Pages,
}

impl Extent {
    fn has_cookies(self) -> bool {
        self.cookies != CookieUse::Off
    }
}

/// Makes the document for routes below `prefix`.
pub(super) fn document(prefix: &str, allowed: &Allowed, extent: Extent) -> Value {
    let mut paths = Map::new();
    for row in rows().filter(|row| extent.hosted_ui || !row.needs_hosted_ui()) {
        let methods = paths.entry(format!("{prefix}{}", row.path)).or_insert_with(|| Map::new().into());
        if let Some(methods) = methods.as_object_mut() {
            methods.insert(row.method.as_str().to_ascii_lowercase(), operation(row, allowed, extent));
        }
    }
    if extent.hosted_ui {
        paths.insert(format!("{prefix}{AUTHORIZE_PATH}"), json!({"get": authorize_url(extent)}));
    }
    if extent.cookies == CookieUse::Pages {
        paths.extend(navigation::paths(prefix));
    }
    if extent.resources {
        paths.extend(resources::paths(prefix));
    }
    let mut this = responses(&[405, 429, 503]);
    this.insert(
        "200".into(),
        json!({"description": "This document.", "content": {"application/json": {"schema": {"type": "object"}}}}),
    );
    paths.insert(
        format!("{prefix}/openapi.json"),
        json!({"get": {"operationId": "openapi", "summary": "This document.", "tags": ["account"], "responses": this}}),
    );
    add_request_id(&mut paths);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "cognito-authz account API",
            "description": "Sign-up, sign-in and sign-out for the users of an Amazon Cognito user pool. Members that are not listed are ignored.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": "account", "description": "Account of the user."}],
        "paths": paths,
        "components": {
            "securitySchemes": security_schemes(extent),
            "headers": {"RequestId": request_id_header()},
            "schemas": {"Error": error(), "Tokens": tokens(extent), "Challenge": challenge(), "Profile": profile()},
        },
    })
}

/// Adds the header `X-Request-Id`, which every response has.
fn add_request_id(paths: &mut Map<String, Value>) {
    let operations = paths.values_mut().filter_map(Value::as_object_mut).flat_map(Map::values_mut);
    let responses = operations.filter_map(|operation| operation.get_mut("responses")?.as_object_mut());
    for response in responses.flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
        let headers = response.entry("headers").or_insert_with(|| Map::new().into());
        if let Some(headers) = headers.as_object_mut() {
            headers.insert("X-Request-Id".into(), json!({"$ref": "#/components/headers/RequestId"}));
        }
    }
}

fn request_id_header() -> Value {
    let about = "Id of the request: the one that it had, if well-formed, or a new one. The service logs it.";
    json!({"description": about, "required": true, "schema": request_id()})
}

/// Schema of a well-formed id of a request.
fn request_id() -> Value {
    json!({"type": "string", "pattern": "^[A-Za-z0-9-]+$", "minLength": 1, "maxLength": MAX_LENGTH})
}

/// Schema of the member of an error that repeats the id.
fn quoted_request_id() -> Value {
    let mut schema = request_id();
    if let Some(schema) = schema.as_object_mut() {
        schema.insert(
            "description".into(),
            "Id of the request, to quote to the operator; the same as `X-Request-Id`.".into(),
        );
    }
    schema
}

/// Describes the start of a sign-in by scripts. It is not a row: it takes a query and does not call Cognito.
fn authorize_url(extent: Extent) -> Value {
    let parameter = |name: &str, required: bool, about: &str| {
        let schema = json!({"type": "string", "minLength": u8::from(required)});
        json!({"name": name, "in": "query", "required": required, "description": about, "schema": schema})
    };
    let text = || json!({"type": "string"});
    let refused: &[u16] = if extent.has_cookies() { &[400, 403, 405, 429, 503] } else { &[400, 405, 429, 503] };
    let mut responses = responses(refused);
    let schema = json!({
        "type": "object",
        "required": ["url", "state", "codeVerifier"],
        "properties": {"url": {"type": "string", "format": "uri"}, "state": text(), "codeVerifier": text()},
    });
    responses.insert(
        "200".into(),
        json!({"description": "The URL to go to, and the values to keep.", "content": {"application/json": {"schema": schema}}}),
    );
    json!({
        "operationId": AUTHORIZE_NAME,
        "summary": "Returns the URL of the hosted pages that a sign-in starts at, with a state and a PKCE verifier to keep.",
        "tags": ["account"],
        "parameters": [
            parameter("redirectUri", true, "URI that the code is sent to; one of `--oauth-redirect-uris`."),
            parameter("identityProvider", false, "Name of a provider in Cognito, such as Google; its page is shown directly."),
        ],
        "responses": responses,
    })
}

fn operation(row: &Row, allowed: &Allowed, extent: Extent) -> Value {
    let mut statuses = vec![400, 405, 413, 415, 429, 502, 503];
    if row.credential != Credential::None || row.refusal == 401 {
        statuses.push(401);
    }
    if extent.has_cookies() {
        statuses.push(403);
    }
    if row.errors.missing_resource.is_some() {
        statuses.push(404);
    }
    let mut responses = responses(&statuses);
    let (status, success) = success(row.success);
    responses.insert(status.into(), success);
    // A cookie can take the place of the member.
    let by_cookie = extent.has_cookies() && row.takes_refresh_token();
    let mut operation = json!({
        "operationId": row.name,
        "summary": row.summary,
        "description": format!("Calls `{}` of Cognito.", row.operation.as_str()),
        "tags": ["account"],
        "responses": responses,
    });
    let token = json!({"accessToken": []});
    let cookie = extent.has_cookies().then(|| json!({"accessCookie": []}));
    let security = match row.credential {
        Credential::None => None,
        Credential::AnyToken | Credential::Token => Some([Some(token), cookie, None]),
        Credential::TokenOrSession => Some([Some(token), cookie, Some(json!({}))]),
    };
    let security = security.map(|ways| ways.into_iter().flatten().collect::<Vec<_>>());
    let content = || json!({"application/json": {"schema": body(row, allowed, by_cookie)}});
    let is_needed = row.needs_body() && !by_cookie;
    let body = row.body_fields().next().map(|_| json!({"required": is_needed, "content": content()}));
    if let Some(operation) = operation.as_object_mut() {
        operation.extend(security.map(|security| ("security".into(), security.into())));
        operation.extend(body.map(|body| ("requestBody".into(), body)));
        let parameters: Vec<_> = row.fields.iter().filter_map(parameter).collect();
        if !parameters.is_empty() {
            operation.insert("parameters".into(), parameters.into());
        }
    }
    operation
}

/// Describes a member in the URL; `None` for one in the body.
fn parameter(field: &Field) -> Option<Value> {
    let place = match field.place {
        Place::Body => return None,
        Place::Path => "path",
        Place::Query => "query",
    };
    let schema = match field.target.shape() {
        Shape::Id => json!({"type": "string", "pattern": "^[A-Za-z0-9_-]+$", "minLength": 1, "maxLength": MAX_ID}),
        _ => json!({"type": "string"}),
    };
    let required = field.need == Need::Yes;
    Some(json!({"name": field.name, "in": place, "required": required, "description": field.about, "schema": schema}))
}

/// Makes the schema of a body. It accepts exactly the bodies that the service accepts; a test generates bodies from it.
fn body(row: &Row, allowed: &Allowed, by_cookie: bool) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    let mut conditions = Vec::new();
    let mut names_of_user = Vec::new();
    let mut any = Vec::new();
    for field in row.body_fields() {
        let need = if by_cookie { Need::No } else { field.need };
        properties.insert(field.name.into(), property(field, need, allowed));
        match need {
            Need::Yes => required.push(field.name),
            Need::No => {}
            Need::Any => any.push(json!({"required": [field.name], "properties": {field.name: {"type": "object"}}})),
            Need::User => names_of_user.push(present(field.name)),
            Need::Unless(other) => conditions.push(json!({"anyOf": [present(field.name), present(other)]})),
        }
        if field.target == Target::Parameters {
            let user = json!({"type": "object", "required": ["USERNAME"], "properties": {"USERNAME": {"type": "string", "minLength": 1}}});
            names_of_user.push(json!({"required": [field.name], "properties": {field.name: user}}));
        }
    }
    if !names_of_user.is_empty() {
        conditions.push(json!({"anyOf": names_of_user}));
    }
    if !any.is_empty() {
        conditions.push(json!({"anyOf": any}));
    }
    let mut schema = json!({"type": "object", "properties": properties});
    if let Some(schema) = schema.as_object_mut() {
        if !required.is_empty() {
            schema.insert("required".into(), required.into());
        }
        if !conditions.is_empty() {
            schema.insert("allOf".into(), conditions.into());
        }
    }
    schema
}

/// A member counts as present if it is a non-empty string.
fn present(name: &str) -> Value {
    json!({"required": [name], "properties": {name: {"type": "string", "minLength": 1}}})
}

fn property(field: &Field, need: Need, allowed: &Allowed) -> Value {
    let about = field.about;
    match field.target {
        Target::Attributes(always) => {
            let names = allowed.attributes.iter().map(String::as_str).chain(always.iter().copied());
            let attributes: Map<String, Value> =
                names.map(|name| (name.to_owned(), json!({"type": "string"}))).collect();
            if field.need != Need::Yes {
                return json!({"type": ["object", "null"], "properties": attributes, "additionalProperties": false, "description": about});
            }
            json!({"type": "object", "minProperties": 1, "properties": attributes, "additionalProperties": false, "description": about})
        }
        Target::Factor(_) => json!({
            "type": ["object", "null"],
            "required": ["enabled"],
            "properties": {"enabled": {"type": "boolean"}, "preferred": {"type": ["boolean", "null"]}},
            "description": about,
        }),
        Target::Document(_) => json!({"type": "object", "minProperties": 1, "description": about}),
        target if target.shape() == Shape::Texts => {
            json!({"type": ["object", "null"], "additionalProperties": {"type": "string"}, "description": about})
        }
        Target::AuthFlow => {
            let flows: Vec<Value> = AUTH_FLOWS.iter().map(|flow| json!(flow)).chain([json!(""), Value::Null]).collect();
            json!({"enum": flows, "description": about})
        }
        _ if need == Need::Yes => json!({"type": "string", "minLength": 1, "description": about}),
        _ => json!({"type": ["string", "null"], "description": about}),
    }
}

/// Schema of how far a revocation reaches.
fn scope() -> Value {
    let about = "Where the tokens are refused from now on: by this replica, or by all replicas with the same store.";
    json!({"type": "string", "enum": ["replica", "shared"], "description": about})
}

fn success(success: Success) -> (&'static str, Value) {
    let message = |more: &[(&str, Value)]| {
        let mut properties = Map::from_iter([("message".to_owned(), json!({"type": "string"}))]);
        properties.extend(more.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())));
        json!({"type": "object", "required": ["message"], "properties": properties})
    };
    let (status, description, schema) = match success {
        Success::Message(text) => ("200", text, message(&[])),
        Success::LoggedOut(text) => (
            "200",
            text,
            message(&[("scope", scope()), ("hostedUiLogoutUrl", json!({"type": "string", "format": "uri"}))]),
        ),
        Success::Revoked(text) => ("200", text, message(&[("scope", scope())])),
        Success::Registered(text) => {
            ("201", text, message(&[("userSub", json!({"type": "string"})), ("delivery", delivery())]))
        }
        Success::Sent(text) => ("200", text, message(&[("delivery", delivery())])),
        Success::TotpVerified(text) => ("200", text, message(&[("session", json!({"type": "string"}))])),
        Success::Profile => ("200", "The user's profile.", json!({"$ref": "#/components/schemas/Profile"})),
        Success::Totp => ("200", "A secret for an authenticator app.", totp()),
        Success::CreationOptions => ("200", "Options for the browser to create a passkey.", creation_options_schema()),
        Success::Passkeys => ("200", "The user's passkeys.", passkeys_schema()),
        Success::Tokens => (
            "200",
            "Tokens, or a challenge to respond to first.",
            json!({"anyOf": [{"$ref": "#/components/schemas/Tokens"}, {"$ref": "#/components/schemas/Challenge"}]}),
        ),
    };
    (status, json!({"description": description, "content": {"application/json": {"schema": schema}}}))
}

fn delivery() -> Value {
    let texts =
        ["destination", "medium", "attribute"].map(|name| (name.to_owned(), json!({"type": ["string", "null"]})));
    json!({"type": "object", "properties": Map::from_iter(texts)})
}

fn profile() -> Value {
    json!({
        "type": "object",
        "required": ["sub", "username", "attributes", "mfa"],
        "properties": {
            "sub": {"type": "string"},
            "username": {"type": "string"},
            "attributes": {"type": "object", "additionalProperties": {"type": "string"}},
            "mfa": {
                "type": "object",
                "required": ["preferred", "enabled"],
                "description": "Second factors, by Cognito's names, such as SOFTWARE_TOKEN_MFA.",
                "properties": {
                    "preferred": {"type": ["string", "null"]},
                    "enabled": {"type": "array", "items": {"type": "string"}},
                },
            },
            "deliveries": {"type": "array", "items": delivery(), "description": "Destinations of codes that were sent because of a change."},
        },
    })
}

fn totp() -> Value {
    json!({
        "type": "object",
        "required": ["secret", "otpauthUrl"],
        "properties": {
            "secret": {"type": "string", "description": "Secret in base32."},
            "otpauthUrl": {"type": "string", "format": "uri", "description": "URL to show as a QR code."},
            "session": {"type": "string", "description": "Session to continue the sign-in with."},
        },
    })
}

fn security_schemes(extent: Extent) -> Value {
    let mut schemes = Map::new();
    let bearer = json!({"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "An access token of the pool."});
    schemes.insert("accessToken".into(), bearer);
    if extent.has_cookies() {
        let about =
            "The access token in a cookie that a sign-in sets; only for requests from the same origin or a listed one.";
        let name = SessionCookie::Access.name();
        schemes.insert(
            "accessCookie".into(),
            json!({"type": "apiKey", "in": "cookie", "name": name, "description": about}),
        );
    }
    schemes.into()
}

/// With browser sessions, tokens are in cookies unless the client asks for them in the body.
fn tokens(extent: Extent) -> Value {
    let required: &[&str] = if extent.has_cookies() { &["tokenType"] } else { &["accessToken", "tokenType"] };
    let text = || json!({"type": "string"});
    let device =
        json!({"type": "object", "properties": {"deviceKey": text(), "deviceGroupKey": {"type": ["string", "null"]}}});
    json!({
        "type": "object",
        "required": required,
        "properties": {
            "accessToken": text(), "idToken": text(), "refreshToken": text(), "tokenType": text(),
            "expiresIn": {"type": "integer", "description": "Lifetime of the access token in seconds."}, "newDevice": device,
        },
    })
}

fn challenge() -> Value {
    json!({
        "type": "object",
        "required": ["challenge", "session", "parameters"],
        "properties": {
            "challenge": {"type": "string", "description": "Name of the challenge in Cognito, such as SOFTWARE_TOKEN_MFA. Cognito adds new ones without notice."},
            "session": {"type": ["string", "null"]},
            "parameters": {"type": "object"},
            "availableChallenges": {"type": "array", "items": {"type": "string"}},
        },
    })
}

fn error() -> Value {
    let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    json!({
        "type": "object",
        "required": ["message", "code", "request_id"],
        "properties": {
            "message": {"type": "string"},
            "code": {"type": "string", "enum": codes},
            "request_id": quoted_request_id(),
        },
    })
}

fn responses(statuses: &[u16]) -> Map<String, Value> {
    let header = |about: &str, kind: &str| json!({"description": about, "required": true, "schema": {"type": kind}});
    statuses
        .iter()
        .map(|status| {
            let (description, headers) = match status {
                400 => ("The request is not valid, or cannot be fulfilled.", json!({})),
                401 => (
                    "The credentials are missing or wrong.",
                    json!({"WWW-Authenticate": header("Authentication scheme.", "string")}),
                ),
                403 => ("The request has cookies and comes from a page that must not use them.", json!({})),
                404 => ("There is nothing at this path, or the resource that it names does not exist.", json!({})),
                405 => {
                    ("The path does not take this method.", json!({"Allow": header("Methods of the path.", "string")}))
                }
                413 => ("The body is larger than 16 KiB.", json!({})),
                415 => ("The body is not JSON, or is compressed.", json!({})),
                429 => ("Too many requests.", json!({"Retry-After": header("Seconds to wait.", "integer")})),
                502 => ("Cognito's response makes no sense, or the pool is not configured for this.", json!({})),
                _ => ("Cognito is unavailable.", json!({"Retry-After": header("Seconds to wait.", "integer")})),
            };
            let content = json!({"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}});
            (status.to_string(), json!({"description": description, "headers": headers, "content": content}))
        })
        .collect()
}
