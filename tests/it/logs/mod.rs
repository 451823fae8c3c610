//! The log of the program.
//!
//! - [`flood`]: what clients cause at a high rate, and what is said about the rest.
//! - [`level`]: the level that an operator changes for a while.
//! - [`secrets`]: whole scenarios at the lowest level leave no token, secret, code, password or address in the log.

mod flood;
mod level;
mod secrets;

use serde_json::Value;

use crate::support::service::Program;

/// Message of a line.
const LEFT_OUT: &str = "log lines were left out";

/// Lines with this message that were read so far.
fn lines(program: &Program, message: &str) -> Vec<Value> {
    let lines = program.log.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["fields"]["message"] == message).collect()
}

/// Sum of a field of the lines about what was left out.
fn left_out(program: &Program, field: &str) -> u64 {
    lines(program, LEFT_OUT).iter().filter_map(|line| line["fields"][field].as_u64()).sum()
}
