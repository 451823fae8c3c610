//! Options of traces. The collector is named by the standard variables `OTEL_…`.

use clap::Args;

/// Options of traces.
#[derive(Args, Debug)]
pub struct TraceOptions {
    /// Share of the checks and account requests to trace beside those that the caller samples, from 0 to 1. Traces are on only with `OTEL_EXPORTER_OTLP_ENDPOINT`
    #[arg(long, value_name = "SHARE", help_heading = "Traces", default_value = "0", value_parser = share)]
    pub trace_ratio: f64,
    /// Also trace requests whose own header `traceparent` asks for it. Only if a proxy overwrites what clients send
    #[arg(long, value_name = "BOOL", help_heading = "Traces", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true")]
    pub trace_trust_headers: bool,
    /// `true` for commands that export nothing: the variables `OTEL_…` are not read.
    #[arg(skip)]
    pub is_unused: bool,
}

/// Parses a share from 0 to 1.
pub(in crate::config) fn share(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or("not a number from 0 to 1")
}
