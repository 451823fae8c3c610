//! Writing into the stream: one revocation ([`Store::append`]), and whatever the store lacks ([`Store::put_back`]).

use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::{Pipeline, Value};
use tokio::time::{self, Instant};

use super::super::entry::Entry;
use super::super::key::Key;
use super::super::table::Table;
use super::link::{Link, StoreError};
use super::{Store, jitter, lock, stream};
use crate::clock::unix_now;

/// Time limit of a write, connecting included.
const WRITE_LIMIT: Duration = Duration::from_secs(2);
/// Number of records that are put back at once.
const CHUNK: usize = 1000;
/// Time to wait until a chunk is read back, and with it what other replicas have put back meanwhile.
const READ_BACK: Duration = Duration::from_secs(2);
/// Longest pause before records are put back, so that replicas do not all begin at once, and after a failed attempt.
const PAUSE: Duration = Duration::from_millis(300);
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Time in seconds that records are kept longer than they can matter, for clocks that differ.
const TRIM_MARGIN: i64 = 3600;

impl Store {
    /// Appends what the table knows about a key. If that fails, or if the caller stops waiting, it is appended later.
    pub(in super::super) async fn append(&self, key: Key, table: &Table) -> Result<(), StoreError> {
        self.append_all(&[key], table).await
    }

    async fn append_all(&self, keys: &[Key], table: &Table) -> Result<(), StoreError> {
        let entries: Vec<Entry> = keys.iter().filter_map(|key| table.get(*key)).collect();
        let mut sending = self.books.sending(entries.iter().map(|entry| entry.key).collect());
        let oldest = self.oldest();
        let mut commands = Pipeline::with_capacity(entries.len());
        for entry in &entries {
            stream::append(&mut commands, entry, oldest);
        }
        let replies =
            time::timeout(WRITE_LIMIT, self.send(&commands)).await.unwrap_or_else(|_| Err(StoreError::timeout()));
        let replies = match replies {
            Ok(replies) if replies.len() == entries.len() => replies,
            Ok(_) => return self.failed(StoreError::new("the store answers in another form")),
            Err(error) => return self.failed(error),
        };
        let mut failure = None;
        for (entry, reply) in entries.iter().zip(replies) {
            match reply.extract_error() {
                Ok(Value::BulkString(_)) => sending.taken(entry.key),
                Ok(_) => failure = Some(StoreError::new("the store answers in another form")),
                Err(error) => failure = Some(error.into()),
            }
        }
        match failure {
            None => Ok(()),
            Some(error) => self.failed(error),
        }
    }

    /// Sends commands on the connection for writes, which is opened if there is none.
    async fn send(&self, commands: &Pipeline) -> Result<Vec<Value>, StoreError> {
        let mut link = if let Some(link) = self.writer() { link } else { self.opened().await? };
        link.send(commands, WRITE_LIMIT).await
    }

    /// Opens the connection for writes, unless another write has opened it meanwhile.
    async fn opened(&self) -> Result<Link, StoreError> {
        let _opening = self.opening.lock().await;
        if let Some(link) = self.writer() {
            return Ok(link);
        }
        let link = Link::open(&self.settings, WRITE_LIMIT).await?;
        *lock(&self.writer) = Some(link.clone());
        Ok(link)
    }

    fn writer(&self) -> Option<Link> {
        lock(&self.writer).clone()
    }

    /// After a failure the next write connects again, unless that would not help.
    fn failed<T>(&self, error: StoreError) -> Result<T, StoreError> {
        if !error.keeps_link {
            *lock(&self.writer) = None;
        }
        Err(error)
    }

    /// Server's time in milliseconds from before which records no longer matter; `None` if it is not known. Both the
    /// server's clock and ours must agree that a record is old, so that one wrong clock deletes nothing.
    fn oldest(&self) -> Option<u64> {
        let newest = self.newest.load(Ordering::Acquire);
        let ours = u64::try_from(unix_now()).unwrap_or_default().saturating_mul(1000);
        let life = self.longest.load(Ordering::Acquire).saturating_add(TRIM_MARGIN);
        let life = u64::try_from(life).unwrap_or_default().saturating_mul(1000);
        newest.min(ours).checked_sub(life).filter(|oldest| *oldest > 0)
    }

    /// Appends what the store lacks, whenever it lacks something. Does not return.
    pub(super) async fn put_back(&self, table: &Table) {
        loop {
            self.books.changed.notified().await;
            if !self.books.lacks() {
                continue;
            }
            time::sleep(jitter(PAUSE)).await;
            let mut count = 0;
            while self.put_back_some(table, &mut count).await {}
            if count > 0 {
                tracing::info!(store = %self.settings.url, count, "revocations that the store lacked were appended");
            }
        }
    }

    /// Appends some of what the store lacks. Returns `false` if it lacks nothing.
    async fn put_back_some(&self, table: &Table, count: &mut usize) -> bool {
        // While everything is being read it is not known what is lacking.
        if !self.is_at_end.load(Ordering::Acquire) {
            time::sleep(jitter(PAUSE)).await;
            return self.books.lacks();
        }
        let keys = self.books.some(CHUNK);
        if keys.is_empty() {
            return false;
        }
        let (known, gone): (Vec<Key>, Vec<Key>) =
            keys.into_iter().partition(|key| table.look_up(*key, |_| ()).is_some());
        self.books.forget(&gone);
        match self.append_all(&known, table).await {
            Ok(()) => {
                *count += known.len();
                let sent = Instant::now();
                while self.books.awaits() && sent.elapsed() < READ_BACK {
                    let rest = READ_BACK.saturating_sub(sent.elapsed());
                    drop(time::timeout(rest, self.books.changed.notified()).await);
                }
            }
            Err(error) => {
                tracing::debug!(%error, "revocations could not be put back");
                time::sleep(PAUSE_AFTER_FAILURE / 2 + jitter(PAUSE_AFTER_FAILURE / 2)).await;
            }
        }
        true
    }
}
