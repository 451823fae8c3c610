//! Parts of the JSON Schema that types do not express: members that exclude or require each other, and no null anywhere.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

/// The schema of a form (draft 2020-12). `file` is its name in the folder `docs` of the repository.
pub(crate) fn of<T: JsonSchema>(file: &str) -> Schema {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    let repository = env!("CARGO_PKG_REPOSITORY").replace("//github.com/", "//raw.githubusercontent.com/");
    schema.insert("$id".into(), format!("{repository}/main/docs/{file}").into());
    schema
}

/// The schema of a form without null.
pub(super) fn strict<T: JsonSchema>(file: &str) -> Schema {
    let mut schema = of::<T>(file);
    RecursiveTransform(without_null).transform(&mut schema);
    schema
}

/// Removes null from a schema: an optional member may be absent, but the program rejects null.
fn without_null(schema: &mut Schema) {
    if schema.get("default").is_some_and(Value::is_null) {
        schema.remove("default");
    }
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [name] = types.as_slice() {
            let name = name.clone();
            schema.insert("type".into(), name);
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| *choice != json!({"type": "null"}));
        if let [Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            for (keyword, value) in only {
                schema.ensure_object().entry(keyword).or_insert(value);
            }
        }
    }
}

/// A file is not empty, and one with routes names its default policy.
pub(super) fn file(schema: &mut Schema) {
    schema.insert("minProperties".into(), json!(1));
    schema.insert("if".into(), json!({"properties": {"routes": {"minItems": 1}}, "required": ["routes"]}));
    schema.insert("then".into(), json!({"required": ["default"]}));
}

/// `any` is the only client, and `issuers` excludes `replica_regions`.
pub(super) fn pool(schema: &mut Schema) {
    let mixed = json!([{"type": "array", "contains": {"const": "any"}}, {"contains": {"not": {"const": "any"}}}]);
    schema.insert(
        "not".into(),
        json!({"anyOf": [
            {"required": ["issuers", "replica_regions"]},
            {"properties": {"client_ids": {"allOf": mixed}}, "required": ["client_ids"]},
        ]}),
    );
}

/// Members of a policy that are requirements.
pub(in crate::config) const DEMANDING: [&str; 12] = [
    "token_use",
    "pools",
    "clients",
    "audiences",
    "allow_delegated",
    "scopes",
    "groups",
    "claims",
    "max_auth_age",
    "acr",
    "amr",
    "json_rpc",
];

/// A public or optional policy has no requirements, and is not both. A public policy reads no credential and denies
/// nothing.
pub(super) fn policy(schema: &mut Schema) {
    let demanding: Vec<Value> = DEMANDING.iter().map(|member| json!({"required": [member]})).collect();
    let is = |member: &str| json!({"properties": {member: {"const": true}}, "required": [member]});
    let shadow = json!({"properties": {"mode": {"const": "shadow"}}, "required": ["mode"]});
    schema.insert(
        "not".into(),
        json!({"anyOf": [
            {"allOf": [is("public"), is("optional")]},
            {"allOf": [{"anyOf": [is("public"), is("optional")]}, {"anyOf": demanding}]},
            {"allOf": [is("public"), {"anyOf": [{"required": ["from"]}, {"required": ["sign_in"]}, shadow]}]},
        ]}),
    );
}

/// A client that can register needs its redirect URIs.
pub(super) fn protected_resource(schema: &mut Schema) {
    schema.insert("dependentRequired".into(), json!({"client_id": ["redirect_uris"], "redirect_uris": ["client_id"]}));
}

/// At least one of `any` and `all`.
pub(super) fn any_all(schema: &mut Schema) {
    schema.insert("minProperties".into(), json!(1));
}

/// Exactly one test.
pub(super) fn claim(schema: &mut Schema) {
    let tests = ["equals", "one_of", "contains"].map(|test| json!({"required": [test]}));
    schema.insert("oneOf".into(), json!(tests));
}

/// At most one of `name` and `except`.
pub(super) fn call(schema: &mut Schema) {
    schema.insert("not".into(), json!({"required": ["name", "except"]}));
}

/// At least one member to match, and at most one of `path` and `path_prefix`.
pub(super) fn route(schema: &mut Schema) {
    let members = ["host", "method", "path", "path_prefix"].map(|member| json!({"required": [member]}));
    schema.insert("anyOf".into(), json!(members));
    schema.insert("not".into(), json!({"required": ["path", "path_prefix"]}));
}
