//! The composition root: builds the parts, binds the sockets, runs everything, and takes it down in order.
//!
//! [`bind`] builds and binds; [`Bound::run`] runs. Between the two the real addresses are known and nothing has
//! been promised to anyone yet.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::account::rate_limit;
use crate::account::{self, Account, Issuer, Settings};
use crate::admin::Admin;
use crate::authz::{Authorizer, TokenCache};
use crate::check::Checks;
use crate::cognito::error::CognitoError;
use crate::cognito::{CognitoClient, Operation};
use crate::config::Config;
use crate::config::account::AccountConfig;
use crate::descriptors::{self, Shares, Wanted};
use crate::ext_authz::grpc::CheckService;
use crate::ext_authz::health::Health;
use crate::ext_authz::server::{Limits, Services, Threads, Workers};
use crate::http_server;
use crate::lifecycle::{Readiness, Shutdown};
use crate::listen::{BindError, Listener};
use crate::metrics::Metrics;
use crate::metrics::account::Labels;
use crate::rulebook::Rulebook;

/// A service that listens and does not answer yet.
pub struct Bound {
    grpc: Vec<Listener>,
    admin_listener: Listener,
    admin: Arc<Admin>,
    account: Option<(Listener, Arc<Account>)>,
    account_limits: http_server::Limits,
    workers: Workers,
    threads: Threads,
    health: Health,
    rulebook: Rulebook,
    authorizer: Arc<Authorizer>,
    shutdown: Shutdown,
    shutdown_delay: Duration,
    shutdown_deadline: Duration,
}

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Anything else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

/// Builds all parts and binds all sockets. Must run inside a runtime, the one that is to run the rest.
///
/// # Errors
/// [`StartError`].
pub async fn bind(config: Config) -> Result<Bound, StartError> {
    // First of all: what cannot be bound should not cost anything.
    let grpc = config
        .grpc
        .listen
        .iter()
        .map(|address| address.bind(config.grpc.socket_mode))
        .collect::<Result<Vec<_>, _>>()?;
    let admin_listener = config.admin_listen.bind(config.grpc.socket_mode)?;
    let account_listen = config.account.as_ref().and_then(|account| account.listen.as_ref());
    let account_listener = account_listen.map(|address| address.bind(config.grpc.socket_mode)).transpose()?;

    let readiness = Readiness::default();
    let shutdown = Shutdown::default();
    let metrics = Arc::new(Metrics::new().context("metrics")?);
    let endpoint = |name: &str| {
        let pool = config.rules.pools.iter().map(|(pool, _)| pool).find(|pool| *pool.name == *name);
        pool.map(|pool| pool.endpoint.clone()).context("the account API's pool")
    };
    let account_endpoint = config.account.as_ref().map(|account| endpoint(&account.pool)).transpose()?;
    let interval = config.jwks_refresh_interval;
    let pools = config.rules.pools.len();
    let (mut rulebook, rules) =
        Rulebook::open(config.rules, config.rules_source, interval, Arc::clone(&metrics), &readiness)?;
    let cache = TokenCache::new(config.token_cache_capacity, config.token_cache_max_bytes, metrics.token_cache.clone());
    let authorizer = Arc::new(Authorizer::new(rules, cache, config.leeway));
    let account_target = config.account.as_ref().and_then(|account| {
        let rules = authorizer.rules();
        let pool = rules.pools.named(&account.pool)?;
        Some(json!({"pool": pool.name, "user_pool_id": pool.id.as_str(), "endpoint": pool.endpoint.as_str(),
            "client_id": account.client_id.as_str()}))
    });
    let account = match (config.account, account_endpoint) {
        (Some(settings), Some(endpoint)) => {
            rulebook.keep_pool(&settings.pool, &settings.client_id);
            Some(account(settings, config.realm.as_str(), endpoint, Arc::clone(&authorizer), &metrics)?)
        }
        _ => None,
    };
    let checks = Checks::new(Arc::clone(&authorizer), Arc::clone(&metrics), config.realm);
    let check = CheckService::new(Arc::new(checks), config.grpc.max_message_bytes);
    let (health, health_service) = Health::new().await;
    let services = Services::new(check, health_service, shutdown.closing.clone()).context("gRPC reflection")?;
    let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = config.grpc.threads.map_or_else(cores, usize::from);
    let ports = divide_descriptors(Wanted {
        grpc: usize::try_from(config.grpc.max_connections).unwrap_or(usize::MAX),
        threads,
        pools,
        account: account.is_some(),
    });
    let limits = Limits { connections: ports.grpc, streams: config.grpc.max_streams };
    let (workers, threads) =
        Workers::start(threads, limits, &services, &shutdown).context("threads that serve checks")?;

    // On one of the two ports.
    let (account, shared) = match (account_listener, account) {
        (Some(listener), Some(account)) => (Some((listener, account)), None),
        (_, shared) => (None, shared),
    };
    let admin_connections = ports.admin + if shared.is_some() { ports.account } else { 0 };
    let admin = Admin {
        readiness,
        shutdown: shutdown.clone(),
        metrics,
        authorizer: Arc::clone(&authorizer),
        options: config.effective,
        rules: rulebook.status(),
        account_target: account_target.unwrap_or_default(),
        account: shared,
        limits: http_server::Limits::of(admin_connections, ADMIN_HEAD_TIMEOUT),
    };
    Ok(Bound {
        grpc,
        admin_listener,
        admin: Arc::new(admin),
        account,
        account_limits: http_server::Limits::of(ports.account, ACCOUNT_HEAD_TIMEOUT),
        workers,
        threads,
        health,
        rulebook,
        authorizer,
        shutdown,
        shutdown_delay: config.shutdown_delay,
        shutdown_deadline: config.shutdown_deadline,
    })
}

fn account(
    config: AccountConfig,
    realm: &str,
    endpoint: url::Url,
    authorizer: Arc<Authorizer>,
    metrics: &Metrics,
) -> anyhow::Result<Arc<Account>> {
    let operations: Vec<_> = Operation::ALL.iter().map(|operation| operation.as_str()).collect();
    let labels = Labels {
        routes: &account::route_labels(),
        outcomes: &account::outcome_labels(),
        limits: &rate_limit::LABELS,
        operations: &operations,
        results: &CognitoError::LABELS,
    };
    let metrics = metrics.account(&labels).context("metrics")?;
    let client = CognitoClient::new(
        endpoint,
        config.client_id.clone(),
        config.client_secret,
        config.cognito_timeout,
        metrics.cognito.clone(),
    );
    let settings = Settings {
        pool: config.pool,
        prefix: config.prefix,
        client_id: config.client_id,
        trusted_hops: config.trusted_hops,
        cors: config.cors,
        allowed: config.allowed,
        totp_issuer: Issuer::or(config.totp_issuer, realm),
        refresh_flow: config.refresh_flow,
        rates: config.rates,
        min_failure_time: config.min_failure_time,
        hide_users: config.hide_users,
        realm: realm.into(),
        hosted_ui: config.hosted_ui,
        cookies: config.cookies,
    };
    Ok(Account::new(settings, client, authorizer, metrics))
}

/// Divides the descriptors that there are between the ports, and logs what each port gets.
fn divide_descriptors(wanted: Wanted) -> Shares {
    let limit = descriptors::limit();
    let shares = descriptors::share(limit, wanted);
    let Shares { grpc, admin, account, is_enough } = shares;
    tracing::info!(limit, grpc, admin, account, "connections at a time, by the limit on open files");
    if !is_enough {
        tracing::warn!(limit, "the limit on open files is too low for the program; raise its hard limit");
    } else if grpc < wanted.grpc {
        let configured = wanted.grpc;
        tracing::warn!(
            limit,
            configured,
            grpc,
            "the limit on open files leaves fewer gRPC connections than --grpc-max-connections; raise its hard limit"
        );
    }
    shares
}

/// Time for a request's head on the account API's own port, which strangers reach, and on the admin port.
const ACCOUNT_HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const ADMIN_HEAD_TIMEOUT: Duration = Duration::from_secs(30);

impl Bound {
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
        self.account.as_ref().map(|(listener, _)| listener.address())
    }

    /// Serves until `stop`, then ends in order: not ready, delay, listeners close, running checks finish, and at the
    /// deadline whatever is left is cut. The admin port closes last.
    ///
    /// # Errors
    /// When a part that should live as long as the process has died: a process that is half alive helps nobody.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        for listener in &self.grpc {
            tracing::info!(listener = "grpc", address = listener.address(), "listening");
        }
        tracing::info!(listener = "admin", address = self.admin_listener.address(), "listening");
        if let Some((listener, _)) = &self.account {
            tracing::info!(listener = "account", address = listener.address(), "listening");
        }

        // Each of these lives until it is told to end; one that ends by itself has died.
        let mut rulebook = tokio::spawn(self.rulebook.run(self.authorizer));
        let mut accepting = JoinSet::new();
        let workers = Arc::new(self.workers);
        for listener in self.grpc {
            let (workers, closing) = (Arc::clone(&workers), self.shutdown.closing.clone());
            accepting.spawn(async move { workers.accept(&listener, &closing).await });
        }
        drop(workers);
        if let Some((listener, account)) = self.account {
            let closing = self.shutdown.closing.clone();
            accepting.spawn(http_server::serve(listener, self.account_limits, closing, move |request, peer| {
                let account = Arc::clone(&account);
                async move { account.answer(request, peer).await }
            }));
        }
        let readiness = self.admin.readiness.clone();
        let admin_closing = CancellationToken::new();
        let mut admin = tokio::spawn(self.admin.serve(self.admin_listener, admin_closing.clone()));
        let mut threads = self.threads;
        tokio::spawn(self.health.follow(readiness.clone(), self.shutdown.clone()));
        tokio::spawn(say_when_ready(readiness));

        let dead = tokio::select! {
            () = stop => None,
            _ = &mut rulebook => Some("the task that fetches keys"),
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
            Err(_) => tracing::warn!("stopped with calls still running"),
        }
        // Whoever is reading metrics just now may finish.
        drop(tokio::time::timeout(ADMIN_GRACE, admin).await);
        Ok(())
    }
}

/// Time for requests on the admin port to finish, at the very end.
const ADMIN_GRACE: Duration = Duration::from_millis(500);

async fn say_when_ready(readiness: Readiness) {
    if readiness.subscribe().wait_for(|ready| *ready).await.is_ok() {
        tracing::info!("ready");
    }
}
