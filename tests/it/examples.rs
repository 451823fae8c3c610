//! The examples of `docs/policy.md`: the page shows the files, the files load, and their test tables pass.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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
    let page = fs::read_to_string(in_root("docs/policy.md")).unwrap();
    let (_, section) = page.split_once("\n## Ten worked examples\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap_or((section, ""));
    let shown: Vec<&str> = section.split("```yaml\n").skip(1).map(|rest| rest.split_once("```\n").unwrap().0).collect();
    let examples = examples();
    let files: Vec<String> =
        examples.iter().map(|name| fs::read_to_string(file(&format!("{name}.yaml"))).unwrap()).collect();
    assert_eq!(shown, files);
    for name in examples {
        for link in [format!("](examples/policy/{name}.yaml)"), format!("](examples/policy/{name}.test.yaml)")] {
            assert!(section.contains(&link), "{link}");
        }
    }
}

#[test]
fn examples_load_without_a_warning() {
    for name in examples() {
        // The command that the page shows, with nothing beside it.
        let output = run(&["check-config", "--config", &file(&format!("{name}.yaml"))], &[]);
        assert_eq!(output, (Some(0), "the configuration is right\n".into(), String::new()), "{name}");
    }
}

#[test]
fn the_example_of_the_readme_loads() {
    let readme = fs::read_to_string(in_root("README.md")).unwrap();
    let (_, section) = readme.split_once("\n## Policy\n").unwrap();
    let (_, block) = section.split_once("```yaml\n").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let policy = directory.path().join("policy.yaml");
    fs::write(&policy, block.split_once("```\n").unwrap().0).unwrap();
    let pool = ["--user-pool-id", "eu-west-1_AbC123xyz", "--client-id", "web"];
    let output = run(&[&["check-config", "--config", policy.to_str().unwrap()][..], &pool].concat(), &[]);
    assert_eq!(output, (Some(0), "the configuration is right\n".into(), String::new()));
}

/// The policy file and the table of the section about the sign-in, which needs flags.
#[test]
fn the_example_of_the_sign_in_loads_and_passes_its_table() {
    let page = fs::read_to_string(in_root("docs/policy.md")).unwrap();
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
    assert_eq!((code, &*output), (Some(0), "the configuration is right\n"));
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

#[test]
fn examples_match_the_schema() {
    let Some(checker) = tool::optional("check-jsonschema") else {
        eprintln!("SKIPPED: check-jsonschema is missing: run tests/tools/setup --packaging");
        return;
    };
    let check = |path: &str| {
        let schema = in_root("docs/config.schema.json");
        let output = Command::new(&checker).arg("--schemafile").arg(schema).arg(path).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for name in examples() {
        let (code, output) = check(&file(&format!("{name}.yaml")));
        assert_eq!(code, Some(0), "{name}: {output}");
    }
    let directory = tempfile::tempdir().unwrap();
    let wrong = directory.path().join("wrong.yaml");
    fs::write(&wrong, "polices: {}\n").unwrap();
    let (code, output) = check(wrong.to_str().unwrap());
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("polices"), "{output}");
}
