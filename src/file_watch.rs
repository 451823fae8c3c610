//! Notices that a file has changed: in place, by a rename, or by a symbolic link on the way that points elsewhere, as
//! Kubernetes replaces a mounted `ConfigMap`.
//!
//! The file is looked at every second. Events of the kernel would be quicker, and would not come for some of these.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// A file that is being written is left alone until it has not changed for this long.
const SETTLED: Duration = Duration::from_millis(200);

/// Watches one file.
#[derive(Debug)]
pub struct FileWatch {
    path: PathBuf,
    seen: Option<Fingerprint>,
}

/// Whatever differs between two versions of a file: device and inode, length, modification and change in nanoseconds.
pub type Fingerprint = (u64, u64, u64, i64, i64, i64, i64);

impl FileWatch {
    /// A watch that begins with the file as it was `seen`: before it was read, so that no change is missed.
    pub fn new(path: PathBuf, seen: Option<Fingerprint>) -> Self {
        Self { path, seen }
    }

    /// Takes the file as it is now for seen: it is about to be read for another reason.
    pub async fn see(&mut self) {
        self.seen = self.look().await;
    }

    /// Waits until the file is another one than before, and is no longer being written. A file that is gone counts as
    /// changed, too.
    pub async fn changed(&mut self) {
        loop {
            time::sleep(INTERVAL).await;
            let mut now = self.look().await;
            if now == self.seen {
                continue;
            }
            loop {
                time::sleep(SETTLED).await;
                let later = self.look().await;
                if later == now {
                    break;
                }
                now = later;
            }
            self.seen = now;
            return;
        }
    }

    /// Off this thread: a network file system may take its time.
    async fn look(&self) -> Option<Fingerprint> {
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || fingerprint(&path)).await.ok().flatten()
    }
}

/// The file as it is now; none if there is none.
pub fn fingerprint(path: &Path) -> Option<Fingerprint> {
    let of = std::fs::metadata(path).ok()?;
    Some((of.dev(), of.ino(), of.len(), of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a change is noticed. Real time: the file system has no other.
    async fn notices(watch: &mut FileWatch, change: impl FnOnce()) -> bool {
        change();
        time::timeout(Duration::from_secs(10), watch.changed()).await.is_ok()
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
        let mut watch = FileWatch::new(path.clone(), fingerprint(&path));
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
}
