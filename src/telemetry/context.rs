//! Trace context of a caller (W3C Trace Context): reads `traceparent` and `tracestate`, which any client can send.
//!
//! A malformed or repeated `traceparent` counts as absent. A `tracestate` that is too long or not text is dropped, which
//! the recommendation allows (sections 3.3.1.5 and 4.3).

use std::fmt;

use http::HeaderMap;

/// Maximum length of a `tracestate`, in bytes (W3C Trace Context section 3.3.1.5).
const MAX_STATE_BYTES: usize = 512;
/// Maximum number of members of a `tracestate` (section 3.3.1.1).
const MAX_STATE_MEMBERS: usize = 32;
/// Length of a `traceparent` of version 00.
const PARENT_BYTES: usize = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01".len();
/// Flag of a `traceparent`: the caller records its span.
const SAMPLED: u128 = 1;

/// Ids of a span. Neither is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SpanIds {
    /// Id of the trace.
    pub(crate) trace: u128,
    /// Id of the span within the trace.
    pub(crate) span: u64,
}

impl SpanIds {
    /// Makes ids for the first span of a trace.
    pub(super) fn root() -> Self {
        Self { trace: fastrand::u128(1..), span: fastrand::u64(1..) }
    }

    /// Makes ids for a span below one of this trace.
    pub(super) fn below(self) -> Self {
        Self { span: fastrand::u64(1..), ..self }
    }

    /// Id of the trace as text, as log lines have it: 32 hexadecimal digits.
    pub(crate) fn trace_id(self) -> impl fmt::Display {
        Hex { value: self.trace, digits: 32 }
    }

    /// Id of the span as text: 16 hexadecimal digits.
    pub(crate) fn span_id(self) -> impl fmt::Display {
        Hex { value: self.span.into(), digits: 16 }
    }
}

/// Number with leading zeros.
struct Hex {
    value: u128,
    digits: usize,
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0width$x}", self.value, width = self.digits)
    }
}

/// Context of the span that a request belongs to, at the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    /// Ids of the caller's span.
    pub(super) ids: SpanIds,
    /// `true` if the caller records its span.
    pub(super) is_sampled: bool,
    /// `tracestate`; empty if there is none.
    pub(super) state: Box<str>,
}

impl Parent {
    /// Reads the context from the values of `traceparent` and `tracestate`.
    pub(crate) fn read<'v>(
        parents: impl IntoIterator<Item = &'v [u8]>,
        states: impl IntoIterator<Item = &'v [u8]>,
    ) -> Option<Self> {
        let mut parents = parents.into_iter();
        let (ids, is_sampled) = parse(parents.next()?)?;
        parents.next().is_none().then(|| Self { ids, is_sampled, state: state(states).unwrap_or_default() })
    }

    /// Reads the context from HTTP headers or gRPC metadata.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let values = |name: &'static str| headers.get_all(name).into_iter().map(http::HeaderValue::as_bytes);
        Self::read(values("traceparent"), values("tracestate"))
    }

    /// The same without `tracestate`: a client's is not worth the space.
    pub(super) fn without_state(self) -> Self {
        Self { state: Box::default(), ..self }
    }
}

/// Parses `version-trace_id-parent_id-flags` (section 3.2). Later versions may append fields.
fn parse(value: &[u8]) -> Option<(SpanIds, bool)> {
    let (known, rest) = value.split_at_checked(PARENT_BYTES)?;
    let mut fields = known.split(|byte| *byte == b'-');
    let mut next = |digits: usize| fields.next().filter(|field| field.len() == digits).and_then(hex);
    let (version, trace, span, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
    let is_complete = rest.is_empty() || version > 0 && rest.first() == Some(&b'-');
    let ids = SpanIds { trace, span: u64::try_from(span).ok()? };
    (version < 0xff && is_complete && ids.trace != 0 && ids.span != 0).then_some((ids, flags & SAMPLED != 0))
}

/// Parses lower-case hexadecimal digits.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| match digit {
        b'0'..=b'9' => Some(number << 4 | u128::from(digit - b'0')),
        b'a'..=b'f' => Some(number << 4 | u128::from(digit - b'a' + 10)),
        _ => None,
    })
}

/// Joins the values of `tracestate`. `None` if the list is too long or has bytes that it must not have.
fn state<'v>(values: impl IntoIterator<Item = &'v [u8]>) -> Option<Box<str>> {
    let mut state = String::new();
    for value in values {
        let separator = usize::from(!state.is_empty());
        if state.len() + separator + value.len() > MAX_STATE_BYTES
            || !value.iter().all(|byte| (b' '..=b'~').contains(byte))
        {
            return None;
        }
        if separator > 0 {
            state.push(',');
        }
        state.push_str(std::str::from_utf8(value).ok()?);
    }
    (state.split(',').count() <= MAX_STATE_MEMBERS).then(|| state.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn read(parents: &[&str], states: &[&str]) -> Option<Parent> {
        Parent::read(parents.iter().map(|value| value.as_bytes()), states.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn a_well_formed_parent_is_read() {
        for (version, flags, rest, is_sampled) in [
            ("00", "01", "", true),
            ("00", "00", "", false),
            ("00", "03", "", true),
            ("00", "02", "", false),
            ("00", "ff", "", true),
            ("01", "01", "", true),
            ("cc", "01", "-what-the-future-brings", true),
            ("fe", "00", "-", false),
        ] {
            let text = format!("{version}-{TRACE}-{SPAN}-{flags}{rest}");
            let parent = read(&[&text], &[]).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(parent.is_sampled, is_sampled, "{text}");
            assert_eq!(
                (parent.ids.trace_id().to_string(), parent.ids.span_id().to_string()),
                (TRACE.into(), SPAN.into())
            );
        }
    }

    #[test]
    fn a_malformed_or_repeated_parent_is_ignored() {
        let good = format!("00-{TRACE}-{SPAN}-01");
        for bad in [
            String::new(),
            "00".into(),
            good[..54].into(),
            format!("{good}-"),
            format!("{good}0"),
            format!("01-{TRACE}-{SPAN}-01x"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0-0{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}g-{SPAN}-01", &TRACE[1..]),
            format!("00-{TRACE}-{SPAN}-0x"),
            format!("00_{TRACE}_{SPAN}_01"),
            format!(" {good}"),
            format!("00-{TRACE}-{SPAN}é01"),
            "x".repeat(100_000),
        ] {
            assert_eq!(read(&[&bad], &[]), None, "{bad:.80}");
        }
        assert_eq!(read(&[], &["a=b"]), None);
        assert_eq!(read(&[&good, &good], &[]), None, "two contexts");
    }

    #[test]
    fn a_state_is_kept_up_to_its_limits() {
        let parent = format!("00-{TRACE}-{SPAN}-01");
        let long = format!("a={}", "b".repeat(MAX_STATE_BYTES - 2));
        let too_long = format!("{long}b");
        let many = vec!["a=b"; MAX_STATE_MEMBERS].join(",");
        let too_many = format!("{many},a=b");
        for (values, expected) in [
            (&[][..], ""),
            (&["congo=t61rcWkgMzE"], "congo=t61rcWkgMzE"),
            (&["a=1", "b=2"], "a=1,b=2"),
            (&[&long], &long),
            (&[&too_long], ""),
            (&[&long, "b"], ""),
            (&[&many], &many),
            (&[&too_many], ""),
            (&["a=\n"], ""),
            (&["a=é"], ""),
        ] {
            assert_eq!(&*read(&[&parent], values).unwrap().state, expected, "{values:?}");
        }
    }

    #[test]
    fn new_ids_differ_and_are_not_zero() {
        let (one, two) = (SpanIds::root(), SpanIds::root());
        assert!(one.trace != two.trace && one.span != two.span);
        let child = one.below();
        assert!(child.trace == one.trace && child.span != one.span);
        assert_eq!(SpanIds { trace: 1, span: 1 }.trace_id().to_string(), format!("{}1", "0".repeat(31)));
    }
}
