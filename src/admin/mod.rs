//! The admin port, for operators. Only `/revocations` and `/log-level` change anything, and need a token or a client
//! certificate. The account API is also served here, below its prefix, unless it has a port of its own.
//!
//! | path | response |
//! |---|---|
//! | `/livez` | 200 as long as the process responds; independent of anything outside the process |
//! | `/readyz` | 200 if the service is ready, else 503; JSON with the pending parts, and with what was not fetched or reloaded |
//! | `/metrics` | metrics in Prometheus' text format, or in `OpenMetrics` if the scraper asks for it |
//! | `/` | status page ([`status`]) |
//! | `/status` | the same as JSON; with a token configured, only for operators |
//! | `/config` | configuration in effect and the source of each value, with secrets redacted |
//! | `/revocations` | revocations in effect; operators list, make and lift them ([`revocations`]) |
//! | `/log-level` | level of the log; operators change it for a while ([`log_level`]) |

mod log_level;
mod refusal;
mod revocations;
mod status;
mod token;

use std::sync::Arc;

use http::header::{self, HeaderMap};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use prost::bytes::Bytes;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use url::Url;

use self::log_level::LogLevelRoute;
use self::revocations::RevocationRoutes;
use self::status::StatusRoutes;
use self::token::Gate;
use crate::account::Account;
use crate::authz::Authorizer;
use crate::check::refusals::Refusals;
use crate::config::admin::AdminToken;
use crate::lifecycle::{Readiness, Shutdown};
use crate::logging;
use crate::metrics::{Format, Metrics, PortMetrics};
use crate::net::http_server::{self, Answer, Limits, Peer, RequestBody};
use crate::net::listen::Listener;
use crate::reload::Status;
use crate::revocation::Revocations;
use crate::user_pool::UserPool;

/// The port. It shows the state of the other parts.
#[derive(Debug)]
pub(crate) struct Admin {
    parts: Parts,
    gate: Arc<Gate>,
    revocations: RevocationRoutes,
    status: StatusRoutes,
    log_level: LogLevelRoute,
}

/// Parts that the port shows, and its settings.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) readiness: Readiness,
    pub(crate) shutdown: Shutdown,
    pub(crate) metrics: Arc<Metrics>,
    /// Source of the pools in effect and of the size of the token cache.
    pub(crate) authorizer: Arc<Authorizer>,
    /// The last refusals.
    pub(crate) refusals: Arc<Refusals>,
    /// Revocations that this process knows.
    pub(crate) revocations: Arc<Revocations>,
    /// Value and source of each option.
    pub(crate) options: Value,
    /// State of the policy file and of the certificates.
    pub(crate) rules: Arc<Status>,
    /// Pool, endpoint and app client of the account API, even if it has a port of its own; null if it is disabled.
    pub(crate) account_target: Value,
    /// The account API, if it is enabled and has no port of its own.
    pub(crate) account: Option<Arc<Account>>,
    /// Token that operators show.
    pub(crate) token: Option<AdminToken>,
    /// Metrics of the port's own connections.
    pub(crate) port: PortMetrics,
    /// Log of this process.
    pub(crate) log: Option<logging::Handle>,
    pub(crate) limits: Limits,
}

impl Admin {
    /// Creates the port.
    pub(crate) fn new(mut parts: Parts) -> Self {
        let gate = Arc::new(Gate::new(parts.token.take()));
        let (revocations, authorizer) = (Arc::clone(&parts.revocations), Arc::clone(&parts.authorizer));
        let revocations = RevocationRoutes::new(revocations, authorizer, Arc::clone(&gate));
        let status = StatusRoutes::new(&parts.metrics, Arc::clone(&parts.refusals), Arc::clone(&gate));
        let log_level = LogLevelRoute::new(parts.log.clone(), Arc::clone(&gate));
        Self { parts, gate, revocations, status, log_level }
    }

    /// Readiness that the port shows.
    pub(crate) fn readiness(&self) -> &Readiness {
        &self.parts.readiness
    }

    /// Serves the port until `closing` is cancelled, and then finishes running requests.
    pub(crate) async fn serve(self: Arc<Self>, listener: Listener, closing: CancellationToken) {
        let admin = Arc::clone(&self);
        let serve =
            http_server::serve(listener, self.parts.limits, self.parts.port.clone(), closing, move |request, peer| {
                let admin = Arc::clone(&admin);
                async move { admin.answer(request, peer).await }
            });
        tokio::select! {
            () = serve => {}
            // Neither of these completes.
            () = self.gate.follow() => {}
            () = self.status.follow(&self.parts.metrics) => {}
        }
    }

    async fn answer(&self, request: Request<RequestBody>, peer: Peer) -> Answer {
        let account = self.parts.account.as_ref();
        if let Some(account) = account.filter(|account| account.covers(request.uri().path())) {
            return account.answer(request, peer.address).await;
        }
        if revocations::covers(request.uri().path()) {
            return self.revocations.answer(request, peer).await;
        }
        if status::covers(request.uri().path()) {
            return self.status.answer(&self.parts, &request, &peer).await;
        }
        if request.uri().path() == log_level::PATH {
            return self.log_level.answer(request, peer).await;
        }
        self.parts.answer(&request)
    }
}

impl Parts {
    fn answer(&self, request: &Request<RequestBody>) -> Answer {
        let answer = match request.uri().path() {
            "/livez" => text(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"),
            "/readyz" => self.readyz(),
            "/metrics" => self.metrics(request.headers()),
            "/config" => json_answer(StatusCode::OK, &self.config()),
            _ => return text(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "not found\n"),
        };
        if [Method::GET, Method::HEAD].contains(request.method()) {
            return answer;
        }
        only_get()
    }

    fn readyz(&self) -> Answer {
        let mut pending = self.readiness.pending();
        if self.shutdown.draining.is_cancelled() {
            pending.push("shutting down".into());
        }
        let (status, word) =
            if pending.is_empty() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
        let mut detail = json!({"status": word, "pending": pending});
        // A failed reload does not affect readiness, because the previous rules and certificates stay in effect.
        for (name, error) in [("policy_file", &self.rules.error), ("tls", &self.rules.certificates)] {
            if let (Some(error), Some(detail)) = (&*error.load(), detail.as_object_mut()) {
                detail.insert(name.into(), format!("not reloaded: {error}").into());
            }
        }
        // Nor does a failed fetch, while there are keys of an earlier one.
        let rules = self.authorizer.rules();
        let failed = rules.pools.iter().enumerate().filter_map(|(index, pool)| {
            let failure = rules.keys.failure(index)?;
            Some((pool.name.to_string(), Value::from(format!("not fetched: {failure}"))))
        });
        let failed: serde_json::Map<String, Value> = failed.collect();
        if let Some(detail) = detail.as_object_mut().filter(|_| !failed.is_empty()) {
            detail.insert("keys".into(), failed.into());
        }
        json_answer(status, &detail)
    }

    /// Returns the options, the pools, the target of the account API, and the policy file in effect.
    fn config(&self) -> Value {
        let rules = self.authorizer.rules();
        let pool = |pool: &UserPool| {
            let jwks_urls: Vec<&str> = pool.jwks_urls.iter().map(Url::as_str).collect();
            json!({
                "name": pool.name,
                "id": pool.id.as_str(),
                "region": pool.id.region(),
                "issuers": pool.issuers,
                "jwks_urls": jwks_urls,
                "endpoint": pool.endpoint.as_str(),
            })
        };
        let pools: Vec<Value> = rules.pools.iter().map(pool).collect();
        let file = self.rules.file.load();
        let log = self.log.as_ref().map(|log| log_level::shown(log.levels()));
        json!({
            "options": self.options,
            "log": log,
            "pools": pools,
            "account": self.account_target,
            "policy_file": &**file,
        })
    }

    /// Sets the gauges that are measured when metrics are read.
    fn measure(&self) {
        let entries = i64::try_from(self.authorizer.cache().entry_count()).unwrap_or(i64::MAX);
        self.metrics.token_cache_entries.set(entries);
        self.revocations.measure();
        if let Some(log) = &self.log {
            let dropped = log.dropped();
            self.metrics.log.show(dropped.rate, dropped.queue);
        }
    }

    fn metrics(&self, headers: &HeaderMap) -> Answer {
        self.measure();
        let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let format = Format::accepted(accepted);
        match self.metrics.render(format) {
            Ok(rendered) => {
                let mut answer = text(StatusCode::OK, format.content_type(), rendered);
                answer.headers_mut().insert(header::VARY, header::HeaderValue::from_static("accept"));
                answer
            }
            Err(error) => {
                tracing::error!(%error, "metrics cannot be rendered");
                text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", "metrics cannot be rendered\n")
            }
        }
    }
}

/// Response to a method that a path does not take.
fn only_get() -> Answer {
    let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "only GET and HEAD\n");
    refusal.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
    refusal
}

fn json_answer(status: StatusCode, value: &Value) -> Answer {
    text(status, "application/json", format!("{value:#}\n"))
}

fn text(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}
