//! Values of metrics at one time ([`Readings`]), for the status page.

use std::collections::BTreeMap;

use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::Metrics;

/// Values of metrics at one time. Names are complete: `cognito_authz_checks_total`.
#[derive(Debug)]
pub(crate) struct Readings(Vec<MetricFamily>);

/// Durations of a histogram, its labels summed up.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Buckets {
    /// Upper bounds in seconds, in ascending order; the last bucket has none.
    pub(crate) bounds: Vec<f64>,
    /// Number of durations in each bucket, not cumulative; one more than `bounds`.
    pub(crate) counts: Vec<u64>,
}

impl Metrics {
    /// Reads all metrics.
    pub(crate) fn read(&self) -> Readings {
        Readings(self.registry.gather())
    }
}

impl Readings {
    /// Series of a metric.
    fn series(&self, name: &str) -> impl Iterator<Item = (&Metric, MetricType)> {
        let families = self.0.iter().filter(move |family| family.name() == name);
        families.flat_map(|family| family.get_metric().iter().map(|metric| (metric, family.get_field_type())))
    }

    /// Sum of the series of a metric; `None` if it has none.
    pub(crate) fn sum(&self, name: &str) -> Option<f64> {
        self.series(name).map(value).reduce(|sum, value| sum + value)
    }

    /// Sums of the series of a metric by the values of these labels. A label that the metric lacks is empty.
    pub(crate) fn by<const LABELS: usize>(
        &self,
        name: &str,
        labels: [&str; LABELS],
    ) -> BTreeMap<[String; LABELS], f64> {
        let mut sums = BTreeMap::new();
        for series in self.series(name) {
            let label = |name: &str| series.0.get_label().iter().find(|label| label.name() == name);
            let key = labels.map(|name| label(name).map(|label| label.value().to_owned()).unwrap_or_default());
            *sums.entry(key).or_insert(0.0) += value(series);
        }
        sums
    }

    /// Durations of a histogram.
    pub(crate) fn buckets(&self, name: &str) -> Buckets {
        let mut sum = Buckets::default();
        for (metric, _) in self.series(name) {
            let histogram = metric.get_histogram();
            let buckets = histogram.get_bucket();
            if sum.counts.is_empty() {
                sum.bounds = buckets.iter().map(prometheus::proto::Bucket::upper_bound).collect();
                sum.counts = vec![0; buckets.len() + 1];
            }
            let mut below = 0;
            let ends = buckets.iter().map(prometheus::proto::Bucket::cumulative_count);
            for (count, end) in sum.counts.iter_mut().zip(ends.chain([histogram.get_sample_count()])) {
                // Other threads change the numbers in between.
                *count += end.saturating_sub(below);
                below = end.max(below);
            }
        }
        sum
    }
}

fn value((metric, kind): (&Metric, MetricType)) -> f64 {
    match kind {
        MetricType::COUNTER => metric.get_counter().get_value(),
        MetricType::GAUGE => metric.get_gauge().get_value(),
        MetricType::HISTOGRAM | MetricType::SUMMARY | MetricType::UNTYPED => 0.0,
    }
}

impl Buckets {
    /// Durations that were added since `earlier`, an earlier reading of the same histogram.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let before = earlier.counts.iter().copied().chain(std::iter::repeat(0));
        let counts = self.counts.iter().zip(before).map(|(count, before)| count.saturating_sub(before)).collect();
        Self { bounds: self.bounds.clone(), counts }
    }

    /// Duration in seconds that the share `quantile` of all durations does not exceed, as Prometheus estimates it: linear
    /// within a bucket. In the last bucket it is the highest bound. `None` if there are no durations.
    #[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
    pub(crate) fn quantile(&self, quantile: f64) -> Option<f64> {
        let total: u64 = self.counts.iter().sum();
        let rank = quantile * total as f64;
        let (mut below, mut from) = (0_u64, 0.0);
        for (count, bound) in self.counts.iter().zip(&self.bounds) {
            if *count > 0 && (below + count) as f64 >= rank {
                return Some(from + (bound - from) * ((rank - below as f64) / *count as f64).clamp(0.0, 1.0));
            }
            below += count;
            from = *bound;
        }
        (total > 0).then_some(from)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use prometheus::core::Collector;
    use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

    use super::*;

    /// Metrics of a test.
    #[derive(Default)]
    pub(crate) struct Tested(Registry);

    impl Tested {
        fn add<C: Collector + Clone + 'static>(&self, collector: C) -> C {
            self.0.register(Box::new(collector.clone())).unwrap();
            collector
        }

        pub(crate) fn counters(&self, name: &str, labels: &[&str]) -> IntCounterVec {
            self.add(IntCounterVec::new(Opts::new(name, "Help."), labels).unwrap())
        }

        pub(crate) fn durations(&self, name: &str, bounds: &[f64]) -> HistogramVec {
            let opts = HistogramOpts::new(name, "Help.").buckets(bounds.to_vec());
            self.add(HistogramVec::new(opts, &["decision"]).unwrap())
        }

        pub(crate) fn read(&self) -> Readings {
            Readings(self.0.gather())
        }
    }

    #[test]
    fn series_are_summed_up_by_label() {
        let metrics = Tested::default();
        let checks = metrics.counters("checks_total", &["decision", "reason", "pool"]);
        for (decision, reason, pool, times) in [
            ("deny", "expired", "one", 1),
            ("deny", "expired", "two", 2),
            ("error", "expired", "", 4),
            ("allow", "", "one", 8),
        ] {
            checks.with_label_values(&[decision, reason, pool]).inc_by(times);
        }
        let readings = metrics.read();
        let by = readings.by("checks_total", ["decision", "reason"]);
        assert_eq!(by.values().copied().collect::<Vec<_>>(), [8.0, 3.0, 4.0]);
        assert_eq!(by.get(&["deny".to_owned(), "expired".to_owned()]), Some(&3.0));
        let by = readings.by("checks_total", ["reason", "other"]);
        assert_eq!(by.get(&["expired".to_owned(), String::new()]), Some(&7.0));
        assert_eq!((readings.sum("checks_total"), readings.sum("other")), (Some(15.0), None));
        assert_eq!(Metrics::new().unwrap().read().sum("cognito_authz_build_info"), Some(1.0));
    }

    #[test]
    fn quantiles_are_those_of_prometheus() {
        let metrics = Tested::default();
        let durations = metrics.durations("took", &[0.000_1, 0.000_25, 0.000_5, 0.002_5, 0.005, 1.0]);
        assert_eq!(metrics.read().buckets("took").quantile(0.99), None);
        durations.with_label_values(&["deny"]).observe(30.0);
        let before = metrics.read().buckets("took");
        assert_eq!(before.quantile(0.5), Some(1.0), "the highest bound");
        for number in 0..100 {
            let decision = if number % 2 == 0 { "allow" } else { "error" };
            durations.with_label_values(&[decision]).observe(if number < 90 { 0.000_3 } else { 0.003 });
        }
        let since = metrics.read().buckets("took").since(&before);
        assert_eq!(since.counts.iter().sum::<u64>(), 100);
        // 90 are between 250 and 500 µs, and 10 between 2.5 and 5 ms.
        let near = |quantile: f64, expected: f64| (since.quantile(quantile).unwrap() - expected).abs() < 1e-9;
        assert!(near(0.45, 0.000_375) && near(0.9, 0.000_5) && near(0.95, 0.003_75) && near(1.0, 0.005));
        assert_eq!(Buckets::default().since(&before), Buckets::default());
    }
}
