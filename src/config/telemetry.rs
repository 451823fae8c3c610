//! Traces, from the options and the variables `OTEL_…` of the OpenTelemetry specification ("Environment Variable
//! Specification" and "OpenTelemetry Protocol Exporter").
//!
//! A variable for traces takes precedence over the one for all signals. Values that OpenTelemetry does not define are
//! errors; values that it defines and this program does not support are warnings.

use std::path::Path;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use url::{Host, Url};

use super::error::ConfigError;
use super::options::{Options, share};
use super::source::{Source, Sources};
use crate::files::{self, MAX_SECRET_BYTES, MAX_TEXT_BYTES};
use crate::telemetry::Settings;
use crate::telemetry::settings::{Batches, Protocol, Sampling, check_certificates};

/// Prefix of the variables of the exporter. `TRACES_` may follow it.
const EXPORTER: &str = "OTEL_EXPORTER_OTLP_";
/// Path of the only method that the exporter calls over gRPC.
const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
/// Path of the same below the endpoint for all signals, over HTTP.
const HTTP_PATH: &str = "v1/traces";
/// Headers that the protocol sets.
const OWN_HEADERS: [&str; 5] = ["content-type", "content-length", "host", "te", "connection"];

/// Largest number of spans that may wait: some 65 MB.
const MAX_QUEUE: u32 = 65_536;

/// Every variable that is read.
pub(super) const VARIABLES: [&str; 26] = [
    "OTEL_SDK_DISABLED",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_TRACES_EXPORTER",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
];

/// A variable that is set.
struct Variable<'s> {
    name: String,
    value: &'s str,
    source: Source,
}

impl<'s> Variable<'s> {
    fn read(sources: Sources<'s>, name: impl Into<String>) -> Option<Self> {
        let name = name.into();
        let (value, source) = sources.variable(&name)?;
        Some(Self { name, value, source })
    }

    /// Reads a variable of the exporter.
    fn of_exporter(sources: Sources<'s>, name: &str) -> Option<Self> {
        Self::read(sources, format!("{EXPORTER}TRACES_{name}"))
            .or_else(|| Self::read(sources, format!("{EXPORTER}{name}")))
    }

    fn error(&self, why: impl std::fmt::Display) -> ConfigError {
        ConfigError::new(format!("{}: {why} (from {})", self.name, self.source))
    }

    /// Parses a whole number between `least` and `most`.
    fn number(&self, least: u32, most: u32) -> Result<u32, ConfigError> {
        let number = self.value.trim().parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| self.error(format_args!("not a whole number from {least} to {most}: {:?}", self.value)))
    }

    /// Splits `name=value,name=value`, whose values are percent-encoded. The error does not show them.
    fn pairs(&self) -> Result<Vec<(String, String)>, ConfigError> {
        let error = || self.error("not of the form name=value,name=value");
        let decode = |text: &str| Some(percent_decode_str(text.trim()).decode_utf8().ok()?.into_owned());
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').ok_or_else(error)?;
            let decoded = decode(name).filter(|name| !name.is_empty()).zip(decode(value));
            decoded.ok_or_else(error)
        };
        self.value.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect()
    }

    /// Reads the file that the variable names.
    fn file(&self, most: u64) -> Result<Vec<u8>, ConfigError> {
        files::read(Path::new(self.value), most).map_err(|why| self.error(format_args!("{} {why}", self.value)))
    }
}

/// Reads the settings of traces. Returns `None` if they are off.
pub(super) fn settings(
    options: &Options,
    sources: Sources<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<Settings>, ConfigError> {
    if options.trace.is_unused {
        return Ok(None);
    }
    let Some(endpoint) = endpoint(sources, warnings) else {
        for id in ["trace_ratio", "trace_trust_headers"].into_iter().filter(|id| sources.is_set(id)) {
            let flag = id.replace('_', "-");
            warnings.push(format!("--{flag} has no effect: traces are off without OTEL_EXPORTER_OTLP_ENDPOINT"));
        }
        return Ok(None);
    };
    let Some(sampling) = sampling(options, sources, warnings)? else { return Ok(None) };
    let protocol = protocol(sources)?;
    let url = url(&endpoint, protocol)?;
    let headers = headers(sources)?;
    if !headers.is_empty() && url.scheme() == "http" && !is_loopback(&url) {
        warnings.push(format!("{}: the headers for the collector are sent without encryption", endpoint.name));
    }
    if let Some(compression) = Variable::of_exporter(sources, "COMPRESSION") {
        match compression.value {
            "none" => {}
            "gzip" => warnings.push(format!("{}: gzip is not supported; spans are not compressed", compression.name)),
            other => return Err(compression.error(format_args!("neither gzip nor none: {other:?}"))),
        }
    }
    let authority = Variable::of_exporter(sources, "CERTIFICATE");
    let (certificate, key) =
        (Variable::of_exporter(sources, "CLIENT_CERTIFICATE"), Variable::of_exporter(sources, "CLIENT_KEY"));
    let identity = match (&certificate, &key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => {
            Some([certificate.file(MAX_TEXT_BYTES)?, b"\n".to_vec(), key.file(MAX_SECRET_BYTES)?].concat())
        }
        (Some(one), None) | (None, Some(one)) => {
            return Err(one.error("the certificate and the key of the client are set together"));
        }
    };
    let timeout = milliseconds(Variable::of_exporter(sources, "TIMEOUT"), 10_000)?;
    let settings = Settings {
        url,
        protocol,
        headers,
        authority: authority.as_ref().map(|file| file.file(MAX_TEXT_BYTES)).transpose()?,
        identity,
        timeout: timeout.min(milliseconds(Variable::read(sources, "OTEL_BSP_EXPORT_TIMEOUT"), 30_000)?),
        resource: resource(sources)?,
        sampling,
        batches: batches(sources, milliseconds(Variable::read(sources, "OTEL_BSP_SCHEDULE_DELAY"), 5_000)?)?,
    };
    if let (Some(file), Err(why)) = (authority.or(certificate), check_certificates(&settings)) {
        return Err(file.error(format_args!("the certificates for the collector cannot be used: {why}")));
    }
    Ok(Some(settings))
}

/// Reads a time in milliseconds, of at most ten minutes.
fn milliseconds(variable: Option<Variable<'_>>, default: u32) -> Result<Duration, ConfigError> {
    let number = variable.map_or(Ok(default), |variable| variable.number(1, 600_000))?;
    Ok(Duration::from_millis(number.into()))
}

/// Returns the variable with the endpoint, unless traces are off.
fn endpoint<'s>(sources: Sources<'s>, warnings: &mut Vec<String>) -> Option<Variable<'s>> {
    let endpoint = Variable::of_exporter(sources, "ENDPOINT")?;
    if sources.variable("OTEL_SDK_DISABLED").is_some_and(|(value, _)| value.eq_ignore_ascii_case("true")) {
        return None;
    }
    match sources.variable("OTEL_TRACES_EXPORTER") {
        None | Some(("otlp", _)) => Some(endpoint),
        Some(("none", _)) => None,
        Some((other, _)) => {
            warnings.push(format!("OTEL_TRACES_EXPORTER: {other:?} is not supported; traces are off"));
            None
        }
    }
}

fn protocol(sources: Sources<'_>) -> Result<Protocol, ConfigError> {
    let Some(protocol) = Variable::of_exporter(sources, "PROTOCOL") else { return Ok(Protocol::Http) };
    match protocol.value {
        "grpc" => Ok(Protocol::Grpc),
        "http/protobuf" => Ok(Protocol::Http),
        other => Err(protocol.error(format_args!("neither grpc nor http/protobuf: {other:?}"))),
    }
}

/// Makes the URL of the requests. Over HTTP, an endpoint for traces is that URL itself.
fn url(endpoint: &Variable<'_>, protocol: Protocol) -> Result<Url, ConfigError> {
    let error = || endpoint.error("not a URL such as http://collector:4318, without user, query and fragment");
    let mut url: Url = endpoint.value.trim().parse().map_err(|_| error())?;
    let is_plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    if !["http", "https"].contains(&url.scheme()) || url.host().is_none() || !is_plain || url.query().is_some() {
        return Err(error());
    }
    match protocol {
        Protocol::Grpc => url.set_path(GRPC_PATH),
        Protocol::Http if endpoint.name == format!("{EXPORTER}ENDPOINT") => {
            let path = format!("{}/{HTTP_PATH}", url.path().trim_end_matches('/'));
            url.set_path(&path);
        }
        Protocol::Http => {}
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

fn headers(sources: Sources<'_>) -> Result<HeaderMap, ConfigError> {
    let mut headers = HeaderMap::new();
    let Some(variable) = Variable::of_exporter(sources, "HEADERS") else { return Ok(headers) };
    for (name, value) in variable.pairs()? {
        let parsed = HeaderName::try_from(&name).ok().zip(HeaderValue::try_from(value).ok());
        let (name, mut value) = parsed.ok_or_else(|| variable.error("not a header, or not a value of one"))?;
        if OWN_HEADERS.contains(&name.as_str()) {
            return Err(variable.error(format_args!("the header {name} is set by the protocol")));
        }
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// Combines the sampler of the environment with `--trace-ratio`, which takes precedence. `None` if nothing is sampled.
///
/// The sampler of a parent decides about what it has not sampled as well, unless the name of ours does not begin with
/// `parentbased_`, or `--trace-ratio` is set.
fn sampling(
    options: &Options,
    sources: Sources<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<Sampling>, ConfigError> {
    let trusts_headers = options.trace.trace_trust_headers;
    let some = |roots, unsampled| Ok(Some(Sampling { roots, unsampled, trusts_headers }));
    let ratio = options.trace.trace_ratio;
    let Some(sampler) = Variable::read(sources, "OTEL_TRACES_SAMPLER") else { return some(ratio, ratio) };
    if sampler.value == "always_off" {
        return Ok(None);
    }
    if sources.is_set("trace_ratio") {
        return some(ratio, ratio);
    }
    let argument = || match Variable::read(sources, "OTEL_TRACES_SAMPLER_ARG") {
        Some(argument) => share(argument.value).map_err(|why| argument.error(why)),
        None => Ok(1.0),
    };
    match sampler.value {
        "always_on" => some(1.0, 1.0),
        "parentbased_always_on" => some(1.0, 0.0),
        "parentbased_always_off" => some(0.0, 0.0),
        "traceidratio" => argument().and_then(|share| some(share, share)),
        "parentbased_traceidratio" => argument().and_then(|share| some(share, 0.0)),
        other @ ("jaeger_remote" | "parentbased_jaeger_remote" | "xray") => {
            warnings.push(format!("OTEL_TRACES_SAMPLER: {other} is not supported; --trace-ratio decides"));
            some(ratio, ratio)
        }
        other => Err(sampler.error(format_args!("not a sampler such as parentbased_traceidratio: {other:?}"))),
    }
}

/// Attributes of this process: those of the environment, and ours. An instance gets a new id at each start.
fn resource(sources: Sources<'_>) -> Result<Vec<(String, String)>, ConfigError> {
    let attributes = Variable::read(sources, "OTEL_RESOURCE_ATTRIBUTES");
    let mut attributes = attributes.map_or_else(|| Ok(Vec::new()), |attributes| attributes.pairs())?;
    if let Some((name, _)) = sources.variable("OTEL_SERVICE_NAME") {
        attributes.retain(|(key, _)| key != "service.name");
        attributes.push(("service.name".into(), name.into()));
    }
    let ours = [
        ("service.name", env!("CARGO_PKG_NAME").to_owned()),
        ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
        ("service.instance.id", format!("{:032x}", fastrand::u128(..))),
        ("telemetry.sdk.language", "rust".to_owned()),
        ("telemetry.sdk.name", env!("CARGO_PKG_NAME").to_owned()),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    for (name, value) in ours {
        if !attributes.iter().any(|(key, _)| key == name) {
            attributes.push((name.into(), value));
        }
    }
    Ok(attributes)
}

fn batches(sources: Sources<'_>, delay: Duration) -> Result<Batches, ConfigError> {
    let number =
        |name, default| Variable::read(sources, name).map_or(Ok(default), |variable| variable.number(1, MAX_QUEUE));
    let queue = number("OTEL_BSP_MAX_QUEUE_SIZE", 2048)?;
    let size = number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)?.min(queue);
    let length = |number| usize::try_from(number).unwrap_or(usize::MAX);
    Ok(Batches { queue: length(queue), size: length(size), delay })
}

/// Returns the variables that are set, with their values and sources, for `/config`. Headers are secret.
pub(super) fn effective(sources: Sources<'_>) -> impl Iterator<Item = (String, Value)> {
    VARIABLES.into_iter().filter_map(move |name| {
        let (value, source) = sources.variable(name)?;
        let value = if name.ends_with("_HEADERS") { "[redacted]" } else { value };
        Some((name.to_owned(), json!({"value": value, "source": source.to_string()})))
    })
}
