//! Reads regular files, with a limit for the size and the time.
//!
//! Reading a pipe can block, a device has no end, and a network file system may never answer. A separate thread
//! therefore makes each call to the file system; if the call hangs, the thread is abandoned.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Time limit for one call to the file system.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// Maximum number of threads in calls to the file system, hanging ones included. Further calls fail at once.
const MAX_THREADS: usize = 32;
/// Number of threads in calls to the file system. It is a static because threads are a resource of the process:
/// services that run in one process share the limit.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Maximum size of a file that contains one secret.
pub(crate) const MAX_SECRET_BYTES: u64 = 64 << 10;
/// Maximum size of a file of settings or tests. A Kubernetes `ConfigMap` has at most 1 MiB.
pub(crate) const MAX_TEXT_BYTES: u64 = 4 << 20;

/// Identifies one version of a file: device, inode, length, and the times of the last modification and of the last
/// status change, each in seconds and nanoseconds.
pub(crate) type Fingerprint = (u64, u64, u64, i64, i64, i64, i64);

/// Reason why a file is not read. The text continues a sentence that starts with the file's name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// A system call failed.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The path leads to another kind of file, which is named here.
    #[error("is {0}, not a regular file")]
    Kind(&'static str),
    /// The file is larger than this number of bytes.
    #[error("is larger than {} KiB", .0 >> 10)]
    Size(u64),
    /// The file was written to while it was read.
    #[error("changes while it is being read: replace files by a rename")]
    Changes,
    /// The file system did not answer in time, or too many earlier calls still hang.
    #[error("cannot be read: the file system does not answer within {}s", TIME_LIMIT.as_secs())]
    Hangs,
    /// The content is not UTF-8.
    #[error("is not UTF-8")]
    Text,
}

/// Reads a regular file. Returns its content and the version that was read. Follows symbolic links, and blocks for at
/// most five seconds. The size is checked before anything is read.
pub(crate) fn read_version(path: &Path, max_bytes: u64) -> Result<(Vec<u8>, Fingerprint), ReadError> {
    let path = path.to_owned();
    within(TIME_LIMIT, move || read_now(&path, max_bytes))?
}

/// Reads a regular file. Blocks for at most five seconds.
pub(crate) fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, ReadError> {
    read_version(path, max_bytes).map(|(bytes, _)| bytes)
}

/// Reads a regular file as UTF-8 text. Blocks for at most five seconds.
pub(crate) fn read_text(path: &Path, max_bytes: u64) -> Result<String, ReadError> {
    String::from_utf8(read(path, max_bytes)?).map_err(|_| ReadError::Text)
}

/// Returns the current version of a file of any kind. Blocks for at most five seconds.
///
/// # Errors
/// [`ReadError::Io`] if the file does not exist, or [`ReadError::Hangs`].
pub(crate) fn version(path: &Path) -> Result<Fingerprint, ReadError> {
    let path = path.to_owned();
    let metadata = within(TIME_LIMIT, move || std::fs::metadata(path))??;
    Ok(fingerprint(&metadata))
}

fn read_now(path: &Path, max_bytes: u64) -> Result<(Vec<u8>, Fingerprint), ReadError> {
    // Checked before opening, because opening a device or a pipe can have side effects, and again afterwards, because
    // another file may have replaced it. With O_NONBLOCK, opening a pipe does not wait for its other end.
    check_metadata(&std::fs::metadata(path)?, max_bytes)?;
    let file: File = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let before = file.metadata()?;
    check_metadata(&before, max_bytes)?;
    let mut bytes = Vec::new();
    // The limit applies again: the file may grow, and some file systems report a length of 0 for every file.
    (&file).take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(ReadError::Size(max_bytes));
    }
    let version = fingerprint(&before);
    if fingerprint(&file.metadata()?) != version {
        return Err(ReadError::Changes);
    }
    Ok((bytes, version))
}

/// Checks that the file is a regular one and not too large.
fn check_metadata(metadata: &Metadata, max_bytes: u64) -> Result<(), ReadError> {
    let file_type = metadata.file_type();
    if !file_type.is_file() {
        return Err(ReadError::Kind(kind_name(file_type)));
    }
    if metadata.len() > max_bytes {
        return Err(ReadError::Size(max_bytes));
    }
    Ok(())
}

/// Names a kind of file other than a regular one, for an error.
pub(crate) fn kind_name(file_type: FileType) -> &'static str {
    if file_type.is_dir() {
        "a directory"
    } else if file_type.is_fifo() {
        "a pipe"
    } else if file_type.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

fn fingerprint(file: &Metadata) -> Fingerprint {
    (file.dev(), file.ino(), file.len(), file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec())
}

/// Runs `work`, which may hang, on a new thread, and waits for the result for at most `limit`.
fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ReadError> {
    /// Guard that counts one thread, until it is dropped.
    struct ThreadCount;
    impl Drop for ThreadCount {
        fn drop(&mut self) {
            THREADS.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let before = THREADS.fetch_add(1, Ordering::Relaxed);
    let count = ThreadCount;
    if before >= MAX_THREADS {
        return Err(ReadError::Hangs);
    }
    let (done, result) = mpsc::sync_channel(1);
    std::thread::Builder::new().name("file".into()).spawn(move || {
        let _count = count;
        // Fails if the caller has stopped waiting.
        done.send(work()).ok();
    })?;
    result.recv_timeout(limit).map_err(|_| ReadError::Hangs)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_regular_file_is_read_up_to_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::write(at("a"), "12345").unwrap();
        symlink("a", at("link")).unwrap();
        for name in ["a", "link"] {
            assert_eq!(read(&at(name), 5).unwrap(), b"12345");
            assert_eq!(read_version(&at(name), 5).unwrap().1, version(&at(name)).unwrap());
            assert!(matches!(read(&at(name), 4), Err(ReadError::Size(4))));
        }
        // procfs reports a length of 0.
        assert!(read(Path::new("/proc/cpuinfo"), 8).is_err_and(|error| matches!(error, ReadError::Size(8))));
        assert!(read(&at("none"), 5).is_err_and(|error| error.to_string().starts_with("cannot be read: ")));
        std::fs::write(at("a"), b"\xff").unwrap();
        assert!(read_text(&at("a"), 5).is_err_and(|error| error.to_string() == "is not UTF-8"));
    }

    #[test]
    fn files_of_other_kinds_are_not_opened() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        symlink("pipe", at("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (path, kind) in [
            (at("pipe"), "a pipe"),
            (at("link"), "a pipe"),
            (at("socket"), "a socket"),
            (at(""), "a directory"),
            ("/dev/zero".into(), "a device"),
        ] {
            let error = read(&path, u64::MAX - 1).unwrap_err();
            assert_eq!(error.to_string(), format!("is {kind}, not a regular file"), "{}", path.display());
        }
        File::create(at("hole")).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(read(&at("hole"), 4 << 20).unwrap_err().to_string(), "is larger than 4096 KiB");
    }

    #[test]
    fn a_call_that_hangs_is_abandoned_at_its_time_limit() {
        let (free, hang) = mpsc::channel::<()>();
        let limit = Duration::from_millis(50);
        let start = Instant::now();
        let abandoned = within(limit, move || hang.recv());
        assert!(matches!(abandoned, Err(ReadError::Hangs)) && start.elapsed() >= limit);
        assert_eq!(within(TIME_LIMIT, || 7).unwrap(), 7, "other calls still succeed");
        // The thread ends as soon as the call returns.
        let running = THREADS.load(Ordering::Relaxed);
        free.send(()).unwrap();
        while THREADS.load(Ordering::Relaxed) >= running {
            assert!(start.elapsed() < Duration::from_secs(20));
            std::thread::yield_now();
        }
    }
}
