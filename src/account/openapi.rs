//! The `OpenAPI` 3.1 document of the account API, made from the rows of the table.

use serde_json::{Map, Value, json};

use super::call::Allowed;
use super::error::Code;
use super::oauth::{AUTHORIZE_NAME, AUTHORIZE_PATH};
use super::table::{AUTH_FLOWS, Credential, Field, Flow, Need, Place, Row, Shape, Success, rows};
use crate::session_cookie::SessionCookie;

/// What else there is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extent {
    /// Hosted sign-in pages are used.
    pub hosted_ui: bool,
    /// Browser sessions are on.
    pub cookies: bool,
}

/// The document for routes below `prefix`.
pub fn document(prefix: &str, allowed: &Allowed, extent: Extent) -> Value {
    let mut paths = Map::new();
    for row in rows().filter(|row| extent.hosted_ui || row.flow != Flow::Oauth) {
        let methods = paths.entry(format!("{prefix}{}", row.path)).or_insert_with(|| Map::new().into());
        if let Some(methods) = methods.as_object_mut() {
            methods.insert(row.method.as_str().to_ascii_lowercase(), operation(row, allowed, extent));
        }
    }
    if extent.hosted_ui {
        paths.insert(format!("{prefix}{AUTHORIZE_PATH}"), json!({"get": authorize_url(extent)}));
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
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "cognito-authz account API",
            "description": "Sign-up, sign-in and sign-out for the users of an Amazon Cognito user pool. Members that are not listed are ignored.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": "account", "description": "The user's account."}],
        "paths": paths,
        "components": {
            "securitySchemes": security_schemes(extent),
            "schemas": {"Error": error(), "Tokens": tokens(extent), "Challenge": challenge(), "Profile": profile()},
        },
    })
}

/// The one operation that is no row: it takes a query, and asks nothing of Cognito.
fn authorize_url(extent: Extent) -> Value {
    let parameter = |name: &str, required: bool, about: &str| {
        let schema = json!({"type": "string", "minLength": u8::from(required)});
        json!({"name": name, "in": "query", "required": required, "description": about, "schema": schema})
    };
    let text = || json!({"type": "string"});
    let refused: &[u16] = if extent.cookies { &[400, 403, 405, 429, 503] } else { &[400, 405, 429, 503] };
    let mut responses = responses(refused);
    let schema = json!({
        "type": "object",
        "required": ["url", "state", "codeVerifier"],
        "properties": {"url": {"type": "string", "format": "uri"}, "state": text(), "codeVerifier": text()},
    });
    responses.insert(
        "200".into(),
        json!({"description": "Where to go, and what to keep.", "content": {"application/json": {"schema": schema}}}),
    );
    json!({
        "operationId": AUTHORIZE_NAME,
        "summary": "The URL of the hosted pages at which a sign-in begins, with a state and a PKCE verifier to keep.",
        "tags": ["account"],
        "parameters": [
            parameter("redirectUri", true, "Where the code is to be sent (`--oauth-redirect-uris`)."),
            parameter("identityProvider", false, "Cognito's name of a provider, such as Google: its page comes at once."),
        ],
        "responses": responses,
    })
}

fn operation(row: &Row, allowed: &Allowed, extent: Extent) -> Value {
    let mut statuses = vec![400, 405, 413, 415, 429, 502, 503];
    if row.credential != Credential::None || row.refusal == 401 {
        statuses.push(401);
    }
    if extent.cookies {
        statuses.push(403);
    }
    let mut responses = responses(&statuses);
    let (status, success) = success(row.success);
    responses.insert(status.into(), success);
    // What the body does not have, a cookie may.
    let by_cookie = extent.cookies && row.flow == Flow::Refresh;
    let mut operation = json!({
        "operationId": row.name,
        "summary": row.summary,
        "description": format!("Calls {} of Cognito.", row.operation.as_str()),
        "tags": ["account"],
        "responses": responses,
    });
    let token = json!({"accessToken": []});
    let cookie = extent.cookies.then(|| json!({"accessCookie": []}));
    let security = match row.credential {
        Credential::None => None,
        Credential::Token => Some([Some(token), cookie, None]),
        Credential::TokenOrSession => Some([Some(token), cookie, Some(json!({}))]),
    };
    let security = security.map(|ways| ways.into_iter().flatten().collect::<Vec<_>>());
    let content = || json!({"application/json": {"schema": body(row, allowed, by_cookie)}});
    let is_needed = row.needs_body() && !by_cookie;
    let body = (!row.fields.is_empty()).then(|| json!({"required": is_needed, "content": content()}));
    if let Some(operation) = operation.as_object_mut() {
        operation.extend(security.map(|security| ("security".into(), security.into())));
        operation.extend(body.map(|body| ("requestBody".into(), body)));
    }
    operation
}

/// What a body has to be, no more and no less: a test has a generator of bodies try.
fn body(row: &Row, allowed: &Allowed, by_cookie: bool) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    let mut conditions = Vec::new();
    let mut names_of_user = Vec::new();
    let mut any = Vec::new();
    for field in row.fields {
        let need = if by_cookie { Need::No } else { field.need };
        properties.insert(field.name.into(), property(field, need, allowed));
        match need {
            Need::Yes => required.push(field.name),
            Need::No => {}
            Need::Any => any.push(json!({"required": [field.name], "properties": {field.name: {"type": "object"}}})),
            Need::User => names_of_user.push(there(field.name)),
            Need::Unless(other) => conditions.push(json!({"anyOf": [there(field.name), there(other)]})),
        }
        if field.place == Place::Parameters {
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

/// A member is there if it is a text and not an empty one.
fn there(name: &str) -> Value {
    json!({"required": [name], "properties": {name: {"type": "string", "minLength": 1}}})
}

fn property(field: &Field, need: Need, allowed: &Allowed) -> Value {
    let about = field.about;
    match field.place {
        Place::Attributes => {
            let attributes = allowed.attributes.iter().map(|name| (name.clone(), json!({"type": "string"})));
            let mut attributes: Map<String, Value> = attributes.collect();
            if field.need != Need::Yes {
                return json!({"type": ["object", "null"], "properties": attributes, "additionalProperties": false, "description": about});
            }
            attributes.insert("name".into(), json!({"type": "string"}));
            json!({"type": "object", "minProperties": 1, "properties": attributes, "additionalProperties": false, "description": about})
        }
        Place::Factor(_) => json!({
            "type": ["object", "null"],
            "required": ["enabled"],
            "properties": {"enabled": {"type": "boolean"}, "preferred": {"type": ["boolean", "null"]}},
            "description": about,
        }),
        place if place.shape() == Shape::Texts => {
            json!({"type": ["object", "null"], "additionalProperties": {"type": "string"}, "description": about})
        }
        Place::AuthFlow => {
            let flows: Vec<Value> = AUTH_FLOWS.iter().map(|flow| json!(flow)).chain([json!(""), Value::Null]).collect();
            json!({"enum": flows, "description": about})
        }
        _ if need == Need::Yes => json!({"type": "string", "minLength": 1, "description": about}),
        _ => json!({"type": ["string", "null"], "description": about}),
    }
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
            message(&[
                ("scope", json!({"type": "string", "enum": ["replica", "shared"]})),
                ("hostedUiLogoutUrl", json!({"type": "string", "format": "uri"})),
            ]),
        ),
        Success::Registered(text) => {
            ("201", text, message(&[("userSub", json!({"type": "string"})), ("delivery", delivery())]))
        }
        Success::Sent(text) => ("200", text, message(&[("delivery", delivery())])),
        Success::TotpVerified(text) => ("200", text, message(&[("session", json!({"type": "string"}))])),
        Success::Profile => ("200", "Who the user is.", json!({"$ref": "#/components/schemas/Profile"})),
        Success::Totp => ("200", "A secret for an authenticator.", totp()),
        Success::Tokens => (
            "200",
            "Tokens, or a challenge to answer first.",
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
                "description": "Second factors by Cognito's names, such as SOFTWARE_TOKEN_MFA.",
                "properties": {
                    "preferred": {"type": ["string", "null"]},
                    "enabled": {"type": "array", "items": {"type": "string"}},
                },
            },
            "deliveries": {"type": "array", "items": delivery(), "description": "Where codes were sent, after a change."},
        },
    })
}

fn totp() -> Value {
    json!({
        "type": "object",
        "required": ["secret", "otpauthUrl"],
        "properties": {
            "secret": {"type": "string", "description": "In base32."},
            "otpauthUrl": {"type": "string", "format": "uri", "description": "To show as a QR code."},
            "session": {"type": "string", "description": "To go on with, in a sign-in."},
        },
    })
}

fn security_schemes(extent: Extent) -> Value {
    let mut schemes = Map::new();
    let bearer = json!({"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "An access token of the pool."});
    schemes.insert("accessToken".into(), bearer);
    if extent.cookies {
        let about = "The same in a cookie, set by a sign-in; for requests of the same origin, or of a listed one.";
        let name = SessionCookie::Access.name();
        schemes.insert(
            "accessCookie".into(),
            json!({"type": "apiKey", "in": "cookie", "name": name, "description": about}),
        );
    }
    schemes.into()
}

/// With browser sessions, tokens are in cookies unless somebody asks for them.
fn tokens(extent: Extent) -> Value {
    let required: &[&str] = if extent.cookies { &["tokenType"] } else { &["accessToken", "tokenType"] };
    let text = || json!({"type": "string"});
    let device =
        json!({"type": "object", "properties": {"deviceKey": text(), "deviceGroupKey": {"type": ["string", "null"]}}});
    json!({
        "type": "object",
        "required": required,
        "properties": {
            "accessToken": text(), "idToken": text(), "refreshToken": text(), "tokenType": text(),
            "expiresIn": {"type": "integer", "description": "Seconds that the access token lasts."}, "newDevice": device,
        },
    })
}

fn challenge() -> Value {
    json!({
        "type": "object",
        "required": ["challenge", "session", "parameters"],
        "properties": {
            "challenge": {"type": "string", "description": "Cognito's name of the challenge, such as SOFTWARE_TOKEN_MFA; new ones come without notice."},
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
        "required": ["message", "code"],
        "properties": {"message": {"type": "string"}, "code": {"type": "string", "enum": codes}},
    })
}

fn responses(statuses: &[u16]) -> Map<String, Value> {
    let header = |about: &str, kind: &str| json!({"description": about, "required": true, "schema": {"type": kind}});
    statuses
        .iter()
        .map(|status| {
            let (description, headers) = match status {
                400 => ("The request, or what it asks for, is wrong.", json!({})),
                401 => (
                    "The credentials are wrong.",
                    json!({"WWW-Authenticate": header("How to authenticate.", "string")}),
                ),
                403 => ("With cookies, and not from a page that may use them.", json!({})),
                405 => ("Another method.", json!({"Allow": header("The methods there are.", "string")})),
                413 => ("More than 16 KiB.", json!({})),
                415 => ("Not JSON, or compressed.", json!({})),
                429 => ("Too often.", json!({"Retry-After": header("Seconds to wait.", "integer")})),
                502 => ("Cognito's answer makes no sense, or it is not set up for this.", json!({})),
                _ => ("Cognito does not answer.", json!({"Retry-After": header("Seconds to wait.", "integer")})),
            };
            let content = json!({"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}});
            (status.to_string(), json!({"description": description, "headers": headers, "content": content}))
        })
        .collect()
}
