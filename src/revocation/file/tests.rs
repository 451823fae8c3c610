//! Tests of the file: cut, damaged, full, killed, locked, replaced.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::Command;

use super::super::entry::Entry;
use super::super::entry::tests::entry as entry_until;
use super::format::{HEADER, MAX_FRAME};
use super::log::{LOCK, NEW, beside};
use super::*;

mod process_tests;

const ALL: usize = usize::MAX;
const FAR: i64 = 1 << 40;
const PATIENCE: Duration = Duration::from_secs(20);

/// An entry that revokes user `number` up to the second `before`, and never ends.
fn entry(number: u64, before: i64) -> Entry {
    entry_until(number, before, FAR)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A directory, and the path of the file in it.
fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("revocations");
    (directory, path)
}

/// Opens a file that this process does not have open. While another test starts a process, that process has a copy of each
/// lock of this one, until it runs its program.
fn unlocked<T>(open: impl Fn() -> Result<T, FileError>) -> Result<T, FileError> {
    let start = Instant::now();
    loop {
        match open() {
            Err(FileError::Locked) if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(1)),
            result => return result,
        }
    }
}

/// The file and its table.
struct Open {
    table: Arc<Table>,
    keeper: FileKeeper,
}

impl Open {
    fn new(path: &Path) -> Result<Self, FileError> {
        Self::with(path, MIN_DEAD)
    }

    fn with(path: &Path, min_dead: usize) -> Result<Self, FileError> {
        unlocked(|| {
            let table = Arc::default();
            FileKeeper::open_with(path, &table, ALL, min_dead).map(|keeper| Self { table, keeper })
        })
    }

    async fn add(&self, entry: Entry) -> Result<(), Unwritten> {
        let key = entry.key;
        self.table.merge(vec![entry], ALL, 0);
        self.keeper.append(key).await
    }
}

/// Entries of a table, by user number below `count`: the second up to which each is revoked.
fn known(table: &Table, count: u64) -> Vec<Option<i64>> {
    (0..count).map(|number| table.get(entry(number, 0).key).and_then(|entry| entry.state.before())).collect()
}

/// Entries in the file, read without its lock.
fn saved(path: &Path, count: u64) -> Vec<Option<i64>> {
    let table = Arc::default();
    read(path, &table, ALL).unwrap();
    known(&table, count)
}

/// Opens the file without a thread.
fn open_log(path: &Path) -> Result<(Log, Arc<Table>), FileError> {
    unlocked(|| {
        let table = Arc::default();
        Log::open(path, &table, ALL, 0).map(|(log, _)| (log, table))
    })
}

/// Content of a file with one frame for each of `count` users, and the length of the file after each.
fn content(count: u64) -> (Vec<u8>, Vec<usize>) {
    let (_directory, path) = place();
    let open = Open::new(&path).unwrap();
    let lengths = (0..count).map(|number| {
        runtime().block_on(open.add(entry(number, 5))).unwrap();
        usize::try_from(path.metadata().unwrap().len()).unwrap()
    });
    let lengths = lengths.collect();
    (std::fs::read(&path).unwrap(), lengths)
}

fn revoked(count: usize, of: usize) -> Vec<Option<i64>> {
    (0..of).map(|number| (number < count).then_some(5)).collect()
}

#[test]
fn a_file_that_ends_anywhere_keeps_what_is_whole_and_can_be_written() {
    let (content, lengths) = content(5);
    assert_eq!(content.len(), lengths[4]);
    for length in 0..=content.len() {
        let (_directory, path) = place();
        std::fs::write(&path, &content[..length]).unwrap();
        let whole = lengths.iter().filter(|end| **end <= length).count();
        if length < HEADER.len() {
            assert!(open_log(&path).is_err(), "{length}");
            assert_eq!(std::fs::read(&path).unwrap(), content[..length]);
            continue;
        }
        assert_eq!(saved(&path, 6), revoked(whole, 6), "{length}: read without a lock");
        assert_eq!(path.metadata().unwrap().len(), length as u64, "{length}: read without a change");
        let open = Open::new(&path).unwrap();
        assert_eq!(known(&open.table, 6), revoked(whole, 6), "{length}");
        runtime().block_on(open.add(entry(5, 5))).unwrap();
        drop(open);
        let mut expected = revoked(whole, 6);
        expected[5] = Some(5);
        assert_eq!(saved(&path, 6), expected, "{length}: after a write");
    }
}

#[test]
fn a_flipped_bit_costs_at_most_the_last_record() {
    let (content, lengths) = content(4);
    let (_directory, path) = place();
    for place in 0..content.len() {
        for bit in 0..8 {
            let mut damaged = content.clone();
            damaged[place] ^= 1 << bit;
            if place >= HEADER.len() {
                let result = format::read(&mut &damaged[HEADER.len()..], |_| ());
                let is_damage = matches!(result, Err(format::ReadError::Damaged(_)));
                let is_cut = result.is_ok_and(|extent| extent.end == lengths[2] as u64 && extent.torn > 0);
                assert!(is_cut && place >= lengths[2] || is_damage, "{place}, bit {bit}");
            }
            // The rest of it for one bit of each byte.
            if bit != place % 8 {
                continue;
            }
            std::fs::write(&path, &damaged).unwrap();
            match open_log(&path) {
                Ok((_, table)) => {
                    assert_eq!(known(&table, 4), revoked(3, 4), "byte {place}, bit {bit}");
                    assert!(place >= lengths[2], "byte {place}, bit {bit}");
                }
                Err(error) => {
                    let start = lengths.iter().rev().find(|end| **end <= place).copied().unwrap_or(HEADER.len());
                    let is_header = matches!(error, FileError::Foreign | FileError::OtherVersion);
                    let is_right = if place < HEADER.len() {
                        is_header
                    } else {
                        matches!(error, FileError::Damaged(offset) if offset == start as u64)
                    };
                    assert!(is_right, "byte {place}, bit {bit}: {error}");
                    assert_eq!(std::fs::read(&path).unwrap(), damaged, "byte {place}, bit {bit}");
                }
            }
        }
    }
}

#[test]
fn sectors_that_a_power_failure_lost_are_dropped_at_the_end_only() {
    let (mut content, _) = content(2);
    let end = content.len();
    // A write of many entries, as when many callers wait.
    let mut frame = Frame::new();
    for number in 2..40 {
        assert!(frame.push(&entry(number, 5)));
    }
    content.extend(frame.seal());
    let mut next = Frame::new();
    assert!(next.push(&entry(40, 5)));
    let next = next.seal();
    let sectors: Vec<(usize, usize)> = (end / 512..content.len().div_ceil(512))
        .map(|sector| ((sector * 512).max(end), ((sector + 1) * 512).min(content.len())))
        .collect();
    assert!(sectors.len() >= 4, "{sectors:?}");
    let (_directory, path) = place();
    for lost in 1_u32..1 << sectors.len() {
        let mut damaged = content.clone();
        for (number, (from, to)) in sectors.iter().enumerate().filter(|(number, _)| lost & 1 << number != 0) {
            assert!(damaged[*from..*to].iter().any(|byte| *byte != 0), "sector {number}");
            damaged[*from..*to].fill(0);
        }
        std::fs::write(&path, &damaged).unwrap();
        let (_, table) = open_log(&path).unwrap();
        assert_eq!(known(&table, 41), revoked(2, 41), "{lost:b}");
        assert_eq!(std::fs::read(&path).unwrap(), content[..end], "{lost:b}");
        // The same, followed by a write that was confirmed later.
        damaged.extend(&next);
        std::fs::write(&path, &damaged).unwrap();
        assert!(matches!(open_log(&path), Err(FileError::Damaged(offset)) if offset == end as u64), "{lost:b}");
        assert_eq!(std::fs::read(&path).unwrap(), damaged, "{lost:b}");
    }
    for (zeros, is_dropped) in [(1, true), (511, true), (4096, true), (MAX_FRAME, true), (MAX_FRAME + 1, false)] {
        let mut damaged = content[..end].to_vec();
        damaged.resize(end + zeros, 0);
        std::fs::write(&path, &damaged).unwrap();
        assert_eq!(open_log(&path).is_ok(), is_dropped, "{zeros}");
        assert_eq!(path.metadata().unwrap().len(), if is_dropped { end } else { damaged.len() } as u64);
    }
}

type Put = Box<dyn Fn(&Path)>;

#[test]
fn what_is_not_ours_is_refused_and_stays_as_it_is() {
    let (content, _) = content(1);
    let text = |text: &[u8]| {
        let text = text.to_vec();
        move |path: &Path| std::fs::write(path, &text).unwrap()
    };
    let ours = content;
    let cases: Vec<(&str, Put)> = vec![
        ("is a directory, not a regular file", Box::new(|path| std::fs::create_dir(path).unwrap())),
        ("is a symbolic link, not a regular file", {
            let ours = ours.clone();
            Box::new(move |path| {
                std::fs::write(beside(path, ".other"), &ours).unwrap();
                symlink(beside(path, ".other"), path).unwrap();
            })
        }),
        ("is a symbolic link, not a regular file", Box::new(|path| symlink("nowhere", path).unwrap())),
        ("has several names", {
            let ours = ours.clone();
            Box::new(move |path| {
                std::fs::write(path, &ours).unwrap();
                std::fs::hard_link(path, beside(path, ".other")).unwrap();
            })
        }),
        (
            "is a pipe, not a regular file",
            Box::new(|path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success())),
        ),
        ("is not a file of revocations", Box::new(text(b"pools: {}\n"))),
        ("is not a file of revocations", Box::new(text(&[0; 100]))),
        ("is not a file of revocations", Box::new(text(b"c"))),
        ("is empty", Box::new(text(b""))),
        ("was written by another version", Box::new(text(b"cognito-authz revocations, version 2\nmore"))),
        ("is damaged at byte 37", Box::new(text(&[HEADER, b"and more"].concat()))),
    ];
    for (expected, put) in cases {
        let (directory, path) = place();
        put(&path);
        let snapshot = || {
            let mut files: Vec<_> = std::fs::read_dir(directory.path())
                .unwrap()
                .map(|file| file.unwrap())
                .map(|file| {
                    let found = file.path().symlink_metadata().unwrap();
                    let content = found.is_file().then(|| std::fs::read(file.path()).unwrap());
                    (file.file_name(), found.ino(), found.mtime_nsec(), content)
                })
                .filter(|(name, ..)| !name.to_string_lossy().ends_with(LOCK))
                .collect();
            files.sort();
            files
        };
        let before = snapshot();
        let error = open_log(&path).err().unwrap().to_string();
        assert!(error.starts_with(expected), "{error}");
        assert!(read(&path, &Arc::default(), ALL).is_err_and(|error| error.to_string().starts_with(expected)));
        assert_eq!(snapshot(), before, "{expected}");
    }
}

#[test]
fn the_lock_holds_from_start_to_end_and_leftovers_are_removed() {
    let (_directory, path) = place();
    std::fs::write(beside(&path, NEW), "half a file").unwrap();
    let open = Open::with(&path, 4).unwrap();
    assert!(!beside(&path, NEW).exists());
    for file in [path.clone(), beside(&path, LOCK)] {
        assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600, "{}", file.display());
    }
    let locked = || matches!(FileKeeper::open(&path, &Arc::default(), ALL), Err(FileError::Locked));
    assert!(locked());
    let inode = path.metadata().unwrap().ino();
    let start = Instant::now();
    let mut before = 0;
    while path.metadata().unwrap().ino() == inode {
        before += 1;
        runtime().block_on(open.add(entry(0, before))).unwrap();
        assert!(start.elapsed() < PATIENCE);
    }
    assert!(locked(), "after a compaction");
    assert_eq!(saved(&path, 1), [Some(before)], "a reader needs no lock");
    drop(open);
    assert_eq!(known(&Open::new(&path).unwrap().table, 1), [Some(before)]);
    let nowhere = path.with_file_name("nowhere").join("file");
    let error = Open::new(&nowhere).err().unwrap().to_string();
    assert!(error.starts_with("needs a file beside it, ") && error.contains("nowhere/file.lock"), "{error}");
    std::fs::create_dir(beside(&path, NEW)).unwrap();
    assert!(matches!(Open::new(&path), Err(FileError::Beside { .. })));
}

#[test]
fn entries_that_have_passed_are_dropped_and_too_many_are_refused() {
    let (_directory, path) = place();
    let now = unix_now();
    {
        let open = Open::new(&path).unwrap();
        runtime().block_on(async {
            for number in 0..50 {
                open.add(entry_until(number, 5, if number < 20 { now - 1 } else { FAR })).await.unwrap();
            }
        });
    }
    let length = path.metadata().unwrap().len();
    let full = FileKeeper::open(&path, &Arc::default(), 29).err().unwrap().to_string();
    assert_eq!(full, "contains more revocations than --revocation-capacity allows (29)");
    assert_eq!(path.metadata().unwrap().len(), length);
    let table = Arc::default();
    let keeper = FileKeeper::open(&path, &table, 30).unwrap();
    let expected: Vec<_> = (0..50).map(|number| (number >= 20).then_some(5)).collect();
    assert_eq!(known(&table, 50), expected);
    assert!(path.metadata().unwrap().len() < length / 2, "{length}");
    drop(keeper);
    assert_eq!(saved(&path, 50), expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writes_survive_many_compactions() {
    let (_directory, path) = place();
    let open = Arc::new(Open::with(&path, 16).unwrap());
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..24 {
        let (open, path) = (Arc::clone(&open), path.clone());
        writers.spawn(async move {
            for before in 1..=60 {
                open.add(entry(number, before)).await.unwrap();
                if before % 15 == 0 {
                    let now = saved(&path, 24)[usize::try_from(number).unwrap()];
                    assert!(now >= Some(before), "{number}: {now:?} in the file, {before} is confirmed");
                }
            }
        });
    }
    writers.join_all().await;
    // At most a record and a frame for each live or dead entry.
    assert!(path.metadata().unwrap().len() < 24 * 60 * 40 / 2, "{}", path.metadata().unwrap().len());
    assert_eq!(saved(&path, 24), vec![Some(60); 24]);
}

#[test]
fn a_compaction_in_steps_has_what_is_written_meanwhile() {
    let (_directory, path) = place();
    let (mut log, table) = open_log(&path).unwrap();
    let count = 60_000;
    table.merge((0..count).map(|number| entry(number, 5)).collect(), ALL, 0);
    let mut rewrite = log.rewrite().unwrap();
    let mut steps = 0;
    while !rewrite.step(&table, 0).unwrap() {
        // New and changed ones, some of whose keys come before those that were copied last.
        for number in [count + steps, steps] {
            let entry = entry(number, 9);
            table.merge(vec![entry.clone()], ALL, 0);
            let mut frame = Frame::new();
            assert!(frame.push(&entry));
            log.append(frame).unwrap();
            rewrite.changed.insert(entry.key);
        }
        steps += 1;
    }
    assert!(steps >= 2, "{steps}");
    log.replace(rewrite, &table, 0).unwrap();
    assert!(log.is_sound() && !beside(&path, NEW).exists());
    let expected: Vec<_> =
        (0..count + steps).map(|number| Some(if number < steps || number >= count { 9 } else { 5 })).collect();
    assert!(saved(&path, count + steps) == expected, "in the file are other entries");
}

/// The writer on this thread.
fn writer(path: &Path) -> Writer {
    let (log, table) = open_log(path).unwrap();
    Writer::new(Arc::default(), table, path.to_owned(), log, MIN_DEAD)
}

fn write(writer: &mut Writer, number: u64) -> bool {
    let entry = entry(number, 5);
    writer.table.merge(vec![entry.clone()], ALL, 0);
    writer.write(&[entry.key], false)
}

#[test]
fn a_failed_fsync_has_the_whole_file_written_anew() {
    let (_directory, path) = place();
    let mut writer = writer(&path);
    assert!(write(&mut writer, 0));
    let inode = path.metadata().unwrap().ino();
    // Takes every write, and refuses every fsync.
    writer.log.set_file(File::options().read(true).write(true).open("/dev/null").unwrap());
    assert!(!write(&mut writer, 1), "not on the disk");
    assert_eq!((writer.failures, writer.pending.len()), (1, 1));
    assert!(write(&mut writer, 2));
    assert_eq!((writer.failures, writer.pending.len(), writer.retry), (0, 0, None));
    assert_ne!(path.metadata().unwrap().ino(), inode, "a new file");
    assert_eq!(saved(&path, 3), revoked(3, 3));
    assert!(write(&mut writer, 3));
    assert_eq!(saved(&path, 4), revoked(4, 4));
}

#[test]
fn a_file_that_another_process_touches_is_written_anew() {
    let (_directory, path) = place();
    let mut writer = writer(&path);
    let acts: [&dyn Fn(); 4] = [
        &|| std::fs::remove_file(&path).unwrap(),
        &|| {
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, "another").unwrap();
        },
        &|| File::options().write(true).open(&path).unwrap().set_len(10).unwrap(),
        &|| File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap(),
    ];
    for (number, act) in (1..).zip(acts) {
        assert!(write(&mut writer, 2 * number));
        act();
        assert!(write(&mut writer, 2 * number + 1), "{number}");
        let written = usize::try_from(2 * number + 1).unwrap();
        assert_eq!(saved(&path, 20).iter().flatten().count(), written - 1, "{number}");
    }
    // Nothing can be written while the directory is gone. Once it is back, the next attempt writes everything.
    let (directory, moved) = (path.parent().unwrap(), beside(path.parent().unwrap(), ".moved"));
    std::fs::rename(directory, &moved).unwrap();
    assert!(!write(&mut writer, 10) && writer.blocked.is_some());
    std::fs::rename(&moved, directory).unwrap();
    assert!(!write(&mut writer, 11), "attempts are not made at once");
    let start = Instant::now();
    while !writer.pending.is_empty() {
        let wait = writer.retry.unwrap().saturating_duration_since(Instant::now());
        let work = writer.shared.take(Some(wait));
        writer.handle(work);
        assert!(start.elapsed() < PATIENCE);
    }
    assert_eq!(saved(&path, 20).iter().flatten().count(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_is_an_error_in_time_and_costs_bounded_memory() {
    // There is no thread that takes from this queue, which has the effect of a thread in a call that does not return.
    let keeper = FileKeeper { shared: Arc::default() };
    let start = tokio::time::Instant::now();
    assert_eq!(keeper.append(entry(0, 5).key).await, Err(Unwritten));
    assert_eq!(start.elapsed(), APPEND_LIMIT);
    for _ in 0..=MAX_CALLERS {
        keeper.shared.submit(entry(1, 5).key, oneshot::channel().0);
    }
    // Those that did not fit are not lost: the next write has the whole table.
    let (_directory, path) = place();
    let mut writer = writer(&path);
    writer.table.merge((0..10).map(|number| entry(number, 5)).collect(), ALL, 0);
    let work = keeper.shared.take(None);
    assert!(work.is_overrun && work.keys.len() == MIN_RECORDS && !keeper.shared.lock().is_overrun);
    writer.handle(work);
    assert_eq!(saved(&path, 10), revoked(10, 10));
    keeper.shared.lock().has_ended = true;
    assert_eq!((keeper.append(entry(0, 5).key).await, start.elapsed()), (Err(Unwritten), APPEND_LIMIT));
}

#[tokio::test]
async fn what_waits_is_written_at_the_end() {
    let (_directory, path) = place();
    let open = Open::new(&path).unwrap();
    open.table.merge((0..1000).map(|number| entry(number, 5)).collect(), ALL, 0);
    for number in 0..1000 {
        // The caller does not wait for the result.
        open.keeper.shared.submit(entry(number, 5).key, oneshot::channel().0);
    }
    open.keeper.finish().await;
    assert_eq!(saved(&path, 1000), revoked(1000, 1000));
    assert_eq!(open.keeper.append(entry(0, 5).key).await, Err(Unwritten), "the thread has ended");
}
