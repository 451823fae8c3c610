//! The examples of `docs/policy-examples.md` and the other pages about policies: the page shows the files, the files
//! load, and their test tables pass.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::service::{SIGN_IN, run};
use crate::support::tool;

const FOLDER: &str = "docs/examples/policy";

fn in_root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn file(name: &str) -> String {
    in_root(FOLDER).join(name).display().to_string()
}

/// Returns the names of the examples, in order.
fn examples() -> Vec<String> {
    let entries = fs::read_dir(in_root(FOLDER)).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let (tables, mut names): (Vec<_>, Vec<_>) = entries.partition(|name| name.ends_with(".test.yaml"));
    names.sort();
    let names: Vec<String> = names.iter().map(|name| name.strip_suffix(".yaml").unwrap().to_owned()).collect();
    assert_eq!(names.len(), 10, "{names:?}");
    assert_eq!(tables.len(), 10, "{tables:?}");
    names
}

#[test]
fn the_policy_page_shows_each_example_file() {
    let page = fs::read_to_string(in_root("docs/policy-examples.md")).unwrap();
    let shown: Vec<&str> = page.split("```yaml\n").skip(1).map(|rest| rest.split_once("```\n").unwrap().0).collect();
    let examples = examples();
    let files: Vec<String> =
        examples.iter().map(|name| fs::read_to_string(file(&format!("{name}.yaml"))).unwrap()).collect();
    // The page leaves out the line for editors.
    let files: Vec<&str> = files.iter().map(|text| text.split_once('\n').unwrap().1).collect();
    assert_eq!(shown, files);
    for name in examples {
        for link in [format!("](examples/policy/{name}.yaml)"), format!("](examples/policy/{name}.test.yaml)")] {
            assert!(page.contains(&link), "{link}");
        }
    }
}

/// The commands that the page shows for the first example, and all others with the same words.
#[test]
fn examples_pass_the_documented_commands() {
    let page = fs::read_to_string(in_root("docs/policy-examples.md")).unwrap();
    let (_, block) = page.split_once("```sh\n").unwrap();
    let commands: Vec<&str> = block.split_once("```").unwrap().0.lines().collect();
    assert_eq!(commands.len(), 2, "{commands:?}");
    let examples = examples();
    for name in &examples {
        for command in &commands {
            assert!(command.contains(&examples[0]), "{command}");
            let command = command.replace(&examples[0], name);
            let words: Vec<String> = command
                .strip_prefix("cognito-authz ")
                .unwrap()
                .split(' ')
                .map(|word| if word.starts_with("docs/") { in_root(word).display().to_string() } else { word.into() })
                .collect();
            let (code, output, error) = run(&words.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
            assert_eq!((code, &*error), (Some(0), ""), "{command}: {output}");
        }
    }
}

/// The errors that the page shows are those of a file like the one that it describes.
#[test]
fn the_page_shows_the_errors_of_the_program() {
    let page = fs::read_to_string(in_root("docs/policy.md")).unwrap();
    let (_, block) = page.split_once("$ cognito-authz check-config --config policy.yaml\n").unwrap();
    let shown = block.split_once("```").unwrap().0;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("policy.yaml");
    let text = "\
# Members, and an area for staff.
default: members
policies:
  members: {}
  admin:
    scopes: {any: [admin]}
    group: {any: [admins]}
  staff:
    groups: [staff]
routes:
- {path_prefix: /admin, policy: admn}
";
    fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    let pool = ["--user-pool-id", "eu-west-1_AbC123xyz", "--client-id", "web"];
    let (code, _, error) = run(&[&["check-config", "--config", &path][..], &pool].concat(), &[]);
    assert_eq!((code, &*error.replace(&path, "policy.yaml")), (Some(64), shown));
}

#[test]
fn the_example_of_the_quick_start_loads() {
    let page = fs::read_to_string(in_root("docs/quick-start.md")).unwrap();
    let (_, section) = page.split_once("\n## 4. Say who may do what\n").unwrap();
    let (_, block) = section.split_once("```yaml\n").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let policy = directory.path().join("policy.yaml");
    fs::write(&policy, block.split_once("```\n").unwrap().0).unwrap();
    let pool = ["--user-pool-id", "eu-west-1_AbC123xyz", "--client-id", "web"];
    let (code, _, error) = run(&[&["check-config", "--config", policy.to_str().unwrap()][..], &pool].concat(), &[]);
    assert_eq!((code, &*error), (Some(0), ""));
}

/// The policy file and the table of the section about the sign-in, which needs flags.
#[test]
fn the_example_of_the_sign_in_loads_and_passes_its_table() {
    let page = fs::read_to_string(in_root("docs/policy-browsers.md")).unwrap();
    let (_, section) = page.split_once("\n## Sign-in by redirect\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let blocks: Vec<&str> =
        section.split("```yaml\n").skip(1).map(|rest| rest.split_once("```\n").unwrap().0).collect();
    let [policy, table] = blocks[..] else { panic!("{blocks:?}") };
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (policy, table) = (write("policy.yaml", policy), write("table.yaml", table));
    let pool = ["--user-pool-id", "eu-west-1_AbC123xyz", "--client-id", "web", "--config", &policy];
    let check = |flags: &[&str]| run(&[&["check-config"][..], &pool, flags].concat(), &[]);
    let (code, output, _) = check(&SIGN_IN);
    assert_eq!(code, Some(0), "{output}");
    let (code, _, error) = check(&[]);
    assert_eq!(code, Some(64));
    let (_, shown) = section.split_once("\ncognito-authz: ").unwrap();
    let shown = format!("cognito-authz: {}", shown.split_once("```").unwrap().0);
    assert_eq!(error.replace(&policy, "policy.yaml"), shown);
    let (code, output, error) = run(&[&["test-policy", &table][..], &pool].concat(), &[]);
    assert_eq!((code, &*error), (Some(0), ""), "{output}");
    assert!(output.ends_with("\n3 passed, 0 failed\n"), "{output}");
}

#[test]
fn examples_pass_their_test_tables() {
    let examples = examples();
    let test = |name: &str, table: &str| {
        let (config, table) = (file(&format!("{name}.yaml")), file(&format!("{table}.test.yaml")));
        run(&["test-policy", &table, "--config", &config], &[])
    };
    for name in &examples {
        let (code, output, error) = test(name, name);
        assert_eq!((code, &*error), (Some(0), ""), "{name}: {output}");
        let rows = output.lines().filter(|line| line.starts_with("ok   ")).count();
        assert!((4..=10).contains(&rows), "{name}: {output}");
        assert!(output.ends_with(&format!("\n{rows} passed, 0 failed\n")), "{name}: {output}");
        let table = fs::read_to_string(file(&format!("{name}.test.yaml"))).unwrap();
        for decision in ["decision: allow", "decision: deny"] {
            assert!(table.contains(decision), "{name}: no {decision}");
        }
    }
    // The table of another example fails.
    let (code, output, _) = test(&examples[0], &examples[1]);
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("FAIL support may not delete\n"), "{output}");
}

/// Files beside the ten examples that are policy files.
const DEPLOYED: [&str; 4] = [
    "deploy/local/policy.yaml",
    "deploy/local/policy-cookies.yaml",
    "deploy/kustomize/base/policy.yaml",
    "deploy/kustomize/overlays/production/policy.yaml",
];

#[test]
fn examples_match_their_schema_and_name_it() {
    let checker = tool::program("check-jsonschema");
    let schema = |name: &str| in_root("docs").join(format!("{name}.schema.json"));
    let check = |name: &str, paths: &[String]| {
        let output = Command::new(&checker).arg("--schemafile").arg(schema(name)).args(paths).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let policies = examples().into_iter().map(|name| file(&format!("{name}.yaml")));
    let policies: Vec<String> = policies.chain(DEPLOYED.map(|path| in_root(path).display().to_string())).collect();
    let tables: Vec<String> = examples().iter().map(|name| file(&format!("{name}.test.yaml"))).collect();
    let directory = tempfile::tempdir().unwrap();
    let wrong = directory.path().join("wrong.yaml").display().to_string();
    for (name, paths, faulty, said) in [
        ("config", policies, "polices: {}\n", "polices"),
        ("test-policy", tables, "tests: [{name: a, expect: {decision: deny, reason: nonsense}}]\n", "nonsense"),
    ] {
        let content: Value = serde_json::from_str(&fs::read_to_string(schema(name)).unwrap()).unwrap();
        let line = format!("# yaml-language-server: $schema={}\n", content["$id"].as_str().unwrap());
        for path in &paths {
            assert!(fs::read_to_string(path).unwrap().starts_with(&line), "{path} does not begin with {line}");
        }
        let (code, output) = check(name, &paths);
        assert_eq!(code, Some(0), "{output}");
        fs::write(&wrong, faulty).unwrap();
        let (code, output) = check(name, std::slice::from_ref(&wrong));
        assert_eq!(code, Some(1), "{output}");
        assert!(output.contains(said), "{output}");
    }
    // A table that needs no quotes, and has null.
    fs::write(&wrong, "tests: [{name: 404, token: ~, request: {headers: {a: 5}}, expect: {decision: deny, headers: {a: ~, b: 1.5}}}]\n").unwrap();
    assert_eq!(check("test-policy", std::slice::from_ref(&wrong)).0, Some(0));
}

/// Every member has a description, and each schema is the one of the program.
#[test]
fn schemas_describe_every_member() {
    for (name, arguments) in [("config", &["config-schema"][..]), ("test-policy", &["config-schema", "--test-table"])] {
        let (code, schema, error) = run(arguments, &[]);
        assert_eq!((code, &*error), (Some(0), ""));
        let file = format!("docs/{name}.schema.json");
        assert_eq!(
            fs::read_to_string(in_root(&file)).unwrap(),
            schema,
            "cognito-authz {} > {file}",
            arguments.join(" ")
        );
        let schema: Value = serde_json::from_str(&schema).unwrap();
        let id = format!("https://raw.githubusercontent.com/cognito-authz/cognito-authz/main/{file}");
        assert_eq!(schema["$id"], id);
        let mut members = 0;
        undescribed(&schema, name, &mut members);
        assert!(members > 10, "{name}: {members}");
    }
}

fn undescribed(schema: &Value, place: &str, members: &mut usize) {
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        // A condition names members without describing them again.
        for (name, member) in properties.iter().filter(|(_, member)| member.get("const").is_none()) {
            if schema.get("additionalProperties").is_some() {
                *members += 1;
                assert!(member.get("description").is_some(), "{place}.{name} has no description");
            }
        }
    }
    match schema {
        Value::Object(map) => {
            for (name, value) in map {
                undescribed(value, &format!("{place}.{name}"), members);
            }
        }
        Value::Array(list) => {
            for value in list {
                undescribed(value, place, members);
            }
        }
        _ => {}
    }
}
