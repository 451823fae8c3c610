//! gRPC health service (`grpc.health.v1.Health`) for Envoy's health checks. It reports the same state as `/readyz`.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::grpc::SERVICE_NAME;
use crate::lifecycle::{Readiness, Shutdown};

/// Service names that clients can ask about: the empty name, which means the whole server and is what Envoy sends, and
/// the authorization service.
const NAMES: [&str; 2] = ["", SERVICE_NAME];

/// Sets the status that the health service reports.
#[derive(Debug)]
pub(crate) struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// Creates a health service that reports `NOT_SERVING` until [`Health::follow`] runs. By default tonic-health
    /// starts with `SERVING` for the empty name, so Envoy would send traffic to a server without keys.
    pub(crate) async fn new() -> (Self, HealthServer<HealthService>) {
        let reporter = HealthReporter::new();
        let health = Self { reporter };
        health.set(ServingStatus::NotServing).await;
        let service = HealthServer::new(HealthService::from_health_reporter(health.reporter.clone()));
        (health, service)
    }

    /// Reports `SERVING` while `readiness` has nothing pending. Returns when the shutdown begins, after reporting
    /// `NOT_SERVING`.
    pub(crate) async fn follow(self, readiness: Readiness, shutdown: Shutdown) {
        let mut ready = readiness.subscribe();
        loop {
            let is_ready = *ready.borrow_and_update();
            self.set(if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
            tokio::select! {
                () = shutdown.draining.cancelled() => break,
                changed = ready.changed() => if changed.is_err() { break },
            }
        }
        self.set(ServingStatus::NotServing).await;
    }

    async fn set(&self, status: ServingStatus) {
        for name in NAMES {
            self.reporter.set_service_status(name, status).await;
        }
    }
}
