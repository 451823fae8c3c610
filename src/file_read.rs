//! Reads the files that operators name: regular files only, of bounded size, within bounded time.
//!
//! A pipe would be waited for, a device has no end, and a network file system may never answer. The calls to the file
//! system are made by a thread of their own, which is left behind if it hangs. Start from [`read`].

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Longest that a file system may take for one file.
const TIME_LIMIT: Duration = Duration::from_secs(5);
/// Most threads that read files, or hang in the attempt, at a time. The next attempt fails at once.
const MAX_THREADS: usize = 32;
/// Threads at work. They belong to the process, like its descriptors.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Most bytes of a file that holds one secret.
pub const MAX_SECRET_BYTES: u64 = 64 << 10;
/// Most bytes of a file of settings or tests. A Kubernetes `ConfigMap` has at most one MiB.
pub const MAX_TEXT_BYTES: u64 = 4 << 20;

/// Values that differ between two versions of a file: device and inode, length, modification and change in nanoseconds.
pub type Fingerprint = (u64, u64, u64, i64, i64, i64, i64);

/// Reason why a file is not read. Displayed behind the file's name.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system says no.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is no regular file.
    #[error("is {0}, not a regular file")]
    Kind(&'static str),
    /// It is too large.
    #[error("is larger than {} KiB", .0 >> 10)]
    Size(u64),
    /// It was written meanwhile.
    #[error("changes while it is being read: replace files by a rename")]
    Changes,
    /// The file system does not answer.
    #[error("cannot be read: the file system does not answer within {}s", TIME_LIMIT.as_secs())]
    Hangs,
    /// It is not text.
    #[error("is not UTF-8")]
    Text,
}

/// Reads a regular file, and says which version it was. Symbolic links are followed. Blocks for at most five seconds.
///
/// # Errors
/// [`ReadError`]. The size is judged before anything is read.
pub fn read_version(path: &Path, max_bytes: u64) -> Result<(Vec<u8>, Fingerprint), ReadError> {
    let path = path.to_owned();
    within(TIME_LIMIT, move || read_now(&path, max_bytes))?
}

/// Reads a regular file. Blocks for at most five seconds.
///
/// # Errors
/// [`ReadError`].
pub fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, ReadError> {
    read_version(path, max_bytes).map(|(bytes, _)| bytes)
}

/// Reads a regular file of text. Blocks for at most five seconds.
///
/// # Errors
/// [`ReadError`].
pub fn read_text(path: &Path, max_bytes: u64) -> Result<String, ReadError> {
    String::from_utf8(read(path, max_bytes)?).map_err(|_| ReadError::Text)
}

/// The version of a file as it is now, of whatever kind it is. Blocks for at most five seconds.
///
/// # Errors
/// [`ReadError::Io`] if there is none, or [`ReadError::Hangs`].
pub fn version(path: &Path) -> Result<Fingerprint, ReadError> {
    let path = path.to_owned();
    let metadata = within(TIME_LIMIT, move || std::fs::metadata(path))??;
    Ok(fingerprint(&metadata))
}

fn read_now(path: &Path, max_bytes: u64) -> Result<(Vec<u8>, Fingerprint), ReadError> {
    // Before it is opened, because opening a device or a pipe can have effects; and after, because another file may have
    // taken its place. Opening does not wait for the other end of a pipe.
    judge(&std::fs::metadata(path)?, max_bytes)?;
    let file: File = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let before = file.metadata()?;
    judge(&before, max_bytes)?;
    let mut bytes = Vec::new();
    // It may grow, and a length of 0 says nothing in some file systems.
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

fn judge(metadata: &Metadata, max_bytes: u64) -> Result<(), ReadError> {
    let of = metadata.file_type();
    if !of.is_file() {
        return Err(ReadError::Kind(kind(of)));
    }
    if metadata.len() > max_bytes {
        return Err(ReadError::Size(max_bytes));
    }
    Ok(())
}

fn kind(of: FileType) -> &'static str {
    if of.is_dir() {
        "a directory"
    } else if of.is_fifo() {
        "a pipe"
    } else if of.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

fn fingerprint(of: &Metadata) -> Fingerprint {
    (of.dev(), of.ino(), of.len(), of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec())
}

/// Does something that may hang, and waits for it no longer than `limit`.
fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Result<T, ReadError> {
    /// One of the threads, until it ends.
    struct Place;
    impl Drop for Place {
        fn drop(&mut self) {
            THREADS.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let before = THREADS.fetch_add(1, Ordering::Relaxed);
    let place = Place;
    if before >= MAX_THREADS {
        return Err(ReadError::Hangs);
    }
    let (done, result) = mpsc::sync_channel(1);
    std::thread::Builder::new().name("file".into()).spawn(move || {
        let _place = place;
        // Nobody waits any longer if it took too long.
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
        // Its length is said to be 0.
        assert!(read(Path::new("/proc/cpuinfo"), 8).is_err_and(|error| matches!(error, ReadError::Size(8))));
        assert!(read(&at("none"), 5).is_err_and(|error| error.to_string().starts_with("cannot be read: ")));
        std::fs::write(at("a"), b"\xff").unwrap();
        assert!(read_text(&at("a"), 5).is_err_and(|error| error.to_string() == "is not UTF-8"));
    }

    #[test]
    fn other_kinds_of_file_are_not_opened() {
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
    fn a_file_system_that_hangs_is_given_up() {
        let (free, hang) = mpsc::channel::<()>();
        let limit = Duration::from_millis(50);
        let start = Instant::now();
        let given_up = within(limit, move || hang.recv());
        assert!(matches!(given_up, Err(ReadError::Hangs)) && start.elapsed() >= limit);
        assert_eq!(within(TIME_LIMIT, || 7).unwrap(), 7, "others are read");
        // The thread ends as soon as the file system answers.
        let at_work = THREADS.load(Ordering::Relaxed);
        free.send(()).unwrap();
        while THREADS.load(Ordering::Relaxed) >= at_work {
            assert!(start.elapsed() < Duration::from_secs(20));
            std::thread::yield_now();
        }
    }
}
