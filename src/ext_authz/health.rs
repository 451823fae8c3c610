//! gRPC health (`grpc.health.v1.Health`): says what `/readyz` says, in the words Envoy's health checks ask in.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::grpc::SERVICE_NAME;
use crate::lifecycle::{Readiness, Shutdown};

/// The names that can be asked for: the whole server, which is what Envoy asks, and the service.
const NAMES: [&str; 2] = ["", SERVICE_NAME];

/// Feeds the health service.
#[derive(Debug)]
pub struct Health {
    reporter: HealthReporter,
}

impl Health {
    /// A health service that says `NOT_SERVING` until [`Health::follow`] runs. tonic-health begins with `SERVING` for the
    /// empty name, and that would send traffic to a server without keys.
    pub async fn new() -> (Self, HealthServer<HealthService>) {
        let reporter = HealthReporter::new();
        let health = Self { reporter };
        health.set(ServingStatus::NotServing).await;
        let service = HealthServer::new(HealthService::from_health_reporter(health.reporter.clone()));
        (health, service)
    }

    /// Says `SERVING` while `readiness` has nothing pending and the end has not been announced.
    pub async fn follow(self, readiness: Readiness, shutdown: Shutdown) {
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
