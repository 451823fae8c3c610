//! Detects changes of a file: a write in place, a rename over it, or a symbolic link in its path that is switched,
//! which is how Kubernetes updates a mounted `ConfigMap`.
//!
//! The file is polled every second. Kernel events would be faster, but do not occur for all of these changes. A writer
//! may pause in the middle of a file, so a change counts only after three polls in a row have seen the same version.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time;

use super::read::{Fingerprint, ReadError, version};

/// Time between two polls.
const INTERVAL: Duration = Duration::from_secs(1);
/// Number of polls that have to agree with the one before. A writer may pause for less than this many seconds.
const AGREEING_POLLS: u32 = 2;
/// Number of polls after which a file that keeps changing is an error.
const MAX_POLLS: u32 = 60;

/// Watches one file.
#[derive(Debug)]
pub(crate) struct FileWatch {
    path: PathBuf,
    seen: FileState,
    poll: fn(&Path) -> FileState,
}

/// State of the file at one poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FileState {
    /// The file exists, in this version.
    Version(Fingerprint),
    /// The file does not exist or cannot be examined.
    Gone,
    /// The file system does not answer.
    Hangs,
}

/// The file kept changing for a minute: no three polls in a row saw the same version.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("keeps changing: replace files by a rename")]
pub(crate) struct KeepsChanging;

impl FileWatch {
    /// Creates a watch that compares with `read`, the version that was last read.
    pub(crate) fn new(path: PathBuf, read: Option<Fingerprint>) -> Self {
        Self { path, seen: read.map_or(FileState::Gone, FileState::Version), poll: poll_file }
    }

    /// Waits until the file can be read at an operator's request. Returns at once, unless the file is being written in
    /// place: then it waits until the writes stop. A file that was replaced by another one counts as complete.
    pub(crate) async fn may_be_read(&mut self) -> Result<(), KeepsChanging> {
        let now = self.poll().await;
        let is_same_file = |(one, other): (Fingerprint, Fingerprint)| (one.0, one.1) == (other.0, other.1);
        match (self.seen, now) {
            (FileState::Version(seen), FileState::Version(now)) if seen != now && is_same_file((seen, now)) => {
                self.settled(FileState::Version(now)).await
            }
            _ => {
                self.seen = now;
                Ok(())
            }
        }
    }

    /// Returns `true` if the file has not changed since it was last seen, so no write is in progress.
    pub(crate) async fn is_unchanged(&self) -> bool {
        self.poll().await == self.seen
    }

    /// Waits until the file has changed and is no longer being written. It also counts as a change if the file
    /// disappears or the file system stops answering.
    pub(crate) async fn changed(&mut self) -> Result<(), KeepsChanging> {
        loop {
            time::sleep(INTERVAL).await;
            let now = self.poll().await;
            if now != self.seen {
                return self.settled(now).await;
            }
        }
    }

    /// Waits until enough polls in a row have agreed.
    async fn settled(&mut self, mut now: FileState) -> Result<(), KeepsChanging> {
        let mut agreed = 0;
        for _ in 0..MAX_POLLS {
            if agreed == AGREEING_POLLS || now == FileState::Hangs {
                self.seen = now;
                return Ok(());
            }
            time::sleep(INTERVAL).await;
            let later = self.poll().await;
            agreed = if later == now { agreed + 1 } else { 0 };
            now = later;
        }
        Err(KeepsChanging)
    }

    /// Examines the file, on a blocking thread because a network file system can be slow.
    async fn poll(&self) -> FileState {
        let (path, poll) = (self.path.clone(), self.poll);
        tokio::task::spawn_blocking(move || poll(&path)).await.unwrap_or(FileState::Hangs)
    }
}

fn poll_file(path: &Path) -> FileState {
    match version(path) {
        Ok(version) => FileState::Version(version),
        Err(ReadError::Hangs) => FileState::Hangs,
        Err(_) => FileState::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes a change and returns `true` if the watch detects it. In real time, because file systems know no other.
    async fn detects(watch: &mut FileWatch, change: impl FnOnce()) -> bool {
        change();
        time::timeout(Duration::from_secs(20), watch.changed()).await == Ok(Ok(()))
    }

    #[tokio::test]
    async fn every_way_to_change_a_file_is_detected() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["1", "2"] {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join("policy.yaml"), name).unwrap();
        }
        // The layout that Kubernetes uses: policy.yaml -> ..data/policy.yaml, and ..data -> a directory for each
        // version.
        std::os::unix::fs::symlink("1", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/policy.yaml", at("policy.yaml")).unwrap();
        let path = at("policy.yaml");
        let mut watch = FileWatch::new(path.clone(), version(&path).ok());
        let swap = || {
            std::os::unix::fs::symlink("2", at("..data_tmp")).unwrap();
            std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
        };
        assert!(detects(&mut watch, swap).await, "a link that is switched");
        assert!(detects(&mut watch, || std::fs::write(at("2").join("policy.yaml"), "3").unwrap()).await, "in place");
        let rename = || {
            std::fs::write(at("new"), "3").unwrap();
            std::fs::rename(at("new"), at("2").join("policy.yaml")).unwrap();
        };
        assert!(detects(&mut watch, rename).await, "a rename");
        assert!(detects(&mut watch, || std::fs::remove_file(at("policy.yaml")).unwrap()).await, "gone");
        let unchanged = time::timeout(INTERVAL * 2, watch.changed()).await;
        assert!(unchanged.is_err(), "nothing has changed since");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_has_to_settle_and_one_that_never_does_is_an_error() {
        use std::sync::atomic::{AtomicI64, Ordering};
        static POLLS: AtomicI64 = AtomicI64::new(0);
        static SETTLES_AFTER: AtomicI64 = AtomicI64::new(i64::MAX);
        let start = |settles_after| {
            POLLS.store(0, Ordering::Relaxed);
            SETTLES_AFTER.store(settles_after, Ordering::Relaxed);
            let poll = |_: &Path| {
                let poll = POLLS.fetch_add(1, Ordering::Relaxed).min(SETTLES_AFTER.load(Ordering::Relaxed));
                // Every second poll sees a change: two polls that agree are not enough.
                FileState::Version((1, 1, 1, poll / 2, 0, 0, 0))
            };
            FileWatch { path: PathBuf::new(), seen: FileState::Gone, poll }
        };
        let mut watch = start(10);
        assert_eq!(watch.changed().await, Ok(()));
        assert_eq!((watch.seen, POLLS.load(Ordering::Relaxed)), (FileState::Version((1, 1, 1, 5, 0, 0, 0)), 13));
        let mut watch = start(i64::MAX);
        assert_eq!(watch.changed().await, Err(KeepsChanging));
        assert_eq!(watch.seen, FileState::Gone, "no version was taken");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_system_that_hangs_is_reported_at_once_and_so_is_its_return() {
        let hangs: fn(&Path) -> FileState = |_| FileState::Hangs;
        let version = Some((1, 1, 1, 1, 1, 1, 1));
        let mut watch = FileWatch { poll: hangs, ..FileWatch::new(PathBuf::new(), version) };
        let start = time::Instant::now();
        assert_eq!(watch.changed().await, Ok(()));
        assert!(start.elapsed() < INTERVAL * 2);
        watch.poll = |_| FileState::Version((1, 1, 1, 1, 1, 1, 1));
        assert_eq!(watch.changed().await, Ok(()));
    }
}
