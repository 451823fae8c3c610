//! `man`: the manual page is correct roff and complete, and texts about the program have no value of this machine.

use std::io::Write;
use std::process::{Command, Stdio};

use clap::CommandFactory;
use cognito_authz::config::options::{Cli, variable};

use crate::support::service::{Program, run};
use crate::support::tool;

/// Findings of mandoc that are no faults. The page has no date, and
/// `clap_mangen` writes more line breaks than needed before lists of values.
const EXPECTED: [&str; 3] = ["date", "br before sp", "br after sp"];

fn page() -> String {
    let (code, page, stderr) = run(&["man"], &[]);
    assert_eq!((code, &*stderr), (Some(0), ""));
    page
}

/// Runs a tool with the page on its standard input. Returns what it prints; `None` if this machine does not have it.
fn filtered(name: &str, args: &[&str]) -> Option<(bool, String, String)> {
    let mut command = Command::new(tool::optional(name, "--shells")?);
    let mut child =
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let page = page();
    let writing = std::thread::spawn(move || stdin.write_all(page.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Some((output.status.success(), text(output.stdout), text(output.stderr)))
}

#[test]
fn mandoc_finds_nothing_wrong_with_the_page() {
    let Some((_, findings, errors)) = filtered("mandoc", &["-T", "lint", "-W", "warning"]) else { return };
    let findings: Vec<&str> =
        findings.lines().filter(|line| !EXPECTED.iter().any(|text| line.contains(text))).collect();
    assert!(findings.is_empty() && errors.is_empty(), "{findings:#?}{errors}");
}

#[test]
fn the_page_has_every_command_option_and_variable_in_its_section() {
    let Some((success, shown, warnings)) =
        filtered("groff", &["-man", "-K", "utf8", "-T", "utf8", "-P", "-cbou", "-ww", "-rLL=200n"])
    else {
        return;
    };
    assert!(success && warnings.is_empty(), "{warnings}");
    let headings: Vec<&str> =
        shown.lines().filter(|line| line.starts_with(char::is_uppercase) && !line.contains("(1)")).collect();
    let topics = [
        "NAME",
        "SYNOPSIS",
        "DESCRIPTION",
        "COMMANDS",
        "OPTIONS",
        "USER POOL",
        "POLICY",
        "KEYS",
        "CHECK",
        "GRPC",
        "HTTP FORM",
        "ACCOUNT API",
        "TLS",
        "REVOCATION",
        "TRACES",
        "OPERATIONS",
        "ENVIRONMENT",
        "FILES",
        "EXIT STATUS",
        "EXAMPLES",
        "VERSION",
    ];
    assert_eq!(headings, topics);
    let words = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut command = Cli::command();
    command.build();
    for arg in
        command.get_arguments().filter(|arg| arg.get_long().is_some_and(|long| long != "help" && long != "version"))
    {
        let (flag, variable) = (format!("--{}", arg.get_long().unwrap()), variable(arg.get_id().as_str()));
        assert!(words.contains(&format!("{flag} ")) || words.contains(&format!("{flag}[")), "{flag}");
        assert!(words.contains(&format!("[env: {variable}]")), "{variable}");
    }
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        assert!(words.contains(&format!("cognito-authz {}", subcommand.get_name())), "{}", subcommand.get_name());
    }
    assert!(words.contains("cognito-authz revocations lift ID Lift a revocation"), "{shown}");
    assert!(words.contains("OPTIONS -h, --help Print help"), "the help is under its topic: {shown}");
}

/// Help, completions, manual page and schema are the same on every machine, whatever `.env` and the environment are.
#[test]
fn texts_about_the_program_have_no_value_of_this_machine() {
    const SECRET: &str = "1exampleclientsecret0123456789abcdefghijklmnopqrstu";
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(".env"), format!("COGNITO_CLIENT_ID=private\nCOGNITO_CLIENT_SECRET='{SECRET}\n"))
        .unwrap();
    for args in [
        &["man"][..],
        &["completions", "bash"],
        &["completions", "zsh"],
        &["completions", "fish"],
        &["config-schema"],
        &["--help"],
        &["explain", "--help"],
        &["help"],
        &["--version"],
    ] {
        let (code, plain, stderr) = run(args, &[]);
        assert_eq!((code, &*stderr), (Some(0), ""), "{args:?}");
        let args: Vec<_> = args.iter().map(Into::into).collect();
        let output = Program::command(&args)
            .current_dir(folder.path())
            .envs([
                ("COGNITO_CLIENT_SECRET", SECRET),
                ("COGNITO_USER_POOL_ID", "eu-west-1_Private"),
                ("COGNITO_AUTHZ_CONFIG", "/home/ada/policy.yaml"),
                ("COGNITO_AUTHZ_LEEWAY", "nonsense"),
                ("HOME", "/home/ada"),
                ("USER", "ada"),
            ])
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), plain, "{args:?}");
        assert!(!plain.contains(env!("CARGO_MANIFEST_DIR")) && !plain.contains(SECRET), "{args:?}");
    }
}
