//! Traces: the variables of OpenTelemetry, and the options beside them.

use std::time::Duration;

use super::{MINIMAL, read_from};
use crate::config::Config;
use crate::telemetry::Settings;
use crate::telemetry::settings::{Batches, Protocol, Sampling};

fn config(variables: &[(&str, &str)], flags: &[&str]) -> Result<Config, String> {
    read_from(flags, &[&MINIMAL[..], variables].concat(), "")
}

fn read(variables: &[(&str, &str)], flags: &[&str]) -> Result<(Option<Settings>, Vec<String>), String> {
    config(variables, flags).map(|config| (config.telemetry, config.warnings))
}

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

fn on(variables: &[(&str, &str)], flags: &[&str]) -> Settings {
    read(&[&[ENDPOINT], variables].concat(), flags).unwrap().0.unwrap()
}

#[test]
fn traces_are_off_unless_an_endpoint_is_set() {
    assert!(read(&[], &[]).unwrap().0.is_none());
    for off in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
        ("OTEL_SDK_DISABLED", "TRUE"),
        ("OTEL_TRACES_EXPORTER", "none"),
        ("OTEL_TRACES_SAMPLER", "always_off"),
    ] {
        let bad = ("OTEL_EXPORTER_OTLP_PROTOCOL", if off.1 == "always_off" { "" } else { "bad" });
        assert!(read(&[ENDPOINT, bad, off], &[]).unwrap().0.is_none(), "{off:?}");
    }
    assert!(read(&[ENDPOINT, ("OTEL_SDK_DISABLED", "false")], &[]).unwrap().0.is_some());
    let (_, warnings) = read(&[], &["--trace-ratio=0.5"]).unwrap();
    assert!(warnings.iter().any(|warning| warning.starts_with("--trace-ratio has no effect")), "{warnings:?}");
    let (off, warnings) = read(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "zipkin")], &[]).unwrap();
    assert!(off.is_none() && warnings.iter().any(|warning| warning.contains("zipkin")), "{warnings:?}");
}

#[test]
fn the_endpoint_becomes_the_url_of_the_requests() {
    let traces = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    for (name, value, protocol, url) in [
        (ENDPOINT.0, "http://c:4318", "http/protobuf", "http://c:4318/v1/traces"),
        (ENDPOINT.0, "https://c/base/", "http/protobuf", "https://c/base/v1/traces"),
        (traces, "https://c/own", "http/protobuf", "https://c/own"),
        (traces, "https://c", "http/protobuf", "https://c/"),
        (
            ENDPOINT.0,
            "http://c:4317",
            "grpc",
            "http://c:4317/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        ),
    ] {
        let settings = on(&[(name, value), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)], &[]);
        assert_eq!(settings.url.as_str(), url);
    }
    for bad in ["collector:4317", "ftp://c", "http://u:p@c", "http://c?x=1", "http://c#x", "/v1/traces", "http://"] {
        let error = read(&[(ENDPOINT.0, bad)], &[]).unwrap_err();
        assert!(
            error.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT: not a URL") && !error.contains("u:p"),
            "{bad}: {error}"
        );
    }
}

#[test]
fn a_variable_for_traces_takes_precedence() {
    let settings = on(
        &[
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1000"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2000"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=Bearer%20secret, x-b=2"),
        ],
        &[],
    );
    assert_eq!((settings.protocol, settings.timeout), (Protocol::Grpc, Duration::from_secs(2)));
    assert_eq!(settings.headers.len(), 2);
    assert_eq!(settings.headers["authorization"], "Bearer secret");
    assert!(!format!("{settings:?}").contains("secret"));
    let settings = on(&[("OTEL_BSP_EXPORT_TIMEOUT", "500")], &[]);
    assert_eq!(settings.timeout, Duration::from_millis(500), "the earlier limit");
}

#[test]
fn a_malformed_value_is_an_error_that_names_the_variable() {
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a b=secret"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=secret%0a"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "content-type=secret"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nonexistent"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/nonexistent"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "65537"),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment"),
    ] {
        let error = read(&[ENDPOINT, (name, value)], &[]).unwrap_err();
        assert!(error.starts_with(&format!("{name}: ")), "{error}");
        assert!(error.ends_with(&format!("(from the environment variable {name})")), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    let argument = [ENDPOINT, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")];
    assert!(read(&argument, &[]).unwrap_err().starts_with("OTEL_TRACES_SAMPLER_ARG: not a number"));
    assert!(read(&[ENDPOINT], &["--trace-ratio=1.5"]).unwrap_err().starts_with("--trace-ratio: not a number"));
}

#[test]
fn the_sampler_of_the_environment_gives_way_to_the_option() {
    for (sampler, argument, flags, roots, unsampled) in [
        ("", "", &[][..], 0.0, 0.0),
        ("", "", &["--trace-ratio=0.25"], 0.25, 0.25),
        ("always_on", "", &[], 1.0, 1.0),
        ("parentbased_always_on", "", &[], 1.0, 0.0),
        ("parentbased_always_off", "", &[], 0.0, 0.0),
        ("traceidratio", "0.5", &[], 0.5, 0.5),
        ("parentbased_traceidratio", "0.5", &[], 0.5, 0.0),
        ("parentbased_traceidratio", "", &[], 1.0, 0.0),
        ("parentbased_traceidratio", "0.5", &["--trace-ratio=0.25"], 0.25, 0.25),
        ("xray", "", &[], 0.0, 0.0),
    ] {
        let variables = [("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)];
        let sampling = on(&variables, flags).sampling;
        assert_eq!(sampling, Sampling { roots, unsampled, trusts_headers: false }, "{sampler} {flags:?}");
    }
    assert!(on(&[], &["--trace-trust-headers"]).sampling.trusts_headers);
}

#[test]
fn the_resource_names_the_service() {
    let value = |settings: &Settings, name: &str| {
        let found: Vec<_> = settings.resource.iter().filter(|(key, _)| key == name).collect();
        assert_eq!(found.len(), 1, "{name}");
        found[0].1.clone()
    };
    let plain = on(&[], &[]);
    assert_eq!(value(&plain, "service.name"), "cognito-authz");
    assert_ne!(value(&plain, "service.instance.id"), value(&on(&[], &[]), "service.instance.id"));
    let attributes =
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment.name=a%2Cb,service.instance.id=7");
    let given = on(&[attributes], &[]);
    assert_eq!(value(&given, "service.name"), "other");
    assert_eq!(value(&given, "deployment.environment.name"), "a,b");
    assert_eq!(value(&given, "service.instance.id"), "7");
    assert_eq!(value(&on(&[attributes, ("OTEL_SERVICE_NAME", "authz")], &[]), "service.name"), "authz");
}

#[test]
fn headers_over_plain_http_are_warned_about() {
    let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=x");
    for (endpoint, warns) in
        [("http://collector:4318", true), ("https://collector", false), ("http://[::1]:4318", false)]
    {
        let (_, warnings) = read(&[(ENDPOINT.0, endpoint), headers], &[]).unwrap();
        assert_eq!(warnings.iter().any(|warning| warning.contains("without encryption")), warns, "{endpoint}");
    }
}

#[test]
fn a_batch_is_not_larger_than_the_queue() {
    let variables = [("OTEL_BSP_MAX_QUEUE_SIZE", "10"), ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "20")];
    assert_eq!(on(&variables, &[]).batches, Batches { queue: 10, size: 10, delay: Duration::from_secs(5) });
    assert_eq!(on(&[], &[]).batches, Batches { queue: 2048, size: 512, delay: Duration::from_secs(5) });
}

#[test]
fn the_configuration_that_operators_see_has_no_headers() {
    let variables = [ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hidden")];
    let shown = config(&variables, &[]).unwrap().effective;
    assert_eq!(shown[ENDPOINT.0]["value"], ENDPOINT.1);
    assert_eq!(shown["OTEL_EXPORTER_OTLP_HEADERS"]["value"], "[redacted]");
    assert!(!shown.to_string().contains("hidden"));
}
