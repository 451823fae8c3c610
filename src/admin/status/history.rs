//! History of the counters ([`History`]): what they were every few seconds in the last five minutes, and every minute in
//! the last hour. Checks do not take part in it: it reads the counters that they change anyway.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{self, Instant};

use crate::authz::Denial;
use crate::metrics::Metrics;
use crate::metrics::readings::{Buckets, Readings};

/// Time between two samples of the last minutes, and the number of samples: one more than there are steps, and one for
/// the step that has not ended.
const FINE: (Duration, usize) = (Duration::from_secs(5), 62);
/// The same for the last hour.
const COARSE: (Duration, usize) = (Duration::from_secs(60), 62);
/// Lengths of the windows that are shown. The last one consists of coarse steps.
pub(super) const WINDOWS: [Duration; 3] =
    [Duration::from_secs(60), Duration::from_secs(300), Duration::from_secs(3600)];

/// Outcomes of a call that mean that Cognito is at fault, or the way to it. The alert `CognitoAuthzCognitoFails` has the
/// same list.
const COGNITO_FAILURES: [&str; 6] = ["broken", "circuit_open", "connect", "failed", "nonsense", "timeout"];

/// Counters since the start, summed over pools and policies.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Counts {
    /// Allowed checks, and refused ones by the position of the reason in [`Denial::ALL`].
    pub(super) allowed: u64,
    pub(super) refused: Vec<u64>,
    /// Allowed checks that a policy in shadow mode would have refused.
    pub(super) shadow: u64,
    /// Durations of checks.
    pub(super) durations: Buckets,
    pub(super) unknown_kids: u64,
    pub(super) fetches: u64,
    pub(super) failed_fetches: u64,
    pub(super) cognito_calls: u64,
    pub(super) failed_cognito_calls: u64,
    pub(super) throttled_cognito_calls: u64,
    /// Account requests that a rate limit refused.
    pub(super) rate_limited: u64,
    /// Revocations that could not be recorded.
    pub(super) lost_revocations: u64,
}

impl Counts {
    fn new(readings: &Readings) -> Self {
        let total = |name| count(readings.sum(name).unwrap_or_default());
        let checks = readings.by("cognito_authz_checks_total", ["reason"]);
        let of = |reason: &str| count(checks.get(&[reason.to_owned()]).copied().unwrap_or_default());
        let by = |name, label, is_meant: &dyn Fn(&str) -> bool| {
            let series = readings.by(name, [label]).into_iter();
            count(series.filter(|([value], _)| is_meant(value)).map(|(_, count)| count).sum())
        };
        let cognito = |is_meant: &dyn Fn(&str) -> bool| by("cognito_authz_cognito_requests_total", "outcome", is_meant);
        Self {
            allowed: of(""),
            refused: Denial::ALL.iter().map(|denial| of(denial.reason())).collect(),
            shadow: total("cognito_authz_shadow_denials_total"),
            durations: readings.buckets("cognito_authz_check_duration_seconds"),
            unknown_kids: total("cognito_authz_jwks_unknown_kid_total"),
            fetches: total("cognito_authz_jwks_fetches_total"),
            failed_fetches: by("cognito_authz_jwks_fetches_total", "result", &|result| result != "success"),
            cognito_calls: total("cognito_authz_cognito_requests_total"),
            failed_cognito_calls: cognito(&|outcome| COGNITO_FAILURES.contains(&outcome)),
            throttled_cognito_calls: cognito(&|outcome| outcome == "throttled"),
            rate_limited: total("cognito_authz_rate_limited_total"),
            lost_revocations: by("cognito_authz_revocation_writes_total", "result", &|result| result != "success"),
        }
    }

    /// Returns what was added since `earlier`.
    fn since(&self, earlier: &Self) -> Self {
        let refused = self.refused.iter().zip(&earlier.refused).map(|(now, then)| now.saturating_sub(*then)).collect();
        let since = |of: fn(&Self) -> u64| of(self).saturating_sub(of(earlier));
        Self {
            allowed: since(|counts| counts.allowed),
            refused,
            shadow: since(|counts| counts.shadow),
            durations: self.durations.since(&earlier.durations),
            unknown_kids: since(|counts| counts.unknown_kids),
            fetches: since(|counts| counts.fetches),
            failed_fetches: since(|counts| counts.failed_fetches),
            cognito_calls: since(|counts| counts.cognito_calls),
            failed_cognito_calls: since(|counts| counts.failed_cognito_calls),
            throttled_cognito_calls: since(|counts| counts.throttled_cognito_calls),
            rate_limited: since(|counts| counts.rate_limited),
            lost_revocations: since(|counts| counts.lost_revocations),
        }
    }

    /// Number of checks.
    pub(super) fn checks(&self) -> u64 {
        self.allowed + self.refused.iter().sum::<u64>()
    }
}

/// Value of a counter, which is a whole number below 2^53.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number below 2^53")]
fn count(value: f64) -> u64 {
    value as u64
}

/// Counters at one time.
#[derive(Clone, Debug)]
struct Sample {
    at: Instant,
    counts: Counts,
}

/// Samples of the last hour.
#[derive(Debug)]
pub(super) struct History(Mutex<Samples>);

#[derive(Debug)]
struct Samples {
    fine: VecDeque<Sample>,
    coarse: VecDeque<Sample>,
}

/// What was counted in one window.
#[derive(Debug)]
pub(super) struct Window {
    /// Length of the window.
    pub(super) length: Duration,
    /// The part of it that samples cover: less than the whole soon after the start, up to one step more than it later.
    pub(super) covered: Duration,
    /// What was counted in all of it.
    pub(super) sum: Counts,
    /// What was counted in each step, and its length; the oldest step first.
    pub(super) steps: Vec<(Duration, Counts)>,
}

impl History {
    /// Begins a history in which all counters start from their present values.
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self::from(Sample { at: Instant::now(), counts: Counts::new(&metrics.read()) })
    }

    fn from(first: Sample) -> Self {
        Self(Mutex::new(Samples { fine: VecDeque::from([first.clone()]), coarse: VecDeque::from([first]) }))
    }

    /// Takes samples as long as the process runs. Does not return.
    pub(super) async fn follow(&self, metrics: &Metrics) {
        loop {
            time::sleep(FINE.0).await;
            let counts = Counts::new(&metrics.read());
            self.add(Sample { at: Instant::now(), counts });
        }
    }

    fn add(&self, sample: Sample) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = samples.coarse.back().map(|last| last.at);
        // A sample is taken a little late, so the time of twelve is a little more than a minute.
        if last.is_none_or(|last| sample.at.duration_since(last) + FINE.0 / 2 >= COARSE.0) {
            push(&mut samples.coarse, sample.clone(), COARSE.1);
        }
        push(&mut samples.fine, sample, FINE.1);
    }

    /// Returns the windows that end now, in the order of [`WINDOWS`].
    pub(super) fn windows(&self, readings: &Readings) -> [Window; 3] {
        self.until(&Sample { at: Instant::now(), counts: Counts::new(readings) })
    }

    fn until(&self, now: &Sample) -> [Window; 3] {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        WINDOWS.map(|length| {
            let (ring, step) = if length > FINE.0 * 60 { (&samples.coarse, COARSE.0) } else { (&samples.fine, FINE.0) };
            window(ring, now, length, step)
        })
    }
}

fn push(ring: &mut VecDeque<Sample>, sample: Sample, capacity: usize) {
    if ring.len() >= capacity {
        ring.pop_front();
    }
    ring.push_back(sample);
}

/// Computes the window that ends at `now` from the samples of a ring.
fn window(ring: &VecDeque<Sample>, now: &Sample, length: Duration, step: Duration) -> Window {
    let age = |sample: &Sample| now.at.saturating_duration_since(sample.at);
    // It begins with the last sample that is old enough.
    let begin = ring.iter().rposition(|sample| age(sample) >= length).unwrap_or_default();
    let mut points: Vec<&Sample> = ring.iter().skip(begin).collect();
    // A rate of a fraction of a step would be noise, so it is part of the step before.
    if points.len() > 1 && points.last().is_some_and(|last| age(last) < step / 2) {
        points.pop();
    }
    let (covered, sum) = points.first().map(|first| (age(first), now.counts.since(&first.counts))).unwrap_or_default();
    let ends = points.iter().copied().skip(1).chain([now]);
    let steps = points
        .iter()
        .zip(ends)
        .map(|(start, end)| (end.at.saturating_duration_since(start.at), end.counts.since(&start.counts)));
    Window { length, covered, sum, steps: steps.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::readings::tests::Tested;

    /// Sample at which this number of checks was allowed.
    fn sample(allowed: u64) -> Sample {
        Sample {
            at: Instant::now(),
            counts: Counts { allowed, refused: vec![0; Denial::ALL.len()], ..Counts::default() },
        }
    }

    #[tokio::test(start_paused = true)]
    async fn windows_count_what_happened_in_them() {
        let history = History::from(sample(0));
        let windows =
            |allowed| history.until(&sample(allowed)).map(|window| (window.covered.as_secs(), window.sum.allowed));
        time::advance(Duration::from_secs(1)).await;
        assert_eq!(windows(1), [(1, 1); 3], "before the first sample");
        // Two checks each second, for ten minutes; samples come a little late.
        let mut allowed = 0;
        for _ in 0..120 {
            time::advance(FINE.0 + Duration::from_millis(7)).await;
            allowed += 10;
            history.add(sample(allowed));
        }
        time::advance(Duration::from_secs(3)).await;
        let found = windows(allowed + 6);
        let [minute, five, hour] = found;
        assert!(
            (60..=65).contains(&minute.0) && (300..=305).contains(&five.0) && (600..=606).contains(&hour.0),
            "{found:?}"
        );
        for (seconds, allowed) in found {
            assert!(allowed.abs_diff(seconds * 2) <= 4, "{found:?}");
        }
        let [minute, five, hour] = history.until(&sample(allowed + 6));
        assert!((12..=13).contains(&minute.steps.len()), "{}", minute.steps.len());
        assert!((60..=61).contains(&five.steps.len()) && (10..=11).contains(&hour.steps.len()));
        for window in [minute, five, hour] {
            assert_eq!(window.steps.iter().map(|(_, counts)| counts.allowed).sum::<u64>(), window.sum.allowed);
            assert_eq!(window.steps.iter().map(|(length, _)| *length).sum::<Duration>(), window.covered);
            let shortest = window.steps.iter().map(|(length, _)| *length).min();
            assert!(shortest >= Some(FINE.0 / 2), "{shortest:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_history_of_any_length_takes_bounded_memory_and_covers_an_hour() {
        let metrics = Metrics::new().unwrap();
        let history = History::new(&metrics);
        drop(time::timeout(Duration::from_secs(3 * 3600), history.follow(&metrics)).await);
        {
            let samples = history.0.lock().unwrap();
            assert_eq!((samples.fine.len(), samples.coarse.len()), (FINE.1, COARSE.1));
        }
        for window in history.windows(&metrics.read()) {
            let step = if window.length > FINE.0 * 60 { COARSE.0 } else { FINE.0 };
            assert!((window.length..=window.length + step).contains(&window.covered), "{window:?}");
        }
    }

    #[test]
    fn counts_are_sums_of_the_metrics() {
        let metrics = Tested::default();
        let add = |name: &str, label: &str, counts: &[(&str, u64)]| {
            let counters = metrics.counters(&format!("cognito_authz_{name}_total"), &[label, "pool"]);
            for (value, count) in counts {
                counters.with_label_values(&[*value, "one"]).inc_by(*count);
                counters.with_label_values(&[*value, "two"]).inc_by(1);
            }
        };
        add("checks", "reason", &[("", 10), ("expired", 5)]);
        add("shadow_denials", "reason", &[("expired", 1)]);
        add("jwks_unknown_kid", "kind", &[("", 2)]);
        add("jwks_fetches", "result", &[("success", 7), ("connect", 3), ("status", 4)]);
        add(
            "cognito_requests",
            "outcome",
            &[("success", 9), ("refused", 8), ("throttled", 6), ("timeout", 5), ("connect", 1)],
        );
        add("rate_limited", "limit", &[("user", 1), ("address", 2)]);
        add("revocation_writes", "result", &[("success", 3), ("full", 1)]);
        metrics.durations("cognito_authz_check_duration_seconds", &[0.1]).with_label_values(&["deny"]).observe(0.05);
        let counts = Counts::new(&metrics.read());
        let mut refused = vec![0; Denial::ALL.len()];
        refused[Denial::Expired as usize] = 6;
        let expected = Counts {
            allowed: 11,
            refused,
            shadow: 2,
            durations: Buckets { bounds: vec![0.1], counts: vec![1, 0] },
            unknown_kids: 3,
            fetches: 17,
            failed_fetches: 9,
            cognito_calls: 34,
            failed_cognito_calls: 8,
            throttled_cognito_calls: 7,
            rate_limited: 5,
            lost_revocations: 2,
        };
        assert_eq!((counts.checks(), &counts), (17, &expected));
        assert_eq!(counts.since(&counts).checks(), 0);
        assert_eq!(Denial::ALL[Denial::Expired as usize], Denial::Expired, "positions are those of the list");
    }

    #[test]
    fn failures_of_cognito_are_outcomes_of_its_calls() {
        for outcome in COGNITO_FAILURES {
            assert!(include_str!("../../cognito/error.rs").contains(&format!("\"{outcome}\"")), "{outcome}");
        }
    }
}
