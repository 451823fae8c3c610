//! Traces, as a collector receives them. Behind a real Envoy, they are in [`envoy::tracing`](crate::envoy).
//!
//! - [`checks`]: spans of checks, key fetches, and what a client can do with its headers.
//! - [`account`]: spans of the account API and of the calls that it makes.
//! - [`faults`]: collectors that refuse, hang, are slow or reject.

mod account;
mod checks;
mod faults;

use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use tonic::Status;
use tonic::transport::Channel;

use crate::support::client::{Answer, get};
use crate::support::jwks_server::{JwksServer, Reply};
use crate::support::service::TestApp;
use crate::support::token::{SigningKey, jwks};
use crate::support::{PATIENCE, eventually};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// `traceparent` with these flags.
fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

/// Sends a check with this metadata, as Envoy does when it traces.
async fn check(
    channel: &Channel,
    request: impl Into<CheckRequest>,
    metadata: &[(&'static str, &str)],
) -> Result<Answer, Status> {
    let mut request = tonic::Request::new(request.into());
    for (name, value) in metadata {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    AuthorizationClient::new(channel.clone()).check(request).await.map(|answer| answer.into_inner().into())
}

/// Starts a service with these variables, whose keys are published, and waits until it is ready.
async fn start(variables: &[(String, String)], flags: &[&str]) -> (TestApp, JwksServer) {
    let keys = JwksServer::start(Reply::ok(jwks(&[SigningKey::shared()]))).await;
    let app = TestApp::start_with(variables, &[flags, &["--jwks-url", &keys.url]].concat());
    eventually("ready", PATIENCE, async || get(&app.admin, "/readyz").await.0 == 200).await;
    (app, keys)
}

/// Ends the service, which exports what is left. The runtime of the test goes on, because the collector runs in it.
pub(crate) async fn end(mut app: TestApp) {
    app.stop();
    tokio::task::spawn_blocking(move || app.join()).await.unwrap();
}

/// Value of a counter.
async fn counter(app: &TestApp, series: &str) -> u64 {
    let (_, metrics) = get(&app.admin, "/metrics").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("no {series}"));
    line.trim().parse().unwrap()
}
