//! What the integration tests share: the service in this process or as a program of its own, a JWKS server that can
//! misbehave, tokens, and clients; a real Envoy, a Cognito emulator, and an application behind them; a client of
//! the account API, and a user-pool API that can misbehave; policy files that change.

pub(crate) mod account;
pub(crate) mod client;
pub(crate) mod emulator;
pub(crate) mod envoy;
pub(crate) mod fake_cognito;
pub(crate) mod http1;
pub(crate) mod jwks_server;
pub(crate) mod policy_file;
pub(crate) mod service;
#[expect(dead_code, reason = "the unit tests use the rest")]
pub(crate) mod table;
pub(crate) mod token;
pub(crate) mod tool;
pub(crate) mod upstream;

use std::time::{Duration, Instant};

pub(crate) use service::PATIENCE;

/// Waits until `condition` holds, and fails the test when it does not within `limit`.
#[track_caller]
pub(crate) fn eventually<F: Future<Output = bool>>(
    what: &str,
    limit: Duration,
    condition: impl Fn() -> F,
) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        while !condition().await {
            assert!(start.elapsed() < limit, "{caller}: {what}: not within {limit:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
