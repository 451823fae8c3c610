//! The form of the policy file, tested with each file that the project ships: emptying a member allows no further request.

mod agreement;
mod words;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use cognito_authz::config::policy::PolicySource;
use cognito_authz::config::{self, Config, Invocation};
use cognito_authz::test_policy;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::support::token::{CLIENT, POOL, unix_now};

/// Valid policy file.
struct Example {
    name: String,
    document: Value,
}

/// Returns each policy file that the project ships, and [`super::FILE`].
fn examples() -> Vec<Example> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let documented = fs::read_dir(root.join("docs/examples/policy")).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = documented.filter(|path| !path.to_str().unwrap().ends_with(".test.yaml")).collect();
    paths.sort();
    let deployed =
        ["deploy/local/policy.yaml", "deploy/local/policy-cookies.yaml", "deploy/kustomize/base/policy.yaml"];
    let overlay = "deploy/kustomize/overlays/production/policy.yaml";
    paths.extend(deployed.into_iter().chain([overlay]).map(|path| root.join(path)));
    let read = |path: PathBuf| (path.display().to_string(), fs::read_to_string(path).unwrap());
    let own = super::FILE.replace("KEYS", "https://keys.example/jwks.json").replace("CLIENT", CLIENT);
    let texts = paths.into_iter().map(read).chain([("tests/it/policy".to_owned(), own)]);
    let mut examples: Vec<Example> =
        texts.map(|(name, text)| Example { name, document: yaml_serde::from_str(&text).unwrap() }).collect();
    let values: Value = yaml_serde::from_str(
        &fs::read_to_string(root.join("charts/cognito-authz/ci/policy-file-values.yaml")).unwrap(),
    )
    .unwrap();
    examples.push(Example { name: "the chart".into(), document: values["config"].clone() });
    examples.push(Example { name: "every member".into(), document: everything() });
    assert_eq!(examples.len(), 17);
    examples
}

/// Returns a file with the members that no other example has.
fn everything() -> Value {
    json!({
        "pools": {"other": {
            "user_pool_id": "us-east-1_Other0001", "client_ids": ["any"], "token_use": "any",
            "issuers": ["https://idp.example/other"], "endpoint": "https://idp.example/",
            "jwks_url": "https://idp.example/keys", "client_secret_file": "/run/secret",
        }},
        "account": {"pool": "default", "client_id": CLIENT, "client_secret_file": "/run/secret"},
        "policies": {"calls": {"scopes": {"any": ["c"]}}, "default": {
            "token_use": "access", "pools": ["default", "other"], "clients": [CLIENT], "audiences": ["a"],
            "allow_delegated": false, "scopes": {"any": ["s"], "all": ["t"]}, "groups": {"any": ["g"], "all": ["h"]},
            "claims": [{"claim": "x", "equals": 5}, {"claim": ["o", "p"], "one_of": ["a", true, 1.5]}, {"claim": "l", "contains": "m"}],
            "max_auth_age": "5m", "acr": ["mfa"], "amr": {"any": ["otp"], "all": ["pwd"]}, "cors_preflight": "check",
            "headers": {"x-fixed": "1"}, "remove_authorization": true, "resource_metadata": "https://api.example/meta",
            "mode": "enforce", "cors_origins": ["https://app.example", "http://localhost:3000"],
            "from": {"header": "X-Token", "websocket_protocol": "bearer", "websocket_query": "access_token"},
            "sign_in": "redirect",
            "json_rpc": {"max_body": "1KiB", "calls": [
                {"method": "tools/call", "name": ["a", "b"], "policy": "calls"},
                {"method": ["prompts/get", "x"], "except": "c", "policy": "calls"},
                {"method": "y", "policy": "calls"},
            ]},
        }, "mcp": {}},
        "protected_resources": [{
            "resource": "https://mcp.example/mcp", "name": "n", "policy": ["mcp"], "scopes_supported": ["s"], "pool": "default",
            "client_id": CLIENT, "redirect_uris": ["https://app.example/", "x:/y"], "audience": "if_present",
        }],
    })
}

/// Policy file on disk, and the flags to read it with.
struct Disk {
    directory: TempDir,
    flags: Vec<&'static str>,
    source: PolicySource,
}

impl Disk {
    fn new(example: &Value) -> Self {
        // Examples with the pool `main` define all pools themselves, so they are read without the flags.
        let alone = example["pools"].get("main").is_some();
        let flags =
            if alone { vec![] } else { vec!["--user-pool-id", POOL, "--client-id", CLIENT, "--token-use", "any"] };
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("policy.json"), example.to_string()).unwrap();
        let source = config(directory.path(), &flags).policy_source;
        Self { directory, flags, source }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the file, and returns the error about it.
    fn fault(&self, document: &Value) -> Option<String> {
        // JSON can have U+007F as it is, YAML only as an escape.
        fs::write(self.path("policy.json"), document.to_string().replace('\u{7f}', "\\u007f")).unwrap();
        self.source.read().err().map(|error| error.to_string())
    }

    /// Returns for each row of a table whether the file allows it.
    async fn allowed(&self, rows: &Value) -> Vec<bool> {
        let table = self.path("table.json");
        fs::write(&table, json!({ "tests": rows }).to_string()).unwrap();
        let config = config(self.directory.path(), &self.flags);
        // The table may name a pool that the file does not have. Then there are no tokens, and no row is allowed.
        let Ok(outcome) = Box::pin(test_policy::run(*config, &table, unix_now())).await else {
            return vec![false; rows.as_array().unwrap().len()];
        };
        let word = |line: &str| match line.get(..5) {
            Some("ok   ") => Some(true),
            Some("FAIL ") => Some(false),
            _ => None,
        };
        outcome.text.lines().filter_map(word).collect()
    }
}

/// Returns the configuration of `test-policy` with the file in this directory.
fn config(directory: &Path, flags: &[&str]) -> Box<Config> {
    let (file, table) = (directory.join("policy.json"), directory.join("table.json"));
    let args = ["test-policy".as_ref(), table.as_os_str(), "--config".as_ref(), file.as_os_str()];
    let args = args.into_iter().map(OsString::from).chain(flags.iter().map(OsString::from));
    match config::read(args, std::iter::empty(), Path::new("/nonexistent")).unwrap() {
        Invocation::TestPolicy(config, _) => config,
        _ => panic!("not test-policy"),
    }
}

/// Path of a value in a document: names of members and positions in lists.
type Way = Vec<Value>;

fn ways(value: &Value, here: &Way, all: &mut Vec<Way>) {
    let members: Vec<(Value, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(name, value)| (json!(name), value)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(index, value)| (json!(index), value)).collect(),
        _ => return,
    };
    for (step, value) in members {
        let way = [here.clone(), vec![step]].concat();
        all.push(way.clone());
        ways(value, &way, all);
    }
}

fn all_ways(document: &Value) -> Vec<Way> {
    let mut all = Vec::new();
    ways(document, &Vec::new(), &mut all);
    all
}

fn at<'d>(document: &'d mut Value, way: &[Value]) -> &'d mut Value {
    way.iter().fold(document, |value, step| match step {
        Value::String(name) => &mut value[name.as_str()],
        step => &mut value[usize::try_from(step.as_u64().unwrap()).unwrap()],
    })
}

/// Collects the strings below each member of this name.
fn texts_below(value: &Value, name: &str, inside: bool, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if inside => drop(found.insert(text.clone())),
        Value::Array(list) => list.iter().for_each(|value| texts_below(value, name, inside, found)),
        Value::Object(map) => {
            for (key, value) in map {
                texts_below(value, name, inside || key == name, found);
            }
        }
        _ => {}
    }
}

fn texts(document: &Value, name: &str) -> Vec<String> {
    let mut found = BTreeSet::new();
    texts_below(document, name, false, &mut found);
    found.into_iter().collect()
}

/// Returns requests to each route and policy of a file, without a token and with tokens that meet no, some and all
/// requirements.
fn rows(example: &Value) -> Value {
    let mut requests: Vec<Value> =
        example["policies"].as_object().unwrap().keys().map(|policy| json!({"policy": policy, "path": "/"})).collect();
    let mut paths = vec!["/".to_owned(), "/other".to_owned()];
    for path in texts(example, "path").into_iter().chain(texts(example, "path_prefix")) {
        let path = path.split('/').map(|segment| if segment.starts_with('{') { "acme" } else { segment });
        let path = path.collect::<Vec<_>>().join("/");
        paths.extend([format!("{path}/x"), path]);
    }
    let hosts: Vec<String> = texts(example, "host").into_iter().chain(["other.example".to_owned()]).collect();
    for path in &paths {
        for host in &hosts {
            for method in ["GET", "POST", "DELETE"] {
                requests.push(json!({"path": path, "host": host, "method": method}));
            }
        }
    }
    let mut claims = json!({
        "custom:tenant": "acme", "custom:role": "admin", "custom:level": "1", "x": 5, "o": {"p": "a"}, "l": ["m"],
        "acr": texts(example, "acr").first(), "amr": texts(example, "amr"),
    });
    if let Some(audience) = texts(example, "audiences").iter().chain(&texts(example, "resource")).next() {
        claims["aud"] = json!(audience);
    }
    let pools = example["pools"].as_object();
    let mut tokens = vec![Value::Null];
    for pool in pools.into_iter().flat_map(Map::keys) {
        tokens.push(json!({ "pool": pool }));
        for client in texts(&example["pools"][pool], "client_ids").into_iter().filter(|client| client != "any") {
            let rich = json!({
                "pool": pool, "client_id": client, "scope": texts(example, "scopes").join(" "),
                "groups": texts(example, "groups"), "claims": claims,
            });
            let mut old = rich.clone();
            old["auth_age"] = json!("2h");
            old["claims"]["act"] = json!({"sub": "agent"});
            tokens.extend([json!({"pool": pool, "client_id": client}), rich, old]);
        }
    }
    if example["pools"].get("main").is_none() {
        tokens.push(json!({}));
        tokens.push(
            json!({"scope": texts(example, "scopes").join(" "), "groups": texts(example, "groups"), "claims": claims}),
        );
    }
    let mut rows = Vec::new();
    for request in &requests {
        for token in &tokens {
            let mut row = json!({"name": rows.len().to_string(), "request": request, "expect": {"decision": "allow"}});
            if !token.is_null() {
                row["token"] = token.clone();
            }
            rows.push(row);
        }
    }
    Value::Array(rows)
}

/// Values that a template or a commented-out line may leave behind.
fn emptied() -> [Value; 4] {
    [Value::Null, json!([]), json!({}), json!("")]
}

/// `true` for a documented empty value: an empty list of routes, and the policy `{}`, which only requires a valid token.
fn is_meant(way: &[Value], value: &Value) -> bool {
    match way {
        [member] => member == "routes" && *value == json!([]),
        [policies, _] => policies == "policies" && *value == json!({}),
        _ => false,
    }
}

#[tokio::test]
async fn an_emptied_member_allows_no_further_request() {
    let mut weaker = Vec::new();
    for Example { name, document } in examples() {
        let disk = Disk::new(&document);
        let rows = rows(&document);
        let before = Box::pin(disk.allowed(&rows)).await;
        assert_eq!(before.len(), rows.as_array().unwrap().len());
        assert!(before.contains(&true) && before.contains(&false), "{name}");
        let ways = all_ways(&document);
        for (way, value) in ways.iter().flat_map(|way| emptied().into_iter().map(move |value| (way, value))) {
            let mut changed = document.clone();
            *at(&mut changed, way) = value.clone();
            if is_meant(way, &value) || changed == document {
                continue;
            }
            if disk.fault(&changed).is_some() {
                continue;
            }
            let after = Box::pin(disk.allowed(&rows)).await;
            let opened = before.iter().zip(&after).position(|(before, after)| !before && *after);
            weaker.extend(opened.map(|row| format!("{name}: {} = {value}: {}", json!(way), rows[row])));
        }
        assert!(weaker.is_empty(), "{} files open something:\n{}", weaker.len(), weaker.join("\n"));
    }
}
