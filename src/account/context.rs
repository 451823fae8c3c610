//! The parts that all handlers of operations share. Handlers are methods of [`Context`], each group in its own file;
//! none of them imports the service that calls them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::rate_limit::RateLimits;
use super::settings::Settings;
use crate::authz::Authorizer;
pub(super) use crate::clock::unix_now;
use crate::cognito::CognitoClient;
use crate::metrics::account::AccountMetrics;
use crate::request_id;
use crate::revocation::Revocations;
use crate::user_pool::Clients;

/// Time limit for all calls of Cognito for one request, retries included.
pub(super) const CLIENT_PATIENCE: Duration = Duration::from_secs(10);

/// The parts that all handlers share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) settings: Settings,
    pub(super) client: CognitoClient,
    pub(super) authorizer: Arc<Authorizer>,
    pub(super) revocations: Arc<Revocations>,
    /// App client whose tokens may be returned to clients.
    pub(super) own_client: Clients,
    pub(super) limits: RateLimits,
    pub(super) metrics: AccountMetrics,
    /// Warnings that were logged.
    pub(super) warned: Warned,
}

/// Warnings that requests cause, and that are therefore logged at most once per process.
#[derive(Debug, Default)]
pub(super) struct Warned {
    /// Client addresses cannot be read.
    pub(super) addresses: Once,
    /// Authenticator apps show the default of `--realm`, because neither it nor `--totp-issuer` is set.
    pub(super) issuer: Once,
}

/// Warning that is logged at most once.
#[derive(Debug, Default)]
pub(super) struct Once(AtomicBool);

impl Once {
    /// Logs the warning, unless it was logged before.
    pub(super) fn warn(&self, message: &str) {
        if !self.0.swap(true, Ordering::Relaxed) {
            tracing::warn!(request_id = request_id::current(), "{message}");
        }
    }
}

impl Context {
    pub(super) fn new(
        settings: Settings,
        client: CognitoClient,
        authorizer: Arc<Authorizer>,
        revocations: Arc<Revocations>,
        metrics: AccountMetrics,
    ) -> Self {
        Self {
            client,
            authorizer,
            revocations,
            own_client: Clients::Only(vec![settings.client_id.clone()]),
            limits: RateLimits::new(settings.rates, metrics.clone()),
            metrics,
            warned: Warned::default(),
            settings,
        }
    }
}
