//! The `OpenAPI` 3.1 document of the account API, made from the rows of the table.

use serde_json::{Map, Value, json};

use super::call::Allowed;
use super::error::Code;
use super::table::{AUTH_FLOWS, Credential, Field, Need, Place, Row, Shape, Success, rows};

/// The document for routes below `prefix`.
pub fn document(prefix: &str, allowed: &Allowed) -> Value {
    let mut paths = Map::new();
    for row in rows() {
        let methods = paths.entry(format!("{prefix}{}", row.path)).or_insert_with(|| Map::new().into());
        if let Some(methods) = methods.as_object_mut() {
            methods.insert(row.method.as_str().to_ascii_lowercase(), operation(row, allowed));
        }
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
            "securitySchemes": {
                "accessToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "An access token of the pool."},
            },
            "schemas": {"Error": error(), "Tokens": tokens(), "Challenge": challenge(), "Profile": profile()},
        },
    })
}

fn operation(row: &Row, allowed: &Allowed) -> Value {
    let mut statuses = vec![400, 405, 413, 415, 429, 502, 503];
    if row.credential != Credential::None || row.refusal == 401 {
        statuses.push(401);
    }
    let mut responses = responses(&statuses);
    let (status, success) = success(row.success);
    responses.insert(status.into(), success);
    let mut operation = json!({
        "operationId": row.name,
        "summary": row.summary,
        "description": format!("Calls {} of Cognito.", row.operation.as_str()),
        "tags": ["account"],
        "responses": responses,
    });
    let security = match row.credential {
        Credential::None => None,
        Credential::Token => Some(json!([{"accessToken": []}])),
        Credential::TokenOrSession => Some(json!([{"accessToken": []}, {}])),
    };
    let content = || json!({"application/json": {"schema": body(row, allowed)}});
    let body = (!row.fields.is_empty()).then(|| json!({"required": row.needs_body(), "content": content()}));
    if let Some(operation) = operation.as_object_mut() {
        operation.extend(security.map(|security| ("security".into(), security)));
        operation.extend(body.map(|body| ("requestBody".into(), body)));
    }
    operation
}

/// What a body has to be, no more and no less: a test has a generator of bodies try.
fn body(row: &Row, allowed: &Allowed) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    let mut conditions = Vec::new();
    let mut names_of_user = Vec::new();
    let mut any = Vec::new();
    for field in row.fields {
        properties.insert(field.name.into(), property(field, allowed));
        match field.need {
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

fn property(field: &Field, allowed: &Allowed) -> Value {
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
        _ if field.need == Need::Yes => json!({"type": "string", "minLength": 1, "description": about}),
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
        Success::LoggedOut(text) => {
            ("200", text, message(&[("scope", json!({"type": "string", "enum": ["replica", "shared"]}))]))
        }
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

fn tokens() -> Value {
    let text = || json!({"type": "string"});
    let device =
        json!({"type": "object", "properties": {"deviceKey": text(), "deviceGroupKey": {"type": ["string", "null"]}}});
    json!({
        "type": "object",
        "required": ["accessToken", "tokenType"],
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
