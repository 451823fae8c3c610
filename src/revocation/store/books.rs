//! What the store does not have, as far as this replica knows ([`Books`]).
//!
//! A write that the store took can still be lost: if the server fails before it has copied or saved it. So each write
//! counts as taken only when this replica has read it back. Whatever the store turns out to lack is appended again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::entry::Entry;
use super::super::key::Key;
use super::super::table::Table;

/// Keys of entries that the store lacks, or may lack. All of them are keys of the table, so they are as many at most.
#[derive(Debug, Default)]
pub(super) struct Books {
    state: Mutex<State>,
    /// Notified when the store lacks something, and after each reading.
    pub(super) changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Keys that have to be appended.
    lacking: BTreeSet<Key>,
    /// Keys that were appended and not read back so far, with the time at which the server took them.
    sent: HashMap<Key, Option<Instant>>,
}

/// Keys on their way to the store. Those that are not [`taken`](Self::taken) when it is dropped are lacking.
#[derive(Debug)]
pub(super) struct Sending<'a> {
    books: &'a Books,
    keys: HashSet<Key>,
}

impl Books {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that these keys are being appended.
    pub(super) fn sending(&self, keys: Vec<Key>) -> Sending<'_> {
        let mut state = self.state();
        for key in &keys {
            state.lacking.remove(key);
            state.sent.insert(*key, None);
        }
        drop(state);
        Sending { books: self, keys: keys.into_iter().collect() }
    }

    /// Notes that the store may lack any of these keys, until they are read.
    pub(super) fn doubt(&self, keys: impl Iterator<Item = Key>) {
        let keys: BTreeSet<Key> = keys.collect();
        let mut state = self.state();
        let before = std::mem::replace(&mut state.lacking, keys);
        state.lacking.extend(before);
    }

    /// `true` if nothing has to be read back.
    pub(super) fn is_clear(&self) -> bool {
        let state = self.state();
        state.lacking.is_empty() && state.sent.is_empty()
    }

    /// `true` if something that was appended has not been read back.
    pub(super) fn awaits(&self) -> bool {
        !self.state().sent.is_empty()
    }

    /// `true` if the store lacks something.
    pub(super) fn lacks(&self) -> bool {
        !self.state().lacking.is_empty()
    }

    /// Notes what was read. A record counts only if it says all that the table knows about its key.
    pub(super) fn has_read<'e>(&self, entries: impl Iterator<Item = &'e Entry>, table: &Table) {
        let mut state = self.state();
        for entry in entries {
            let says_all = table.look_up(entry.key, |known| entry.merged(known) == *entry).unwrap_or(true);
            if says_all {
                state.lacking.remove(&entry.key);
                state.sent.remove(&entry.key);
            }
        }
    }

    /// Notes that a request sent at `sent` has reached the end of the stream. Whatever the server took before that, and
    /// was not read, is lost.
    pub(super) fn has_read_all(&self, sent: Instant) {
        let mut state = self.state();
        let State { lacking, sent: waiting } = &mut *state;
        lacking.extend(waiting.extract_if(|_, taken| taken.is_some_and(|taken| taken < sent)).map(|(key, _)| key));
        drop(state);
        self.changed.notify_one();
    }

    /// Returns up to `count` keys that the store lacks. They follow each other, beginning at a random place, so that
    /// several replicas hardly ever append the same ones at the same time.
    pub(super) fn some(&self, count: usize) -> Vec<Key> {
        let mut bytes = [0; Key::BYTES];
        fastrand::fill(&mut bytes);
        let start = Key::from_bytes(bytes);
        let state = self.state();
        state.lacking.range(start..).chain(state.lacking.range(..start)).take(count).copied().collect()
    }

    /// Forgets keys that the table no longer has.
    pub(super) fn forget(&self, keys: &[Key]) {
        let mut state = self.state();
        for key in keys {
            state.lacking.remove(key);
        }
    }
}

impl Sending<'_> {
    /// Notes that the server took a key.
    pub(super) fn taken(&mut self, key: Key) {
        self.keys.remove(&key);
        // Absent if it was read back before.
        if let Some(taken) = self.books.state().sent.get_mut(&key) {
            *taken = Some(Instant::now());
        }
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        if self.keys.is_empty() {
            return;
        }
        let mut state = self.books.state();
        for key in self.keys.drain() {
            state.sent.remove(&key);
            state.lacking.insert(key);
        }
        drop(state);
        self.books.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::entry::tests::entry;
    use super::*;

    fn table(entries: &[Entry]) -> Table {
        let table = Table::default();
        table.merge(entries.to_vec(), usize::MAX, 0);
        table
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_millis(1)
    }

    #[test]
    fn a_write_counts_when_it_was_read_back() {
        let (books, one) = (Books::default(), entry(1, 10, 20));
        let table = table(std::slice::from_ref(&one));
        books.sending(vec![one.key]).taken(one.key);
        assert!(books.awaits() && !books.lacks());
        // A reading that began before the write does not tell.
        books.has_read_all(Instant::now() - Duration::from_secs(1));
        assert!(books.awaits() && !books.lacks());
        books.has_read([&one].into_iter(), &table);
        books.has_read_all(later());
        assert!(books.is_clear());
    }

    #[test]
    fn what_was_read_before_the_server_confirmed_it_counts() {
        let (books, one) = (Books::default(), entry(1, 10, 20));
        let mut sending = books.sending(vec![one.key]);
        books.has_read([&one].into_iter(), &table(&[]));
        sending.taken(one.key);
        drop(sending);
        books.has_read_all(later());
        assert!(books.is_clear());
    }

    #[test]
    fn a_write_that_is_not_read_back_is_lost() {
        let (books, one) = (Books::default(), entry(1, 10, 20));
        books.sending(vec![one.key]).taken(one.key);
        books.has_read_all(later());
        assert_eq!((books.some(9), books.awaits()), (vec![one.key], false));
    }

    #[test]
    fn a_record_that_says_less_than_the_table_does_not_count() {
        let (books, one) = (Books::default(), entry(1, 10, 20));
        let table = table(&[one.merged(&entry(1, 15, 30))]);
        books.sending(vec![one.key]).taken(one.key);
        books.has_read([&one].into_iter(), &table);
        assert!(books.awaits());
        books.has_read([&entry(1, 15, 30)].into_iter(), &table);
        assert!(books.is_clear());
    }

    #[test]
    fn a_write_that_ends_early_is_lacking() {
        let (books, keys) = (Books::default(), [1, 2].map(|number| entry(number, 10, 20).key));
        let mut sending = books.sending(keys.to_vec());
        sending.taken(keys[0]);
        drop(sending);
        assert_eq!((books.some(9), books.awaits()), (vec![keys[1]], true));
        // An earlier write of the same key that ends well does not hide that the later one failed.
        let mut earlier = books.sending(vec![keys[1]]);
        drop(books.sending(vec![keys[1]]));
        earlier.taken(keys[1]);
        drop(earlier);
        assert_eq!(books.some(9), [keys[1]]);
    }

    #[test]
    fn in_doubt_everything_is_lacking_until_it_is_read() {
        let entries: Vec<Entry> = (0..100).map(|number| entry(number, 10, 20)).collect();
        let (books, table) = (Books::default(), table(&entries));
        books.doubt(entries.iter().map(|entry| entry.key));
        books.has_read(entries[..60].iter(), &table);
        books.has_read_all(later());
        let mut lacking = books.some(1000);
        lacking.sort_unstable();
        let mut expected: Vec<Key> = entries[60..].iter().map(|entry| entry.key).collect();
        expected.sort_unstable();
        assert_eq!(lacking, expected);
        assert_eq!(books.some(7).len(), 7);
        books.forget(&lacking);
        assert!(books.is_clear());
    }
}
