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
    warned: AtomicBool,
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
            warned: AtomicBool::new(false),
            settings,
        }
    }

    /// Logs a warning about client addresses, at most once per process: a header of the client causes it.
    pub(super) fn warn_once(&self, message: &str) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(request_id = request_id::current(), "{message}");
        }
    }
}
