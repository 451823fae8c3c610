//! Requests of the document: bodies, and parameters in the URL.

use serde_json::{Map, Value, json};

use super::answers::reference;
use super::examples::{self, Uris};
use crate::account::call::Allowed;
use crate::account::table::{AUTH_FLOWS, Field, MAX_ID, Need, Place, Row, Shape, Target};

/// Describes a member in the URL; `None` for one in the body.
pub(super) fn parameter(row: &Row, field: &Field, uris: Uris<'_>) -> Option<Value> {
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
    let mut parameter =
        json!({"name": field.name, "in": place, "required": required, "description": field.about, "schema": schema});
    // Tools fill in examples, and an optional parameter is not part of a first request.
    if let (true, Some(parameter)) = (required, parameter.as_object_mut()) {
        parameter.extend(examples::member(row, field, uris).map(|example| ("example".into(), example)));
    }
    Some(parameter)
}

/// Makes the schema of a body. It accepts exactly the bodies that the service accepts; a test generates bodies from it.
pub(super) fn schema(row: &Row, allowed: &Allowed, by_cookie: bool) -> Value {
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
        Target::Factor(_) => {
            json!({"anyOf": [reference("schemas", "SecondFactorSettings"), {"type": "null"}], "description": about})
        }
        Target::Document(_) => {
            json!({"type": "object", "minProperties": 1, "additionalProperties": true, "description": about})
        }
        target if target.shape() == Shape::Texts => {
            json!({"type": ["object", "null"], "additionalProperties": {"type": "string"}, "description": about})
        }
        Target::AuthFlow => {
            let flows: Vec<Value> = AUTH_FLOWS.iter().map(|flow| json!(flow)).chain([json!(""), Value::Null]).collect();
            json!({"type": ["string", "null"], "enum": flows, "description": about})
        }
        _ if need == Need::Yes => json!({"type": "string", "minLength": 1, "description": about}),
        _ => json!({"type": ["string", "null"], "description": about}),
    }
}
