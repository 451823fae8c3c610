//! Where values come from: the command line, the environment, `.env`, or the default.
//!
//! clap reads the command line only; the other layers are put under it here as defaults, so that one parser checks
//! all of them and every error can say where the value stands.

use std::collections::HashMap;
use std::path::Path;

use clap::builder::OsStr;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Command};
use secrecy::SecretString;

use super::ConfigError;
use super::options::variable;
use crate::files::{self, MAX_TEXT_BYTES, ReadError};

/// Where the value of an option stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// On the command line.
    Flag,
    /// In this environment variable.
    Environment(String),
    /// In `.env`: the variable and its line.
    DotEnv(String, usize),
    /// Nowhere.
    Default,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag => f.write_str("the flag"),
            Self::Environment(name) => write!(f, "the environment variable {name}"),
            Self::DotEnv(name, line) => write!(f, "{name}, line {line} of .env"),
            Self::Default => f.write_str("the default"),
        }
    }
}

/// The layers below the command line. They have no `Debug`: a secret may be among the values.
#[derive(Default)]
pub struct Layers {
    environment: HashMap<String, String>,
    dot_env: HashMap<String, (String, usize)>,
}

impl Layers {
    /// Reads `.env` in `directory`, if there is one, under these environment variables.
    ///
    /// # Errors
    /// When the file is there and cannot be read, or a line that sets one of `wanted` cannot be understood.
    pub fn read(
        environment: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
        directory: &Path,
        wanted: &[String],
    ) -> Result<Self, ConfigError> {
        let mut layers = Self::default();
        for (name, value) in environment {
            let Some(name) = name.to_str().filter(|name| wanted.iter().any(|wanted| wanted == name)) else { continue };
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

    /// Other programs have their settings in the same file, and in dialects of their own: only lines that set
    /// one of `wanted` are looked at. The last one wins.
    fn read_dot_env(&mut self, content: &[u8], wanted: &[String]) -> Result<(), ConfigError> {
        let text = String::from_utf8_lossy(content);
        for (index, line) in text.lines().enumerate() {
            let assignment = line.trim_start();
            let assignment = assignment.strip_prefix("export ").map_or(assignment, str::trim_start);
            let Some(name) =
                assignment.split(['=', ' ', '\t']).next().filter(|name| wanted.iter().any(|wanted| wanted == name))
            else {
                continue;
            };
            let bad =
                || ConfigError::new(format!("line {} of .env, which sets {name}, cannot be understood", index + 1));
            let mut parsed = dotenvy::from_read_iter(assignment.as_bytes());
            let (parsed_name, value) = parsed.next().ok_or_else(bad)?.map_err(|_| bad())?;
            if parsed_name != name || value.contains(char::REPLACEMENT_CHARACTER) {
                return Err(bad());
            }
            self.dot_env.insert(parsed_name, (value, index + 1));
        }
        Ok(())
    }

    /// The value of a variable and where it stands. An empty value counts as none: it is how a template leaves a
    /// setting out.
    fn value(&self, variable: &str) -> Option<(&str, Source)> {
        let environment = self.environment.get(variable).filter(|value| !value.is_empty());
        if let Some(value) = environment {
            return Some((value, Source::Environment(variable.to_owned())));
        }
        let (value, line) = self.dot_env.get(variable).filter(|(value, _)| !value.is_empty())?;
        Some((value, Source::DotEnv(variable.to_owned(), *line)))
    }

    /// The value of a variable that has no flag, because it is a secret: the command line is for everybody to see.
    pub fn secret(&self, variable: &str) -> Option<(SecretString, Source)> {
        self.value(variable).map(|(value, source)| (value.into(), source))
    }

    /// Puts these layers under the command line of `command` and its subcommands, and names the variables in the help.
    pub fn under(&self, command: Command) -> Command {
        command
            .mut_args(|arg| {
                let id = arg.get_id().as_str();
                if arg.get_long().is_none() || ["help", "version", "admin"].contains(&id) {
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
            .mut_subcommands(|subcommand| self.under(subcommand))
    }

    /// Where the value of the option `id` stands.
    pub fn source(&self, matches: &ArgMatches, id: &str) -> Source {
        match matches.value_source(id) {
            Some(ValueSource::CommandLine) => Source::Flag,
            _ => self.below_flags(id),
        }
    }

    /// Where the value of the option `id` stands if no flag sets it.
    pub fn below_flags(&self, id: &str) -> Source {
        self.value(&variable(id)).map_or(Source::Default, |(_, source)| source)
    }
}
