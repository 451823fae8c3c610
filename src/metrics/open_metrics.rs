//! `OpenMetrics` 1.0 text format, for scrapers that ask for it: unlike Prometheus' older text format, it has exemplars.

use std::fmt::Write;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::sharded::Exemplar;

/// Format of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus' text format, version 0.0.4.
    Text,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

const OPEN_METRICS: &str = "application/openmetrics-text";

impl Format {
    /// Returns the format that the values of `Accept` ask for (RFC 9110 section 12.5.1). The text format is the default:
    /// `OpenMetrics` has to be named, with a weight that is not below that of `text/plain`.
    pub(crate) fn accepted<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let (mut open_metrics, mut text) = (0.0_f64, 0.0_f64);
        for range in values.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
            let find = |name: &str| parameters.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
            let weight = find("q").map_or(1.0, |(_, q)| q.parse::<f64>().unwrap_or_default());
            let is_known_version = find("version").is_none_or(|(_, version)| ["1.0.0", "0.0.1"].contains(version));
            if name.eq_ignore_ascii_case(OPEN_METRICS) && is_known_version {
                open_metrics = open_metrics.max(weight);
            } else if name.eq_ignore_ascii_case("text/plain") {
                text = text.max(weight);
            }
        }
        if open_metrics > 0.0 && open_metrics >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// Content type of the format.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Text => prometheus::TEXT_FORMAT,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Encodes families. `exemplar` returns the exemplar of a bucket of a histogram, by the name of the family and the
/// bucket's index. Writing to a text cannot fail, so errors of `write!` are ignored.
pub(super) fn encode(families: &[MetricFamily], exemplar: impl Fn(&str, &Metric, usize) -> Option<Exemplar>) -> String {
    let mut out = String::with_capacity(64 * 1024);
    for family in families {
        encode_family(&mut out, family, &exemplar);
    }
    out.push_str("# EOF\n");
    out
}

fn encode_family(
    out: &mut String,
    family: &MetricFamily,
    exemplar: &impl Fn(&str, &Metric, usize) -> Option<Exemplar>,
) {
    let kind = family.get_field_type();
    // The name of a counter is that of its samples without the suffix. Without the suffix it is no counter here.
    let (name, kind_name) = match (kind, family.name().strip_suffix("_total")) {
        (MetricType::COUNTER, Some(name)) => (name, "counter"),
        (MetricType::GAUGE, _) => (family.name(), "gauge"),
        (MetricType::HISTOGRAM, _) => (family.name(), "histogram"),
        _ => (family.name(), "unknown"),
    };
    let _ = writeln!(out, "# HELP {name} {}", escape(family.help()));
    let _ = writeln!(out, "# TYPE {name} {kind_name}");
    if let Some(unit) = unit(name) {
        let _ = writeln!(out, "# UNIT {name} {unit}");
    }
    for metric in family.get_metric() {
        match kind {
            MetricType::COUNTER => {
                sample(out, (family.name(), ""), metric, None, metric.get_counter().get_value(), None);
            }
            MetricType::GAUGE => sample(out, (name, ""), metric, None, metric.get_gauge().get_value(), None),
            MetricType::HISTOGRAM => encode_histogram(out, name, metric, |bucket| exemplar(name, metric, bucket)),
            // The program has no other types.
            MetricType::SUMMARY | MetricType::UNTYPED => {}
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
fn encode_histogram(out: &mut String, name: &str, metric: &Metric, exemplar: impl Fn(usize) -> Option<Exemplar>) {
    let histogram = metric.get_histogram();
    let finite = histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite());
    let buckets = finite.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()));
    for (index, (bound, count)) in buckets.chain([(f64::INFINITY, histogram.get_sample_count())]).enumerate() {
        sample(out, (name, "_bucket"), metric, Some(bound), count as f64, exemplar(index));
    }
    sample(out, (name, "_sum"), metric, None, histogram.get_sample_sum(), None);
    sample(out, (name, "_count"), metric, None, histogram.get_sample_count() as f64, None);
}

/// Unit of a family, which its name ends with.
pub(super) fn unit(name: &str) -> Option<&'static str> {
    ["seconds", "bytes"].into_iter().find(|unit| name.strip_suffix(unit).is_some_and(|start| start.ends_with('_')))
}

fn sample(
    out: &mut String,
    (name, suffix): (&str, &str),
    metric: &Metric,
    bound: Option<f64>,
    value: f64,
    exemplar: Option<Exemplar>,
) {
    out.push_str(name);
    out.push_str(suffix);
    let bound = bound.map(|bound| ("le", number(bound)));
    let labels = metric.get_label().iter().map(|pair: &LabelPair| (pair.name(), pair.value()));
    let labels = labels.chain(bound.as_ref().map(|(name, bound)| (*name, &**bound)));
    for (position, (name, value)) in labels.enumerate() {
        let _ = write!(out, "{}{name}=\"{}\"", if position == 0 { '{' } else { ',' }, escape(value));
    }
    if !metric.get_label().is_empty() || bound.is_some() {
        out.push('}');
    }
    let _ = write!(out, " {}", number(value));
    if let Some(Exemplar { trace, seconds, time }) = exemplar {
        let id = trace.iter().fold(String::new(), |id, byte| format!("{id}{byte:02x}"));
        let _ = write!(out, " # {{trace_id=\"{id}\"}} {} {:.3}", number(seconds), time.as_secs_f64());
    }
    out.push('\n');
}

/// Escapes a label value or a help text.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

/// Writes a number in the canonical form, which the values of `le` need: as Go's `%g` does, and always recognizable as a
/// floating-point number.
fn number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let scientific = format!("{value:e}");
    let exponent =
        scientific.split_once('e').and_then(|(digits, exponent)| Some((digits, exponent.parse::<i32>().ok()?)));
    match exponent {
        Some((digits, exponent)) if !(-4..21).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.abs())
        }
        _ => {
            let plain = value.to_string();
            if plain.contains('.') { plain } else { format!("{plain}.0") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_has_to_be_asked_for() {
        for (accept, expected) in [
            (&[][..], Format::Text),
            (&["*/*"], Format::Text),
            (&["text/plain"], Format::Text),
            (&["application/openmetrics-text"], Format::OpenMetrics),
            (&["Application/OpenMetrics-Text; Version=1.0.0"], Format::OpenMetrics),
            (&["application/openmetrics-text; version=1.0.0; charset=utf-8"], Format::OpenMetrics),
            (&["application/openmetrics-text; version=2.0.0"], Format::Text),
            (&["application/openmetrics-text;q=0"], Format::Text),
            (&["application/openmetrics-text;q=x"], Format::Text),
            (&["application/openmetrics-text;q=0.3, text/plain;q=0.9"], Format::Text),
            (&["text/plain;q=0.5", "application/openmetrics-text"], Format::OpenMetrics),
            // Prometheus 3, and Prometheus 2.
            (
                &["application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                   application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                   text/plain;version=0.0.4;q=0.2,*/*;q=0.1"],
                Format::OpenMetrics,
            ),
            (
                &["application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"],
                Format::OpenMetrics,
            ),
            (&["application/json, text/html"], Format::Text),
        ] {
            assert_eq!(Format::accepted(accept.iter().copied()), expected, "{accept:?}");
        }
    }

    #[test]
    fn numbers_have_the_canonical_form() {
        for (value, text) in [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (10.0, "10.0"),
            (0.25, "0.25"),
            (1e-4, "0.0001"),
            (25e-6, "2.5e-05"),
            (5e-5, "5e-05"),
            (1e9, "1000000000.0"),
            (1.8e19, "18000000000000000000.0"),
            (1e21, "1e+21"),
            (-3.5, "-3.5"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn texts_are_escaped() {
        assert_eq!(escape("a\\b\n\"c\""), "a\\\\b\\n\\\"c\\\"");
    }

    #[test]
    fn units_are_the_ends_of_names() {
        for (name, expected) in [
            ("cognito_authz_check_duration_seconds", Some("seconds")),
            ("process_resident_memory_bytes", Some("bytes")),
            ("cognito_authz_checks", None),
            ("bytes", None),
        ] {
            assert_eq!(unit(name), expected, "{name}");
        }
    }
}
