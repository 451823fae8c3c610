use std::io::Write;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::TlsConnector;

use super::*;
use crate::certificates::{Authority, Identity};

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
    path
}

/// Writes the files of a service. Names of clients are separated by spaces.
fn files(folder: &Path, service: &Identity, clients: &Authority, names: &str) -> TlsFiles {
    TlsFiles {
        certificate: write(folder, "tls.crt", &service.certificate),
        key: write(folder, "tls.key", &service.key),
        client_ca: Some(write(folder, "ca.crt", &clients.certificate())),
        client_names: names.split_whitespace().map(|name| name.parse().unwrap()).collect(),
    }
}

fn client(service: &Authority, identity: &Identity) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(service.certificate().as_bytes()).unwrap()).unwrap();
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_client_auth_cert(vec![certificate], key).unwrap())
}

/// Connects, and exchanges a byte in each direction, so that the client has all session tickets. Returns the name of
/// the client, and the kind of its handshake.
async fn connect(acceptor: &Acceptor, client: Arc<ClientConfig>) -> Option<(Option<String>, HandshakeKind)> {
    let (ours, theirs) = duplex(16 * 1024);
    let deadline = Instant::now() + std::time::Duration::from_secs(20);
    let serve = async {
        let (mut stream, certificate) = acceptor.accept(ours, deadline).await?;
        stream.write_u8(1).await.unwrap();
        stream.read_u8().await.unwrap();
        Some(certificate.map(|certificate| certificate.name().to_owned()))
    };
    let ask = async {
        let name = ServerName::try_from("authz.test").unwrap();
        let mut stream = TlsConnector::from(client).connect(name, theirs).await.ok()?;
        stream.read_u8().await.ok()?;
        stream.write_u8(1).await.ok()?;
        stream.get_ref().1.handshake_kind()
    };
    let (served, asked) = tokio::join!(serve, ask);
    served.zip(asked)
}

#[tokio::test]
async fn a_verified_client_has_the_name_that_was_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let (service, clients) = (Authority::new("service"), Authority::new("clients"));
    let many = clients.issue(&["a.test", "B.test", "spiffe://mesh/b"]);
    let none = clients.issue(&[]);
    for (accepted, identity, expected) in [
        ("b.test", &many, Some("b.test")),
        ("x.test spiffe://mesh/b", &many, Some("spiffe://mesh/b")),
        ("spiffe://mesh/b a.test", &many, Some("a.test")),
        ("", &many, Some("spiffe://mesh/b")),
        ("", &clients.issue(&["a.test", "b.test"]), Some("a.test")),
        ("", &none, Some("sha256:")),
        ("c.test spiffe://mesh/B", &many, None),
        ("envoy.test", &none, None),
    ] {
        let files = files(folder.path(), &service.issue(&["authz.test"]), &clients, accepted);
        let certificates = Arc::new(Certificates::open(files).unwrap());
        let mutual = certificates.acceptor(Protocol::Http, true).unwrap();
        let name = connect(&mutual, client(&service, identity)).await.map(|(name, _)| name.unwrap());
        let is_expected = match expected {
            Some("sha256:") => name.as_deref().is_some_and(|name| name.starts_with("sha256:") && name.len() == 71),
            expected => name.as_deref() == expected,
        };
        assert!(is_expected, "{accepted:?}: {name:?}");
        let plain = certificates.acceptor(Protocol::Http, false).unwrap();
        let (name, _) = connect(&plain, client(&service, identity)).await.unwrap();
        assert_eq!(name, None, "a tls: listener verifies no client");
    }
}

#[tokio::test]
async fn sessions_are_resumed_only_without_client_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let (service, clients) = (Authority::new("service"), Authority::new("clients"));
    let files = files(folder.path(), &service.issue(&["authz.test"]), &clients, "");
    let certificates = Arc::new(Certificates::open(files).unwrap());
    for (is_mutual, expected) in [(true, HandshakeKind::Full), (false, HandshakeKind::Resumed)] {
        let acceptor = certificates.acceptor(Protocol::Grpc, is_mutual).unwrap();
        let client = client(&service, &clients.issue(&["a.test"]));
        assert_eq!(connect(&acceptor, Arc::clone(&client)).await.unwrap().1, HandshakeKind::Full);
        assert_eq!(connect(&acceptor, client).await.unwrap().1, expected, "mutual: {is_mutual}");
    }
}

#[tokio::test]
async fn a_reload_says_if_the_files_have_changed_and_a_failed_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (service, clients) = (Authority::new("service"), Authority::new("clients"));
    let identity = service.issue_until(&["authz.test"], 2050);
    let certificates = Certificates::open(files(folder.path(), &identity, &clients, "")).unwrap();
    let before = certificates.expires();
    assert!(!certificates.reload().unwrap());
    write(folder.path(), "tls.key", &service.issue(&[]).key);
    let error = certificates.reload().unwrap_err();
    assert!(error.option == "tls_key_file" && error.to_string().contains("is not the key"), "{error}");
    assert_eq!(certificates.expires(), before);
    let newer = service.issue_until(&["authz.test"], 2051);
    files(folder.path(), &newer, &clients, "");
    assert!(certificates.reload().unwrap());
    assert!(certificates.expires() > before && !certificates.reload().unwrap());
    let shown = format!("{certificates:?}");
    assert!(shown.contains("tls.key") && !shown.contains(newer.key.lines().nth(1).unwrap()), "{shown}");
}

#[test]
fn without_a_ca_there_is_no_mutual_tls() {
    let folder = tempfile::tempdir().unwrap();
    let service = Authority::new("service");
    let files = files(folder.path(), &service.issue(&["authz.test"]), &service, "");
    let certificates = Arc::new(Certificates::open(TlsFiles { client_ca: None, ..files }).unwrap());
    assert!(certificates.acceptor(Protocol::Grpc, true).is_none());
    assert!(certificates.acceptor(Protocol::Grpc, false).is_some());
}

#[test]
fn names_of_clients() {
    for good in ["a", "a.test", "A-1.test", "xn--bcher-kva.test", "spiffe://mesh/ns/a/sa/b", "urn:a:b", "https://a/?b"]
    {
        assert!(good.parse::<ClientName>().is_ok(), "{good}");
    }
    assert_eq!("A.Test".parse::<ClientName>().unwrap(), ClientName::Dns("a.test".into()));
    for bad in ["", "*", "*.a", "a b", "a..b", "spiffe:", "1a:b", ":b", "a:b c", "spiffe://a/*", "bücher.test", "a:é"]
    {
        assert!(bad.parse::<ClientName>().is_err(), "{bad}");
    }
}
