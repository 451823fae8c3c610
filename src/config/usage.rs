//! Errors of the command line and of variables, in sentences ([`usage_error`]). clap stops at the first value that it cannot
//! parse; [`matches`] removes that value and goes on, so that one run reports all of them.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command, CommandFactory};

use super::error::{ConfigError, Errors};
use super::options::{Cli, variable};
use super::source::{Layers, Source};
use crate::nearest::did_you_mean;

/// Most values that are removed.
const MAX_REMOVED: usize = 20;

/// Parses `args` and the layers below them. Values with an error are added to `errors`, and removed. `command` is the
/// command without the layers.
///
/// # Errors
/// The error of clap that cannot be removed, such as an unknown option or the wish for help.
pub(super) fn matches(
    command: impl Fn() -> Command,
    args: &[OsString],
    layers: &mut Layers,
    errors: &mut Errors,
) -> Result<ArgMatches, clap::Error> {
    let mut args = args.to_vec();
    for _ in 0..MAX_REMOVED {
        match layers.under(command()).try_get_matches_from(&args) {
            Ok(matches) => return Ok(matches),
            Err(error) => {
                let sentence = usage_error(&error, &args, layers);
                if !remove(&error, &mut args, layers) {
                    return Err(error);
                }
                errors.add(sentence);
            }
        }
    }
    layers.under(command()).try_get_matches_from(&args)
}

/// Removes the value of an error from the command line, or else from the layers below it. Returns `false` if the error is
/// not about a value.
fn remove(error: &clap::Error, args: &mut Vec<OsString>, layers: &mut Layers) -> bool {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) if !text.is_empty() => Some(text.clone()),
        _ => None,
    };
    if !matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) {
        return false;
    }
    let (Some(argument), Some(value)) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue)) else {
        return false;
    };
    let flag = argument.split([' ', '[', '=']).next().unwrap_or_default();
    let joined = format!("{flag}={value}");
    if let Some(place) = args.iter().position(|arg| *arg == *joined) {
        args.remove(place);
        return true;
    }
    if let Some(place) = args.windows(2).position(|pair| matches!(pair, [name, of] if *name == *flag && *of == *value))
    {
        args.drain(place..place + 2);
        return true;
    }
    layers.forget(&variable(&flag.trim_start_matches('-').replace('-', "_")))
}

/// Translates an error that clap reports for `args`.
pub(super) fn usage_error(error: &clap::Error, args: &[OsString], layers: &Layers) -> ConfigError {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => vec![text.clone()],
        Some(ContextValue::Strings(texts)) => texts.clone(),
        _ => Vec::new(),
    };
    let first = |kind| context(kind).into_iter().next().unwrap_or_default();
    let argument = context(ContextKind::InvalidArg).join(", ");
    let flag = argument.split([' ', '[', '=']).next().unwrap_or_default();
    let value = without_user(&first(ContextKind::InvalidValue));
    let why = match error.kind() {
        ErrorKind::UnknownArgument => {
            return ConfigError::new(format!("{} (from the command line)", unknown_option(flag, args)));
        }
        ErrorKind::MissingRequiredArgument => {
            return ConfigError::new(format!("{argument} is required (from the command line)"));
        }
        ErrorKind::InvalidSubcommand => {
            let name = first(ContextKind::InvalidSubcommand);
            let (command, _) = command_of(&name, args);
            let known = command.get_subcommands().filter(|known| !known.is_hide_set()).map(Command::get_name);
            let hint = did_you_mean(&name, known);
            return ConfigError::new(format!("{name:?} is not a command{hint} (from the command line)"));
        }
        ErrorKind::InvalidValue if value.is_empty() => "a value is missing".to_owned(),
        ErrorKind::InvalidValue => {
            let known = context(ContextKind::ValidValue);
            let hint = did_you_mean(&value, known.iter().map(String::as_str));
            format!("not one of {}: {value:?}{hint}", known.join(", "))
        }
        ErrorKind::ValueValidation => {
            let source = std::error::Error::source(error).map_or_else(|| "not valid".to_owned(), ToString::to_string);
            format!("{source}: {value:?}")
        }
        _ => {
            let text = error.render().to_string();
            let line = text.lines().next().unwrap_or_default();
            return ConfigError::new(format!("{} (from the command line)", line.trim_start_matches("error: ")));
        }
    };
    let id = flag.trim_start_matches('-').replace('-', "_");
    let is_flag = |arg: &OsString| {
        arg.to_str()
            .is_some_and(|arg| arg.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')))
    };
    let source = if args.iter().any(is_flag) { Source::Flag } else { layers.below_flags(&id) };
    ConfigError::new(format!("{flag}: {why} (from {source})"))
}

/// Describes an option that the command does not have. An option of other commands only is no typing error.
fn unknown_option(flag: &str, args: &[OsString]) -> String {
    let (command, name) = command_of(flag, args);
    let long = flag.trim_start_matches('-');
    let root = command_line();
    let owners: Vec<&str> =
        root.get_subcommands().filter(|other| longs(other).any(|other| other == long)).map(Command::get_name).collect();
    if !owners.is_empty() {
        return format!("{flag} is not an option of {name}; it is one of {}", owners.join(", "));
    }
    let hint = did_you_mean(long, longs(&command)).0.map(|known| format!("; did you mean --{known}?"));
    format!("{flag} is not an option{}", hint.unwrap_or_default())
}

fn longs(command: &Command) -> impl Iterator<Item = &str> {
    command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(clap::Arg::get_long)
}

/// Returns the whole command line, with `--help` and the command `help`.
fn command_line() -> Command {
    let mut command = Cli::command();
    command.build();
    command
}

/// Returns the command that the arguments before `end` select, and its name.
fn command_of(end: &str, args: &[OsString]) -> (Command, String) {
    let mut command = command_line();
    let mut name = "serve".to_owned();
    let before = args.iter().skip(1).take_while(|arg| arg.to_str().is_none_or(|arg| !arg.starts_with(end)));
    for arg in before.filter_map(|arg| arg.to_str()) {
        if let Some(subcommand) = command.find_subcommand(arg).cloned() {
            arg.clone_into(&mut name);
            command = subcommand;
        }
    }
    (command, name)
}

/// Replaces what may be the user and the password of a URL: everything before the last `@`, except for the scheme.
fn without_user(value: &str) -> String {
    let Some((user, host)) = value.rsplit_once('@') else { return value.to_owned() };
    let scheme = user.split_once("://").map_or_else(String::new, |(scheme, _)| format!("{scheme}://"));
    format!("{scheme}[redacted]@{host}")
}
