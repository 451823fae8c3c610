//! The command `cognito-authz metrics-reference`: prints the page about the metrics, `docs/metrics.md`, from a registry
//! with the metrics of a service that has every feature on.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

use crate::account::{outcomes, rate_limit};
use crate::config::{self, Invocation};
use crate::lifecycle::Readiness;
use crate::metrics::account::Labels;
use crate::metrics::{CheckSeries, MessageNumbers, Metrics, OwnNumber, RefusedConnection, Reloaded, WorkerNumbers};
use crate::reload::Reloader;

/// Configuration with every feature that has metrics.
const FLAGS: [&str; 9] = [
    "--user-pool-id=eu-west-1_Example01",
    "--client-id=example",
    "--account-client-id=example",
    "--account-api=true",
    "--account-cookies",
    "--hosted-ui-domain=auth.example.com",
    "--oauth-redirect-uris=https://app.example.com/auth/oauth/callback",
    "--oauth-logout-uris=https://app.example.com/",
    "--grpc-threads=1",
];

/// Returns the page. The caller runs it in a runtime.
///
/// # Errors
/// If the configuration is not valid or a metric is malformed, which is a bug.
pub fn text() -> anyhow::Result<String> {
    let directory = Path::new("/nonexistent");
    let invocation = config::read(FLAGS.into_iter().map(Into::into), std::iter::empty(), directory)?;
    let Invocation::Serve(config) = invocation else { anyhow::bail!("the flags are not those of a service") };
    let metrics = Arc::new(Metrics::new()?);
    let interval = config.jwks_refresh_interval;
    Reloader::open(config.policy, config.policy_source, interval, Arc::clone(&metrics), &Readiness::default())?;
    let in_shadow =
        CheckSeries { outcome: None, reason: "expired", policy: Some(0), without_pool: false, with_pool: true };
    metrics.checks(vec!["default".into()], vec!["default".into()], &[in_shadow]);
    let settings = config.account.context("the account API is off")?.settings;
    metrics.account(&Labels {
        requests: outcomes::of_requests(&settings),
        limits: &rate_limit::LABELS,
        calls: outcomes::of_calls(&settings),
    })?;
    metrics.revocation()?;
    let all = [RefusedConnection::Limit, RefusedConnection::PeerLimit, RefusedConnection::Caller];
    for listener in ["grpc", "http", "account", "admin"] {
        metrics.ports.port(listener, 0, &all, true);
        metrics.tls_certificate_expires(listener, 0);
    }
    metrics.took_effect(Reloaded::Certificates);
    let runtime = tokio::runtime::Handle::current().metrics();
    let worker = WorkerNumbers {
        name: "check-0".into(),
        runtime: runtime.clone(),
        connections: Arc::default(),
        streams: OwnNumber::default(),
    };
    metrics.observe_threads(runtime, vec![worker])?;
    metrics.observe_messages(|| ["small", "large"].map(|size| (size, MessageNumbers::default())))?;
    metrics.observe_state(|| true, || 0.0)?;
    Ok(metrics.reference())
}
