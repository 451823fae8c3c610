//! Metrics whose values another part of the program keeps anyway. They are read when metrics are rendered, so that nothing
//! is counted twice.

use std::collections::HashMap;
use std::fmt;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::{Metrics, NAMESPACE};

/// Type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Value that only increases.
    Counter,
    /// Value that can fall.
    Gauge,
}

/// Values of a family: one for each value of its label.
type Values = Vec<(String, f64)>;

/// Family whose values are read at each rendering.
struct Observed {
    desc: Desc,
    kind: Kind,
    /// Name of the label; `None` for a family with a single value.
    label: Option<&'static str>,
    read: Box<dyn Fn() -> Values + Send + Sync>,
}

impl fmt::Debug for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observed").field("desc", &self.desc).finish_non_exhaustive()
    }
}

impl Observed {
    fn metric(&self, (label_value, value): (String, f64)) -> Metric {
        let pair = self.label.map(|name| {
            let mut pair = LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(label_value);
            pair
        });
        let mut metric = Metric::from_label(pair.into_iter().collect());
        match self.kind {
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            Kind::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        metric
    }
}

impl Collector for Observed {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(match self.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
        });
        family.set_metric((self.read)().into_iter().map(|value| self.metric(value)).collect());
        vec![family]
    }
}

impl Metrics {
    /// Adds a family with one value, which `read` returns.
    ///
    /// # Errors
    /// As [`Metrics::new`].
    pub(crate) fn observe(
        &self,
        kind: Kind,
        (name, help): (&str, &str),
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) -> Result<(), prometheus::Error> {
        self.register(kind, (name, help), None, Box::new(move || vec![(String::new(), read())]))
    }

    /// Adds a family with a value for each value of `label`. `read` returns both; the label's values must be few.
    ///
    /// # Errors
    /// As [`Metrics::new`].
    pub(crate) fn observe_each(
        &self,
        kind: Kind,
        (name, help): (&str, &str),
        label: &'static str,
        read: impl Fn() -> Values + Send + Sync + 'static,
    ) -> Result<(), prometheus::Error> {
        self.register(kind, (name, help), Some(label), Box::new(read))
    }

    fn register(
        &self,
        kind: Kind,
        (name, help): (&str, &str),
        label: Option<&'static str>,
        read: Box<dyn Fn() -> Values + Send + Sync>,
    ) -> Result<(), prometheus::Error> {
        let labels = label.into_iter().map(str::to_owned).collect();
        let desc = Desc::new(format!("{NAMESPACE}_{name}"), help.to_owned(), labels, HashMap::new())?;
        self.registry.register(Box::new(Observed { desc, kind, label, read }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::metrics::Format;

    #[test]
    fn values_are_read_at_each_rendering() {
        let metrics = Metrics::new().unwrap();
        let known = Arc::new(AtomicU32::new(7));
        let read = Arc::clone(&known);
        metrics.observe(Kind::Gauge, ("depth", "Depth."), move || read.load(Ordering::Relaxed).into()).unwrap();
        let each = || vec![("a".to_owned(), 1.5), ("b".to_owned(), 2.0)];
        metrics.observe_each(Kind::Counter, ("work_seconds_total", "Work."), "part", each).unwrap();
        let text = || String::from_utf8(metrics.render(Format::Text).unwrap()).unwrap();
        for depth in [7, 8] {
            known.store(depth, Ordering::Relaxed);
            let text = text();
            for line in [
                "# TYPE cognito_authz_depth gauge".to_owned(),
                format!("cognito_authz_depth {depth}"),
                "# TYPE cognito_authz_work_seconds_total counter".into(),
                "cognito_authz_work_seconds_total{part=\"a\"} 1.5".into(),
                "cognito_authz_work_seconds_total{part=\"b\"} 2".into(),
            ] {
                assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
            }
        }
        assert!(metrics.observe(Kind::Gauge, ("depth", "Depth."), || 0.0).is_err(), "a name is taken once");
    }
}
