//! Interleaved rounds, and ratios of what was measured in the same round.

use std::fmt::{self, Display, Formatter};

use anyhow::Result;

use crate::generator::Report;

/// Measures each column once a round: forwards in the first round, backwards in the next, and so on. So neighbours in a
/// round are close in time, and a machine that becomes slower or faster affects all columns alike. Returns the reports of
/// each column.
pub(crate) fn interleaved<C>(
    rounds: usize,
    columns: &[C],
    mut measure: impl FnMut(&C) -> Result<Report>,
) -> Result<Vec<Vec<Report>>> {
    let mut reports = vec![Vec::new(); columns.len()];
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..columns.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for column in order {
            reports[column].push(measure(&columns[column])?);
        }
    }
    Ok(reports)
}

/// Ratio between two columns: the median of the rounds, and the smallest and largest.
pub(crate) struct Ratio {
    values: Vec<f64>,
}

impl Ratio {
    /// Divides `value` of one column by that of another, round by round.
    pub(crate) fn of(ours: &[Report], base: &[Report], value: impl Fn(&Report) -> f64) -> Self {
        Self { values: sorted(ours.iter().zip(base).map(|(ours, base)| value(ours) / value(base)).collect()) }
    }
}

impl Display for Ratio {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let (Some(least), Some(most)) = (self.values.first(), self.values.last()) else { return Ok(()) };
        write!(formatter, "**{:.2}** ({least:.2} to {most:.2})", middle(&self.values))
    }
}

/// Median of `value` in a column.
pub(crate) fn median(reports: &[Report], value: impl Fn(&Report) -> f64) -> f64 {
    middle(&sorted(reports.iter().map(value).collect()))
}

/// Median of the difference between two columns, round by round.
pub(crate) fn added(ours: &[Report], base: &[Report], value: impl Fn(&Report) -> f64) -> f64 {
    middle(&sorted(ours.iter().zip(base).map(|(ours, base)| value(ours) - value(base)).collect()))
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// Median of sorted values.
pub(crate) fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) { f64::midpoint(sorted[half - 1], sorted[half]) } else { sorted[half] }
}
