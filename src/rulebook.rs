//! The rules in force, and how they stay so: a task per pool fetches its keys, and a policy file that changes becomes
//! the next ruleset.
//!
//! What a new file leaves as it was is taken over: a pool with the same addresses keeps its keys and its task, and one
//! that has not changed at all keeps its verified tokens, too. A file that is wrong changes nothing. Start from
//! [`Rulebook::open`]; [`Rulebook::run`] is the task.

mod account_pool;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time;

use self::account_pool::AccountPool;
use crate::authz::cache::PoolStamp;
use crate::authz::token::claims::WantedClaims;
use crate::authz::{Authorizer, Ruleset};
use crate::check::denial_labels;
use crate::config::ConfigError;
use crate::config::rules::{AccountClient, Rules, RulesSource};
use crate::file_read::Fingerprint;
use crate::file_watch::{FileWatch, KeepsChanging};
use crate::jwks::KeySet;
use crate::jwks::fetch::{FetchError, JwksClient};
use crate::jwks::store::{KeyStore, PoolKeys, Refresher};
use crate::lifecycle::Readiness;
use crate::metrics::{Metrics, Reload};
use crate::user_pool::{ClientId, PoolIndex, UserPool, UserPools};

/// How long a reload waits for the keys of new pools.
const KEYS_WAIT: Duration = Duration::from_secs(5);
/// Time after which a file that could not be put in effect is tried again: the reason may lie outside of it.
const RETRY: Duration = Duration::from_secs(10);

/// Builds rulesets and keeps their keys.
#[derive(Debug)]
pub struct Rulebook {
    source: RulesSource,
    metrics: Arc<Metrics>,
    refresh_interval: Duration,
    client: Arc<JwksClient>,
    status: Arc<Status>,
    /// The version of the policy file that was first read.
    seen: Option<Fingerprint>,
    /// The member `account` of the file at startup.
    account_of_file: Option<AccountClient>,
    /// What the account API calls: rules that change it need a restart.
    account_pool: Option<AccountPool>,
    pools: Vec<Kept>,
    wanted: WantedClaims,
    last_stamp: PoolStamp,
    tasks: JoinSet<()>,
}

/// A pool in force.
#[derive(Debug)]
struct Kept {
    pool: UserPool,
    stamp: PoolStamp,
    keys: Arc<PoolKeys>,
    /// Fetches the keys, once it is started.
    refresher: Option<Refresher>,
    task: Option<AbortHandle>,
}

/// What operators see of the policy file.
#[derive(Debug)]
pub struct Status {
    /// The file in force, as data; null without one.
    pub file: ArcSwap<Value>,
    /// Why the file on disk is not in force, if it is not.
    pub error: ArcSwapOption<String>,
}

impl Rulebook {
    /// Builds the first ruleset. No keys are fetched before [`run`](Self::run); the service is not ready before every pool has
    /// some.
    ///
    /// # Errors
    /// When two pools share an issuer.
    pub fn open(
        rules: Rules,
        source: RulesSource,
        refresh_interval: Duration,
        metrics: Arc<Metrics>,
        readiness: &Readiness,
    ) -> anyhow::Result<(Self, Ruleset)> {
        let mut book = Self {
            source,
            metrics,
            refresh_interval,
            client: Arc::new(JwksClient::default()),
            status: Arc::new(Status {
                file: ArcSwap::from_pointee(rules.shown.clone()),
                error: ArcSwapOption::empty(),
            }),
            seen: rules.seen,
            account_of_file: rules.account.clone(),
            account_pool: None,
            pools: Vec::new(),
            wanted: WantedClaims::default(),
            last_stamp: 0,
            tasks: JoinSet::new(),
        };
        let ruleset = book.adopt(rules, Some(readiness))?;
        Ok((book, ruleset))
    }

    /// What operators see.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Holds on to the pool and the app client that the account API calls: a file that changes them is refused.
    pub fn keep_pool(&mut self, name: &str, client_id: &ClientId) {
        let kept = self.pools.iter().find(|kept| *kept.pool.name == *name);
        self.account_pool = kept.map(|kept| AccountPool {
            pool: kept.pool.clone(),
            client_id: client_id.clone(),
            of_file: self.account_of_file.clone(),
        });
    }

    /// Takes `rules` over, pool by pool, and makes the ruleset that goes with them.
    fn adopt(&mut self, rules: Rules, readiness: Option<&Readiness>) -> anyhow::Result<Ruleset> {
        let Rules { pools, policies, headers, wanted, .. } = rules;
        let by_issuer = UserPools::new(pools.iter().map(|(pool, _)| pool.clone()).collect())?;
        let keeps_claims = wanted == self.wanted;
        let mut known = std::mem::take(&mut self.pools);
        for (pool, seed) in pools {
            let same_keys = |kept: &Kept| {
                kept.pool.name == pool.name && kept.pool.id == pool.id && kept.pool.jwks_urls == pool.jwks_urls
            };
            let kept = match known.iter().position(same_keys).map(|index| known.swap_remove(index)) {
                Some(kept) if keeps_claims && kept.pool == pool => kept,
                Some(kept) => Kept { pool, stamp: self.next_stamp(), ..kept },
                None => self.new_pool(pool, seed, readiness),
            };
            self.pools.push(kept);
        }
        for gone in known {
            if let Some(task) = gone.task {
                task.abort();
            }
            if !self.pools.iter().any(|kept| kept.pool.name == gone.pool.name) {
                self.metrics.forget_pool(&gone.pool.name);
            }
        }
        let names = self.pools.iter().map(|kept| kept.pool.name.clone()).collect();
        let policy_names = policies.iter().map(|policy| policy.name.clone()).collect();
        self.wanted = wanted.clone();
        Ok(Ruleset {
            pools: by_issuer,
            keys: KeyStore::new(self.pools.iter().map(|kept| Arc::clone(&kept.keys)).collect()),
            stamps: self.pools.iter().map(|kept| kept.stamp).collect(),
            policies,
            headers,
            wanted,
            browser_sessions: self.source.browser_sessions.clone(),
            counters: self.metrics.checks(names, policy_names, &denial_labels()),
        })
    }

    fn next_stamp(&mut self) -> PoolStamp {
        self.last_stamp += 1;
        self.last_stamp
    }

    fn new_pool(&mut self, pool: UserPool, seed: KeySet, readiness: Option<&Readiness>) -> Kept {
        let keys = PoolKeys::new(seed, self.metrics.jwks(&pool.name, &FetchError::LABELS));
        let ready = readiness.map(|readiness| readiness.block(format!("keys of the pool {}", pool.name)));
        let refresher = Refresher::new(Arc::clone(&keys), self.refresh_interval, ready);
        Kept { pool, stamp: self.next_stamp(), keys, refresher: Some(refresher), task: None }
    }

    /// Fetches the keys of one pool, and waits until they are there, but no longer than a reload would.
    pub async fn fetch_keys_of(&mut self, pool: PoolIndex) {
        self.start_tasks(|index| index == pool);
        if let Some(kept) = self.pools.get(pool) {
            // Without keys the check will say what that means.
            drop(time::timeout(KEYS_WAIT, kept.keys.wait_for_any()).await);
        }
    }

    /// Starts the tasks of these pools, unless they run already.
    fn start_tasks(&mut self, which: impl Fn(PoolIndex) -> bool) {
        for (_, kept) in self.pools.iter_mut().enumerate().filter(|(index, _)| which(*index)) {
            let Some(refresher) = kept.refresher.take() else { continue };
            let (client, urls) = (Arc::clone(&self.client), Arc::new(kept.pool.jwks_urls.clone()));
            let fetch = move || {
                let (client, urls) = (Arc::clone(&client), Arc::clone(&urls));
                async move { client.fetch(&urls).await }
            };
            kept.task = Some(self.tasks.spawn(refresher.run(fetch)));
        }
    }

    /// Fetches keys, and reloads the file when it changes and on SIGHUP, for as long as the tasks live.
    ///
    /// # Errors
    /// When a task has died, or the signal cannot be waited for.
    pub async fn run(mut self, authorizer: Arc<Authorizer>) -> std::io::Result<()> {
        self.start_tasks(|_| true);
        let mut hangup = signal(SignalKind::hangup())?;
        let mut watch = self.source.file.clone().map(|path| FileWatch::new(path, self.seen));
        loop {
            let changed = async {
                match &mut watch {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            let has_failed = self.status.error.load().is_some();
            tokio::select! {
                // A task that was aborted has gone with its pool; any other has died.
                Some(ended) = self.tasks.join_next() => if !ended.is_err_and(|error| error.is_cancelled()) {
                    return Ok(());
                },
                rests = changed => self.reload(&authorizer, rests, false).await,
                _ = hangup.recv() => {
                    let rests = match &mut watch {
                        Some(watch) => watch.may_be_read().await,
                        None => Ok(()),
                    };
                    self.reload(&authorizer, rests, false).await;
                }
                () = time::sleep(RETRY), if has_failed => {
                    if let Some(watch) = &watch && watch.is_as_seen().await {
                        self.reload(&authorizer, Ok(()), true).await;
                    }
                }
            }
        }
    }

    /// Puts the file in effect as it is now, or says why not. An error that a new attempt only repeats is not told again.
    async fn reload(&mut self, authorizer: &Authorizer, rests: Result<(), KeepsChanging>, is_retry: bool) {
        let Some(path) = &self.source.file else {
            tracing::info!("SIGHUP: there is no policy file to read again");
            return;
        };
        let path = path.display().to_string();
        let result = match rests {
            Ok(()) => self.try_reload(authorizer).await,
            Err(error) => Err(ConfigError::new(format!("{path}: {error}"))),
        };
        match result {
            Ok(()) => {
                self.metrics.reloaded(Reload::Success);
                self.status.error.store(None);
                tracing::info!(path, pools = self.pools.len(), "the policy file has been reloaded");
            }
            Err(error) if is_retry && self.status.error.load().as_deref() == Some(&error.to_string()) => {}
            Err(error) => {
                self.metrics.reloaded(Reload::Failure);
                tracing::error!(error = %error, "the policy file is not reloaded; the one before stays in force");
                self.status.error.store(Some(Arc::new(error.to_string())));
            }
        }
    }

    async fn try_reload(&mut self, authorizer: &Authorizer) -> Result<(), ConfigError> {
        let source = self.source.clone();
        let failed = |why: &dyn std::fmt::Display| ConfigError::new(why.to_string());
        let mut rules = tokio::task::spawn_blocking(move || source.read()).await.map_err(|error| failed(&error))??;
        if let Some(why) = self.account_pool.as_ref().and_then(|account| account.needs_restart(&rules)) {
            return Err(ConfigError::new(why));
        }
        // What a start refuses, a reload refuses, too.
        self.source
            .judge(&rules)
            .map_err(|(option, why)| ConfigError::new(format!("--{}: {why}", option.replace('_', "-"))))?;
        for warning in rules.warnings.drain(..) {
            tracing::warn!("{warning}");
        }
        let shown = std::mem::take(&mut rules.shown);
        // From here on nothing fails: the new pools' keys are fetched while the rules of before are in force.
        let ruleset = self.adopt(rules, None).map_err(|error| failed(&error))?;
        // A pool that has had its time, and has no keys yet, holds up nobody else.
        let new = self.pools.iter().filter(|kept| kept.task.is_none()).map(|kept| Arc::clone(&kept.keys));
        let new: Vec<_> = new.collect();
        self.start_tasks(|_| true);
        let all_have_keys = async {
            for keys in &new {
                keys.wait_for_any().await;
            }
        };
        if time::timeout(KEYS_WAIT, all_have_keys).await.is_err() {
            tracing::warn!("the keys of a new pool cannot be had so far; its tokens are answered with 503");
        }
        authorizer.replace_rules(ruleset);
        self.status.file.store(Arc::new(shown));
        Ok(())
    }
}
