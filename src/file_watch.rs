//! Notices that a file has changed: in place, by a rename, or by a symbolic link on the way that points elsewhere, as
//! Kubernetes replaces a mounted `ConfigMap`.
//!
//! The file is looked at every second. Events of the kernel would be quicker, and would not come for some of these. A
//! writer may pause in the middle of a file, so a change counts only when three looks in a row have seen the same.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time;

use crate::file_read::{self, Fingerprint, ReadError};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Looks after the first that have to see the same file. A writer may pause for less than this many seconds.
const AGREEING_LOOKS: u32 = 2;
/// Most looks at a file that keeps changing.
const MAX_LOOKS: u32 = 60;

/// Watches one file.
#[derive(Debug)]
pub struct FileWatch {
    path: PathBuf,
    seen: Sight,
    look: fn(&Path) -> Sight,
}

/// A look at the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// This version is there.
    Version(Fingerprint),
    /// There is none.
    Gone,
    /// The file system does not answer.
    Hangs,
}

/// The file has not been the same for long enough within a minute.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("keeps changing: replace files by a rename")]
pub struct KeepsChanging;

impl FileWatch {
    /// A watch that begins with the version that was read last.
    pub fn new(path: PathBuf, read: Option<Fingerprint>) -> Self {
        Self { path, seen: read.map_or(Sight::Gone, Sight::Version), look: look_at }
    }

    /// Waits until a new version may be read for another reason than a change, such as a signal. A file that is being
    /// written in place is waited for, another file in its place is not.
    ///
    /// # Errors
    /// [`KeepsChanging`].
    pub async fn may_be_read(&mut self) -> Result<(), KeepsChanging> {
        let now = self.look().await;
        let is_same_file = |(one, other): (Fingerprint, Fingerprint)| (one.0, one.1) == (other.0, other.1);
        match (self.seen, now) {
            (Sight::Version(seen), Sight::Version(now)) if seen != now && is_same_file((seen, now)) => {
                self.settles(Sight::Version(now)).await
            }
            _ => {
                self.seen = now;
                Ok(())
            }
        }
    }

    /// `true` if the file is as it was seen last, so that nobody is writing it.
    pub async fn is_as_seen(&self) -> bool {
        self.look().await == self.seen
    }

    /// Waits until the file is another one than before, and is no longer being written. A file that is gone counts as
    /// changed, and so does a file system that stops to answer.
    ///
    /// # Errors
    /// [`KeepsChanging`].
    pub async fn changed(&mut self) -> Result<(), KeepsChanging> {
        loop {
            time::sleep(INTERVAL).await;
            let now = self.look().await;
            if now != self.seen {
                return self.settles(now).await;
            }
        }
    }

    async fn settles(&mut self, mut now: Sight) -> Result<(), KeepsChanging> {
        let mut agreed = 0;
        for _ in 0..MAX_LOOKS {
            if agreed == AGREEING_LOOKS || now == Sight::Hangs {
                self.seen = now;
                return Ok(());
            }
            time::sleep(INTERVAL).await;
            let later = self.look().await;
            agreed = if later == now { agreed + 1 } else { 0 };
            now = later;
        }
        Err(KeepsChanging)
    }

    /// Off this thread: a network file system may take its time.
    async fn look(&self) -> Sight {
        let (path, look) = (self.path.clone(), self.look);
        tokio::task::spawn_blocking(move || look(&path)).await.unwrap_or(Sight::Hangs)
    }
}

fn look_at(path: &Path) -> Sight {
    match file_read::version(path) {
        Ok(version) => Sight::Version(version),
        Err(ReadError::Hangs) => Sight::Hangs,
        Err(_) => Sight::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a change is noticed. Real time: the file system has no other.
    async fn notices(watch: &mut FileWatch, change: impl FnOnce()) -> bool {
        change();
        time::timeout(Duration::from_secs(20), watch.changed()).await == Ok(Ok(()))
    }

    #[tokio::test]
    async fn every_way_to_change_a_file_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for version in ["1", "2"] {
            std::fs::create_dir(at(version)).unwrap();
            std::fs::write(at(version).join("policy.yaml"), version).unwrap();
        }
        // As Kubernetes does: policy.yaml -> ..data/policy.yaml, and ..data -> a directory for each version.
        std::os::unix::fs::symlink("1", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/policy.yaml", at("policy.yaml")).unwrap();
        let path = at("policy.yaml");
        let mut watch = FileWatch::new(path.clone(), file_read::version(&path).ok());
        let swap = || {
            std::os::unix::fs::symlink("2", at("..data_tmp")).unwrap();
            std::fs::rename(at("..data_tmp"), at("..data")).unwrap();
        };
        assert!(notices(&mut watch, swap).await, "a link that points elsewhere");
        assert!(notices(&mut watch, || std::fs::write(at("2").join("policy.yaml"), "3").unwrap()).await, "in place");
        let rename = || {
            std::fs::write(at("new"), "3").unwrap();
            std::fs::rename(at("new"), at("2").join("policy.yaml")).unwrap();
        };
        assert!(notices(&mut watch, rename).await, "a rename");
        assert!(notices(&mut watch, || std::fs::remove_file(at("policy.yaml")).unwrap()).await, "gone");
        let unchanged = time::timeout(INTERVAL * 2, watch.changed()).await;
        assert!(unchanged.is_err(), "nothing has changed since");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_has_to_rest_and_one_that_never_does_is_told() {
        use std::sync::atomic::{AtomicI64, Ordering};
        static LOOKS: AtomicI64 = AtomicI64::new(0);
        static RESTS_AFTER: AtomicI64 = AtomicI64::new(i64::MAX);
        let start = |rests_after| {
            LOOKS.store(0, Ordering::Relaxed);
            RESTS_AFTER.store(rests_after, Ordering::Relaxed);
            let look = |_: &Path| {
                let look = LOOKS.fetch_add(1, Ordering::Relaxed).min(RESTS_AFTER.load(Ordering::Relaxed));
                // Every second look sees a change: two looks that agree are not enough.
                Sight::Version((1, 1, 1, look / 2, 0, 0, 0))
            };
            FileWatch { path: PathBuf::new(), seen: Sight::Gone, look }
        };
        let mut watch = start(10);
        assert_eq!(watch.changed().await, Ok(()));
        assert_eq!((watch.seen, LOOKS.load(Ordering::Relaxed)), (Sight::Version((1, 1, 1, 5, 0, 0, 0)), 13));
        let mut watch = start(i64::MAX);
        assert_eq!(watch.changed().await, Err(KeepsChanging));
        assert_eq!(watch.seen, Sight::Gone, "nothing was taken");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_system_that_hangs_is_told_at_once_and_its_return_too() {
        let hangs: fn(&Path) -> Sight = |_| Sight::Hangs;
        let version = Some((1, 1, 1, 1, 1, 1, 1));
        let mut watch = FileWatch { look: hangs, ..FileWatch::new(PathBuf::new(), version) };
        let start = time::Instant::now();
        assert_eq!(watch.changed().await, Ok(()));
        assert!(start.elapsed() < INTERVAL * 2);
        watch.look = |_| Sight::Version((1, 1, 1, 1, 1, 1, 1));
        assert_eq!(watch.changed().await, Ok(()));
    }
}
