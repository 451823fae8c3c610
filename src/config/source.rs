//! Sources of option values: command line, environment, `.env`, default.
//!
//! clap reads the command line only. [`Layers`] adds the other sources below it as defaults, so that one parser checks
//! every value. [`Sources`] knows the source of each value, for error messages.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;

use clap::builder::OsStr;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command};
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use super::dot_env::{self, Line};
use super::error::ConfigError;
use super::options::{option_ids, variable};
use super::unread::{Other, Unread, suspicious};
use crate::files::{self, MAX_TEXT_BYTES, ReadError};

/// Source of an option's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Command line.
    Flag,
    /// Environment variable of this name.
    Environment(String),
    /// Variable in `.env`, and its line number.
    DotEnv(String, usize),
    /// No source sets it.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("the flag"),
            Self::Environment(name) => write!(f, "the environment variable {name}"),
            Self::DotEnv(name, line) => write!(f, "{name}, line {line} of .env"),
            Self::Default => f.write_str("the default"),
        }
    }
}

/// Sources below the command line. There is no `Debug`, because a value can be a secret.
#[derive(Default)]
pub(super) struct Layers {
    environment: HashMap<String, String>,
    dot_env: HashMap<String, (String, usize)>,
    /// `true` if the directory has a file `.env`.
    has_dot_env: bool,
    /// Variables that were not wanted, without their values.
    others: Vec<Other>,
}

impl Layers {
    /// Reads the variables `wanted` from `environment`, and from `.env` in `directory` if that file exists.
    ///
    /// # Errors
    /// A variable is not UTF-8, `.env` cannot be read, or a line of it that sets one of `wanted` is malformed.
    pub(super) fn read(
        environment: impl Iterator<Item = (OsString, OsString)>,
        directory: &Path,
        wanted: &[String],
    ) -> Result<Self, ConfigError> {
        let mut layers = Self::default();
        for (name, value) in environment {
            let Some(name) = name.to_str() else { continue };
            if !wanted.iter().any(|wanted| wanted == name) {
                let is_link = value.as_encoded_bytes().starts_with(b"tcp://");
                layers.others.push(Other { name: name.to_owned(), line: None, is_link });
                continue;
            }
            let value = value.into_string().map_err(|_| {
                ConfigError::new(format!("{name} is not valid UTF-8 (from the environment variable {name})"))
            })?;
            layers.environment.insert(name.to_owned(), value);
        }
        match files::read(&directory.join(".env"), MAX_TEXT_BYTES) {
            Ok(content) => layers.read_dot_env(&content, wanted)?,
            Err(ReadError::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(ConfigError::new(format!(".env {error}"))),
        }
        Ok(layers)
    }

    /// Reads the lines of `.env` that set one of `wanted`; the last one takes effect.
    fn read_dot_env(&mut self, content: &[u8], wanted: &[String]) -> Result<(), ConfigError> {
        self.has_dot_env = true;
        for (line, content) in dot_env::lines(content)?.enumerate().map(|(index, line)| (index + 1, line)) {
            match dot_env::read(&content, wanted) {
                None => {}
                Some(Line::Setting(name, value)) => {
                    self.dot_env.insert(name, (value, line));
                }
                Some(Line::Other(name)) => self.others.push(Other { name, line: Some(line), is_link: false }),
                Some(Line::Malformed(name, rule)) => {
                    let why = format!("line {line} of .env, which sets {name}, is malformed: {rule}");
                    return Err(ConfigError::new(why));
                }
            }
        }
        Ok(())
    }

    /// Returns the variables that look like settings and are not among the `known` ones.
    pub(super) fn unread(&self, known: &[String]) -> Vec<Unread> {
        suspicious(&self.others, known)
    }

    /// Returns the value of a variable, and its source. An empty value counts as unset, because that is what a template
    /// writes for a setting without a value.
    fn value(&self, variable: &str) -> Option<(&str, Source)> {
        let environment = self.environment.get(variable).filter(|value| !value.is_empty());
        if let Some(value) = environment {
            return Some((value, Source::Environment(variable.to_owned())));
        }
        let (value, line) = self.dot_env.get(variable).filter(|(value, _)| !value.is_empty())?;
        Some((value, Source::DotEnv(variable.to_owned(), *line)))
    }

    /// Removes the value of a variable. Returns `false` if it has none.
    pub(super) fn forget(&mut self, variable: &str) -> bool {
        let in_environment = self.environment.remove(variable).is_some();
        in_environment || self.dot_env.remove(variable).is_some()
    }

    /// Returns the value of a variable that is a secret. It has no flag, because every user of the machine can read
    /// command lines.
    fn secret(&self, variable: &str) -> Option<(SecretString, Source)> {
        self.value(variable).map(|(value, source)| (value.into(), source))
    }

    /// Makes these values the defaults of `command` and its subcommands, and names the variables in the help. Only the
    /// options of `serve` have variables; other commands may have them, too. An option that only another command has is
    /// set by its flag.
    pub(super) fn under(&self, command: Command) -> Command {
        self.under_options(command, &option_ids())
    }

    fn under_options(&self, command: Command, with_variable: &[String]) -> Command {
        command
            .mut_args(|arg| {
                let id = arg.get_id().as_str();
                if !with_variable.iter().any(|other| other == id) {
                    return arg;
                }
                let variable = variable(id);
                let help = format!("{} [env: {variable}]", arg.get_help().cloned().unwrap_or_default());
                let is_list = matches!(arg.get_action(), ArgAction::Append);
                let arg = arg.help(help);
                match self.value(&variable) {
                    None => arg,
                    Some((value, _)) if is_list => arg.default_values(
                        value
                            .split(',')
                            .map(str::trim)
                            .filter(|item| !item.is_empty())
                            .map(|item| OsStr::from(item.to_owned()))
                            .collect::<Vec<_>>(),
                    ),
                    Some((value, _)) => arg.default_value(OsStr::from(value.to_owned())),
                }
            })
            .mut_subcommands(|subcommand| self.under_options(subcommand, with_variable))
    }

    /// Returns the source of the option `id` if no flag sets it.
    pub(super) fn below_flags(&self, id: &str) -> Source {
        self.value(&variable(id)).map_or(Source::Default, |(_, source)| source)
    }
}

/// Sources of the values of one command line.
#[derive(Clone, Copy)]
pub(super) struct Sources<'a> {
    matches: &'a ArgMatches,
    layers: &'a Layers,
}

impl<'a> Sources<'a> {
    pub(super) fn new(matches: &'a ArgMatches, layers: &'a Layers) -> Self {
        Self { matches, layers }
    }

    /// Returns the source of the option `id`.
    pub(super) fn of(&self, id: &str) -> Source {
        match self.matches.value_source(id) {
            Some(ValueSource::CommandLine) => Source::Flag,
            _ => self.layers.below_flags(id),
        }
    }

    /// `true` if the working directory has a file `.env`.
    pub(super) fn has_dot_env(&self) -> bool {
        self.layers.has_dot_env
    }

    /// `true` if the option `id` has a value other than its default.
    pub(super) fn is_set(&self, id: &str) -> bool {
        self.of(id) != Source::Default
    }

    /// Returns the value of a secret variable, and its source.
    pub(super) fn secret(&self, variable: &str) -> Option<(SecretString, Source)> {
        self.layers.secret(variable)
    }

    /// Returns the value of a variable without an option, and its source.
    pub(super) fn variable(&self, variable: &str) -> Option<(&'a str, Source)> {
        self.layers.value(variable)
    }

    /// Returns the error for the option `id`. It names the flag, and the source of the value if it is set.
    pub(super) fn error(&self, id: &str, why: impl fmt::Display) -> ConfigError {
        let source = match self.of(id) {
            Source::Default => String::new(),
            source => format!(" (from {source})"),
        };
        ConfigError::new(format!("{}: {why}{source}", flag(id)))
    }

    /// Returns every option with its value and its source, for `/config`. The variable `secret` is listed without its
    /// value; no option contains a secret.
    pub(super) fn effective(&self, secret: &str) -> Value {
        let mut options = Map::new();
        for id in option_ids() {
            let raw = self.matches.get_raw(&id).into_iter().flatten();
            let values: Vec<Value> = raw.map(|value| value.to_string_lossy().into_owned().into()).collect();
            let value = match <[Value; 1]>::try_from(values) {
                Ok([value]) => value,
                Err(values) if values.is_empty() => Value::Null,
                Err(values) => values.into(),
            };
            options.insert(id.replace('_', "-"), json!({"value": value, "source": self.of(&id).to_string()}));
        }
        if let Some((_, source)) = self.secret(secret) {
            options.insert("client-secret".into(), json!({"value": "[redacted]", "source": source.to_string()}));
        }
        Value::Object(options)
    }
}

/// Returns the error for the option `id`, which is required and unset. `what` is a noun: "the id of the user pool".
pub(super) fn missing(id: &str, what: &str) -> ConfigError {
    let variable = variable(id);
    ConfigError::new(format!("{}: {what} is required (no flag, no {variable} in the environment or .env)", flag(id)))
}

/// Returns the flag of the option `id`.
pub(super) fn flag(id: &str) -> String {
    format!("--{}", id.replace('_', "-"))
}
