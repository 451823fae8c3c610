//! Revocations and where they are kept: in a file, and in a store that replicas share, with real Redis and Valkey
//! servers, several replicas, and networks that fail.
//!
//! | Topic | Module |
//! |---|---|
//! | The file | [`file`] |
//! | Push, catch-up and start | [`push`] |
//! | Stores that lose their data, and networks that fail | [`loss`] |
//! | States of a server: read-only, full, foreign records | [`server`] |
//! | Access: ACL users, TLS, Sentinel, Cluster | [`access`] |

mod access;
mod file;
mod loss;
mod push;
mod server;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cognito_authz::config::{self, Invocation};
use cognito_authz::metrics::Metrics;
use cognito_authz::revocation::Revocations;
use tempfile::NamedTempFile;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::support::client::{connect, get, metric, verdict};
use crate::support::eventually;
use crate::support::service::{PATIENCE, TestApp};
use crate::support::token::{CLIENT, POOL, SigningKey, TokenBuilder, jwks, unix_now};

/// Replica of the service.
struct Replica {
    app: TestApp,
    channel: Channel,
    _keys: NamedTempFile,
}

impl Replica {
    /// Starts a replica with this store, and waits until it is ready.
    async fn start(url: &str) -> Self {
        let replica = Self::with(url, &[]).await;
        replica.becomes_ready().await;
        replica
    }

    /// Starts a replica with this store and more options. It need not be ready.
    async fn with(url: &str, more: &[&str]) -> Self {
        let keys = NamedTempFile::new().unwrap();
        std::fs::write(keys.path(), jwks(&[SigningKey::shared()])).unwrap();
        let mut flags = vec!["--revocation-url", url, "--jwks-file", keys.path().to_str().unwrap()];
        // Keys come from the file; nothing answers at this address.
        flags.extend(["--jwks-url", "http://127.0.0.1:9/"]);
        flags.extend(more);
        let app = TestApp::start(&flags);
        let channel = connect(&app.grpc[0]).await;
        Self { app, channel, _keys: keys }
    }

    async fn becomes_ready(&self) {
        eventually("ready", PATIENCE, async || get(&self.app.admin, "/readyz").await.0 == 200).await;
    }

    /// Status and reason of a check with a token of this user.
    async fn verdict(&self, user: &str) -> (u16, String) {
        verdict(&self.channel, &token(user)).await
    }

    async fn refuses(&self, user: &str) -> bool {
        match &self.verdict(user).await {
            (401, reason) if reason == "revoked" => true,
            (200, _) => false,
            other => panic!("{other:?}"),
        }
    }

    async fn metric(&self, name: &str) -> f64 {
        metric(&self.app.admin, name).await
    }

    /// Number of users of whom it knows a revocation.
    async fn entries(&self) -> usize {
        let (_, metrics) = get(&self.app.admin, "/metrics").await;
        let line = metrics.lines().find_map(|line| line.strip_prefix("cognito_authz_revocations{kind=\"sub\"} "));
        line.unwrap().parse().unwrap()
    }

    /// Waits until this user is refused.
    async fn learns(&self, user: &str) {
        eventually("the revocation is known", PATIENCE, async || self.refuses(user).await).await;
    }

    /// Waits until the store answers, or does not.
    async fn sees_store(&self, is_up: bool) {
        let expected = if is_up { 1.0 } else { 0.0 };
        eventually("store_up", PATIENCE, async || self.metric("revocation_store_up").await == expected).await;
    }
}

/// Token of a user who has signed in a minute ago. The signature is made once for each user.
fn token(user: &str) -> String {
    static TOKENS: std::sync::Mutex<Vec<(String, String)>> = std::sync::Mutex::new(Vec::new());
    let known = TOKENS.lock().unwrap().iter().find(|(other, _)| other == user).map(|(_, token)| token.clone());
    known.unwrap_or_else(|| {
        let signed_in = unix_now() - 60;
        let token = TokenBuilder::access().claim("sub", user).claim("auth_time", signed_in).sign(SigningKey::shared());
        TOKENS.lock().unwrap().push((user.to_owned(), token.clone()));
        token
    })
}

/// Replica that revokes: the library without ports.
struct Writer {
    revocations: Arc<Revocations>,
    task: JoinHandle<()>,
}

impl Writer {
    fn start(url: &str) -> Self {
        Self::with(url, &[])
    }

    fn with(url: &str, more: &[&str]) -> Self {
        let flags = ["--user-pool-id", POOL, "--client-id", CLIENT, "--revocation-url", url];
        let flags = flags.iter().chain(more).map(Into::into);
        let invocation = config::read(flags, std::iter::empty(), Path::new("/nonexistent")).unwrap();
        let Invocation::Serve(config) = invocation else { panic!("not serve") };
        let metrics = Metrics::new().unwrap().revocation().unwrap();
        let revocations = Arc::new(Revocations::open(config.revocation, metrics).unwrap());
        let task = tokio::spawn(Arc::clone(&revocations).run());
        Self { revocations, task }
    }

    /// Revokes the tokens of a user. `false` if the store did not take it.
    async fn revokes(&self, user: &str) -> bool {
        self.revocations.revoke_user(&POOL.parse().unwrap(), user, unix_now()).await.is_ok()
    }

    /// Revokes the tokens of a user, again if the store does not take it in time on a busy machine.
    async fn confirms(&self, user: &str) {
        eventually("the store takes it", PATIENCE, async || self.revokes(user).await).await;
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Names of users of one test.
fn users(test: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{test}-{number}")).collect()
}

/// Median and longest of some times.
fn summary(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort_unstable();
    (times[times.len() / 2], times[times.len() - 1])
}
