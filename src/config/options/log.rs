//! Options of the log, and of the command `log-level`.

use std::time::Duration;

use clap::Args;

use super::operator::OperatorOptions;
use crate::config::parse::duration_between;
use crate::logging::{LONGEST_TIME, LogFormat, LogLevel, SHORTEST_TIME};

/// Options of the log.
#[derive(Args, Debug)]
pub struct LogOptions {
    /// Format of the log [default: text on a terminal, else json]
    #[arg(long, value_name = "FORMAT", help_heading = "Operations")]
    pub log_format: Option<LogFormat>,
    /// Least severe level that is logged
    #[arg(long, value_name = "LEVEL", help_heading = "Operations", default_value = "info")]
    pub log_level: LogLevel,
    /// Maximum number of lines per second and level about checks, and of those about account requests, sign-outs and connections. The log says once a second how many were left out
    #[arg(long, value_name = "COUNT", help_heading = "Operations", default_value = "100", value_parser = clap::value_parser!(u32).range(1..))]
    pub log_lines_per_second: u32,
    /// Share of the allowed checks that are logged at the level debug, 0 to 1
    #[arg(long, value_name = "RATIO", help_heading = "Operations", default_value = "1", value_parser = ratio)]
    pub log_allowed_ratio: f64,
}

/// Options of `log-level`.
#[derive(Args, Clone, Debug)]
pub struct LogLevelOptions {
    /// Level for a while [default: show the one in effect]
    #[arg(value_name = "LEVEL")]
    pub level: Option<LogLevel>,
    /// Time after which the configured level returns, 1s to 1h [default: 10m]
    #[arg(long = "for", value_name = "DURATION", value_parser = time, requires = "level")]
    pub time: Option<Duration>,
    /// Return to the configured level at once
    #[arg(long, conflicts_with = "level")]
    pub reset: bool,
    /// The instance and its token
    #[command(flatten)]
    pub operator: OperatorOptions,
}

fn ratio(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio)).ok_or("not a number from 0 to 1")
}

fn time(text: &str) -> Result<Duration, String> {
    duration_between(text, SHORTEST_TIME, LONGEST_TIME)
}
