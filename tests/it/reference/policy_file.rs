//! `policy-file.md`: every member of the policy file, from its JSON Schema.

use std::fmt::Write;

use cognito_authz::config::file::PolicyFile;
use serde_json::{Map, Value};

use super::{code, codes, page, plain, table};

const ABOUT: &str = "\
Every member of the policy file (`--config`), with type and default. [Policy](../policy.md)
describes what the members are for, with examples.";

const SCHEMA: &str = "\
The page shows the JSON Schema of the file, which `cognito-authz config-schema` prints for the
version that you run. The file is YAML. Unknown, repeated and null members are errors, and
`cognito-authz check-config` reports them.
";

/// Longest pattern that the page shows.
const SHOWN_PATTERN: usize = 60;

/// Writer of the page. A definition of the schema becomes a section when a member first mentions it.
struct Page<'s> {
    definitions: &'s Map<String, Value>,
    /// Sections that were mentioned so far: the name of the definition, and the title.
    order: Vec<(&'s str, String)>,
}

/// `true` for a definition of plain texts or numbers, which is named after its type and not after a member.
fn is_plain(definition: &Value) -> bool {
    ["properties", "oneOf", "anyOf"].iter().all(|member| definition.get(member).is_none())
}

/// Anchor of a heading.
fn anchor(title: &str) -> String {
    let kept = title.to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || "_-".contains(*c)).collect()
}

impl<'s> Page<'s> {
    /// Describes the values that a schema allows, in one line. `path` is the member that has the value.
    fn kind(&mut self, schema: &'s Value, path: &str) -> String {
        if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
            let (name, definition) = self.definitions.get_key_value(name).unwrap();
            let known = self.order.iter().find(|(known, _)| known == name).map(|(_, title)| title.clone());
            let title = known.unwrap_or_else(|| {
                let title = if is_plain(definition) { name.clone() } else { code(path) };
                self.order.push((name, title.clone()));
                title
            });
            let same = if title == code(path) || is_plain(definition) { "" } else { "as " };
            return format!("{same}[{title}](#{})", anchor(&title));
        }
        if let Some(value) = schema.get("const") {
            return code(&text(value));
        }
        if let Some(values) = schema["enum"].as_array() {
            return codes(values.iter().map(text));
        }
        if let Some(options) = alternatives(schema) {
            let kinds: Vec<String> = options.iter().map(|option| self.kind(option, path)).collect();
            return match &kinds[..] {
                [one, many] if *many == format!("list of: {one}") => format!("{one}, or a list of these"),
                _ => kinds.join(", or "),
            };
        }
        match schema["type"].as_str() {
            Some("array") => format!("list of: {}", self.kind(&schema["items"], &format!("{path}[]"))),
            Some("object") => match (schema.get("additionalProperties"), schema["properties"].as_object()) {
                (Some(values @ Value::Object(_)), _) => {
                    format!("map from names to: {}", self.kind(values, &format!("{path}.NAME")))
                }
                (_, Some(members)) => format!("map with {}", codes(members.keys())),
                _ => "map".into(),
            },
            Some("string") => match schema["pattern"].as_str() {
                Some(pattern) if pattern.len() <= SHOWN_PATTERN => format!("text, {}", code(pattern)),
                _ => "text".into(),
            },
            Some("boolean") => "`true` or `false`".into(),
            Some("integer" | "number") => match (schema["minimum"].as_i64(), schema["maximum"].as_i64()) {
                (Some(least), Some(most)) => format!("number, {least} to {most}"),
                (Some(least), None) if least > i64::MIN => format!("number, at least {least}"),
                _ => "number".into(),
            },
            _ => "any value".into(),
        }
    }

    /// Table of the members of a map. `path` is empty for the whole file.
    fn members(&mut self, schema: &'s Value, path: &str) -> Option<String> {
        let properties = schema["properties"].as_object()?;
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let rows: Vec<_> = properties
            .iter()
            .map(|(name, member)| {
                let about = description(member);
                assert!(!about.is_empty(), "{path}.{name} has no description in the schema");
                let default = match member.get("default") {
                    Some(default) => code(&text(default)),
                    None if required.contains(&&**name) => "required".into(),
                    None => "–".into(),
                };
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                [code(name), self.kind(member, &below), default, about]
            })
            .collect();
        Some(table(["member", "value", "default", "meaning"], rows))
    }

    /// Table of the alternatives of a value.
    fn values(&mut self, schema: &'s Value, path: &str) -> Option<String> {
        let rows: Vec<_> = alternatives(schema)?
            .iter()
            .map(|option| {
                let about = description(option);
                [self.kind(option, path), if about.is_empty() { "–".into() } else { about }]
            })
            .collect();
        Some(table(["value", "meaning"], rows))
    }

    /// Writes the sections that were mentioned since `from`, each followed by those that it mentions itself.
    fn below(&mut self, from: usize, out: &mut String) {
        let until = self.order.len();
        for at in from..until {
            let (name, title) = self.order[at].clone();
            let mentioned = self.order.len();
            write!(out, "## {title}\n\n{}", self.section(&self.definitions[name], title.trim_matches('`'))).unwrap();
            self.below(mentioned, out);
        }
    }

    fn section(&mut self, schema: &'s Value, path: &str) -> String {
        let pattern = schema["pattern"].as_str().map(|pattern| format!("Pattern: {}\n", code(pattern)));
        let parts = [Some(description(schema)), self.members(schema, path), self.values(schema, path), pattern];
        let mut out = String::new();
        for part in parts.iter().flatten() {
            writeln!(out, "{}\n", part.trim_end()).unwrap();
        }
        for example in schema["examples"].as_array().into_iter().flatten() {
            writeln!(out, "```yaml\n{}\n```\n", text(example).trim_end()).unwrap();
        }
        out
    }
}

/// Schemas of the alternatives of a value. Those of a map are combinations of its members, which its description names.
fn alternatives(schema: &Value) -> Option<&Vec<Value>> {
    schema["oneOf"].as_array().or(schema["anyOf"].as_array()).filter(|_| schema.get("properties").is_none())
}

fn description(schema: &Value) -> String {
    plain(schema["description"].as_str().unwrap_or_default())
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[test]
fn policy_file() {
    let schema = PolicyFile::schema().to_value();
    let definitions = schema["$defs"].as_object().unwrap();
    let mut writer = Page { definitions, order: Vec::new() };
    let mut text = writer.section(&schema, "");
    writer.below(0, &mut text);
    assert_eq!(writer.order.len(), definitions.len(), "a definition of the schema is not on the page");
    page("policy-file.md", "Policy file", ABOUT, &format!("{SCHEMA}\n## Members of the file\n\n{text}"));
}
