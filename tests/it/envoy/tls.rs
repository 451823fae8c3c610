//! The service behind an Envoy that connects with mutual TLS, with the files of `deploy/envoy/tls`.

use crate::envoy::{SeededKey, good_token, token_of_an_unknown_key};
use crate::support::PATIENCE;
use crate::support::certificates::{Authority, EXPIRES};
use crate::support::client::{get, metric};
use crate::support::envoy::{Bootstrap, Envoy, LISTENERS};
use crate::support::eventually;
use crate::support::http1::{bearer, fetch};
use crate::support::service::TestApp;
use crate::support::tls::TlsFiles;
use crate::support::upstream::Upstream;

/// Name in the service's certificate, as in `deploy/envoy/tls`.
const SERVICE: &str = "cognito-authz.cognito-authz.svc";

/// Service with an `mtls:` listener that accepts only the client `envoy.test`.
struct Service {
    app: TestApp,
    files: TlsFiles,
    /// CA of the service's certificate.
    authority: Authority,
    /// CA of clients.
    clients: Authority,
}

impl Service {
    fn start(keys: &SeededKey, directory: &tempfile::TempDir) -> Self {
        let (authority, clients) = (Authority::new("service"), Authority::new("clients"));
        let files = TlsFiles::new(&authority.issue(&[SERVICE]), &clients.certificate());
        let socket = format!("unix:{}", directory.path().join("authz.sock").display());
        let (tls, ca) = (files.flags(), files.path("ca.crt"));
        let mut flags = vec!["--grpc-listen", "mtls:127.0.0.1:0", "--grpc-listen", &socket];
        flags.extend(["--tls-client-ca-file", &ca, "--tls-client-names", "envoy.test"]);
        flags.extend(tls.iter().map(String::as_str).chain(keys.flags()));
        Self { app: TestApp::start(&flags), files, authority, clients }
    }

    /// Starts an Envoy with a certificate for `name`, which expects a certificate of `authority` for the service.
    async fn envoy(&self, name: &str, authority: &Authority, upstream: &Upstream) -> (Envoy, TlsFiles) {
        let files = TlsFiles::new(&self.clients.issue(&[name]), &authority.certificate());
        let encrypted = self.app.grpc[1].strip_prefix("mtls:").unwrap().to_owned();
        let mut bootstrap = Bootstrap::new(&[encrypted, self.app.grpc[2].clone()], &upstream.address);
        bootstrap.serve_account(&self.app.admin);
        bootstrap.encrypt(&files.path(""));
        (Envoy::start(bootstrap).await, files)
    }
}

#[tokio::test]
async fn checks_over_mutual_tls_survive_a_rotation_on_both_sides() {
    let (keys, directory, upstream) = (SeededKey::new().await, tempfile::tempdir().unwrap(), Upstream::start().await);
    let service = Service::start(&keys, &directory);
    eventually("ready", PATIENCE, async || get(&service.app.admin, "/readyz").await.0 == 200).await;
    let (envoy, envoys_files) = service.envoy("envoy.test", &service.authority, &upstream).await;
    envoy.finds_the_service_healthy().await;
    let address = envoy.address(LISTENERS[1]);
    let ask = async |token: &str| fetch(address, "/orders", &[bearer(token)]).await.verdict();
    let (good, bad) = (good_token(), token_of_an_unknown_key());
    assert_eq!(ask(&good).await.0, 200);
    assert_eq!(ask(&bad).await, (503, "keys_unavailable".into()), "a decision of the service");

    let series = "tls_certificate_expiry_timestamp_seconds{listener=\"grpc\"}";
    let before = metric(&service.app.admin, series).await;
    let newer = service.authority.issue_until(&[SERVICE], EXPIRES + 1);
    service.files.mount(&newer, &service.clients.certificate());
    envoys_files.mount(&service.clients.issue(&["envoy.test"]), &service.authority.certificate());
    eventually("the new certificate is in effect", PATIENCE, async || {
        assert_eq!(ask(&good).await.0, 200, "during the rotation");
        metric(&service.app.admin, series).await > before
    })
    .await;
    envoy.finds_the_service_healthy().await;
    assert_eq!(ask(&good).await.0, 200);
}

#[tokio::test]
async fn an_envoy_without_an_accepted_certificate_and_a_service_of_another_ca_get_503() {
    let (keys, directory, upstream) = (SeededKey::new().await, tempfile::tempdir().unwrap(), Upstream::start().await);
    let service = Service::start(&keys, &directory);
    eventually("ready", PATIENCE, async || get(&service.app.admin, "/readyz").await.0 == 200).await;
    let other = Authority::new("service");
    for (what, name, authority) in
        [("the name of Envoy", "other.test", &service.authority), ("the CA of the service", "envoy.test", &other)]
    {
        let (envoy, _files) = service.envoy(name, authority, &upstream).await;
        let answer = fetch(envoy.address(LISTENERS[1]), "/orders", &[bearer(&good_token())]).await;
        assert_eq!((answer.status, &*answer.body), (503, ""), "{what}");
        let answer = fetch(envoy.address(LISTENERS[0]), "/orders", &[bearer(&good_token())]).await;
        assert_eq!(answer.status, 200, "{what} does not matter on the Unix socket");
    }
}
