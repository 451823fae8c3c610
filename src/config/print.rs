//! Texts about the program itself: help, completion scripts and the manual page. They have no value of this machine:
//! [`command_line`] names the variables of options, and has no value of them.

use std::io::{self, Write};

use clap::{Arg, Command, CommandFactory};
use clap_complete::shells;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::options::examples::{self, Example};
use super::options::{Cli, SOURCES, STATUS, Shell};
use super::source::Layers;

/// Name of the program.
const NAME: &str = "cognito-authz";
/// Name for which clap writes the script of bash. With a hyphen in the name of the program, the script of `clap_complete`
/// 4.6 completes nothing after a command.
const BASH_NAME: &str = "cognito_authz";
/// Commands that print a text and need no configuration.
pub(super) const TEXTS: [&str; 3] = ["config-schema", "completions", "man"];
/// Variables without an option, and their meaning.
const VARIABLES: [(&str, &str); 3] = [
    (
        "COGNITO_CLIENT_SECRET",
        "Secret of the app client of the account API. The file of --client-secret-file takes precedence.",
    ),
    (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "Collector of OpenTelemetry. Traces are exported only if it is set. Other standard variables are read, too.",
    ),
    ("COGNITO_USER_POOL_ID, COGNITO_CLIENT_ID, AWS_REGION", "Settings that are enough to start."),
];

/// Returns the command line with the names of variables in its help.
pub(super) fn command_line() -> Command {
    Layers::default().under(Cli::command())
}

/// Returns the completion script for a shell.
pub(super) fn completions(shell: Shell) -> String {
    let mut command = command_line();
    let mut script = Vec::new();
    match shell {
        Shell::Bash => clap_complete::generate(shells::Bash, &mut command, BASH_NAME, &mut script),
        Shell::Zsh => clap_complete::generate(shells::Zsh, &mut command, NAME, &mut script),
        Shell::Fish => clap_complete::generate(shells::Fish, &mut command, NAME, &mut script),
    }
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => script.replace(&format!(" {BASH_NAME}\n"), &format!(" {NAME}\n")),
        Shell::Zsh => script,
        Shell::Fish => script + &fish_values(&command),
    }
}

/// Returns the lines that offer the values of arguments without a flag, which clap's script for fish lacks.
fn fish_values(command: &Command) -> String {
    let of_command = |subcommand: &Command| {
        let values = subcommand.get_positionals().flat_map(Arg::get_possible_values);
        let values: Vec<String> = values.map(|value| value.get_name().to_owned()).collect();
        let condition = format!("__fish_cognito_authz_using_subcommand {}", subcommand.get_name());
        let line = || format!("complete -c {NAME} -n \"{condition}\" -f -a \"{}\"\n", values.join(" "));
        if values.is_empty() { String::new() } else { line() }
    };
    command.get_subcommands().map(of_command).collect()
}

/// Returns the manual page of the program with all its commands, in roff.
pub(super) fn manual() -> String {
    // Writing to memory does not fail.
    let page = manual_page().unwrap_or_default();
    let page = String::from_utf8_lossy(&page);
    // Each section begins with the same definitions. One at the start is enough.
    let (preamble, rest) = page.split_at(page.find(".TH ").unwrap_or_default());
    if preamble.is_empty() { rest.to_owned() } else { format!("{preamble}{}", rest.replace(preamble, "")) }
}

fn manual_page() -> io::Result<Vec<u8>> {
    let usage = format!("{NAME} [serve] [OPTIONS]\n{NAME} COMMAND [OPTIONS]");
    let mut command = command_line().disable_help_subcommand(true).override_usage(usage);
    command.build();
    // No date, so that two builds of a version are equal. An empty one would move the fields after it.
    let man = Man::new(command.clone()).title(NAME.to_uppercase()).date(" ").manual("User Commands");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    // No hyphens in names of variables.
    Roff::new().control("nh", []).to_writer(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    heading("DESCRIPTION", &mut page)?;
    paragraphs(&[DESCRIPTION, SOURCES], &mut page)?;
    heading("COMMANDS", &mut page)?;
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        describe(subcommand, subcommand.get_name(), &command, &mut page)?;
    }
    man.render_options_section(&mut page)?;
    heading("ENVIRONMENT", &mut page)?;
    paragraphs(&["The text of each option ends with the name of its variable. Further variables:"], &mut page)?;
    terms(&VARIABLES, &mut page)?;
    heading("FILES", &mut page)?;
    terms(&[(".env", "Variables, one NAME=value in each line. It is read from the working directory.")], &mut page)?;
    heading("EXIT STATUS", &mut page)?;
    paragraphs(&[STATUS, COMMAND_STATUS], &mut page)?;
    heading("EXAMPLES", &mut page)?;
    examples_of("", &mut page)?;
    man.render_version_section(&mut page)?;
    Ok(page)
}

const DESCRIPTION: &str = "cognito-authz decides for Envoy, and for other proxies, whether a request may pass: it verifies \
     the request's token from a user pool of Amazon Cognito, and applies a policy. Its account API signs users up, in and \
     out. Without a command, it serves.";

const COMMAND_STATUS: &str =
    "Commands that answer a question, such as explain, doctor and test-policy, end with 0 for yes and 1 for no.";

/// Describes a command: its own options, and its examples.
fn describe(command: &Command, path: &str, root: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let positionals = command.get_positionals().filter_map(|arg| {
        let name = arg.get_value_names()?.first()?;
        Some(if arg.is_required_set() { format!(" {name}") } else { format!(" [{name}]") })
    });
    let title = format!("{NAME} {path}{}", positionals.collect::<String>());
    let has_those_of_serve = command.get_arguments().any(|arg| arg.get_id() == "user_pool_id");
    let is_own = |arg: &&Arg| {
        let is_of_root = root.get_arguments().any(|other| other.get_id() == arg.get_id());
        let is_common = ["help", "version"].iter().any(|id| arg.get_id() == id);
        !(is_common || has_those_of_serve && is_of_root)
    };
    let own: Vec<Arg> = command.get_arguments().filter(is_own).map(|arg| arg.clone().help_heading(None)).collect();
    let also = match has_those_of_serve {
        true if own.is_empty() => " The options are below, by topic.",
        true => " The options of serve, which are below, are accepted, too.",
        false => "",
    };
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut roff = Roff::new();
    roff.control("SS", [title.as_str()]).text([roman(format!("{}.{also}", about.trim_end_matches('.')))]);
    roff.to_writer(page)?;
    if !own.is_empty() {
        let mut section = Vec::new();
        Man::new(Command::new(NAME).disable_help_flag(true).args(own)).render_options_section(&mut section)?;
        let section = String::from_utf8_lossy(&section).replace(".SH OPTIONS\n", "");
        page.write_all(section.as_bytes())?;
    }
    examples_of(path, page)?;
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        describe(subcommand, &format!("{path} {}", subcommand.get_name()), root, page)?;
    }
    Ok(())
}

fn heading(text: &str, page: &mut Vec<u8>) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", [text]);
    roff.to_writer(page)
}

fn paragraphs(texts: &[&str], page: &mut Vec<u8>) -> io::Result<()> {
    let mut roff = Roff::new();
    for (index, text) in texts.iter().enumerate() {
        if index > 0 {
            roff.control("PP", []);
        }
        roff.text([roman(*text)]);
    }
    roff.to_writer(page)
}

/// Writes terms and their meanings.
fn terms(terms: &[(&str, &str)], page: &mut Vec<u8>) -> io::Result<()> {
    let mut roff = Roff::new();
    for (term, meaning) in terms {
        roff.control("TP", []).text([bold(*term)]).text([roman(*meaning)]);
    }
    roff.to_writer(page)
}

/// Writes the examples of a command, whose lines stay as they are.
fn examples_of(path: &str, page: &mut Vec<u8>) -> io::Result<()> {
    let mut roff = Roff::new();
    for (index, Example { what, line, .. }) in examples::of(path).enumerate() {
        // The heading of the program's examples begins a paragraph itself.
        if index > 0 || !path.is_empty() {
            roff.control("PP", []);
        }
        roff.text([roman(format!("{what}:"))]).control("PP", []).control("RS", ["4"]).control("nf", []);
        for line in line.lines() {
            roff.text([bold(line)]);
        }
        roff.control("fi", []).control("RE", []);
    }
    roff.to_writer(page)
}
