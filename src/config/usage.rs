//! Errors of the command line parser, as one sentence with the source of the value.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::error::ConfigError;
use super::source::{Layers, Source};

/// Translates an error that clap reports for `args`.
pub(super) fn usage_error(error: &clap::Error, args: &[OsString], layers: &Layers) -> ConfigError {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    let argument = context(ContextKind::InvalidArg).unwrap_or_default();
    let flag = argument.split([' ', '[', '=']).next().unwrap_or_default();
    let value = context(ContextKind::InvalidValue).unwrap_or_default();
    let why = match error.kind() {
        ErrorKind::UnknownArgument => {
            return ConfigError::new(format!("{flag} is not an option (from the command line)"));
        }
        ErrorKind::InvalidSubcommand => {
            let name = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            return ConfigError::new(format!("{name:?} is not a command (from the command line)"));
        }
        ErrorKind::InvalidValue if value.is_empty() => "a value is missing".to_owned(),
        ErrorKind::InvalidValue => {
            format!("not one of {}: {value:?}", context(ContextKind::ValidValue).unwrap_or_default())
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
