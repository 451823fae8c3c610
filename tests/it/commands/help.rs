//! Examples in the help of each command: every command has some, and each runs.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use clap::{CommandFactory, Parser};
use cognito_authz::config::options::Cli;
use cognito_authz::config::options::examples::{self, EXAMPLES, Example};

use crate::support::service::{Program, run};
use crate::support::token::{CLIENT, POOL, SUB, SigningKey, TokenBuilder, jwks};

/// Longest line of an example, so that a terminal with 80 columns does not wrap it.
const WIDTH: usize = 76;

/// Examples that the test does not run, and why.
const NOT_RUN: [(&str, &str); 2] = [
    ("https://authz.internal:9190", "the host does not exist; the tests of TLS have such an instance"),
    ("--online", "it calls AWS; the tests of both commands run it with other endpoints"),
];

/// Id of a revocation in the examples.
const REVOCATION: &str = "00112233445566778899aabbccddeeff";

/// Stands for the program, and stores its arguments.
const RECORDER: &str = "#!/bin/sh\nfor arg; do printf '%s\\0' \"$arg\"; done > \"$HOME/arguments\"\n";

/// Directory with the files that the examples name, and with `bin/cognito-authz`.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let key = SigningKey::shared();
        // The keys are local, and no listener has a fixed port.
        let settings = "COGNITO_AUTHZ_JWKS_FILE=keys.json\nCOGNITO_AUTHZ_JWKS_URL=http://127.0.0.1:9/\n\
                        COGNITO_AUTHZ_GRPC_LISTEN=127.0.0.1:0\nCOGNITO_AUTHZ_ADMIN_LISTEN=127.0.0.1:0\n";
        let policy = "default: members\npolicies: {members: {}, admin: {groups: {any: [admins]}}, open: {public: true}}\nroutes:\n- {path: /, policy: open}\n";
        let tests = "tests:\n- name: an order needs a token\n  request: {path: /orders}\n  expect: {decision: deny}\n";
        for (name, text) in [
            (".env", &*format!("COGNITO_USER_POOL_ID={POOL}\nCOGNITO_CLIENT_ID={CLIENT}\n{settings}")),
            ("keys.json", &jwks(&[key])),
            ("policy.yaml", policy),
            ("requests.yaml", tests),
            ("token.txt", &TokenBuilder::access().sign(key)),
            ("message.json", "{\"jsonrpc\": \"2.0\", \"id\": 1, \"method\": \"tools/list\"}"),
            ("admin-token.txt", "an-operator-of-the-tests"),
            ("envoy.yaml", include_str!("../../../deploy/envoy/envoy.yaml")),
        ] {
            std::fs::write(place.path().join(name), text).unwrap();
        }
        for folder in [
            "bin",
            "run",
            ".zfunc",
            ".local/share/bash-completion/completions",
            ".config/fish/completions",
            ".local/share/man/man1",
        ] {
            std::fs::create_dir_all(place.path().join(folder)).unwrap();
        }
        place
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Returns a command that runs the line of an example in a POSIX shell.
    fn command(&self, prefix: &str, line: &str) -> Command {
        let line = line.replace("/run/cognito-authz", self.path().join("run").to_str().unwrap());
        let path = format!("{}:{}", self.path().join("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{prefix}{line}")]).stdin(Stdio::null());
        command.env_clear().env("PATH", path).env("HOME", self.path()).current_dir(self.path());
        command
    }
}

fn shown(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Names of the commands, those of `revocations` included; the program without a command is "".
fn commands(command: &clap::Command, name: &str, found: &mut Vec<String>) {
    found.push(name.to_owned());
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        commands(subcommand, format!("{name} {}", subcommand.get_name()).trim(), found);
    }
}

#[test]
fn the_help_of_each_command_shows_examples() {
    let mut names = Vec::new();
    commands(&Cli::command(), "", &mut names);
    for example in EXAMPLES {
        assert!(names.iter().any(|name| name == example.command), "there is no command {}", example.command);
    }
    for name in &names {
        let args: Vec<&str> = name.split_whitespace().chain(["--help"]).collect();
        let (code, help, _) = run(&args, &[("COLUMNS", "80")]);
        assert_eq!(code, Some(0));
        assert!(examples::of(name).next().is_some(), "the command {name:?} has no example");
        for Example { what, line, .. } in examples::of(name) {
            assert!(help.contains(&format!("  {what}:\n")), "{name}: {help}");
            for line in line.lines() {
                assert!(line.len() <= WIDTH && help.contains(&format!("\n    {line}\n")), "{name}: {line} in {help}");
            }
        }
    }
}

#[test]
fn the_command_line_of_each_example_is_accepted() {
    let place = Place::new();
    let program = place.path().join("bin/cognito-authz");
    std::fs::write(&program, RECORDER).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    for Example { command, line, .. } in EXAMPLES {
        let recorded = place.path().join("arguments");
        drop(std::fs::remove_file(&recorded));
        place.command("", line).output().unwrap();
        let recorded = std::fs::read_to_string(&recorded).unwrap_or_else(|error| panic!("{line}: {error}"));
        let args: Vec<&str> = recorded.split_terminator('\0').collect();
        assert!(args.join(" ").starts_with(command), "{line}: an example of {command}");
        if let Err(error) = Cli::try_parse_from(["cognito-authz"].iter().chain(&args)) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn each_example_runs() {
    let place = Place::new();
    let file = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let program = place.path().join("bin/cognito-authz");
    let instance = Program::start(&["--jwks-file", &file("keys.json"), "--admin-token-file", &file("admin-token.txt")]);
    // The instance of this test has a free port, not the default one.
    let real = env!("CARGO_BIN_EXE_cognito-authz");
    let wrapper = format!(
        "#!/bin/sh\ncase \"$1\" in\n\
         healthcheck|revoke|revocations|log-level) exec {real} \"$@\" --admin http://{} ;;\n\
         *) exec {real} \"$@\" ;;\nesac\n",
        instance.admin
    );
    std::fs::write(&program, wrapper).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut id = String::new();
    let (mut runs, mut skipped) = (0, 0);
    for Example { command, line, .. } in EXAMPLES {
        if NOT_RUN.iter().any(|(text, _)| line.contains(text)) {
            skipped += 1;
            continue;
        }
        runs += 1;
        if matches!(*command, "" | "serve") {
            let mut service = Program::listening(place.command("exec ", line));
            service.signal("TERM");
            assert!(service.wait().success(), "{line}: {:#?}", service.log);
            continue;
        }
        if command.starts_with("revocations") {
            // The last example may have lifted it.
            let revoke = format!("cognito-authz revoke --sub {SUB} --json --admin-token-file admin-token.txt");
            let revoked = place.command("", &revoke).output().unwrap();
            let revoked: serde_json::Value = serde_json::from_slice(&revoked.stdout).unwrap();
            revoked["id"].as_str().unwrap().clone_into(&mut id);
        }
        let line = line.replace(REVOCATION, &id);
        let output = place.command("", &line).output().unwrap();
        assert!(output.status.success(), "{line}: {}", shown(&output));
    }
    assert_eq!((skipped, runs + skipped), (3, EXAMPLES.len()));
    for installed in [".local/share/man/man1/cognito-authz.1", ".zfunc/_cognito-authz", "policy.schema.json"] {
        assert!(std::fs::metadata(place.path().join(installed)).unwrap().len() > 1000, "{installed}");
    }
}
