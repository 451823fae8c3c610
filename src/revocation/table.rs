//! The table of revocations: read by every check without a lock, written rarely.
//!
//! The table consists of many small slices in order of their keys. A writer copies one slice, changes the copy, and
//! publishes it; a reader sees the old slice or the new one. So a check never waits for a writer, not even while a
//! million entries are loaded, and an entry takes little more than its own size.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;

use super::entry::Entry;
use super::key::{Key, Kind, UnixTime};
use crate::clock::unix_now;

/// Number of slices, a power of two. With a million entries a slice has 244 of them: 11 KiB to copy for one write.
const SLICES: usize = 1 << SLICE_BITS;
const SLICE_BITS: u32 = 12;

/// Seconds by which the wall clock may run ahead of the monotonic clock: more than a clock that is set right gains.
const CORRECTION: UnixTime = 300;

type Slice = Box<[Entry]>;

/// Entries by key.
pub(crate) struct Table {
    slices: Box<[ArcSwap<Slice>]>,
    /// Number of entries of each kind.
    counts: [AtomicUsize; Kind::ALL.len()],
    /// Number of the last change. A reader that has looked at every entry of interest since need not look again.
    generation: AtomicU64,
    /// One writer at a time.
    writer: Mutex<()>,
    /// Wall clock and monotonic clock when the table was created.
    start: (UnixTime, Instant),
}

/// Effect of a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// Number of entries that are new or say more than before.
    pub(super) changed: usize,
    /// Number of entries that were ignored, because the table was full.
    pub(super) refused: usize,
}

impl Default for Table {
    fn default() -> Self {
        let empty: Arc<Slice> = Arc::default();
        Self {
            slices: (0..SLICES).map(|_| ArcSwap::from(Arc::clone(&empty))).collect(),
            counts: Default::default(),
            generation: AtomicU64::new(1),
            writer: Mutex::default(),
            start: (unix_now(), Instant::now()),
        }
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("entries", &self.len()).finish_non_exhaustive()
    }
}

impl Table {
    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.counts.iter().map(|count| count.load(Ordering::Acquire)).sum()
    }

    /// Number of entries of one kind.
    pub(crate) fn len_of(&self, kind: Kind) -> usize {
        self.counts.get(place(kind)).map_or(0, |count| count.load(Ordering::Acquire))
    }

    /// Number of the last change, never 0. A reader that loads it before it looks up entries sees that change and all
    /// earlier ones.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Limits a time of the wall clock to what can have passed since the start, so that a clock that is set forward and
    /// back again ends no entry. A clock that was behind at the start only makes entries last longer.
    pub(super) fn steady(&self, now: UnixTime) -> UnixTime {
        let (wall, monotonic) = self.start;
        let passed = UnixTime::try_from(monotonic.elapsed().as_secs()).unwrap_or(UnixTime::MAX);
        now.min(wall.saturating_add(passed).saturating_add(CORRECTION))
    }

    /// Looks at an entry, without a lock. Returns `None` if there is none.
    pub(super) fn look_up<T>(&self, key: Key, see: impl FnOnce(&Entry) -> T) -> Option<T> {
        let slice = self.slices.get(slice_of(key))?.load();
        find(&slice, key).map(see)
    }

    /// Copies an entry.
    pub(crate) fn get(&self, key: Key) -> Option<Entry> {
        self.look_up(key, Entry::clone)
    }

    /// Merges entries into the table. At most `capacity` entries are kept; those that do not fit are ignored, whereas
    /// changes of entries that exist always fit. Entries whose time has passed at `now` are ignored as well.
    pub(super) fn merge(&self, mut entries: Vec<Entry>, capacity: usize, now: UnixTime) -> Written {
        let now = self.steady(now);
        entries.retain(|entry| entry.until > now);
        entries.sort_by_key(|entry| entry.key);
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut written = Written::default();
        for changes in entries.chunk_by(|one, other| slice_of(one.key) == slice_of(other.key)) {
            self.merge_slice(changes, capacity, &mut written);
        }
        if written.changed > 0 {
            // After the entries, so that no reader can know the number without them.
            self.generation.fetch_add(1, Ordering::Release);
        }
        written
    }

    /// Merges entries that all belong to one slice.
    fn merge_slice(&self, changes: &[Entry], capacity: usize, written: &mut Written) {
        let Some(place) = changes.first().and_then(|entry| self.slices.get(slice_of(entry.key))) else {
            return;
        };
        let mut slice = place.load().to_vec();
        let changed_before = written.changed;
        for change in changes {
            match slice.binary_search_by_key(&change.key, |entry| entry.key) {
                Ok(found) => {
                    if let Some(entry) = slice.get_mut(found) {
                        let merged = entry.merged(change);
                        written.changed += usize::from(merged != *entry);
                        *entry = merged;
                    }
                }
                Err(_) if self.len() >= capacity => written.refused += 1,
                Err(gap) => {
                    self.count(change.kind, 1);
                    written.changed += 1;
                    slice.insert(gap, change.clone());
                }
            }
        }
        if written.changed > changed_before {
            place.store(Arc::new(slice.into()));
        }
    }

    /// Removes entries whose time has passed.
    pub(super) fn expire(&self, now: UnixTime) {
        let now = self.steady(now);
        let has_passed = |entry: &Entry| entry.until <= now;
        for place in &self.slices {
            if place.load().iter().any(has_passed) {
                let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
                let mut slice = place.load().to_vec();
                slice.extract_if(.., |entry| has_passed(entry)).for_each(|entry| self.uncount(entry.kind));
                place.store(Arc::new(slice.into()));
            }
        }
    }

    /// Calls `see` with each slice of entries, in order of their keys, beginning with the one that `after` belongs to.
    /// Entries that are written meanwhile may be missing.
    pub(super) fn slices(&self, after: Option<Key>) -> impl Iterator<Item = Arc<Slice>> + '_ {
        let first = after.map_or(0, slice_of);
        self.slices.iter().skip(first).map(ArcSwap::load_full).filter(|slice| !slice.is_empty())
    }

    fn count(&self, kind: Kind, more: usize) {
        if let Some(count) = self.counts.get(place(kind)) {
            count.fetch_add(more, Ordering::AcqRel);
        }
    }

    fn uncount(&self, kind: Kind) {
        if let Some(count) = self.counts.get(place(kind)) {
            count.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Finds an entry of a slice. Keys are digests, so they are spread evenly, and a key is near the place that its value
/// suggests: within one or two cache lines, where a binary search of a large table loads five or six.
fn find(slice: &[Entry], key: Key) -> Option<&Entry> {
    let place = (u128::from(key.high() << SLICE_BITS) * slice.len() as u128) >> u64::BITS;
    let (before, after) = slice.split_at_checked(usize::try_from(place).ok()?)?;
    let mut near = if after.first().is_some_and(|entry| entry.key <= key) {
        after.iter().take(NEAR).find(|entry| entry.key >= key)
    } else {
        before.iter().rev().take(NEAR).find(|entry| entry.key <= key)
    };
    if near.is_none() {
        // Further away, or there are no more entries on this side.
        near = slice.binary_search_by_key(&key, |entry| entry.key).ok().and_then(|found| slice.get(found));
    }
    near.filter(|entry| entry.key == key)
}

/// Number of entries to look at beside the place that a key suggests. In a full slice the distance is rarely larger.
const NEAR: usize = 16;

/// Slice that a key belongs to. Keys are digests, so the slices are of about the same length.
fn slice_of(key: Key) -> usize {
    usize::try_from(key.high() >> (u64::BITS - SLICE_BITS)).unwrap_or_default()
}

/// Place of a kind in [`Kind::ALL`].
fn place(kind: Kind) -> usize {
    usize::from(kind as u8 - 1)
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::entry;
    use super::*;

    const ALL: usize = usize::MAX;

    #[test]
    fn entries_are_found_merged_and_expired() {
        let table = Table::default();
        let first = table.generation();
        assert_eq!(table.merge((0..10_000).map(|number| entry(number, 10, 100)).collect(), ALL, 0).changed, 10_000);
        assert_eq!((table.len(), table.len_of(Kind::Subject), table.len_of(Kind::Token)), (10_000, 10_000, 0));
        for number in 0..10_000 {
            assert_eq!(table.get(entry(number, 0, 0).key), Some(entry(number, 10, 100)), "{number}");
        }
        assert_eq!(table.get(entry(10_000, 0, 0).key), None);
        // The same again, an earlier second, a later one, and one that has passed.
        let again = vec![entry(1, 10, 100), entry(2, 9, 100), entry(3, 11, 200), entry(10_001, 1, 50)];
        let before = table.generation();
        assert_eq!(table.merge(again.clone(), ALL, 50), Written { changed: 1, refused: 0 });
        assert!(first < before && before < table.generation());
        let after = table.generation();
        assert_eq!((table.merge(again, ALL, 50).changed, table.generation()), (0, after));
        assert_eq!(table.get(entry(3, 0, 0).key), Some(entry(3, 11, 200)));
        table.expire(100);
        assert_eq!((table.len(), table.get(entry(3, 0, 0).key).is_some()), (1, true));
        let left: Vec<_> = table.slices(None).flat_map(|slice| slice.to_vec()).collect();
        assert_eq!(left, [entry(3, 11, 200)]);
    }

    #[test]
    fn a_clock_that_is_set_forward_ends_no_entry() {
        let (table, now, day) = (Table::default(), unix_now(), 24 * 3600);
        table.merge(vec![entry(1, now, now + day), entry(2, now, now + 60)], ALL, now);
        table.expire(now + 2 * day);
        assert_eq!(table.merge(vec![entry(3, now, now + day)], ALL, now + 2 * day).changed, 1);
        let kept = |number: u64| table.get(entry(number, 0, 0).key).is_some();
        assert_eq!([1, 2, 3].map(kept), [true, false, true], "a correction by minutes counts");
        assert_eq!(table.steady(now - day), now - day);
    }

    #[test]
    fn an_entry_is_found_wherever_it_is() {
        let key = |number: u64| Key::from_bytes((u128::from(number) << 64).to_be_bytes());
        let numbered = |number: u64| Entry { key: key(number), ..entry(0, 1, 2) };
        let last = u64::MAX >> SLICE_BITS;
        for numbers in [
            vec![],
            vec![0],
            vec![last],
            (0..100).collect(),
            (last - 100..=last).collect(),
            (0..100).map(|number| last / 100 * number).collect(),
            [0, 1, 2, 3].into_iter().chain(last - 40..=last).collect(),
        ] {
            let slice: Vec<Entry> = numbers.iter().map(|number| numbered(*number)).collect();
            for number in numbers.iter().flat_map(|number| [number.saturating_sub(1), *number, number + 1]) {
                let found = find(&slice, key(number)).map(|entry| entry.key);
                assert_eq!(found, numbers.contains(&number).then_some(key(number)), "{number} in {numbers:?}");
            }
            assert_eq!(find(&slice, key(last / 2 + 7)), None);
        }
    }

    #[test]
    fn a_full_table_refuses_new_keys_and_keeps_what_it_has() {
        let table = Table::default();
        let all = |range: std::ops::Range<u64>, before| range.map(|number| entry(number, before, 100)).collect();
        assert_eq!(table.merge(all(0..120, 10), 100, 0), Written { changed: 100, refused: 20 });
        let kept: Vec<u64> = (0..120).filter(|number| table.get(entry(*number, 0, 0).key).is_some()).collect();
        assert_eq!(table.merge(all(0..120, 20), 100, 0), Written { changed: 100, refused: 20 });
        for number in kept {
            assert_eq!(table.get(entry(number, 0, 0).key), Some(entry(number, 20, 100)));
        }
        assert_eq!(table.len(), 100);
    }

    #[test]
    fn a_reader_sees_every_entry_while_others_are_written() {
        let table = Arc::new(Table::default());
        table.merge((0..1000).map(|number| entry(number, 10, 100)).collect(), ALL, 0);
        let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let reader = {
            let (table, stop) = (Arc::clone(&table), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut rounds = 0;
                while !stop.load(Ordering::Acquire) || rounds == 0 {
                    for number in 0..1000 {
                        assert!(table.look_up(entry(number, 0, 0).key, |_| ()).is_some(), "{number}");
                    }
                    rounds += 1;
                }
            })
        };
        for number in 1000..3000 {
            table.merge(vec![entry(number, 10, 20)], ALL, 0);
        }
        table.expire(50);
        stop.store(true, Ordering::Release);
        reader.join().unwrap();
        assert_eq!(table.len(), 1000);
    }

    #[test]
    fn an_entry_takes_less_than_100_bytes() {
        // Slices are exactly as long as their entries, so that this is all except for one fixed table of slices.
        assert!(size_of::<Entry>() <= 56, "{}", size_of::<Entry>());
        let fixed = SLICES * (size_of::<ArcSwap<Slice>>() + size_of::<Slice>() + 2 * size_of::<usize>());
        assert!(fixed < 256 * 1024, "{fixed}");
    }
}
