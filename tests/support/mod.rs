//! Parts that the integration tests share.
//!
//! - The service: [`service`], in this process or as a process of its own; [`policy_file`], its policy file.
//! - What it calls: [`collector`], which takes its traces; [`emulator`], a real Cognito emulator; [`redis`], a real store and a network that fails;
//!   [`jwks_server`] and [`fake_cognito`], for faults that the emulator cannot produce; [`token`], keys and tokens.
//! - What calls it: [`client`] for gRPC checks and the admin port, [`account`] for the account API, [`http1`] for raw
//!   HTTP requests.
//! - What surrounds it: [`envoy`], a real Envoy; [`proxies`], a real nginx, Traefik and Caddy; [`upstream`], the
//!   application behind them.
//! - TLS: [`certificates`], certificate authorities; [`tls`], a client and the files of the service.
//! - Helpers: [`server`] for HTTP servers, [`tool`] for child processes, [`table`] for tables in documents.

pub(crate) mod account;
pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod collector;
pub(crate) mod emulator;
pub(crate) mod envoy;
pub(crate) mod fake_cognito;
pub(crate) mod http1;
pub(crate) mod jwks_server;
pub(crate) mod policy_file;
pub(crate) mod proxies;
pub(crate) mod redis;
pub(crate) mod server;
pub(crate) mod service;
pub(crate) mod tls;
pub(crate) mod token;
pub(crate) mod tool;
pub(crate) mod upstream;

use std::time::{Duration, Instant};

pub(crate) use service::PATIENCE;

/// Waits until `condition` is true, and fails the test if that takes longer than `limit`.
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
