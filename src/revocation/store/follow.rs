//! Reading the stream: push, catch-up and full load ([`Store::follow`]).
//!
//! A stream loses records only at its end: when a server fails that had not copied or saved them, or is replaced by
//! another one. So each reading also asks whether the record that was read last is still there. If it is not, everything
//! is read again from the beginning, and what this replica knows and did not read is appended.

use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::Value;
use tokio::time::{self, Instant};

use super::super::entry::Entry;
use super::super::key::UnixTime;
use super::super::table::Table;
use super::link::{Link, StoreError};
use super::stream::{self, Batch, Id};
use super::{LOAD_LIMIT, Store, jitter};
use crate::clock::{since_1970, unix_now};

/// Time for which the server holds a reading that has nothing to say.
const HOLD: Duration = Duration::from_secs(1);
/// Time limit of a reading: a connection that is dead without being closed is noticed after that.
const READ_LIMIT: Duration = Duration::from_secs(3);
/// Time limit for connecting.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Number of records of one reading, at about 50 bytes: it doubles with each reading that is full, and is halved by each
/// that fails, so that a slow network or processor gets ahead as well.
const FIRST_COUNT: usize = 1000;
const MIN_COUNT: usize = 10;
const MAX_COUNT: usize = 10_000;
/// Shortest and longest pause before the next attempt to connect, or to read everything again.
const PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// Time in seconds after which an entry ends, whatever its record says: the longest `--max-token-life`, and a day.
const LONGEST_LIFE: i64 = 31 * 24 * 3600;
/// Time between two attempts to read everything after there was more than the table may hold.
const RETRY_FULL: Duration = Duration::from_secs(60);

/// How far the stream was read. Kept from one connection to the next.
#[derive(Debug)]
struct Progress {
    /// Last record that was read.
    last: Id,
    /// Number of records of the next reading.
    count: usize,
    /// `true` if the last reading reached the end of the stream.
    is_at_end: bool,
    /// `true` once everything was read, from the beginning to the end.
    is_loaded: bool,
    /// Number of readings in a row that found the last record missing.
    losses: u32,
    /// Number of records that are not readable.
    unreadable: u64,
    /// Time at which entries were ignored, because the table was full.
    overflowed: Option<Instant>,
}

impl Progress {
    /// Nothing was read.
    const NONE: Self = Self {
        last: Id::START,
        count: FIRST_COUNT,
        is_at_end: false,
        is_loaded: false,
        losses: 0,
        unreadable: 0,
        overflowed: None,
    };

    /// Begins again at the start of the stream.
    fn restart(&mut self) {
        *self = Self { losses: self.losses, ..Self::NONE };
    }
}

impl Store {
    /// Follows the stream. Connects again whenever the connection fails. Does not return.
    pub(super) async fn follow(&self, table: &Table) {
        let mut progress = Progress::NONE;
        let mut pause = PAUSE;
        let mut is_up = None;
        loop {
            let error = match Link::open(&self.settings, CONNECT_LIMIT).await {
                Err(error) => error,
                Ok(mut link) => loop {
                    if let Err(error) = self.read(&mut link, &mut progress, table).await {
                        break error;
                    }
                    pause = PAUSE;
                    self.metrics.store_up.set(1);
                    if is_up.replace(true) != Some(true) {
                        tracing::info!(store = %self.settings.url, "the store of revocations answers");
                    }
                },
            };
            // The next reading answers at once.
            progress.is_at_end = false;
            progress.count = (progress.count / 2).max(MIN_COUNT);
            self.is_at_end.store(false, Ordering::Release);
            self.metrics.store_up.set(0);
            if is_up.replace(false) == Some(false) {
                tracing::debug!(%error, "the store of revocations is still lost");
            } else {
                tracing::error!(store = %self.settings.url, %error, "the store of revocations is lost");
            }
            time::sleep(pause / 2 + jitter(pause / 2)).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Loads the content of the store once.
    pub(in super::super) async fn load_once(&self, table: &Table) -> Result<(), String> {
        let load = async {
            let mut link = Link::open(&self.settings, CONNECT_LIMIT).await?;
            let mut progress = Progress::NONE;
            while !progress.is_loaded {
                self.read(&mut link, &mut progress, table).await?;
            }
            Ok(())
        };
        let loaded = time::timeout(LOAD_LIMIT, load).await.unwrap_or_else(|_| Err(StoreError::timeout()));
        loaded.map_err(|error: StoreError| format!("{}: {error}", self.settings.url))
    }

    /// Reads once.
    async fn read(&self, link: &mut Link, progress: &mut Progress, table: &Table) -> Result<(), StoreError> {
        if progress.overflowed.is_some_and(|time| time.elapsed() > RETRY_FULL) && table.len() < self.capacity {
            progress.restart();
        }
        let sent = Instant::now();
        let commands = stream::read(progress.last, progress.count, progress.is_at_end.then_some(HOLD));
        let replies = link.send(&commands, READ_LIMIT).await?;
        let replies = replies.into_iter().map(Value::extract_error).collect::<Result<_, _>>()?;
        let batch = stream::batch(replies).ok_or_else(|| StoreError::new("the store answers in another form"))?;
        self.metrics.last_sync.set(since_1970().as_secs_f64());
        if progress.last != Id::START && !batch.has_last {
            self.has_lost(progress, table).await;
            return Ok(());
        }
        progress.is_at_end = batch.records.len() < progress.count;
        if !progress.is_at_end {
            progress.count = (progress.count * 2).min(MAX_COUNT);
        }
        if batch.records.is_empty() {
            self.metrics.lag.set(0.0);
        }
        self.apply(batch, progress, table);
        if progress.is_at_end {
            self.reached_end(sent, progress, table);
        }
        Ok(())
    }

    /// The last record is gone: reads everything again, and doubts that the store has anything.
    async fn has_lost(&self, progress: &mut Progress, table: &Table) {
        tracing::warn!(store = %self.settings.url, "the store of revocations has lost records; reading everything again");
        self.books.doubt(table.slices(None).flat_map(|slice| slice.iter().map(|entry| entry.key).collect::<Vec<_>>()));
        progress.losses += 1;
        progress.restart();
        self.is_at_end.store(false, Ordering::Release);
        self.newest.store(0, Ordering::Release);
        if progress.losses > 1 {
            time::sleep(jitter((PAUSE * progress.losses.min(100)).min(MAX_PAUSE))).await;
        }
    }

    /// Merges what was read into the table.
    fn apply(&self, batch: Batch, progress: &mut Progress, table: &Table) {
        let Some(newest) = batch.records.last().map(|(id, _)| *id) else { return };
        progress.last = newest;
        self.newest.store(newest.millis, Ordering::Release);
        let mut entries = Vec::with_capacity(batch.records.len());
        for (id, entry) in batch.records {
            if let Some(entry) = entry {
                let taken = UnixTime::try_from(id.millis / 1000).unwrap_or(UnixTime::MAX);
                let life = entry.until.saturating_sub(taken).min(LONGEST_LIFE);
                self.longest.fetch_max(life, Ordering::AcqRel);
                entries.push(entry);
            } else {
                progress.unreadable += 1;
                if progress.unreadable == 1 {
                    let store = &self.settings.url;
                    tracing::warn!(%store, record = %id, "a record of the store is not readable; such records are skipped");
                }
            }
        }
        let wall = unix_now();
        let latest = wall.saturating_add(LONGEST_LIFE);
        let in_bounds = |entry: &Entry| Entry { until: entry.until.min(latest), ..entry.clone() };
        let written = table.merge(entries.iter().map(in_bounds).collect(), self.capacity, wall);
        if written.refused > 0 && progress.overflowed.replace(Instant::now()).is_none() {
            tracing::error!(
                store = %self.settings.url,
                "the store has more than twice as many revocations as --revocation-capacity allows; the rest is ignored"
            );
        }
        if !self.books.is_clear() {
            self.books.has_read(entries.iter(), table);
        }
        // A full load has old entries, which were not late.
        if progress.is_loaded {
            let lag = since_1970().saturating_sub(Duration::from_millis(newest.millis));
            self.metrics.lag.set(lag.as_secs_f64());
        }
    }

    fn reached_end(&self, sent: Instant, progress: &mut Progress, table: &Table) {
        progress.losses = 0;
        self.is_at_end.store(true, Ordering::Release);
        self.books.has_read_all(sent);
        if progress.overflowed.is_none() {
            self.is_synced();
        }
        if !std::mem::replace(&mut progress.is_loaded, true) {
            let (entries, unreadable) = (table.len(), progress.unreadable);
            tracing::info!(store = %self.settings.url, entries, unreadable, "the store of revocations is loaded");
        }
        if progress.overflowed.is_none() || !self.settings.required {
            drop(self.unblock());
        }
    }
}
