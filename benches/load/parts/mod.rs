//! The parts of the benchmark, and the rows that several of them print.

pub(crate) mod direct;
pub(crate) mod memory;
pub(crate) mod others;
pub(crate) mod scale;
pub(crate) mod tail;
pub(crate) mod through_envoy;

use crate::generator::Report;
use crate::rounds::{Ratio, median};
use crate::table::count;

/// Columns of a comparison with the null server, after those that name the row.
const COMPARISON: [&str; 7] = [
    "requests/s: null server",
    "program",
    "ratio",
    "CPU µs per request: null server",
    "program",
    "ratio",
    "generator busy",
];

/// Cells of [`COMPARISON`].
fn comparison(null: &[Report], ours: &[Report]) -> [String; 7] {
    let (rate, cpu) = (|report: &Report| report.rate, |report: &Report| report.cpu[0]);
    let busy = median(null, |report| report.busy).max(median(ours, |report| report.busy));
    [
        count(median(null, rate)),
        count(median(ours, rate)),
        Ratio::of(ours, null, rate).to_string(),
        format!("{:.1}", median(null, cpu)),
        format!("{:.1}", median(ours, cpu)),
        Ratio::of(ours, null, cpu).to_string(),
        format!("{:.0} %", busy * 100.0),
    ]
}
