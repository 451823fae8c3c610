//! Revoked sessions: what every check asks about, and what the account API and operators write.
//!
//! Cognito's sign-out ends refresh tokens and Cognito's own API; a JWT stays formally valid until it expires. This room
//! keeps what was revoked until the last token that it could match has expired. [`Revocations::judge`] answers a check
//! from memory, without a lock and without waiting. [`Revocations::revoke`] writes: into memory, and then into the file
//! ([`file`]) or the store that the replicas share ([`store`]), before the caller gets its answer.
//!
//! What is known about one key is a [`state::State`], which merges in any order. So one replica can tell another
//! everything it knows, at any time and more than once.

mod entry;
mod file;
mod key;
mod settings;
mod state;
mod store;
mod store_url;
mod table;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use self::entry::{Causes, Entry};
pub use self::file::FileError;
use self::file::FileKeeper;
pub(crate) use self::key::{Key, Kind};
pub use self::key::{MarkedClaims, Marks};
pub use self::settings::{Keep, Settings, StoreSettings, StoreUrl};
use self::state::State;
use self::store::Store;
use self::table::Table;
use crate::clock::UnixTime;
use crate::clock::unix_now;
use crate::lifecycle::Readiness;
use crate::metrics::revocation::{RevocationMetrics, WriteResult};
use crate::user_pool::UserPoolId;

/// The revocations that this process knows, and where it keeps them.
#[derive(Debug)]
pub struct Revocations {
    table: Arc<Table>,
    keeper: Keeper,
    /// Maximum number of entries.
    capacity: usize,
    /// Time in seconds after which no token is left that was issued before a revocation: the longest life and the leeway.
    life: i64,
    metrics: RevocationMetrics,
}

/// Where revocations are kept besides the memory.
#[derive(Debug)]
enum Keeper {
    /// Nowhere.
    Memory,
    /// In a file of this replica.
    File(FileKeeper),
    /// In the store that the replicas share.
    Store(Box<Store>),
}

/// A revocation to record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Revocation {
    /// Kind of the key.
    pub(crate) kind: Kind,
    /// What is revoked.
    pub(crate) key: Key,
    /// Of a `sub`: tokens of sign-ins up to this second are revoked. Of the others: time of the revocation.
    pub(crate) before: UnixTime,
    /// Session of the `sub` that is not revoked.
    pub(crate) except: Option<Key>,
    /// How it came about.
    pub(crate) cause: Causes,
}

/// State of the table that a token was last found valid in.
#[derive(Debug, Default)]
pub struct LastJudged(AtomicU64);

/// Result of the question whether a token is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is not.
    Valid,
    /// It is.
    Revoked,
    /// The store was lost, and `--revocation-required` demands that checks then end with an error.
    Unknown,
}

/// How far a revocation reaches (`scope` in the answers of the account API).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Only this process enforces it.
    Replica,
    /// All replicas with the same store enforce it.
    Shared,
}

impl Scope {
    /// Name of the scope.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Replica => "replica",
            Self::Shared => "shared",
        }
    }
}

/// Reason why a revocation was not recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRecorded {
    /// The table is full (`--revocation-capacity`). Nothing was recorded.
    #[error("there are as many revocations as --revocation-capacity allows")]
    Full,
    /// The file or the store did not take it. This process enforces it nevertheless, and goes on trying to write it.
    #[error("this replica enforces the revocation, but it could not be written")]
    Unwritten,
}

/// Reason why the place where revocations are kept cannot be used. The text names the option.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be used.
    #[error("--revocation-file {} {error}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with it.
        error: FileError,
    },
}

/// Time between two removals of entries whose time has passed.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(30);

impl Revocations {
    /// Creates the table, and opens the place where it is kept.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(settings: Settings, metrics: RevocationMetrics) -> Result<Self, OpenError> {
        let Settings { keep, capacity, life } = settings;
        let table = Arc::default();
        let keeper = match keep {
            Keep::Memory => Keeper::Memory,
            Keep::File(path) => Keeper::File(
                FileKeeper::open(&path, &table, capacity).map_err(|error| OpenError::File { path, error })?,
            ),
            Keep::Store(settings) => Keeper::Store(Box::new(Store::new(*settings, capacity, life, metrics.clone()))),
        };
        metrics.capacity.set(i64::try_from(capacity).unwrap_or(i64::MAX));
        Ok(Self { table, keeper, capacity, life, metrics })
    }

    /// Reads what is kept, for a command that only asks: takes no lock, changes nothing, and keeps nothing up to date. The
    /// second part says why it is not all there, if so.
    pub(crate) async fn read(settings: Settings, metrics: RevocationMetrics) -> (Self, Result<(), String>) {
        let Settings { keep, capacity, life } = settings;
        let table = Arc::default();
        let read = match keep {
            Keep::Memory => Err("only a running replica knows what was revoked".to_owned()),
            Keep::File(path) => {
                let read = file::read(&path, &table, capacity);
                read.map_err(|error| OpenError::File { path, error }.to_string())
            }
            Keep::Store(settings) => {
                let store = Store::new(*settings, capacity, life, metrics.clone());
                // Boxed, because the future is large.
                Box::pin(store.load_once(&table)).await
            }
        };
        (Self { table, keeper: Keeper::Memory, capacity, life, metrics }, read)
    }

    /// Answers whether a verified token is revoked. Never waits. `last` belongs to the token: it keeps the state of the
    /// table that the token was found valid in, so that a table that has not changed is not searched again.
    pub fn judge(&self, marks: &Marks, last: &LastJudged) -> Standing {
        let generation = self.table.generation();
        if last.0.load(Ordering::Relaxed) != generation {
            if self.table.len() > 0 && self.is_revoked(marks) {
                return Standing::Revoked;
            }
            last.0.store(generation, Ordering::Relaxed);
        }
        match &self.keeper {
            Keeper::Memory | Keeper::File(_) => Standing::Valid,
            Keeper::Store(store) if store.is_sound() => Standing::Valid,
            Keeper::Store(_) => Standing::Unknown,
        }
    }

    fn is_revoked(&self, marks: &Marks) -> bool {
        let (_, session) = marks.session();
        let covers = |entry: &Entry| entry.state.covers(marks.since, session);
        let is_in_effect = |entry: &Entry| entry.state.before().is_some();
        self.table.look_up(marks.subject, covers).unwrap_or(false)
            || marks.session.is_some_and(|key| self.table.look_up(key, is_in_effect).unwrap_or(false))
            || marks.token.is_some_and(|(_, key)| self.table.look_up(key, is_in_effect).unwrap_or(false))
    }

    /// Returns the entry by which a token is revoked, for a report to its holder.
    pub(crate) fn entry_of(&self, marks: &Marks) -> Option<Entry> {
        let (_, session) = marks.session();
        let of_user = self.table.get(marks.subject).filter(|entry| entry.state.covers(marks.since, session));
        let in_effect = |key: Key| self.table.get(key).filter(|entry| entry.state.before().is_some());
        let of_session = || marks.session.and_then(in_effect);
        of_user.or_else(of_session).or_else(|| marks.token.and_then(|(_, key)| in_effect(key)))
    }

    /// How far revocations reach.
    pub(crate) fn scope(&self) -> Scope {
        match &self.keeper {
            Keeper::Memory | Keeper::File(_) => Scope::Replica,
            Keeper::Store(_) => Scope::Shared,
        }
    }

    /// Place where revocations are kept besides the memory, for operators.
    pub(crate) fn kept_in(&self) -> &'static str {
        match &self.keeper {
            Keeper::Memory => "memory",
            Keeper::File(_) => "file",
            Keeper::Store(_) => "store",
        }
    }

    /// `false` if checks end with an error because the store is lost (`--revocation-required`).
    pub(crate) fn is_sound(&self) -> bool {
        !matches!(&self.keeper, Keeper::Store(store) if !store.is_sound())
    }

    /// Records a revocation. When it returns, every check of this process knows it, and the file or the store has it.
    ///
    /// # Errors
    /// [`NotRecorded`].
    pub(crate) async fn revoke(&self, revocation: Revocation, now: UnixTime) -> Result<Entry, NotRecorded> {
        let Revocation { kind, key, before, except, cause } = revocation;
        let known = self.table.get(key);
        let state = known
            .as_ref()
            .map_or_else(|| State::revoked(before, except), |known| known.state.revoked_again(before, except));
        self.write(Entry { key, kind, causes: cause, until: self.end(before.max(now)), state }, now).await
    }

    /// Revokes the tokens of a user's sign-ins up to the second `before`, as an operator does. For programs that use this
    /// library without its ports.
    ///
    /// # Errors
    /// [`NotRecorded`].
    pub async fn revoke_user(&self, pool: &UserPoolId, sub: &str, before: UnixTime) -> Result<(), NotRecorded> {
        let key = Key::new(pool, Kind::Subject, sub);
        let revocation = Revocation { kind: Kind::Subject, key, before, except: None, cause: Causes::OPERATOR };
        self.revoke(revocation, unix_now()).await.map(drop)
    }

    /// Lifts what is revoked for a key. Returns the entry as it was, or `None` if nothing was revoked.
    ///
    /// # Errors
    /// [`NotRecorded`].
    pub(crate) async fn lift(&self, key: Key, now: UnixTime) -> Result<Option<Entry>, NotRecorded> {
        let Some(known) = self.table.get(key).filter(|entry| entry.state.before().is_some()) else {
            return Ok(None);
        };
        let until = known.until.max(self.end(now));
        self.write(Entry { until, state: known.state.lifted(), ..known.clone() }, now).await?;
        Ok(Some(known))
    }

    /// Returns the entry of a key, also one that was lifted.
    pub(crate) fn get(&self, key: Key) -> Option<Entry> {
        self.table.get(key)
    }

    /// Returns up to `limit` entries that are in effect, in order of their keys, beginning after `after`.
    pub(crate) fn page(&self, after: Option<Key>, limit: usize) -> Vec<Entry> {
        let mut page = Vec::new();
        for slice in self.table.slices(after) {
            let wanted = slice.iter().filter(|entry| after.is_none_or(|after| entry.key > after));
            page.extend(wanted.filter(|entry| entry.state.before().is_some()).cloned());
            if page.len() >= limit {
                page.truncate(limit);
                break;
            }
        }
        page
    }

    /// Merges an entry into the table, and writes it where it is kept.
    async fn write(&self, entry: Entry, now: UnixTime) -> Result<Entry, NotRecorded> {
        let kind = entry.kind;
        let written = self.table.merge(vec![entry.clone()], self.capacity, now);
        let result = if written.refused > 0 { Err(NotRecorded::Full) } else { self.keep(&entry).await };
        self.metrics.wrote(
            kind.as_str(),
            match result {
                Ok(()) => WriteResult::Success,
                Err(NotRecorded::Full) => WriteResult::Full,
                Err(NotRecorded::Unwritten) => WriteResult::Unwritten,
            },
        );
        match result {
            Ok(()) => tracing::debug!(kind = kind.as_str(), "revocation recorded"),
            Err(error) => tracing::error!(kind = kind.as_str(), %error, "revocation not recorded"),
        }
        result.map(|()| entry)
    }

    async fn keep(&self, entry: &Entry) -> Result<(), NotRecorded> {
        match &self.keeper {
            Keeper::Memory => Ok(()),
            Keeper::File(file) => file.append(entry.key).await.map_err(|_| NotRecorded::Unwritten),
            Keeper::Store(store) => store.append(entry.key, &self.table).await.map_err(|error| {
                tracing::warn!(%error, "the store did not take a revocation");
                NotRecorded::Unwritten
            }),
        }
    }

    /// End of an entry that is made at `time`.
    fn end(&self, time: UnixTime) -> UnixTime {
        time.saturating_add(self.life)
    }

    /// Sets the gauges, before metrics are read.
    pub(crate) fn measure(&self) {
        for kind in Kind::ALL {
            self.metrics.entries(kind.as_str()).set(i64::try_from(self.table.len_of(*kind)).unwrap_or(i64::MAX));
        }
    }

    /// Removes entries whose time has passed, and keeps the table in step with the store, as long as the process runs.
    pub async fn run(self: Arc<Self>) {
        let expire = async {
            loop {
                tokio::time::sleep(EXPIRY_INTERVAL).await;
                self.table.expire(unix_now());
            }
        };
        let keep_up = async {
            match &self.keeper {
                Keeper::Memory | Keeper::File(_) => (),
                Keeper::Store(store) => store.run(&self.table).await,
            }
        };
        tokio::join!(expire, keep_up);
    }

    /// Makes the service not ready until the content of the store is loaded.
    pub(crate) fn block(&self, readiness: &Readiness) {
        match &self.keeper {
            Keeper::Memory | Keeper::File(_) => (),
            Keeper::Store(store) => store.block(readiness),
        }
    }

    /// Completes what is being written, at the end of the process. Takes at most five seconds.
    pub(crate) async fn finish(&self) {
        match &self.keeper {
            Keeper::Memory | Keeper::Store(_) => {}
            Keeper::File(file) => file.finish().await,
        }
    }
}
