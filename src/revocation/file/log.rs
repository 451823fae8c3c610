//! The file on the disk: opened, locked, appended to, and replaced by a shorter one.
//!
//! [`Log::open`] checks that the file is ours before anything is changed. [`Log::append`] returns once the disk has the
//! frame. A [`Rewrite`] copies the table into a new file beside it, in small steps, and then takes its place by a rename.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::super::key::{Key, UnixTime};
use super::super::table::Table;
use super::FileError;
use super::format::{self, Frame, HEADER, ReadError, Start};
use crate::files::kind_name;

/// Only the service reads the file: it says how many users signed out, and when.
const MODE: u32 = 0o600;
/// Number of bytes after which a rewrite lets appends pass.
const STEP: usize = 1 << 20;
/// Number of entries that are merged into the table at a time.
const CHUNK: usize = 1 << 16;

/// The open file. Dropping it releases the lock.
pub(super) struct Log {
    path: PathBuf,
    file: File,
    /// Device and inode.
    identity: (u64, u64),
    /// Length of what the disk has. Everything before it was confirmed.
    end: u64,
    /// Number of records.
    pub(super) records: usize,
    /// `false` after the disk lost a write that may have touched confirmed records as well.
    is_sound: bool,
    _lock: File,
}

/// Result of reading the file at startup.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// Number of bytes of an interrupted write, which were dropped.
    pub(super) torn: u64,
}

impl Log {
    /// Opens the file, or creates it, and merges its entries into the table.
    pub(super) fn open(path: &Path, table: &Table, capacity: usize, now: UnixTime) -> Result<(Self, Found), FileError> {
        // Before the lock file is created, so that a wrong path leaves no trace.
        drop(open_ours(path, false)?);
        let lock = lock(path)?;
        // A leftover was never renamed, so that it contains nothing that the file lacks.
        match fs::remove_file(beside(path, NEW)) {
            Ok(()) => tracing::info!(path = %path.display(), "removed an unfinished copy of the file of revocations"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(FileError::Beside { path: beside(path, NEW), error }),
        }
        // Fails if the directory cannot be written to, which every later rewrite needs.
        let rewrite = match Rewrite::begin(path) {
            Err(error) if !is_full(&error) => return Err(FileError::Beside { path: beside(path, NEW), error }),
            rewrite => rewrite,
        };
        let Some(file) = open_ours(path, true)? else {
            let written = rewrite.and_then(|mut rewrite| rewrite.finish(table, now)).map_err(FileError::Write)?;
            return Ok((written.locked(path, lock)?, Found { torn: 0 }));
        };
        let extent = load(&file, table, capacity, now)?;
        if extent.torn > 0 {
            file.set_len(extent.end).and_then(|()| file.sync_all()).map_err(FileError::Write)?;
        }
        let identity = identity(&file.metadata()?);
        let records = extent.records;
        let mut log =
            Self { path: path.to_owned(), file, identity, end: extent.end, records, is_sound: true, _lock: lock };
        if records > table.len() {
            match rewrite.and_then(|rewrite| log.run(rewrite, table, now)) {
                Ok(()) => {}
                // The file as it is remains right.
                Err(error) if log.is_sound => {
                    tracing::warn!(path = %path.display(), %error, "the file of revocations cannot be compacted");
                }
                Err(error) => return Err(FileError::Write(error)),
            }
        }
        Ok((log, Found { torn: extent.torn }))
    }

    /// `true` if the file can be appended to. Otherwise it has to be rewritten: an earlier write was lost, or another
    /// process removed, replaced or changed the file.
    pub(super) fn is_sound(&mut self) -> bool {
        let is_unchanged = |found: fs::Metadata| identity(&found) == self.identity && found.len() == self.end;
        self.is_sound = self.is_sound && fs::symlink_metadata(&self.path).is_ok_and(is_unchanged);
        self.is_sound
    }

    /// Has the file rewritten before anything else is written.
    pub(super) fn distrust(&mut self) {
        self.is_sound = false;
    }

    /// Appends a frame, and returns once the disk has it.
    pub(super) fn append(&mut self, frame: Frame) -> io::Result<()> {
        let records = frame.records;
        let bytes = frame.seal();
        if let Err(error) = self.file.write_all_at(&bytes, self.end) {
            // A part may be there. If it cannot be removed, it must not end up in the middle of the file.
            self.is_sound = self.file.set_len(self.end).is_ok();
            return Err(error);
        }
        if let Err(error) = self.file.sync_data() {
            // The kernel may have dropped the pages, also the page that begins with confirmed records. A second fsync
            // would report success.
            self.is_sound = false;
            return Err(error);
        }
        self.end += bytes.len() as u64;
        self.records += records;
        Ok(())
    }

    /// Exchanges the open file, and leaves its path and length as they are.
    #[cfg(test)]
    pub(super) fn set_file(&mut self, file: File) {
        self.file = file;
    }

    /// Begins a copy of the table that can replace this file.
    pub(super) fn rewrite(&self) -> io::Result<Rewrite> {
        match fs::remove_file(beside(&self.path, NEW)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Rewrite::begin(&self.path),
        }
    }

    /// Runs a rewrite to its end, and puts it in the place of this file.
    pub(super) fn run(&mut self, mut rewrite: Rewrite, table: &Table, now: UnixTime) -> io::Result<()> {
        while !rewrite.step(table, now)? {}
        self.replace(rewrite, table, now)
    }

    /// Puts a rewrite, which has come to its end, in the place of this file.
    pub(super) fn replace(&mut self, mut rewrite: Rewrite, table: &Table, now: UnixTime) -> io::Result<()> {
        let written = rewrite.finish(table, now);
        // Also if the rename was done and its directory not written: whether the old file or the new one is there after a
        // power failure is then open, and neither may be appended to.
        self.is_sound = self.is_sound && !rewrite.is_renamed;
        let written = written?;
        let identity = identity(&written.file.metadata()?);
        (self.file, self.identity, self.end) = (written.file, identity, written.end);
        self.records = written.records;
        self.is_sound = true;
        Ok(())
    }
}

/// A file that a [`Rewrite`] has put in its place.
struct Written {
    file: File,
    end: u64,
    records: usize,
}

impl Written {
    fn locked(self, path: &Path, lock: File) -> io::Result<Log> {
        let identity = identity(&self.file.metadata()?);
        let Self { file, end, records } = self;
        Ok(Log { path: path.to_owned(), file, identity, end, records, is_sound: true, _lock: lock })
    }
}

/// Copy of the table in a new file. Dropping it removes the file, unless it has taken its place.
pub(super) struct Rewrite {
    path: PathBuf,
    file: File,
    end: u64,
    records: usize,
    /// Last key that was copied.
    last: Option<Key>,
    /// Keys that were written meanwhile.
    pub(super) changed: BTreeSet<Key>,
    is_renamed: bool,
}

impl Rewrite {
    fn begin(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(beside(path, NEW))?;
        let (path, last, changed) = (path.to_owned(), None, BTreeSet::new());
        Ok(Self { path, file, end: 0, records: 0, last, changed, is_renamed: false })
    }

    /// Copies some of the entries. Returns `true` once all have been copied.
    pub(super) fn step(&mut self, table: &Table, now: UnixTime) -> io::Result<bool> {
        let (mut sheaf, mut last) = (Sheaf::default(), self.last);
        for slice in table.slices(last) {
            let after = last;
            for entry in slice.iter().filter(|entry| entry.until > now && after.is_none_or(|last| entry.key > last)) {
                sheaf.push(entry);
            }
            last = slice.last().map(|entry| entry.key).or(last);
            if sheaf.bytes.len() >= STEP {
                self.write(sheaf)?;
                // Now, so that no later write waits for all of it.
                self.file.sync_data()?;
                self.last = last;
                return Ok(false);
            }
        }
        self.write(sheaf)?;
        self.last = last;
        Ok(true)
    }

    /// Adds what was written meanwhile, and puts the file in its place. When it returns, the disk has all of it.
    fn finish(&mut self, table: &Table, now: UnixTime) -> io::Result<Written> {
        let mut sheaf = Sheaf::default();
        let changed = self.changed.iter().filter_map(|key| table.get(*key));
        changed.filter(|entry| entry.until > now).for_each(|entry| sheaf.push(&entry));
        self.write(sheaf)?;
        self.file.sync_all()?;
        let file = self.file.try_clone()?;
        fs::rename(beside(&self.path, NEW), &self.path)?;
        self.is_renamed = true;
        sync_directory(&self.path)?;
        Ok(Written { file, end: self.end, records: self.records })
    }

    fn write(&mut self, sheaf: Sheaf) -> io::Result<()> {
        let (bytes, records) = sheaf.seal();
        if self.end == 0 {
            self.file.write_all(HEADER)?;
            self.end = HEADER.len() as u64;
        }
        self.file.write_all(&bytes)?;
        self.end += bytes.len() as u64;
        self.records += records;
        Ok(())
    }
}

impl Drop for Rewrite {
    fn drop(&mut self) {
        if !self.is_renamed {
            // What remains is removed at the next start.
            drop(fs::remove_file(beside(&self.path, NEW)));
        }
    }
}

/// Any number of entries as frames.
#[derive(Default)]
struct Sheaf {
    bytes: Vec<u8>,
    records: usize,
    last: Option<Frame>,
}

impl Sheaf {
    fn push(&mut self, entry: &super::super::entry::Entry) {
        if !self.last.get_or_insert_with(Frame::new).push(entry) {
            self.close();
            self.last.get_or_insert_with(Frame::new).push(entry);
        }
    }

    fn close(&mut self) {
        if let Some(frame) = self.last.take() {
            self.records += frame.records;
            self.bytes.extend(frame.seal());
        }
    }

    fn seal(mut self) -> (Vec<u8>, usize) {
        self.close();
        (self.bytes, self.records)
    }
}

/// Reads the file at `path` into the table, without a lock and without changing anything. A file that does not exist is
/// like one without entries.
pub(super) fn read(path: &Path, table: &Table, capacity: usize, now: UnixTime) -> Result<(), FileError> {
    match open_ours(path, false)? {
        Some(file) => load(&file, table, capacity, now).map(drop),
        None => Ok(()),
    }
}

/// Merges the entries of a file, whose header has been read, into the table.
fn load(file: &File, table: &Table, capacity: usize, now: UnixTime) -> Result<format::Extent, FileError> {
    let (mut chunk, mut refused) = (Vec::new(), 0);
    let mut merge = |chunk: &mut Vec<_>| refused += table.merge(std::mem::take(chunk), capacity, now).refused;
    let extent = format::read(&mut BufReader::new(file), |entries| {
        chunk.extend(entries);
        if chunk.len() >= CHUNK {
            merge(&mut chunk);
        }
    })?;
    merge(&mut chunk);
    if refused > 0 { Err(FileError::Full(capacity)) } else { Ok(extent) }
}

/// Opens a file and reads its header. Returns `None` if there is no file.
fn open_ours(path: &Path, write: bool) -> Result<Option<File>, FileError> {
    // Checked before opening, because opening a device or a pipe can have side effects, and again afterwards.
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => check_kind(&found?)?,
    }
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let mut file = OpenOptions::new().read(true).write(write).custom_flags(flags).open(path)?;
    check_kind(&file.metadata()?)?;
    match format::read_header(&mut file)? {
        Start::Known => Ok(Some(file)),
        Start::OtherVersion => Err(FileError::OtherVersion),
        Start::Empty => Err(FileError::Empty),
        Start::Foreign => Err(FileError::Foreign),
    }
}

/// A second name, by a symbolic or hard link, would have a lock of its own, and a rewrite would separate the two.
fn check_kind(found: &fs::Metadata) -> Result<(), FileError> {
    let kind = found.file_type();
    if kind.is_symlink() {
        return Err(FileError::Kind("a symbolic link"));
    }
    if !kind.is_file() {
        return Err(FileError::Kind(kind_name(kind)));
    }
    if found.nlink() > 1 { Err(FileError::Linked) } else { Ok(()) }
}

/// Takes the lock, which belongs to the open file and so ends with the process. The lock file stays: if it were removed,
/// two processes could each lock a file of that name.
fn lock(path: &Path) -> Result<File, FileError> {
    let path = beside(path, LOCK);
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let open = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(MODE).custom_flags(flags).open(&path)
    };
    let file = open().map_err(|error| FileError::Beside { path: path.clone(), error })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(FileError::Locked),
        Err(error) => Err(FileError::Beside { path, error: error.into() }),
    }
}

/// Ending of a file that is not in its place yet.
pub(super) const NEW: &str = ".compacting";
/// Ending of the lock file.
pub(super) const LOCK: &str = ".lock";

/// Path with an ending.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// `true` if the disk, the quota or the limit of the process allows no more bytes. Removing something helps, so that the
/// service goes on.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}

fn identity(file: &fs::Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Has the disk write the names in the directory of a file.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match File::open(parent)?.sync_all() {
        // The file system does not write directories on request.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
}

impl From<ReadError> for FileError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => Self::Read(error),
            ReadError::Damaged(offset) => Self::Damaged(offset),
            ReadError::Unknown(_) => Self::OtherVersion,
        }
    }
}
