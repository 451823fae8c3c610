//! Errors of the command line and of variables. clap stops at the first value that it cannot parse; [`matches`] removes that
//! value and goes on, so that one run reports all of them.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command};

use super::error::Errors;
use super::options::variable;
use super::source::{Layers, usage_error};

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
