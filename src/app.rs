//! Composition root: builds the parts, binds the sockets, runs the service, and shuts it down in order.
//!
//! [`bind`] builds and binds; [`BoundService::run`] serves. In between, the addresses are known and no request has been
//! accepted.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::account::{Account, outcomes, rate_limit};
use crate::admin::{self, Admin};
use crate::authz::{Authorizer, Recent, TokenCache};
use crate::check::Checks;
use crate::cognito::CognitoClient;
use crate::config::Config;
use crate::config::account::AccountConfig;
use crate::ext_authz::grpc::CheckService;
use crate::ext_authz::health::Health;
use crate::ext_authz::http::CheckEndpoints;
use crate::ext_authz::services::Services;
use crate::ext_authz::workers::{Limits, WorkerThreads, Workers};
use crate::lifecycle::{Readiness, Shutdown};
use crate::logging;
use crate::metrics::account::Labels;
use crate::metrics::{Metrics, PortMetrics, RefusedConnection};
use crate::net::callers::Callers;
use crate::net::descriptors::{self, Shares, Wanted};
use crate::net::http_server;
use crate::net::listen::{BindError, ListenAddress, Listener};
use crate::net::tls::Protocol;
use crate::reload::Reloader;
use crate::revocation::{OpenError, Revocations};
use crate::telemetry::{Exporter, Tracer};

/// Service whose sockets are bound, and that accepts no connections yet.
pub struct BoundService {
    grpc: Vec<Listener>,
    admin_listener: Listener,
    admin: Arc<Admin>,
    account: Option<(Listener, Arc<Account>, PortMetrics)>,
    account_limits: http_server::Limits,
    http: Option<HttpForm>,
    workers: Workers,
    threads: WorkerThreads,
    health: Health,
    reloader: Reloader,
    authorizer: Arc<Authorizer>,
    revocations: Arc<Revocations>,
    exporter: Option<Exporter>,
    shutdown: Shutdown,
    shutdown_delay: Duration,
    shutdown_deadline: Duration,
}

/// The HTTP form of the check, on a port of its own.
struct HttpForm {
    listener: Listener,
    limits: http_server::Limits,
    callers: Callers,
    metrics: PortMetrics,
    endpoints: CheckEndpoints,
}

/// Error at startup.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Bind failure: the address is in use or not local.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The place where revocations are kept cannot be used.
    #[error(transparent)]
    Revocations(#[from] OpenError),
    /// Other failure.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// Builds all parts and binds all sockets. The caller runs it in the runtime that later runs the service. `log` is the
/// log of this process, if the service may show and change it.
///
/// # Errors
/// A socket cannot be bound, or a part cannot be built.
pub async fn bind(config: Config, log: Option<logging::Handle>) -> Result<BoundService, StartError> {
    // Sockets first: a bind failure is the most likely error, and costs nothing yet.
    let bind = |address: &ListenAddress, protocol| {
        address.bind(config.grpc.socket_mode, config.certificates.as_ref(), protocol)
    };
    let grpc = config.grpc.listen.iter().map(|address| bind(address, Protocol::Grpc)).collect::<Result<Vec<_>, _>>()?;
    let admin_listener = bind(&config.admin_listen, Protocol::Http)?;
    let account_listen = config.account.as_ref().and_then(|account| account.listen.as_ref());
    let account_listener = account_listen.map(|address| bind(address, Protocol::Http)).transpose()?;
    let http_listener = config.http.as_ref().map(|http| bind(&http.listen, Protocol::Http)).transpose()?;

    let readiness = Readiness::default();
    let shutdown = Shutdown::default();
    let metrics = Arc::new(Metrics::new().context("metrics")?);
    let started = config.telemetry.map(|settings| Tracer::start(settings, metrics.telemetry.clone())).transpose();
    let (tracer, exporter) = started.context("the thread that exports traces")?.unzip();
    let interval = config.jwks_refresh_interval;
    let pools = config.policy.pools.len();
    let (mut reloader, rules) =
        Reloader::open(config.policy, config.policy_source, interval, Arc::clone(&metrics), &readiness)?;
    reloader.trace(tracer.clone());
    if let Some(certificates) = config.certificates {
        let listeners = [
            ("grpc", grpc.as_slice()),
            ("admin", std::slice::from_ref(&admin_listener)),
            ("account", account_listener.as_slice()),
            ("http", http_listener.as_slice()),
        ];
        let encrypted =
            listeners.into_iter().filter(|(_, listeners)| listeners.iter().any(|listener| listener.tls().is_some()));
        reloader.watch_certificates(certificates, encrypted.map(|(name, _)| name).collect());
    }
    let cache = TokenCache::new(config.token_cache_capacity, config.token_cache_max_bytes, metrics.token_cache.clone());
    let revocations = Arc::new(Revocations::open(config.revocation, metrics.revocation().context("metrics")?)?);
    revocations.block(&readiness);
    let authorizer = Arc::new(Authorizer::new(rules, cache, Arc::clone(&revocations), config.limits));
    let account_target = config.account.as_ref().map(AccountConfig::target).unwrap_or_default();
    let account = match config.account {
        Some(config) => {
            reloader.keep_pool(&config.settings.pool, &config.settings.client_id);
            Some(account(config, Arc::clone(&authorizer), Arc::clone(&revocations), &metrics, tracer.clone())?)
        }
        None => None,
    };
    let checks = Arc::new(Checks::new(Arc::clone(&authorizer), Arc::clone(&metrics), config.realm, tracer));
    let refusals = checks.refusals();
    let check = CheckService::new(Arc::clone(&checks), config.grpc.max_message_bytes);
    let (health, health_service) = Health::new().await;
    let services = Services::new(check, health_service, shutdown.closing.clone()).context("gRPC reflection")?;
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = config.grpc.threads.map_or_else(cores, usize::from);
    let ports = divide_descriptors(Wanted {
        grpc: usize::try_from(config.grpc.max_connections).unwrap_or(usize::MAX),
        threads,
        pools,
        account: account.is_some(),
        http: http_listener.is_some(),
    });
    let limits = Limits {
        connections: ports.grpc,
        streams: config.grpc.max_streams,
        recent_bytes: Recent::budget(config.token_cache_max_bytes),
    };
    let port = metrics.ports.port("grpc", ports.grpc, &[RefusedConnection::Limit], has_tls(&grpc));
    let (workers, threads, numbers) =
        Workers::start(threads, limits, &services, port, &shutdown).context("worker threads")?;
    metrics.observe_threads(tokio::runtime::Handle::current().metrics(), numbers).context("metrics")?;
    metrics.observe_messages(services.message_numbers()).context("metrics")?;
    let (state, draining, cached) = (readiness.clone(), shutdown.draining.clone(), Arc::clone(&authorizer));
    let is_ready = move || state.pending().is_empty() && !draining.is_cancelled();
    metrics.observe_state(is_ready, move || cached.cache().used_ratio()).context("metrics")?;

    let of_clients = [RefusedConnection::Limit, RefusedConnection::PeerLimit];
    let http = http_listener.zip(config.http).map(|(listener, http)| HttpForm {
        metrics: metrics.ports.port(
            "http",
            ports.http,
            &[RefusedConnection::Limit, RefusedConnection::PeerLimit, RefusedConnection::Caller],
            has_tls(std::slice::from_ref(&listener)),
        ),
        listener,
        // The callers are proxies, often a single one, so one peer may have all connections.
        limits: http_server::Limits { connections: ports.http, peer: ports.http, head: CHECK_HEAD_TIMEOUT },
        callers: Callers::In(http.callers.into()),
        endpoints: CheckEndpoints::new(checks),
    });

    // The account API has a port of its own, or shares the admin port.
    let (account, shared) = match (account_listener, account) {
        (Some(listener), Some(account)) => (Some((listener, account)), None),
        (_, shared) => (None, shared),
    };
    let admin_connections = ports.admin + if shared.is_some() { ports.account } else { 0 };
    let admin_port =
        metrics.ports.port("admin", admin_connections, &of_clients, has_tls(std::slice::from_ref(&admin_listener)));
    let account = account.map(|(listener, account)| {
        let port = metrics.ports.port("account", ports.account, &of_clients, has_tls(std::slice::from_ref(&listener)));
        (listener, account, port)
    });
    let admin = Admin::new(admin::Parts {
        readiness,
        shutdown: shutdown.clone(),
        metrics,
        authorizer: Arc::clone(&authorizer),
        refusals,
        revocations: Arc::clone(&revocations),
        options: config.effective,
        rules: reloader.status(),
        account_target,
        account: shared,
        token: config.admin_token,
        port: admin_port,
        log,
        limits: http_server::Limits::of(admin_connections, ADMIN_HEAD_TIMEOUT),
    });
    Ok(BoundService {
        grpc,
        admin_listener,
        admin: Arc::new(admin),
        account,
        account_limits: http_server::Limits::of(ports.account, ACCOUNT_HEAD_TIMEOUT),
        http,
        workers,
        threads,
        health,
        reloader,
        authorizer,
        revocations,
        exporter,
        shutdown,
        shutdown_delay: config.shutdown_delay,
        shutdown_deadline: config.shutdown_deadline,
    })
}

/// `true` if one of the listeners has TLS.
fn has_tls(listeners: &[Listener]) -> bool {
    listeners.iter().any(|listener| listener.tls().is_some())
}

/// Builds the account API over its own client of Cognito.
fn account(
    config: AccountConfig,
    authorizer: Arc<Authorizer>,
    revocations: Arc<Revocations>,
    metrics: &Metrics,
    tracer: Option<Arc<Tracer>>,
) -> anyhow::Result<Arc<Account>> {
    let labels = Labels {
        requests: outcomes::of_requests(&config.settings),
        limits: &rate_limit::LABELS,
        calls: outcomes::of_calls(&config.settings),
    };
    let metrics = metrics.account(&labels).context("metrics")?;
    let AccountConfig { settings, pool, client_secret, cognito_timeout, .. } = config;
    let client_id = settings.client_id.clone();
    let client = CognitoClient::new(pool.endpoint, client_id, client_secret, cognito_timeout, metrics.cognito.clone());
    Ok(Account::new(settings, client, authorizer, revocations, metrics, tracer))
}

/// Divides the available file descriptors between the ports, and logs the result.
fn divide_descriptors(wanted: Wanted) -> Shares {
    let limit = descriptors::limit();
    let shares = descriptors::share(limit, wanted);
    let Shares { grpc, admin, account, http, is_enough } = shares;
    tracing::info!(limit, grpc, admin, account, http, "maximum number of open connections, by the limit on open files");
    if !is_enough {
        tracing::warn!(limit, "the limit on open files is too low; raise the hard limit");
    } else if grpc < wanted.grpc {
        let configured = wanted.grpc;
        tracing::warn!(
            limit,
            configured,
            grpc,
            "the limit on open files allows fewer gRPC connections than --grpc-max-connections; raise the hard limit"
        );
    }
    shares
}

/// Time limit for the head of a request on the account API's own port, which is open to clients.
const ACCOUNT_HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for the head of a request on the HTTP form's port. It is also the time that an idle connection is kept,
/// and longer than proxies keep theirs (nginx 60 s, Traefik 90 s, Caddy 120 s), so that no proxy sends a check on a
/// connection that is just being closed.
const CHECK_HEAD_TIMEOUT: Duration = Duration::from_secs(150);
/// Time limit for the head of a request on the admin port.
const ADMIN_HEAD_TIMEOUT: Duration = Duration::from_secs(30);

impl BoundService {
    /// Addresses of the gRPC port, in the order in which they were configured.
    pub fn grpc_addresses(&self) -> Vec<String> {
        self.grpc.iter().map(Listener::address).collect()
    }

    /// Address of the admin port.
    pub fn admin_address(&self) -> String {
        self.admin_listener.address()
    }

    /// Address of the account API's own port, if it has one.
    pub fn account_address(&self) -> Option<String> {
        self.account.as_ref().map(|(listener, ..)| listener.address())
    }

    /// Address of the HTTP form of the check, if it is served.
    pub fn http_address(&self) -> Option<String> {
        self.http.as_ref().map(|http| http.listener.address())
    }

    /// Serves until `stop`, then shuts down in order: reports "not ready", waits for the delay, closes the listeners, and
    /// waits for in-flight requests until the deadline, when it closes the remaining connections. The admin port closes
    /// last. Each
    /// notification of `reload_requests` reloads the policy file and the certificates.
    ///
    /// # Errors
    /// A task or thread has ended that should run as long as the process. The process then exits, so that a supervisor
    /// restarts it.
    pub async fn run(self, stop: impl Future<Output = ()>, reload_requests: Arc<Notify>) -> anyhow::Result<()> {
        for listener in &self.grpc {
            tracing::info!(listener = "grpc", address = listener.address(), "listening");
        }
        tracing::info!(listener = "admin", address = self.admin_listener.address(), "listening");
        if let Some((listener, ..)) = &self.account {
            tracing::info!(listener = "account", address = listener.address(), "listening");
        }
        if let Some(http) = &self.http {
            tracing::info!(listener = "http", address = http.listener.address(), "listening");
        }

        // Each of these tasks runs until it is told to stop. One that ends by itself has failed.
        let mut reloader = tokio::spawn(self.reloader.run(self.authorizer, reload_requests));
        let mut revocations = tokio::spawn(Arc::clone(&self.revocations).run());
        let mut accepting = JoinSet::new();
        let workers = Arc::new(self.workers);
        for listener in self.grpc {
            let (workers, closing) = (Arc::clone(&workers), self.shutdown.closing.clone());
            accepting.spawn(async move { workers.accept(&listener, &closing).await });
        }
        drop(workers);
        if let Some((listener, account, port)) = self.account {
            let closing = self.shutdown.closing.clone();
            accepting.spawn(http_server::serve(listener, self.account_limits, port, closing, move |request, peer| {
                let account = Arc::clone(&account);
                async move { account.answer(request, peer.address).await }
            }));
        }
        if let Some(HttpForm { listener, limits, callers, metrics, endpoints }) = self.http {
            let closing = self.shutdown.closing.clone();
            accepting.spawn(http_server::serve_callers(
                listener,
                limits,
                callers,
                metrics,
                closing,
                move |request, _| {
                    let endpoints = endpoints.clone();
                    async move { endpoints.answer(request).await }
                },
            ));
        }
        let readiness = self.admin.readiness().clone();
        let admin_closing = CancellationToken::new();
        let mut admin = tokio::spawn(self.admin.serve(self.admin_listener, admin_closing.clone()));
        let mut threads = self.threads;
        tokio::spawn(self.health.follow(readiness.clone(), self.shutdown.clone()));
        tokio::spawn(log_when_ready(readiness));

        let dead = tokio::select! {
            () = stop => None,
            _ = &mut reloader => Some("the task that fetches keys"),
            _ = &mut revocations => Some("the task that keeps revocations"),
            Some(_) = accepting.join_next() => Some("the task that accepts connections"),
            _ = &mut admin => Some("the admin port"),
            () = threads.one_dies() => Some("a thread that serves checks"),
        };
        if let Some(part) = dead {
            anyhow::bail!("{part} has died");
        }

        tracing::info!(delay = ?self.shutdown_delay, deadline = ?self.shutdown_deadline, "shutting down");
        self.shutdown.draining.cancel();
        tokio::time::sleep(self.shutdown_delay).await;
        self.shutdown.closing.cancel();
        let finish = async {
            while accepting.join_next().await.is_some() {}
            threads.finish().await
        };
        let finished = tokio::time::timeout(self.shutdown_deadline, finish).await;
        self.shutdown.cut.cancel();
        admin_closing.cancel();
        match finished {
            Ok(Ok(())) => tracing::info!("stopped"),
            Ok(Err(_)) => anyhow::bail!("a thread that serves checks has died"),
            Err(_) => tracing::warn!("stopped with requests in flight"),
        }
        // In-flight requests for metrics can finish.
        drop(tokio::time::timeout(ADMIN_GRACE, admin).await);
        let exporter = self.exporter;
        let export = async {
            if let Some(exporter) = exporter {
                exporter.finish().await;
            }
        };
        tokio::join!(self.revocations.finish(), export);
        Ok(())
    }
}

/// Grace period for in-flight admin requests during shutdown.
const ADMIN_GRACE: Duration = Duration::from_millis(500);

/// Logs once when the service becomes ready.
async fn log_when_ready(readiness: Readiness) {
    if readiness.subscribe().wait_for(|ready| *ready).await.is_ok() {
        tracing::info!("ready");
    }
}
