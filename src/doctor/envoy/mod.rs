//! Envoy's configuration: every `ext_authz` filter that asks this service, with the routes around it.
//!
//! The file is a bootstrap, a listener or a single filter (YAML or JSON), a Kubernetes `ConfigMap` with one, or an Istio
//! `EnvoyFilter`. Only what is in the file is examined. Envoy itself validates the form (`envoy --mode validate`).
//! Start from [`examine`].

mod filter;
mod matcher;
mod needs;
mod places;
mod routes;

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use self::needs::Needs;
use self::places::{Clusters, Filter, filters};
use super::Report;
use crate::config::Config;
use crate::files::{self, MAX_TEXT_BYTES};

/// Examines a file of Envoy's configuration.
pub(super) fn examine(path: &Path, config: &Config, report: &mut Report) {
    let place = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let documents = match read(path) {
        Ok(documents) => documents,
        Err(why) => {
            report.error(
                &place,
                format!("{} {why}.", path.display()),
                "It was not examined.",
                "Name a readable YAML or JSON file with --envoy.",
            );
            return;
        }
    };
    let clusters = Clusters::of(&documents);
    let found: Vec<Filter<'_>> = documents.iter().flat_map(filters).collect();
    let ours: Vec<&Filter<'_>> = found.iter().filter(|filter| clusters.is_ours(filter, config)).collect();
    let examined = match (ours.as_slice(), found.as_slice()) {
        ([], []) => {
            report.warning(
                &place,
                "The file has no ext_authz filter.",
                "No request that this configuration handles is checked.",
                "Name the file that has it, or add the filter (deploy/envoy/envoy.yaml).",
            );
            return;
        }
        ([], all) => {
            let targets: Vec<String> = all.iter().map(|filter| clusters.target(filter)).collect();
            report.warning(
                &place,
                format!(
                    "No ext_authz filter leads to a listener of this service; they lead to {}.",
                    targets.join(", ")
                ),
                "This service is not asked, unless another machine or a Service maps the ports.",
                format!("Compare the clusters with --grpc-listen and --http-listen ({}).", places::listeners(config)),
            );
            all.iter().collect()
        }
        _ => ours,
    };
    let needs = Needs::of(config);
    for filter in examined {
        let place = format!("{place}, {}", filter.name);
        let before = report.findings().len();
        filter::examine(&place, filter, &needs, report);
        clusters.examine(&place, filter, config, report);
        if let Some(manager) = filter.manager {
            routes::examine(&place, filter, manager, &clusters, &needs, report);
        }
        if report.findings().len() == before {
            report.ok(&place, "the ext_authz filter fits the configuration");
        }
    }
}

/// Reads the documents of a file, and those within its `ConfigMap`s.
fn read(path: &Path) -> Result<Vec<Value>, String> {
    let text = files::read_text(path, MAX_TEXT_BYTES).map_err(|why| why.to_string())?;
    let mut documents = parse(&text).map_err(|why| format!("is neither YAML nor JSON: {why}"))?;
    let nested: Vec<Value> = documents
        .iter()
        .filter(|document| document.get("kind").and_then(Value::as_str) == Some("ConfigMap"))
        .filter_map(|document| document.get("data")?.as_object())
        .flat_map(|data| data.values().filter_map(Value::as_str))
        .filter_map(|text| parse(text).ok())
        .flatten()
        .collect();
    documents.extend(nested);
    Ok(documents)
}

fn parse(text: &str) -> Result<Vec<Value>, yaml_serde::Error> {
    yaml_serde::Deserializer::from_str(text).map(Value::deserialize).collect()
}

/// Returns a member by its name in the Envoy API, or by the form that the JSON mapping of Protocol Buffers gives it
/// (`status_on_error`, `statusOnError`).
fn get<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    let members = value.as_object()?;
    let camel = || {
        let mut words = name.split('_');
        let first = words.next().unwrap_or_default().to_owned();
        words.fold(first, |name, word| {
            let mut chars = word.chars();
            let initial: String = chars.next().iter().flat_map(|c| c.to_uppercase()).collect();
            name + &initial + chars.as_str()
        })
    };
    members.get(name).or_else(|| members.get(&camel())).filter(|value| !value.is_null())
}

/// Returns a member of a member, and so on.
fn at<'v>(value: &'v Value, names: &[&str]) -> Option<&'v Value> {
    names.iter().try_fold(value, |value, name| get(value, name))
}

/// Items of a list; nothing if there is none.
fn items<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> + use<'v> {
    get(value, name).and_then(Value::as_array).into_iter().flatten()
}

/// `true` if the message has this type, whatever the version of its URL.
fn is_type(value: &Value, name: &str) -> bool {
    value.get("@type").and_then(Value::as_str).is_some_and(|found| found.rsplit(['.', '/']).next() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_spellings_of_a_member_are_read() {
        let value = json!({"status_on_error": 1, "failureModeAllow": true, "gone": null});
        assert_eq!(get(&value, "status_on_error"), Some(&json!(1)));
        assert_eq!(get(&value, "failure_mode_allow"), Some(&json!(true)));
        assert_eq!(get(&value, "gone"), None);
    }

    #[test]
    fn a_config_map_has_documents_within() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("map.yaml");
        std::fs::write(&path, "kind: ConfigMap\ndata: {envoy.yaml: 'a: [1]', note: 'x: [', text: hello}\n---\nb: 2\n")
            .unwrap();
        let found = read(&path).unwrap();
        assert!(found.contains(&json!({"a": [1]})) && found.contains(&json!({"b": 2})), "{found:?}");
        std::fs::write(&path, "a: [").unwrap();
        assert!(read(&path).unwrap_err().starts_with("is neither YAML nor JSON: "));
    }
}
