//! Clients that are accepted and refused.

use rustls::SupportedProtocolVersion;

use super::Stage;
use crate::support::certificates::{Authority, Identity};
use crate::support::tls::{TlsClient, VERSIONS};

/// Names of accepted clients, in the certificate of the good client among others.
const NAMES: [&str; 4] = ["--tls-client-names", "envoy.mesh.test", "--tls-client-names", "spiffe://mesh.test/envoy"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_listener_serves_tls_1_2_and_1_3_and_agrees_on_its_protocol() {
    let flags = ["--grpc-listen", "tls:127.0.0.1:0", "--admin-listen", "tls:[::1]:0", "--account-listen"];
    let stage = Stage::start(&[&flags[..], &["tls:127.0.0.1:0"]].concat()).await;
    let addresses = [stage.grpc(), &stage.program.admin, &stage.program.account];
    assert!(addresses.iter().all(|address| address.starts_with("tls:")), "{addresses:?}");
    for version in VERSIONS {
        let client = |alpn: &[&str]| TlsClient::new(&[&stage.authority], None, version, alpn);
        // A client need not use ALPN, and may offer more than one name.
        for alpn in [&["h2"][..], &["http/1.1", "h2"], &[]] {
            assert_eq!(client(alpn).check(stage.grpc(), &stage.token).await, Ok(200), "{version:?} {alpn:?}");
        }
        for (address, path) in [(&stage.program.admin, "/livez"), (&stage.program.account, "/auth/openapi.json")] {
            for alpn in [&["http/1.1"][..], &["h2", "http/1.1"], &[]] {
                let answer = client(alpn).get(address, path).await;
                assert_eq!(answer.map(|(status, _)| status), Ok(200), "{version:?} {alpn:?}");
            }
            let agreed = client(&["http/1.1"]).connect(address).await.unwrap();
            assert_eq!(agreed.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            let refused = client(&["h2"]).connect(address).await.unwrap_err().to_string();
            assert!(refused.contains("NoApplicationProtocol"), "{refused}");
        }
        let agreed = client(&["h2"]).connect(stage.grpc()).await.unwrap();
        assert_eq!(agreed.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let refused = client(&["http/1.1"]).connect(stage.grpc()).await.unwrap_err().to_string();
        assert!(refused.contains("NoApplicationProtocol"), "{refused}");
    }
    let stranger = Authority::new("service");
    let untrusted = TlsClient::grpc(&[&stranger], None).connect(stage.grpc()).await.unwrap_err().to_string();
    assert!(untrusted.contains("BadSignature") || untrusted.contains("UnknownIssuer"), "{untrusted}");
}

/// Certificates of clients, and a part of the error that the client gets; empty if it is accepted.
fn cases(clients: &Authority) -> Vec<(&'static str, Option<Identity>, &'static str)> {
    // A CA of the same name with another key.
    let forged = Authority::new("clients");
    vec![
        ("a DNS name", Some(clients.issue(&["other.test", "envoy.mesh.test"])), ""),
        ("a DNS name in upper case", Some(clients.issue(&["ENVOY.mesh.TEST"])), ""),
        ("a URI", Some(clients.issue(&["spiffe://mesh.test/envoy"])), ""),
        ("no certificate", None, "CertificateRequired"),
        ("another CA", Some(forged.issue(&["envoy.mesh.test"])), "DecryptError BadCertificate UnknownCA"),
        ("expired", Some(clients.issue_until(&["envoy.mesh.test"], 2001)), "CertificateExpired"),
        ("not yet valid", Some(clients.issue_too_early(&["envoy.mesh.test"])), "CertificateExpired BadCertificate"),
        ("only for servers", Some(clients.issue_for_servers(&["envoy.mesh.test"])), "UnsupportedCertificate Bad"),
        ("another name", Some(clients.issue(&["envoy.other.test"])), "AccessDenied"),
        ("a longer name", Some(clients.issue(&["a.envoy.mesh.test"])), "AccessDenied"),
        ("a shorter name", Some(clients.issue(&["mesh.test"])), "AccessDenied"),
        ("a wildcard", Some(clients.issue(&["*.mesh.test"])), "AccessDenied"),
        ("a longer URI", Some(clients.issue(&["spiffe://mesh.test/envoy/2"])), "AccessDenied"),
        ("a URI in upper case", Some(clients.issue(&["spiffe://mesh.test/Envoy"])), "AccessDenied"),
        ("only a common name", Some(clients.issue(&[])), "AccessDenied"),
        ("an IP address", Some(clients.issue(&["127.0.0.1"])), "AccessDenied"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mutual_tls_accepts_only_valid_certificates_of_the_ca_with_an_accepted_name() {
    let flags = ["--grpc-listen", "mtls:127.0.0.1:0", "--admin-listen", "mtls:127.0.0.1:0"];
    let stage = Stage::start(&[&flags[..], &NAMES].concat()).await;
    for (what, identity, expected) in cases(&stage.clients) {
        for version in VERSIONS {
            let client = |version: &'static SupportedProtocolVersion, alpn: &str| {
                TlsClient::new(&[&stage.authority], identity.as_ref(), version, &[alpn])
            };
            let check = client(version, "h2").check(stage.grpc(), &stage.token).await;
            let livez = client(version, "http/1.1").get(&stage.program.admin, "/livez").await;
            if expected.is_empty() {
                assert_eq!((check, livez), (Ok(200), Ok((200, "ok\n".into()))), "{what} {version:?}");
                continue;
            }
            assert!(check.is_err() && livez.is_err(), "{what} {version:?}: {check:?} {livez:?}");
            for (address, alpn) in [(stage.grpc(), "h2"), (&stage.program.admin, "http/1.1")] {
                let alert = client(version, alpn).refusal(address).await;
                let is_expected = expected.split(' ').any(|name| alert.contains(name));
                assert!(is_expected, "{what} {version:?}: {alert}");
            }
        }
    }
    drop(stage);
    // Without names, every client of the CA is accepted, and no other.
    let stage = Stage::start(&flags).await;
    for (what, identity, expected) in cases(&stage.clients) {
        let check = TlsClient::grpc(&[&stage.authority], identity.as_ref()).check(stage.grpc(), &stage.token).await;
        let is_accepted = ["", "AccessDenied"].contains(&expected);
        assert_eq!(check.is_ok(), is_accepted, "{what}: {check:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tls_listener_asks_for_no_certificate_and_one_listener_can_be_mutual_beside_it() {
    let flags = ["--grpc-listen", "tls:127.0.0.1:0", "--grpc-listen", "mtls:127.0.0.1:0"];
    let mut stage = Stage::start(&flags).await;
    let client = TlsClient::grpc(&[&stage.authority], None);
    assert_eq!(client.check(&stage.program.grpc[1], &stage.token).await, Ok(200));
    assert!(client.check(&stage.program.grpc[2], &stage.token).await.is_err());
    let alert = client.refusal(&stage.program.grpc[2]).await;
    assert!(alert.contains("CertificateRequired"), "{alert}");
    // The log says why, without a client's data.
    let line = stage.program.wait_for_line("TLS handshakes failed");
    assert!(line.contains("peer sent no certificates"), "{line}");
}
