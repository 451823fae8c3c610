//! The service behind a real Envoy with `deploy/envoy/envoy.yaml`, over a Unix socket and over TCP.
//!
//! - [`users`], [`sessions`]: requests with tokens and with session cookies; [`account`]: the account API.
//! - [`forgeries`]: identity headers of clients; [`failing_open`]: `failure_mode_allow`; [`outages`]: failures and key
//!   rotation.
//! - [`revocation`]: sign-outs at one of two replicas; [`tls`]: mutual TLS between Envoy and the service.
//! - [`cross_origin`]: pages of other origins; [`shadow`]: shadow mode; [`websockets`]: credentials of upgrades;
//!   [`sign_in`]: redirects to the sign-in; [`json_rpc`]: policies that depend on the body;
//!   [`protected_resources`]: from a refusal to the metadata and a token.
//! - [`tracing`]: one trace from the client to the check.
//! - [`policy`]: policy files; [`paths`]: unsafe paths; [`grpc`]: gRPC callers; [`decisions`]: routes, counters, logs;
//!   [`request_ids`]: the id in a response, in Envoy's access log and in ours.

mod account;
mod cross_origin;
mod decisions;
mod failing_open;
mod forgeries;
mod grpc;
mod json_rpc;
mod outages;
mod paths;
mod policy;
mod protected_resources;
mod request_ids;
mod revocation;
mod sessions;
mod shadow;
mod sign_in;
mod tls;
mod tracing;
mod users;
mod websockets;

use std::path::PathBuf;

use tempfile::TempDir;

use crate::support::envoy::{Bootstrap, Envoy};
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::service::TestApp;
use crate::support::token::{SigningKey, TokenBuilder, jwks};
use crate::support::upstream::Upstream;

/// Envoy, the service, and the application.
struct Stage {
    envoy: Envoy,
    service: TestApp,
    upstream: Upstream,
    _directory: TempDir,
}

impl Stage {
    /// Starts a service with these flags and an Envoy with a changed configuration, and waits until Envoy finds the
    /// service healthy.
    async fn start(flags: &[&str], change: impl FnOnce(&mut Bootstrap)) -> Self {
        let stage = Self::start_unready(flags, change).await;
        stage.envoy.finds_the_service_healthy().await;
        stage
    }

    /// As [`Stage::start`], but does not wait.
    async fn start_unready(flags: &[&str], change: impl FnOnce(&mut Bootstrap)) -> Self {
        Self::start_with(&[], flags, change).await
    }

    /// As [`Stage::start_unready`], with these environment variables of the service.
    async fn start_with(environment: &[(String, String)], flags: &[&str], change: impl FnOnce(&mut Bootstrap)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = format!("unix:{}", directory.path().join("authz.sock").display());
        let service = TestApp::start_with(environment, &[flags, &["--grpc-listen", &socket]].concat());
        let upstream = Upstream::start().await;
        let mut bootstrap = Bootstrap::new(&service.grpc, &upstream.address);
        bootstrap.serve_account(&service.admin);
        change(&mut bootstrap);
        let envoy = Envoy::start(bootstrap).await;
        Self { envoy, service, upstream, _directory: directory }
    }
}

/// Starts a JWKS server that publishes the shared key.
async fn published_key() -> JwksServer {
    JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await
}

/// The shared key in a file, and a JWKS server that fails: a service with these flags has the key and cannot fetch any.
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

fn good_token() -> String {
    TokenBuilder::access().sign(SigningKey::shared())
}

/// Returns a token that is signed with a key that no server publishes.
fn token_of_an_unknown_key() -> String {
    TokenBuilder::access().sign(SigningKey::other())
}
