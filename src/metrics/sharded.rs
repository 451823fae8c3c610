//! Numbers that every check changes, kept per thread and added up when metrics are read.
//!
//! If two threads changed the same number, each change would fetch its cache line from the other core. So each of the first
//! threads has a cell of its own; further ones share them.

use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use prometheus::Opts;
use prometheus::core::{Atomic, Collector, Desc, Describer, GenericCounter, GenericCounterVec, GenericGauge};
use prometheus::proto::{Bucket, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use crate::clock::since_1970;

/// Counter that all threads change.
pub(crate) type Counter = GenericCounter<Sharded<AtomicU64>>;
/// Counters that all threads change, by label.
pub(crate) type CounterVec = GenericCounterVec<Sharded<AtomicU64>>;
/// Gauge that all threads change.
pub(crate) type Gauge = GenericGauge<Sharded<AtomicI64>>;

/// Number of cells.
const CELLS: usize = 16;

thread_local! {
    /// Index of the cell of this thread.
    static CELL: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Ordering::Relaxed) % CELLS
    };
}

/// A value per thread, in cache lines of its own. A cell exists from its first use.
#[derive(Debug)]
struct Cells<T>([OnceLock<Box<Aligned<T>>>; CELLS]);

/// Two cache lines, because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Aligned<T>(T);

impl<T> Default for Cells<T> {
    fn default() -> Self {
        Self([const { OnceLock::new() }; CELLS])
    }
}

impl<T: Default> Cells<T> {
    /// Cell of the current thread. `None` is impossible: indices are below the number of cells.
    fn own(&self) -> Option<&T> {
        self.0.get(CELL.with(|cell| *cell)).map(|cell| &cell.get_or_init(Box::default).0)
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().filter_map(OnceLock::get).map(|cell| &cell.0)
    }
}

/// Integer that is the sum of its cells.
#[derive(Debug, Default)]
pub(crate) struct Sharded<T>(Cells<T>);

/// Implements the trait by which the types of `prometheus` change and read a number.
macro_rules! sharded {
    ($atomic:ty, $number:ty) => {
        impl Atomic for Sharded<$atomic> {
            type T = $number;

            fn new(value: $number) -> Self {
                let new = Self::default();
                if value != 0 {
                    new.inc_by(value);
                }
                new
            }

            fn set(&self, value: $number) {
                for cell in self.0.iter() {
                    cell.store(0, Ordering::Relaxed);
                }
                self.inc_by(value);
            }

            fn get(&self) -> $number {
                // A gauge can be increased in one cell and decreased in another, so single cells may wrap.
                self.0.iter().fold(0, |sum, cell| sum.wrapping_add(cell.load(Ordering::Relaxed)))
            }

            fn inc_by(&self, delta: $number) {
                if let Some(cell) = self.0.own() {
                    cell.fetch_add(delta, Ordering::Relaxed);
                }
            }

            fn dec_by(&self, delta: $number) {
                if let Some(cell) = self.0.own() {
                    cell.fetch_sub(delta, Ordering::Relaxed);
                }
            }
        }
    };
}

sharded!(AtomicU64, u64);
sharded!(AtomicI64, i64);

/// Number of finite buckets of a [`Durations`].
pub(crate) const BUCKETS: usize = 15;

/// Id of a trace (W3C Trace Context section 3.2.2.3).
pub(crate) type TraceId = [u8; 16];

/// Duration that belongs to a trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Exemplar {
    /// Trace that the duration was measured in.
    pub(crate) trace: TraceId,
    /// Duration in seconds.
    pub(crate) seconds: f64,
    /// Time of the measurement, since 1970.
    pub(crate) time: Duration,
}

/// Last exemplar of each bucket.
type Exemplars = [Mutex<Option<Exemplar>>; BUCKETS + 1];

/// Histograms of durations, one for each value of one label.
#[derive(Clone, Debug)]
pub(crate) struct Durations<const VALUES: usize>(Arc<Family<VALUES>>);

#[derive(Debug)]
struct Family<const VALUES: usize> {
    desc: Desc,
    /// Upper bounds in seconds, in ascending order.
    bounds: [f64; BUCKETS],
    label: &'static str,
    histograms: [(&'static str, Cells<Observed>, Exemplars); VALUES],
}

/// Durations that one thread observed.
#[derive(Debug, Default)]
struct Observed {
    /// Number of durations in each finite bucket, and above.
    buckets: [AtomicU64; BUCKETS + 1],
    nanoseconds: AtomicU64,
}

impl<const VALUES: usize> Durations<VALUES> {
    /// Creates histograms with these upper bounds in seconds, one for each of `values` of the label.
    ///
    /// # Errors
    /// If the name of the metric or of the label is malformed, which is a bug.
    pub(crate) fn new(
        opts: &Opts,
        label: &'static str,
        values: [&'static str; VALUES],
        bounds: [f64; BUCKETS],
    ) -> Result<Self, prometheus::Error> {
        let desc = opts.clone().variable_label(label).describe()?;
        let histograms = values.map(|value| (value, Cells::default(), Exemplars::default()));
        Ok(Self(Arc::new(Family { desc, bounds, label, histograms })))
    }

    /// Observes a duration in the histogram with this index. A `trace` that it belongs to becomes the exemplar of its
    /// bucket, unless another thread is just reading or writing that one.
    pub(crate) fn observe(&self, index: usize, duration: Duration, trace: Option<TraceId>) {
        let family = &*self.0;
        let seconds = duration.as_secs_f64();
        let bucket = family.bounds.iter().position(|bound| seconds <= *bound).unwrap_or(BUCKETS);
        let Some((_, cells, exemplars)) = family.histograms.get(index) else { return };
        if let (Some(trace), Some(exemplar)) = (trace, exemplars.get(bucket))
            && let Ok(mut exemplar) = exemplar.try_lock()
        {
            *exemplar = Some(Exemplar { trace, seconds, time: since_1970() });
        }
        let observed = cells.own();
        if let Some((observed, count)) = observed.and_then(|observed| Some((observed, observed.buckets.get(bucket)?))) {
            count.fetch_add(1, Ordering::Relaxed);
            let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
            observed.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        }
    }

    /// Returns the last exemplar of a bucket of `metric`, if that is one of these histograms.
    pub(crate) fn exemplar(&self, family: &str, metric: &Metric, bucket: usize) -> Option<Exemplar> {
        let value = metric.get_label().first().filter(|_| family == self.0.desc.fq_name)?.value();
        let (_, _, exemplars) = self.0.histograms.iter().find(|(other, _, _)| *other == value)?;
        exemplars.get(bucket)?.lock().ok().and_then(|exemplar| *exemplar)
    }
}

impl<const VALUES: usize> Family<VALUES> {
    fn metric(&self, value: &str, cells: &Cells<Observed>) -> Metric {
        let mut counts = [0_u64; BUCKETS + 1];
        let mut nanoseconds = 0_u64;
        for observed in cells.iter() {
            for (count, bucket) in counts.iter_mut().zip(&observed.buckets) {
                *count += bucket.load(Ordering::Relaxed);
            }
            nanoseconds = nanoseconds.wrapping_add(observed.nanoseconds.load(Ordering::Relaxed));
        }
        let mut histogram = Histogram::default();
        let mut below = 0;
        let buckets = self.bounds.iter().zip(counts).map(|(bound, count)| {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(below);
            bucket
        });
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(counts.iter().sum());
        histogram.set_sample_sum(Duration::from_nanos(nanoseconds).as_secs_f64());
        let mut label = LabelPair::default();
        label.set_name(self.label.into());
        label.set_value(value.into());
        let mut metric = Metric::from_label(vec![label]);
        metric.set_histogram(histogram);
        metric
    }
}

impl<const VALUES: usize> Collector for Durations<VALUES> {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.0.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let family = &*self.0;
        let mut collected = MetricFamily::default();
        collected.set_name(family.desc.fq_name.clone());
        collected.set_help(family.desc.help.clone());
        collected.set_field_type(MetricType::HISTOGRAM);
        collected.set_metric(family.histograms.iter().map(|(value, cells, _)| family.metric(value, cells)).collect());
        vec![collected]
    }
}

#[cfg(test)]
mod tests {
    use prometheus::{Registry, TextEncoder};

    use super::*;

    #[test]
    fn what_threads_count_is_added_up() {
        let (counter, gauge) = (Sharded::<AtomicU64>::new(5), Sharded::<AtomicI64>::new(0));
        std::thread::scope(|scope| {
            for _ in 0..32 {
                let (counter, gauge) = (&counter, &gauge);
                scope.spawn(move || {
                    counter.inc_by(10);
                    gauge.inc_by(1);
                });
            }
        });
        gauge.dec_by(3); // in the cell of another thread
        assert_eq!((counter.get(), gauge.get()), (5 + 320, 32 - 3));
        gauge.set(7);
        counter.set(1);
        assert_eq!((counter.get(), gauge.get()), (1, 7));
    }

    #[test]
    fn histograms_have_the_format_of_the_library() {
        let bounds =
            [0.001, 0.002, 0.003, 0.004, 0.005, 0.006, 0.007, 0.008, 0.009, 0.01, 0.011, 0.012, 0.013, 0.014, 0.015];
        let opts = Opts::new("took_seconds", "Time.").namespace("test");
        let ours = Durations::new(&opts, "decision", ["allow", "deny"], bounds).unwrap();
        let theirs =
            prometheus::HistogramVec::new(prometheus::HistogramOpts::from(opts).buckets(bounds.into()), &["decision"])
                .unwrap();
        for (index, label, milliseconds) in
            [(0, "allow", 0), (0, "allow", 1), (0, "allow", 15), (0, "allow", 16), (1, "deny", 2)]
        {
            let duration = Duration::from_millis(milliseconds);
            let ours = ours.clone();
            std::thread::spawn(move || ours.observe(index, duration, None)).join().unwrap();
            theirs.with_label_values(&[label]).observe(duration.as_secs_f64());
        }
        let text = |collector: Box<dyn Collector>| {
            let registry = Registry::new();
            registry.register(collector).unwrap();
            TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
        };
        assert_eq!(text(Box::new(ours)), text(Box::new(theirs)));
    }
}
