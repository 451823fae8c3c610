//! The file of a single replica (`--revocation-file`): what was confirmed is there after a restart.
//!
//! [`FileKeeper::append`] returns once the disk has an entry. A thread of its own makes all calls to the file system; it
//! writes everything that waits at once, with one fsync. It copies entries from the table, which has them first. So
//! nothing is lost if a write fails: the thread tries again, and if it does not know what the disk has, it writes the whole
//! table into a new file. `file/format.rs` describes the content, `file/log.rs` the file.

mod format;
mod log;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use self::format::{Frame, MIN_RECORDS};
use self::log::{Log, Rewrite};
use super::key::Key;
use super::table::Table;
use crate::clock::unix_now;

/// Time limit for one entry to reach the disk.
const APPEND_LIMIT: Duration = Duration::from_secs(5);
/// Time limit for opening and reading the file. A million entries take about a second.
const OPEN_LIMIT: Duration = Duration::from_secs(60);
/// Time for the thread to write what waits, at the end.
const FINISH_LIMIT: Duration = Duration::from_secs(5);
/// Number of callers that can wait for the disk.
const MAX_CALLERS: usize = 16_384;
/// Shortest and longest time between two attempts to write what an earlier write failed to.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// The file is not compacted as long as it contains fewer records than this that are overwritten or over.
const MIN_DEAD: usize = 4096;

/// Reason why the file cannot be used. The text continues a sentence that starts with the option and the path.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The path leads to another kind of file, which is named here.
    #[error("is {0}, not a regular file")]
    Kind(&'static str),
    /// The file has several names.
    #[error("has several names (hard links): a file of revocations has one")]
    Linked,
    /// The file does not begin as a file of revocations does.
    #[error("is not a file of revocations; it stays as it is")]
    Foreign,
    /// The file is empty. This service never leaves it so.
    #[error("is empty, which a file of revocations never is: remove it to start without revocations")]
    Empty,
    /// The file was written by another version of this program.
    #[error("was written by another version of cognito-authz; it stays as it is")]
    OtherVersion,
    /// The content at this offset is damaged, and not by an interrupted write.
    #[error(
        "is damaged at byte {0}; it stays as it is: replace it by a copy, or remove it to start without revocations"
    )]
    Damaged(u64),
    /// Another process uses the file.
    #[error("is in use by another process: each replica needs a file of its own, or all share --revocation-url")]
    Locked,
    /// The file contains more than this number of entries.
    #[error("contains more revocations than --revocation-capacity allows ({0})")]
    Full(usize),
    /// The file cannot be read.
    #[error("cannot be used: {0}")]
    Read(#[from] io::Error),
    /// The file cannot be written.
    #[error("cannot be written: {0}")]
    Write(io::Error),
    /// A file beside it cannot be used.
    #[error("needs a file beside it, {}, which cannot be used: {error}", path.display())]
    Beside {
        /// Its path.
        path: PathBuf,
        /// What fails.
        error: io::Error,
    },
    /// The file system does not answer.
    #[error("cannot be used: the file system does not answer within {}s", OPEN_LIMIT.as_secs())]
    Hangs,
}

/// An entry that the file does not have: neither confirmed nor lost, because the thread goes on trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unwritten;

/// The open file, and the thread that writes it. Dropping it writes what waits, and releases the lock.
#[derive(Debug)]
pub(super) struct FileKeeper {
    shared: Arc<Shared>,
}

impl FileKeeper {
    /// Opens or creates the file, and merges its entries into the table, which should be empty.
    pub(super) fn open(path: &Path, table: &Arc<Table>, capacity: usize) -> Result<Self, FileError> {
        Self::open_with(path, table, capacity, MIN_DEAD)
    }

    fn open_with(path: &Path, table: &Arc<Table>, capacity: usize, min_dead: usize) -> Result<Self, FileError> {
        let shared = Arc::<Shared>::default();
        let (opened, result) = mpsc::sync_channel(1);
        let (path, table, end) = (path.to_owned(), Arc::clone(table), End(Arc::clone(&shared)));
        let work = move || {
            let log = Log::open(&path, &table, capacity, unix_now());
            let (log, found) = match log {
                Ok(log) => log,
                Err(error) => return drop(opened.send(Err(error))),
            };
            if found.torn > 0 {
                let (path, bytes) = (path.display(), found.torn);
                tracing::warn!(%path, bytes, "dropped an incomplete write at the end of the file of revocations");
            }
            if opened.send(Ok(())).is_ok() {
                Writer::new(Arc::clone(&end.0), table, path, log, min_dead).run();
            }
        };
        std::thread::Builder::new().name("revocations".into()).spawn(work)?;
        result.recv_timeout(OPEN_LIMIT).map_err(|_| FileError::Hangs)??;
        Ok(Self { shared })
    }

    /// Writes the table's entry of a key, and returns once the disk has it. Takes at most five seconds.
    ///
    /// # Errors
    /// The disk does not have it. It is written as soon as the file system allows it.
    pub(super) async fn append(&self, key: Key) -> Result<(), Unwritten> {
        let (done, result) = oneshot::channel();
        self.shared.submit(key, done);
        match tokio::time::timeout(APPEND_LIMIT, result).await {
            Ok(Ok(true)) => Ok(()),
            _ => Err(Unwritten),
        }
    }

    /// Writes what waits, and ends the thread. Later calls of [`Self::append`] fail.
    pub(super) async fn finish(&self) {
        let shared = Arc::clone(&self.shared);
        // Fails only if the runtime ends.
        drop(tokio::task::spawn_blocking(move || shared.finish()).await);
    }
}

impl Drop for FileKeeper {
    fn drop(&mut self) {
        self.shared.finish();
    }
}

/// Reads the file without a lock and without changing it.
pub(super) fn read(path: &Path, table: &Arc<Table>, capacity: usize) -> Result<(), FileError> {
    let (done, result) = mpsc::sync_channel(1);
    let (path, table) = (path.to_owned(), Arc::clone(table));
    let work = move || drop(done.send(log::read(&path, &table, capacity, unix_now())));
    std::thread::Builder::new().name("revocations".into()).spawn(work)?;
    result.recv_timeout(OPEN_LIMIT).map_err(|_| FileError::Hangs)?
}

/// What the thread and its callers share.
#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// Keys to write, and who waits for them.
    callers: VecDeque<(Key, oneshot::Sender<bool>)>,
    /// `true` if further keys were to be written than fit into the queue.
    is_overrun: bool,
    /// `true` if the thread should end once it has written what waits.
    is_closing: bool,
    /// `true` once the thread has ended.
    has_ended: bool,
}

/// Marks the thread as ended when it is dropped, also by a panic.
struct End(Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.has_ended = true;
        queue.callers.clear();
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a key. Drops `done` if that is impossible.
    fn submit(&self, key: Key, done: oneshot::Sender<bool>) {
        let mut queue = self.lock();
        if queue.is_closing || queue.has_ended {
            return;
        }
        if queue.callers.len() < MAX_CALLERS {
            queue.callers.push_back((key, done));
        } else {
            queue.is_overrun = true;
        }
        self.changed.notify_all();
    }

    /// Takes work for one frame. Waits until there is some, but not longer than this time.
    fn take(&self, limit: Option<Duration>) -> Work {
        let start = Instant::now();
        let mut queue = self.lock();
        loop {
            let left = limit.map(|limit| limit.saturating_sub(start.elapsed()));
            let is_idle = queue.callers.is_empty() && !queue.is_overrun && !queue.is_closing;
            if !is_idle || left.is_some_and(|left| left.is_zero()) {
                break;
            }
            queue = match left {
                None => self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(left) => self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        let count = queue.callers.len().min(MIN_RECORDS);
        let (keys, callers) = queue.callers.drain(..count).unzip();
        let is_last = queue.is_closing && queue.callers.is_empty();
        Work { keys, callers, is_overrun: std::mem::take(&mut queue.is_overrun), is_last }
    }

    /// Tells the thread to end, and waits for that.
    fn finish(&self) {
        let start = Instant::now();
        let mut queue = self.lock();
        queue.is_closing = true;
        self.changed.notify_all();
        while !queue.has_ended {
            let left = FINISH_LIMIT.saturating_sub(start.elapsed());
            if left.is_zero() {
                tracing::error!("the file of revocations is not complete: the file system does not answer");
                return;
            }
            queue = self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// What the thread is to do next.
struct Work {
    keys: Vec<Key>,
    callers: Vec<oneshot::Sender<bool>>,
    is_overrun: bool,
    /// Nothing follows.
    is_last: bool,
}

/// The thread that writes the file.
struct Writer {
    shared: Arc<Shared>,
    table: Arc<Table>,
    path: PathBuf,
    log: Log,
    /// Number of dead records below which the file is not compacted.
    min_dead: usize,
    /// Keys that the file lacks.
    pending: BTreeSet<Key>,
    /// Compaction under way.
    rewrite: Option<Rewrite>,
    /// Number of attempts to write that have failed since the last that succeeded.
    failures: u32,
    /// Time of the next attempt after a failure.
    retry: Option<Instant>,
    /// Time before which the file is not replaced, because that has failed.
    blocked: Option<Instant>,
    /// Time before which no compaction begins, because one has failed.
    rest: Option<Instant>,
}

impl Writer {
    fn new(shared: Arc<Shared>, table: Arc<Table>, path: PathBuf, log: Log, min_dead: usize) -> Self {
        let pending = BTreeSet::new();
        let (rewrite, retry, blocked, rest) = (None, None, None, None);
        Self { shared, table, path, log, min_dead, pending, rewrite, failures: 0, retry, blocked, rest }
    }

    /// Writes until the keeper is dropped.
    fn run(mut self) {
        loop {
            let wait = match (&self.rewrite, self.retry) {
                (Some(_), _) => Some(Duration::ZERO),
                (None, retry) => retry.map(|at| at.saturating_duration_since(Instant::now())),
            };
            let work = self.shared.take(wait);
            let is_last = work.is_last;
            self.handle(work);
            if is_last {
                let missing = self.pending.len();
                if missing > 0 {
                    tracing::error!(missing, "the file of revocations lacks revocations, which end with this process");
                }
                return;
            }
        }
    }

    fn handle(&mut self, work: Work) {
        if work.is_overrun {
            // It is not known which ones; the table has them.
            self.log.distrust();
            self.rewrite = None;
        }
        let is_due = self.retry.is_some_and(|at| at <= Instant::now());
        if !work.keys.is_empty() || work.is_overrun || is_due || work.is_last {
            let is_written = self.write(&work.keys, work.is_last);
            while work.is_last && !self.pending.is_empty() && self.write(&[], true) {}
            // Fails for callers that no longer wait.
            for caller in work.callers {
                caller.send(is_written).ok();
            }
        } else if self.rewrite.is_some() {
            self.go_on_compacting();
        }
        if self.should_compact() {
            self.rewrite = self.log.rewrite().map_err(|error| self.put_compaction_off(&error)).ok();
        }
    }

    /// Writes these keys, and others that the file lacks as far as they fit. Returns `true` if the disk has these.
    fn write(&mut self, keys: &[Key], is_last: bool) -> bool {
        let keys: BTreeSet<Key> = keys.iter().copied().collect();
        self.pending.extend(&keys);
        if let Some(rewrite) = &mut self.rewrite {
            rewrite.changed.extend(&keys);
        }
        let is_sound = self.log.is_sound();
        if !is_sound && !is_last && self.blocked.is_some_and(|at| Instant::now() < at) {
            return false;
        }
        let result = if is_sound { self.append(&keys) } else { self.replace() };
        match result {
            Ok(()) => {
                if self.failures > 0 {
                    tracing::info!(path = %self.path.display(), "the file of revocations can be written again");
                }
                self.failures = 0;
                self.blocked = None;
                self.retry = (!self.pending.is_empty()).then(Instant::now);
                true
            }
            Err(error) => {
                if self.failures == 0 {
                    tracing::error!(path = %self.path.display(), %error, "the file of revocations cannot be written");
                }
                let pause = RETRY.0.saturating_mul(1 << self.failures.min(5)).min(RETRY.1);
                self.failures = self.failures.saturating_add(1);
                self.retry = Some(Instant::now() + pause);
                self.blocked = self.retry.filter(|_| !is_sound);
                if self.pending.len() > self.table.len() {
                    self.pending.retain(|key| self.table.get(*key).is_some());
                }
                false
            }
        }
    }

    /// Appends these keys, and others that the file lacks as far as they fit.
    fn append(&mut self, keys: &BTreeSet<Key>) -> io::Result<()> {
        let mut frame = Frame::new();
        let mut done = Vec::new();
        for key in keys.iter().chain(self.pending.iter().filter(|key| !keys.contains(key))) {
            // An entry that is not there has ended, and needs no record.
            if self.table.get(*key).is_some_and(|entry| !frame.push(&entry)) {
                break;
            }
            done.push(*key);
        }
        if frame.records > 0 {
            self.log.append(frame)?;
        }
        for key in done {
            self.pending.remove(&key);
        }
        Ok(())
    }

    /// Replaces the file by the table, which has everything that the file should have.
    fn replace(&mut self) -> io::Result<()> {
        let rewrite = match self.rewrite.take() {
            Some(rewrite) => rewrite,
            None => self.log.rewrite()?,
        };
        self.log.run(rewrite, &self.table, self.table.steady(unix_now()))?;
        self.pending.clear();
        Ok(())
    }

    fn should_compact(&self) -> bool {
        let live = self.table.len();
        let dead = self.log.records.saturating_sub(live);
        self.rewrite.is_none() && self.rest.is_none_or(|at| at <= Instant::now()) && dead > live.max(self.min_dead)
    }

    fn go_on_compacting(&mut self) {
        let Some(mut rewrite) = self.rewrite.take() else {
            return;
        };
        let now = self.table.steady(unix_now());
        let result = match rewrite.step(&self.table, now) {
            Ok(false) => return self.rewrite = Some(rewrite),
            Ok(true) => self.log.replace(rewrite, &self.table, now),
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => self.pending.clear(),
            Err(error) => self.put_compaction_off(&error),
        }
    }

    fn put_compaction_off(&mut self, error: &io::Error) {
        tracing::warn!(path = %self.path.display(), %error, "the file of revocations cannot be compacted");
        self.rest = Some(Instant::now() + RETRY.1);
    }
}
