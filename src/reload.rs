//! Keeps the rules in effect current: fetches the keys of each pool, and reloads the policy file and the certificates
//! of the listeners when they change.
//!
//! A reload keeps what the new file leaves unchanged. A pool with the same addresses keeps its keys and its task; a
//! pool that has not changed at all keeps its verified tokens as well. An invalid file changes nothing.
//!
//! [`Reloader::open`] builds the first ruleset, and `Reloader::run` is the task. This module handles no signal: the
//! caller of `run` decides what requests a reload.

mod account_pool;
mod certificates;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time;

use self::account_pool::AccountPool;
use self::certificates::CertificateReload;
use crate::authz::cache::PoolStamp;
use crate::authz::token::claims::WantedClaims;
use crate::authz::{Authorizer, Ruleset};
use crate::check::series::series;
use crate::clock::{UnixTime, unix_now};
use crate::config::ConfigError;
use crate::config::policy::{AccountClient, CompiledPolicy, PolicySource, UNSERVED_RESOURCES};
use crate::files::{FileWatch, Fingerprint, KeepsChanging};
use crate::jwks::KeySet;
use crate::jwks::fetch::{FetchError, JwksClient};
use crate::jwks::store::{KeyStore, PoolKeys, Refresher};
use crate::lifecycle::Readiness;
use crate::metrics::{Metrics, Reload, Reloaded};
use crate::net::tls::Certificates;
use crate::telemetry::Tracer;
use crate::user_pool::{ClientId, PoolIndex, UserPool, UserPools};

/// Maximum time that a reload waits for the keys of new pools.
const KEYS_WAIT: Duration = Duration::from_secs(5);
/// Time after which a failed reload is retried. The cause may lie outside the file, for example in a file that it
/// names.
const RETRY: Duration = Duration::from_secs(10);

/// Builds rulesets from the policy file and keeps the keys of their pools.
#[derive(Debug)]
pub struct Reloader {
    source: PolicySource,
    metrics: Arc<Metrics>,
    refresh_interval: Duration,
    client: Arc<JwksClient>,
    status: Arc<Status>,
    /// Version of the policy file that was read at startup.
    seen: Option<Fingerprint>,
    /// Member `account` of the file at startup.
    account_of_file: Option<AccountClient>,
    /// Pool and app client of the account API. A file that changes them is rejected.
    account_pool: Option<AccountPool>,
    pools: Vec<ActivePool>,
    wanted: WantedClaims,
    last_stamp: PoolStamp,
    tasks: JoinSet<()>,
    certificates: Option<CertificateReload>,
    /// Traces fetches of keys, if traces are on.
    tracer: Option<Arc<Tracer>>,
}

/// A pool of the ruleset in effect.
#[derive(Debug)]
struct ActivePool {
    pool: UserPool,
    stamp: PoolStamp,
    keys: Arc<PoolKeys>,
    /// Task that fetches the keys, before it is started.
    refresher: Option<Refresher>,
    /// The same task, once it runs.
    task: Option<AbortHandle>,
}

/// State of the policy file and of the certificates, as shown on the admin port.
#[derive(Debug)]
pub(crate) struct Status {
    /// Content of the file in effect; null if there is no file.
    pub(crate) file: ArcSwap<Value>,
    /// Error of the last reload of the file, if it failed.
    pub(crate) error: ArcSwapOption<String>,
    /// Error of the last reload of the certificates, if it failed.
    pub(crate) certificates: ArcSwapOption<String>,
    /// The last reload; `None` before the first.
    pub(crate) last: ArcSwapOption<LastReload>,
}

/// A reload that has ended. A retry that fails with the same error as before does not count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastReload {
    pub(crate) at: UnixTime,
    pub(crate) part: Reloaded,
    pub(crate) result: Reload,
}

impl Status {
    /// Notes that a reload has ended now.
    fn ended(&self, part: Reloaded, result: Reload) {
        self.last.store(Some(Arc::new(LastReload { at: unix_now(), part, result })));
    }
}

impl Reloader {
    /// Builds the first ruleset. `run` starts to fetch keys; `readiness` is blocked until each pool has
    /// keys.
    ///
    /// # Errors
    /// If two pools share an issuer.
    pub fn open(
        policy: CompiledPolicy,
        source: PolicySource,
        refresh_interval: Duration,
        metrics: Arc<Metrics>,
        readiness: &Readiness,
    ) -> anyhow::Result<(Self, Ruleset)> {
        let mut reloader = Self {
            source,
            metrics,
            refresh_interval,
            client: Arc::new(JwksClient::default()),
            status: Arc::new(Status {
                file: ArcSwap::from_pointee(policy.shown.clone()),
                error: ArcSwapOption::empty(),
                certificates: ArcSwapOption::empty(),
                last: ArcSwapOption::empty(),
            }),
            seen: policy.seen,
            account_of_file: policy.account.clone(),
            account_pool: None,
            pools: Vec::new(),
            wanted: WantedClaims::default(),
            last_stamp: 0,
            tasks: JoinSet::new(),
            certificates: None,
            tracer: None,
        };
        let ruleset = reloader.adopt(policy, Some(readiness))?;
        reloader.show_version(&reloader.status.file.load());
        reloader.metrics.took_effect(Reloaded::Policy);
        Ok((reloader, ruleset))
    }

    /// State of the policy file. Reloads update it.
    pub(crate) fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Reloads these certificates as well, and shows when they expire. `listeners` are the labels of the listeners that
    /// use them.
    pub(crate) fn watch_certificates(&mut self, certificates: Arc<Certificates>, listeners: Vec<&'static str>) {
        let (metrics, status) = (Arc::clone(&self.metrics), self.status());
        self.certificates = Some(CertificateReload::new(certificates, listeners, metrics, status));
    }

    /// Traces fetches that begin from now on.
    pub(crate) fn trace(&mut self, tracer: Option<Arc<Tracer>>) {
        self.tracer = tracer;
    }

    /// Rejects files from now on that change the pool `name` or the app client, which the account API uses.
    pub(crate) fn keep_pool(&mut self, name: &str, client_id: &ClientId) {
        let active = self.pools.iter().find(|active| *active.pool.name == *name);
        self.account_pool = active.map(|active| AccountPool {
            pool: active.pool.clone(),
            client_id: client_id.clone(),
            of_file: self.account_of_file.clone(),
        });
    }

    /// Makes the pools of `policy` the active ones and returns the ruleset for them. The readiness is blocked until
    /// each new pool has keys.
    pub(crate) fn adopt(&mut self, policy: CompiledPolicy, readiness: Option<&Readiness>) -> anyhow::Result<Ruleset> {
        let CompiledPolicy { pools, policies, headers, wanted, resources, .. } = policy;
        let by_issuer = UserPools::new(pools.iter().map(|(pool, _)| pool.clone()).collect())?;
        let keeps_claims = wanted == self.wanted;
        let previous = std::mem::take(&mut self.pools).into_iter();
        let mut previous: HashMap<_, _> = previous.map(|active| (active.pool.name.clone(), active)).collect();
        for (pool, seed) in pools {
            let has_same_keys =
                |active: &ActivePool| active.pool.id == pool.id && active.pool.jwks_urls == pool.jwks_urls;
            let is_kept = previous.get(&pool.name).is_some_and(has_same_keys);
            let active = match is_kept.then(|| previous.remove(&pool.name)).flatten() {
                Some(active) if keeps_claims && active.pool == pool => active,
                Some(active) => ActivePool { pool, stamp: self.next_stamp(), ..active },
                None => self.new_pool(pool, seed, readiness),
            };
            self.pools.push(active);
        }
        let names: Vec<Box<str>> = self.pools.iter().map(|active| active.pool.name.clone()).collect();
        let known: HashSet<&Box<str>> = names.iter().collect();
        for (name, removed) in previous {
            if let Some(task) = removed.task {
                task.abort();
            }
            if !known.contains(&name) {
                self.metrics.forget_pool(&name);
            }
        }
        let policy_names = policies.iter().map(|policy| policy.name.clone()).collect();
        let possible = series(&policies, self.source.browser_sessions.is_some());
        let counters = self.metrics.checks(names, policy_names, &possible);
        self.wanted = wanted.clone();
        Ok(Ruleset {
            version: self.next_stamp(),
            pools: by_issuer,
            keys: KeyStore::new(self.pools.iter().map(|active| Arc::clone(&active.keys)).collect()),
            stamps: self.pools.iter().map(|active| active.stamp).collect(),
            policies,
            headers,
            wanted,
            browser_sessions: self.source.browser_sessions.clone(),
            resources,
            counters,
        })
    }

    fn next_stamp(&mut self) -> PoolStamp {
        self.last_stamp += 1;
        self.last_stamp
    }

    fn new_pool(&mut self, pool: UserPool, seed: KeySet, readiness: Option<&Readiness>) -> ActivePool {
        let keys = PoolKeys::new(seed, self.metrics.jwks(&pool.name, &FetchError::LABELS));
        let ready = readiness.map(|readiness| readiness.block(format!("keys of the pool {}", pool.name)));
        let refresher = Refresher::new(Arc::clone(&keys), pool.clone(), self.refresh_interval, ready);
        ActivePool { pool, stamp: self.next_stamp(), keys, refresher: Some(refresher), task: None }
    }

    /// Fetches the keys of one pool, and waits for them as long as a reload would. Without keys the check answers
    /// `keys_unavailable`.
    pub(crate) async fn fetch_keys_of(&mut self, pool: PoolIndex) {
        self.start_tasks(|index| index == pool);
        if let Some(active) = self.pools.get(pool) {
            drop(time::timeout(KEYS_WAIT, active.keys.wait_for_any()).await);
        }
    }

    /// Starts the tasks of the pools for which `selects` returns `true`, unless they run already.
    fn start_tasks(&mut self, selects: impl Fn(PoolIndex) -> bool) {
        for (_, active) in self.pools.iter_mut().enumerate().filter(|(index, _)| selects(*index)) {
            let Some(refresher) = active.refresher.take() else { continue };
            let (client, urls) = (Arc::clone(&self.client), Arc::new(active.pool.jwks_urls.clone()));
            let fetch = move || {
                let (client, urls) = (Arc::clone(&client), Arc::clone(&urls));
                async move { client.ask(&urls).await }
            };
            let host = active.pool.jwks_urls.first().and_then(|url| url.host_str()).unwrap_or_default();
            let refresher = refresher.traced(self.tracer.as_ref(), host);
            active.task = Some(self.tasks.spawn(refresher.run(fetch)));
        }
    }

    /// Fetches keys, and reloads the policy file and the certificates when they change or `reload_requests` is notified.
    /// A requested reload does not wait for the files to settle, unless one is being written in place. Requests that
    /// arrive during a reload cause one more.
    ///
    /// Returns only if the task of a pool has died.
    pub(crate) async fn run(mut self, authorizer: Arc<Authorizer>, reload_requests: Arc<Notify>) {
        self.start_tasks(|_| true);
        let mut watch = self.source.file.clone().map(|path| FileWatch::new(path, self.seen));
        let mut certificates = self.certificates.take();
        loop {
            let changed = async {
                match &mut watch {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            let renewed = async {
                match &mut certificates {
                    Some(certificates) => certificates.changed().await,
                    None => std::future::pending().await,
                }
            };
            let has_failed = self.status.error.load().is_some() || self.status.certificates.load().is_some();
            tokio::select! {
                // The tasks of removed pools are aborted; any other end is a failure.
                Some(ended) = self.tasks.join_next() => if !ended.is_err_and(|error| error.is_cancelled()) {
                    return;
                },
                settled = changed => self.reload(&authorizer, settled, false).await,
                settled = renewed => if let Some(certificates) = &certificates {
                    certificates.reload(settled, false).await;
                },
                () = reload_requests.notified() => {
                    if let Some(certificates) = &mut certificates {
                        let settled = certificates.may_be_read().await;
                        certificates.reload(settled, false).await;
                    }
                    let settled = match &mut watch {
                        Some(watch) => watch.may_be_read().await,
                        None => Ok(()),
                    };
                    self.reload(&authorizer, settled, false).await;
                }
                () = time::sleep(RETRY), if has_failed => {
                    if let Some(watch) = &watch && self.status.error.load().is_some() && watch.is_unchanged().await {
                        self.reload(&authorizer, Ok(()), true).await;
                    }
                    if let Some(certificates) = &certificates && certificates.needs_retry().await {
                        certificates.reload(Ok(()), true).await;
                    }
                }
            }
        }
    }

    /// Reloads the file and reports the result in log, metrics and status. A retry that fails with the same error
    /// reports nothing.
    async fn reload(&mut self, authorizer: &Authorizer, settled: Result<(), KeepsChanging>, is_retry: bool) {
        let Some(path) = &self.source.file else {
            tracing::info!("a reload was requested, but no policy file is configured");
            return;
        };
        let path = path.display().to_string();
        let result = match settled {
            Ok(()) => self.try_reload(authorizer).await,
            Err(error) => Err(ConfigError::new(format!("{path}: {error}"))),
        };
        match result {
            Ok(()) => {
                self.metrics.reloaded(Reloaded::Policy, Reload::Success);
                self.status.ended(Reloaded::Policy, Reload::Success);
                self.status.error.store(None);
                tracing::info!(path, pools = self.pools.len(), "the policy file has been reloaded");
            }
            Err(error) if is_retry && self.status.error.load().as_deref() == Some(&error.to_string()) => {}
            Err(error) => {
                self.metrics.reloaded(Reloaded::Policy, Reload::Failure);
                self.status.ended(Reloaded::Policy, Reload::Failure);
                tracing::error!(error = %error, "the policy file is not reloaded; the previous one stays in effect");
                self.status.error.store(Some(Arc::new(error.to_string())));
            }
        }
    }

    async fn try_reload(&mut self, authorizer: &Authorizer) -> Result<(), ConfigError> {
        let source = self.source.clone();
        let failed = |why: &dyn std::fmt::Display| ConfigError::new(why.to_string());
        let mut policy = tokio::task::spawn_blocking(move || source.read()).await.map_err(|error| failed(&error))??;
        if let Some(why) = self.account_pool.as_ref().and_then(|account| account.needs_restart(&policy)) {
            return Err(ConfigError::new(why));
        }
        // A reload rejects whatever a start would reject.
        self.source
            .judge(&policy)
            .map_err(|(option, why)| ConfigError::new(format!("--{}: {why}", option.replace('_', "-"))))?;
        for warning in policy.warnings.drain(..) {
            tracing::warn!("{warning}");
        }
        if self.account_pool.is_none() && !policy.resources.is_empty() {
            tracing::warn!("{UNSERVED_RESOURCES}");
        }
        let shown = std::mem::take(&mut policy.shown);
        // Nothing fails after this line. The keys of new pools are fetched while the previous rules stay in effect.
        let ruleset = self.adopt(policy, None).map_err(|error| failed(&error))?;
        // Pools that failed to get keys in an earlier reload have a task already, and are not waited for again.
        let new = self.pools.iter().filter(|active| active.task.is_none()).map(|active| Arc::clone(&active.keys));
        let new: Vec<_> = new.collect();
        self.start_tasks(|_| true);
        let all_have_keys = async {
            for keys in &new {
                keys.wait_for_any().await;
            }
        };
        if time::timeout(KEYS_WAIT, all_have_keys).await.is_err() {
            tracing::warn!(
                "the keys of a new pool could not be fetched so far; until they are, checks of its tokens answer 503"
            );
        }
        authorizer.replace_rules(ruleset);
        self.show_version(&shown);
        self.status.file.store(Arc::new(shown));
        Ok(())
    }

    /// Shows the version of the policy file in effect in the metrics.
    fn show_version(&self, shown: &Value) {
        self.metrics.policy_file_is(shown.get("sha256").and_then(Value::as_str).unwrap_or_default());
    }
}
