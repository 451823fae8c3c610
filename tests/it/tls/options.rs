//! Options of TLS, and `healthcheck` over TLS.

use super::{NOWHERE, Stage};
use crate::support::certificates::{Authority, Identity};
use crate::support::service::run;
use crate::support::tls::{SERVICE, TlsFiles};
use crate::support::token::{CLIENT, POOL};

#[test]
fn an_incomplete_or_useless_combination_of_options_is_an_error() {
    let (authority, other) = (Authority::new("a"), Authority::new("b"));
    let identity = authority.issue(&[SERVICE]);
    let files = TlsFiles::new(&identity, &other.certificate());
    let (certificate, key, ca) = (files.path("tls.crt"), files.path("tls.key"), files.path("ca.crt"));
    let tls = ["--tls-cert-file", &certificate, "--tls-key-file", &key];
    let ca = ["--tls-client-ca-file", &ca];
    let names = ["--tls-client-names", "a.test"];
    let on = |security: &'static str| ["--admin-listen", security];
    let (plain, encrypted, mutual) = (on("127.0.0.1:0"), on("tls:127.0.0.1:0"), on("mtls:127.0.0.1:0"));
    let missing = ["--tls-cert-file", &certificate, "--tls-key-file", "/nonexistent"];
    for (flags, expected) in [
        ([&encrypted[..], &tls].concat(), ""),
        ([&mutual[..], &tls, &ca, &names].concat(), ""),
        ([&encrypted[..]].concat(), "--tls-cert-file: the certificate for addresses with tls: or mtls: is required"),
        ([&encrypted[..], &tls[..2]].concat(), "--tls-key-file: the key of the certificate is required"),
        ([&mutual[..], &tls].concat(), "--tls-client-ca-file: the CA of clients, for addresses with mtls: is required"),
        ([&plain[..], &tls].concat(), "--tls-cert-file: no listener uses it; write tls: or mtls: before the address"),
        ([&encrypted[..], &tls, &ca].concat(), "--tls-client-ca-file: no listener uses it; write mtls: before"),
        ([&encrypted[..], &tls, &names].concat(), "--tls-client-names: no listener uses it"),
        ([&encrypted[..], &missing].concat(), "--tls-key-file: /nonexistent cannot be read"),
        ([&plain[..], &["--tls-client-names", "*.a.test"]].concat(), "there are no patterns: \"*.a.test\""),
        ([&plain[..], &["--tls-client-names", "a b"]].concat(), "neither a DNS name nor a URI"),
        ([&plain[..], &["--tls-client-names", "spiffe:"]].concat(), "not a URI such as spiffe://domain/path"),
        ([&["--grpc-listen", "ssl:a:1"][..]].concat(), "(or one of these after tls: or mtls:): \"ssl:a:1\""),
    ] {
        let base = ["check-config", "--user-pool-id", POOL, "--client-id", CLIENT, "--jwks-url", NOWHERE];
        let (code, _, stderr) = run(&[&base[..], &flags].concat(), &[]);
        assert_eq!(code, Some(if expected.is_empty() { 0 } else { 64 }), "{flags:?}: {stderr}");
        assert!(stderr.contains(expected) && stderr.lines().count() <= 1, "{flags:?}: {stderr}");
    }
    // Commands that open no listener do not read the files.
    let base = ["explain", "--user-pool-id", POOL, "--client-id", CLIENT, "--jwks-url", NOWHERE];
    let (code, _, stderr) = run(&[&base[..], &encrypted, &missing].concat(), &[]);
    assert_eq!((code, &*stderr), (Some(1), ""), "the request is denied");
}

#[test]
fn files_that_are_no_usable_pair_are_an_error() {
    let (authority, other) = (Authority::new("a"), Authority::new("b"));
    let good = authority.issue(&[SERVICE]);
    let with = |certificate: &str, key: &str| Identity { certificate: certificate.into(), key: key.into() };
    for (identity, ca, expected) in [
        (good.clone(), other.certificate(), ""),
        (with(&good.certificate, &other.issue(&[]).key), other.certificate(), "is not the key of the certificate in"),
        (authority.issue_until(&[SERVICE], 2001), other.certificate(), "contains a certificate that expired at 2001"),
        (authority.issue_too_early(&[SERVICE]), other.certificate(), "that is not valid before 2099"),
        (with("", &good.key), other.certificate(), "tls.crt contains no certificate in PEM form"),
        (with(&good.key, &good.key), other.certificate(), "tls.crt contains no certificate in PEM form"),
        (with("-----BEGIN CERTIFICATE-----\nx", &good.key), other.certificate(), "tls.crt is not PEM"),
        (
            with("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &good.key),
            other.certificate(),
            "tls.crt contains a certificate that cannot be decoded",
        ),
        (with(&good.certificate, "secret words"), other.certificate(), "tls.key contains no unencrypted private key"),
        (
            with(&good.certificate, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----"),
            other.certificate(),
            "tls.key contains no unencrypted private key",
        ),
        (
            with(&good.certificate, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"),
            other.certificate(),
            "tls.key cannot be used",
        ),
        (good.clone(), "words".into(), "ca.crt contains no certificate in PEM form"),
        (good.clone(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(), "ca.crt"),
    ] {
        let files = TlsFiles::new(&identity, &ca);
        let (certificate, key, ca) = (files.path("tls.crt"), files.path("tls.key"), files.path("ca.crt"));
        let base = ["check-config", "--user-pool-id", POOL, "--client-id", CLIENT, "--jwks-url", NOWHERE];
        let tls = ["--admin-listen", "mtls:a:1", "--tls-cert-file", &certificate, "--tls-key-file", &key];
        let (code, _, stderr) = run(&[&base[..], &tls, &["--tls-client-ca-file", &ca]].concat(), &[]);
        assert_eq!(code, Some(if expected.is_empty() { 0 } else { 64 }), "{expected}: {stderr}");
        assert!(stderr.contains(expected) && stderr.lines().count() <= 1, "{expected}: {stderr}");
        let line = identity.key.lines().nth(1).unwrap_or("secret words");
        assert!(!stderr.contains(line), "the error contains a part of the key: {stderr}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healthcheck_verifies_the_certificate_and_presents_its_own() {
    let stage = Stage::start(&["--admin-listen", "tls:127.0.0.1:0"]).await;
    let url = stage.program.admin.replace("tls:", "https://");
    let ca = stage.write("service.pem", &stage.authority.certificate());
    let wrong = stage.write("wrong.pem", &Authority::new("x").certificate());
    let own = stage.files.path("tls.crt");
    let plain = url.replace("https", "http");
    let trusted = ["--admin", &url, "--admin-ca-file", &ca, "--admin-server-name", SERVICE];
    for (flags, expected) in [
        (&trusted[..], ""),
        (&["--admin", &url], "https needs --admin-ca-file"),
        (&trusted[..4], "not valid for name"),
        (&["--admin", &url, "--admin-ca-file", &wrong, "--admin-server-name", SERVICE], "UnknownIssuer"),
        (&["--admin", &url, "--admin-ca-file", "/nonexistent"], "/nonexistent cannot be read"),
        (&["--admin", &plain], "use a URL that starts with https://"),
        (&["--admin", &plain, "--admin-ca-file", &ca], "need a URL that starts with https://"),
        (&["--admin", "ftp://a", "--admin-ca-file", &ca], "not an http or https URL"),
        (&[&trusted[..], &["--admin-cert-file", &own]].concat(), "--admin-key-file <FILE> is required"),
    ] {
        let (code, stdout, stderr) = run(&[&["healthcheck"], flags].concat(), &[]);
        assert_eq!(code == Some(0), expected.is_empty(), "{flags:?}: {stderr}");
        assert!(stderr.contains(expected), "{flags:?}: {stderr}");
        assert_eq!(stdout, if expected.is_empty() { "ready\n" } else { "" });
    }
    let stage = Stage::start(&["--admin-listen", "mtls:127.0.0.1:0"]).await;
    let url = stage.program.admin.replace("mtls:", "https://");
    let ca = stage.write("service.pem", &stage.authority.certificate());
    let probe = stage.clients.issue(&["probe.test"]);
    let (certificate, key) = (stage.write("probe.crt", &probe.certificate), stage.write("probe.key", &probe.key));
    let trusted = ["healthcheck", "--admin", &url, "--admin-ca-file", &ca, "--admin-server-name", SERVICE];
    let (code, _, stderr) = run(&trusted, &[]);
    assert_eq!(code, Some(1), "no certificate: {stderr}");
    let identity = ["--admin-cert-file", &certificate, "--admin-key-file", &key];
    let answer = run(&[&trusted[..], &identity].concat(), &[]);
    assert_eq!(answer, (Some(0), "ready\n".into(), String::new()));
}
