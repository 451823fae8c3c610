//! Tests with a process of their own: kills within a write or a compaction, and a full disk. A test runs itself again, as a
//! child with a limit on the size of its files.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;

/// Runs a test of this program again, as a child that finds `CHILD_FILE` in its environment, and returns the numbers that
/// it has printed. `kill` may end the child.
fn child(test: &str, path: &Path, limit: u64, shell: &str, kill: impl FnOnce(u32)) -> (Vec<i64>, ExitStatus) {
    let mut child = Command::new("sh")
        .args(["-c", &format!("{shell}exec \"$@\""), "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{}::{test}", module_path!().split_once("::").unwrap().1), "--nocapture"])
        .env("CHILD_FILE", path)
        .env("CHILD_LIMIT", limit.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    kill(child.id());
    let mut output = String::new();
    child.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    let numbers = output.lines().filter_map(|line| line.strip_prefix("confirmed ")?.parse().ok()).collect();
    (numbers, child.wait().unwrap())
}

/// Path and limit if this process is a child.
fn as_child() -> Option<(PathBuf, u64)> {
    let path = std::env::var_os("CHILD_FILE")?.into();
    Some((path, std::env::var("CHILD_LIMIT").unwrap().parse().unwrap()))
}

/// Limits the size of files that this process writes. The kernel writes up to the limit, and then sends SIGXFSZ.
fn limit_files(limit: u64) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: Some(limit), maximum }).unwrap();
}

fn confirm(number: i64) {
    let mut out = std::io::stdout();
    out.write_all(format!("\nconfirmed {number}\n").as_bytes()).and_then(|()| out.flush()).unwrap();
}

#[test]
fn a_process_killed_at_any_byte_of_a_write_loses_nothing_confirmed() {
    const NAME: &str = "a_process_killed_at_any_byte_of_a_write_loses_nothing_confirmed";
    if let Some((path, limit)) = as_child() {
        limit_files(limit);
        let open = Open::new(&path).unwrap();
        for number in 0..4 {
            runtime().block_on(open.add(entry(number, 5))).unwrap();
            confirm(number.try_into().unwrap());
        }
        return;
    }
    let (content, lengths) = content(4);
    // Every byte of the header and of the first and third record.
    let limits = (0..=lengths[0]).chain(lengths[1]..=lengths[2]);
    for limit in limits {
        let (_directory, path) = place();
        let (confirmed, status) = child(NAME, &path, limit as u64, "", |_| {});
        assert_eq!(status.signal(), Some(libc::SIGXFSZ), "{limit}: {status:?}");
        let whole = lengths.iter().filter(|end| **end <= limit).count();
        assert_eq!(confirmed, (0..i64::try_from(whole).unwrap()).collect::<Vec<_>>(), "{limit}");
        if limit >= HEADER.len() {
            assert_eq!(std::fs::read(&path).unwrap(), content[..limit], "killed exactly there");
        } else {
            assert_eq!(std::fs::read(beside(&path, NEW)).unwrap(), content[..limit], "killed exactly there");
        }
        let open = Open::new(&path).unwrap();
        assert_eq!(known(&open.table, 5), revoked(whole, 5), "{limit}");
        assert!(!beside(&path, NEW).exists());
        runtime().block_on(open.add(entry(4, 5))).unwrap();
        assert_eq!(saved(&path, 5).iter().flatten().count(), whole + 1, "{limit}");
    }
}

#[test]
fn a_process_killed_at_any_byte_of_a_compaction_loses_nothing() {
    const NAME: &str = "a_process_killed_at_any_byte_of_a_compaction_loses_nothing";
    if let Some((path, limit)) = as_child() {
        limit_files(limit);
        drop(Open::new(&path).unwrap());
        return;
    }
    let (_directory, path) = place();
    {
        let open = Open::new(&path).unwrap();
        runtime().block_on(async {
            for before in [4, 5] {
                for number in 0..3 {
                    open.add(entry(number, before)).await.unwrap();
                }
            }
        });
    }
    let before = std::fs::read(&path).unwrap();
    let mut limit = 0;
    loop {
        let (_, status) = child(NAME, &path, limit, "", |_| {});
        if status.success() {
            break;
        }
        assert_eq!(status.signal(), Some(libc::SIGXFSZ), "{limit}: {status:?}");
        assert_eq!(std::fs::read(&path).unwrap(), before, "{limit}");
        assert_eq!(beside(&path, NEW).metadata().unwrap().len(), limit, "killed exactly there");
        limit += 1;
    }
    let after = std::fs::read(&path).unwrap();
    assert_eq!((after.len() as u64, after.len() < before.len() / 2 + HEADER.len()), (limit, true));
    assert_eq!(saved(&path, 3), revoked(3, 3));
    assert!(!beside(&path, NEW).exists());
}

#[test]
fn a_process_killed_at_any_time_loses_nothing_confirmed() {
    const NAME: &str = "a_process_killed_at_any_time_loses_nothing_confirmed";
    const USERS: u64 = 8;
    if let Some((path, _)) = as_child() {
        // Compacts all the time.
        let open = Arc::new(Open::with(&path, 8).unwrap());
        let first = known(&open.table, 1)[0].unwrap_or(0) + 1;
        for before in first.. {
            runtime().block_on(async {
                let mut writes = tokio::task::JoinSet::new();
                for number in 0..USERS {
                    let open = Arc::clone(&open);
                    writes.spawn(async move { open.add(entry(number, before)).await.unwrap() });
                }
                writes.join_all().await;
            });
            confirm(before);
        }
    }
    let (_directory, path) = place();
    // What was confirmed for every user, and what the first one has reached.
    let (mut last, mut reached, mut total) = (None, 0, 0);
    for round in 1..=40_u64 {
        let (confirmed, status) = child(NAME, &path, 0, "", |pid| {
            let start = Instant::now();
            let so_far = || saved(&path, 1)[0].unwrap_or(0);
            while so_far() < reached + i64::try_from(round).unwrap() {
                assert!(start.elapsed() < PATIENCE, "round {round}");
                std::thread::yield_now();
            }
            assert!(Command::new("sh").args(["-c", &format!("kill -KILL {pid}")]).status().unwrap().success());
        });
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{status:?}");
        total += confirmed.len();
        let (log, table) = open_log(&path).unwrap();
        let found = known(&table, USERS);
        last = confirmed.last().copied().or(last);
        assert!(found.iter().all(|before| *before >= last), "round {round}: {found:?}, {last:?} was confirmed");
        reached = found[0].unwrap();
        drop(log);
    }
    assert!(total > 40, "{total} rounds of writes were confirmed");
}

#[test]
fn a_full_disk_fails_writes_only_and_they_are_made_up_for() {
    const NAME: &str = "a_full_disk_fails_writes_only_and_they_are_made_up_for";
    if let Some((path, limit)) = as_child() {
        limit_files(limit);
        let open = Open::new(&path).unwrap();
        let length = || path.metadata().unwrap().len();
        runtime().block_on(async {
            open.add(entry(0, 5)).await.unwrap();
            let full = length();
            for number in [1, 2] {
                assert_eq!(open.add(entry(number, 5)).await, Err(Unwritten));
                assert_eq!(length(), full, "nothing remains of the attempt");
                assert_eq!(
                    known(&open.table, 3)[usize::try_from(number).unwrap()],
                    Some(5),
                    "and this process enforces it"
                );
            }
            limit_files(1 << 30);
            // By the timer, and from then on as before.
            let start = Instant::now();
            while saved(&path, 3) != revoked(3, 3) {
                assert!(start.elapsed() < PATIENCE);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            limit_files(length() + 10);
            assert_eq!(open.add(entry(3, 5)).await, Err(Unwritten));
            limit_files(1 << 30);
            open.add(entry(4, 5)).await.unwrap();
        });
        drop(open);
        // A full disk at the start: an entry has passed, but there is no room for a copy without it.
        let mut frame = Frame::new();
        assert!(frame.push(&entry_until(5, 5, 1)));
        File::options().append(true).open(&path).unwrap().write_all(&frame.seal()).unwrap();
        let before = length();
        limit_files(0);
        let open = Open::new(&path).unwrap();
        assert_eq!((known(&open.table, 6), length()), (revoked(5, 6), before));
        assert_eq!(runtime().block_on(open.add(entry(5, 5))), Err(Unwritten));
        confirm(1);
        return;
    }
    let (_, lengths) = content(2);
    for limit in [lengths[0], lengths[0] + 1, lengths[1] - 1] {
        let (_directory, path) = place();
        let (confirmed, status) = child(NAME, &path, limit as u64, "trap '' XFSZ; ", |_| {});
        assert!(status.success() && confirmed == [1], "{limit}: {status:?}");
        assert_eq!(saved(&path, 5), revoked(5, 5), "{limit}");
    }
}
