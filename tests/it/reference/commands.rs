//! `commands.md`: every command with its options, from the definitions of clap, and the exit codes.

use std::collections::BTreeSet;

use clap::{Arg, Command, CommandFactory};
use cognito_authz::config::options::Cli;

use super::options::{default, meaning, of_serve};
use super::{code, page, plain, source, table};

const ABOUT: &str = "\
Every command of `cognito-authz`, with its options and exit codes. `cognito-authz COMMAND --help`
shows the same for the version that you run.";

const CODES: &str = "\
## Exit codes

| code | meaning |
|---|---|
| 0 | Success. `explain`: the request may pass. `test-policy`: all decisions are as expected |
| 64 | Invalid usage or configuration. One sentence on standard error names the option and where its value is set |
| 69 | An address cannot be listened on |
| 1 | Any other failure, and the opposite results of `explain` and `test-policy`. `doctor`: a finding is an error. `revoke`, `revocations` and `log-level` say in one sentence what the instance refused |
";

const INSTANCE: &str = "\
## Options about a running instance

`healthcheck`, `revoke`, `revocations` and `log-level` call the admin port of an instance. The
variable `COGNITO_AUTHZ_ADMIN_TOKEN_FILE` also sets `--admin-token-file`; the other options have no
variable.
";

/// Codes that `src/main.rs` defines.
const OF_MAIN: [&str; 2] = ["const USAGE: u8 = 64;", "const UNAVAILABLE: u8 = 69;"];

/// What the help of a command does not say, with links.
const MORE: &[(&str, &str)] = &[
    ("serve", "The [options](options.md) are on a page of their own."),
    ("explain", "[Explaining a decision](../policy-testing.md#explaining-a-decision) shows examples and their output."),
    ("doctor", "[Doctor](../doctor.md) lists the findings."),
    ("test-policy", "[Testing a policy in CI](../policy-testing.md#testing-a-policy-in-ci) describes the file."),
    ("config-schema", "The page about the [policy file](policy-file.md) is made from the schema."),
    ("healthcheck", "It can ask [over TLS](../operations-tls.md#tls), as `revoke`, `revocations` and `log-level` can."),
    (
        "revoke",
        "[Revoking tokens as an operator](../operations-admin.md#revoking-tokens-as-an-operator) shows examples.",
    ),
    (
        "revocations",
        "Without an action, it lists. [Revoking tokens as an operator](../operations-admin.md#revoking-tokens-as-an-operator) shows examples.",
    ),
    ("log-level", "[Changing the log level](../operations-admin.md#changing-the-log-level) shows examples."),
];

/// Arguments and options of a command, without those of `serve` and the help.
fn of<'c>(command: &'c Command, serve: &BTreeSet<String>) -> Vec<&'c Arg> {
    let is_own = |arg: &&Arg| !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str());
    // An option with a heading is one of the configuration.
    let is_of_serve = |arg: &Arg| arg.get_help_heading().is_some() && serve.contains(arg.get_id().as_str());
    command.get_arguments().filter(is_own).filter(|arg| !is_of_serve(arg)).collect()
}

fn row(arg: &Arg) -> [String; 3] {
    let value = arg.get_value_names().unwrap_or_default().first().map(ToString::to_string).unwrap_or_default();
    let name = match arg.get_long() {
        Some(long) if arg.get_action().takes_values() => format!("--{long} {value}"),
        Some(long) => format!("--{long}"),
        None => value,
    };
    let (meaning, described) = meaning(arg);
    let default = if arg.get_action().takes_values() { default(arg, described) } else { "–".into() };
    [code(&name), default, meaning]
}

fn rows(args: &[&Arg]) -> String {
    table(["option", "default", "meaning"], args.iter().map(|arg| row(arg)))
}

/// Section of a command, and those of its actions. `instance` are the options that name a running instance.
fn section(command: &Command, name: &str, serve: &BTreeSet<String>, instance: &[&str]) -> String {
    let level = if name.contains(' ') { "###" } else { "##" };
    let about = command.get_about().map(|about| plain(&about.to_string())).unwrap_or_default();
    let mut out = format!("{level} {name}\n\n{}.", about.trim_end_matches('.'));
    if let Some((_, more)) = MORE.iter().find(|(known, _)| *known == name) {
        out.extend([" ", *more]);
    }
    let takes_configuration = command.get_arguments().any(|arg| arg.get_id() == "user_pool_id");
    let (shared, own): (Vec<&Arg>, Vec<&Arg>) =
        of(command, serve).into_iter().partition(|arg| instance.contains(&arg.get_id().as_str()));
    let actions = || command.get_subcommands().filter(|action| action.get_name() != "help");
    if takes_configuration && name != "serve" {
        out.push_str(" It reads the same configuration as `serve`, and takes its [options](options.md).");
    }
    if !shared.is_empty() && actions().next().is_none() {
        out.push_str(" The [options about a running instance](#options-about-a-running-instance) name the instance.");
    }
    out.push_str("\n\n");
    if !own.is_empty() && actions().next().is_none() {
        out.push_str(&rows(&own));
        out.push('\n');
    }
    if let Some(examples) = command.get_after_long_help().or(command.get_after_help()) {
        out.extend(["```text\n", examples.to_string().trim(), "\n```\n\n"]);
    }
    for action in actions() {
        out.push_str(&section(action, &format!("{name} {}", action.get_name()), serve, instance));
    }
    out
}

#[test]
fn commands() {
    let main = source("main.rs");
    assert!(OF_MAIN.iter().all(|line| main.contains(line)), "the exit codes in src/main.rs are other ones: {CODES}");
    assert_eq!(main.matches(": u8 = ").count(), OF_MAIN.len(), "the page lacks an exit code of src/main.rs");
    let command = Cli::command();
    let serve: BTreeSet<String> = of_serve(&command).map(|arg| arg.get_id().to_string()).collect();
    for (name, _) in MORE {
        assert!(command.find_subcommand(name).is_some(), "MORE has a text about {name}, which is no command");
    }
    let visible = || command.get_subcommands().filter(|inner| !inner.is_hide_set());
    let listed = visible().map(|inner| {
        let (name, about) = (inner.get_name(), inner.get_about().map(ToString::to_string).unwrap_or_default());
        [format!("[`{name}`](#{name})"), plain(about.trim_end_matches('.'))]
    });
    let overview = table(["command", "what it does"], listed);
    // `healthcheck` has these options and no others.
    let instance = of(command.find_subcommand("healthcheck").unwrap(), &serve);
    let ids: Vec<&str> = instance.iter().map(|arg| arg.get_id().as_str()).collect();
    let sections: String = visible().map(|inner| section(inner, inner.get_name(), &serve, &ids)).collect();
    let instance = rows(&instance);
    page("commands.md", "Commands", ABOUT, &format!("{overview}\n{CODES}\n{sections}{INSTANCE}\n{instance}"));
}
