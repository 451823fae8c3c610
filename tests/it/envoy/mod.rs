//! What clients and applications see of the service through a real Envoy, with `deploy/envoy/envoy.yaml` where a test
//! does not change it, over a Unix socket and over TCP.

mod account;
mod decisions;
mod failing_open;
mod forgeries;
mod outages;
mod policy;
mod sessions;
mod users;

use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::envoy::{Bootstrap, Envoy};
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::service::TestApp;
use crate::support::token::{SigningKey, jwks};
use crate::support::upstream::Upstream;

/// All that stands between a client and an application.
struct Stage {
    envoy: Envoy,
    service: TestApp,
    upstream: Upstream,
    _directory: TempDir,
}

impl Stage {
    /// Starts a service with these flags and a changed Envoy before it, and waits until Envoy sends it requests.
    async fn start(flags: &[&str], change: impl FnOnce(&mut Bootstrap)) -> Self {
        let stage = Self::start_unready(flags, change).await;
        stage.envoy.finds_the_service_healthy().await;
        stage
    }

    /// The same without the last step.
    async fn start_unready(flags: &[&str], change: impl FnOnce(&mut Bootstrap)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = format!("unix:{}", directory.path().join("authz.sock").display());
        let service = TestApp::start(&[flags, &["--grpc-listen", &socket]].concat());
        let upstream = Upstream::start().await;
        let mut bootstrap = Bootstrap::new(&service.grpc, &upstream.address);
        bootstrap.serve_account(&service.admin);
        change(&mut bootstrap);
        let envoy = Envoy::start(bootstrap).await;
        Self { envoy, service, upstream, _directory: directory }
    }
}

/// Where a service fetches the key that most tokens here are signed with.
async fn published_key() -> JwksServer {
    JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await
}

/// A service that has that key from a file, and cannot fetch any.
struct SeededKey {
    _directory: TempDir,
    file: PathBuf,
    server: JwksServer,
}

impl SeededKey {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("jwks.json");
        std::fs::write(&file, jwks(&[SigningKey::shared()])).unwrap();
        Self { _directory: directory, file, server: JwksServer::start(Reply::status(500)).await }
    }

    fn flags(&self) -> [&str; 4] {
        ["--jwks-file", self.file.to_str().unwrap(), "--jwks-url", &self.server.url]
    }
}
