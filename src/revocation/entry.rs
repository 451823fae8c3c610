//! One entry of the table, which is also the record of the file and the event of the shared store.
//!
//! A record says everything that its writer knew about a key. So any one of them can be missed or come twice, and a file
//! or a stream can be cut at its old end.

use std::fmt;

use super::key::{Key, Kind, UnixTime};
use super::state::State;

/// Ways in which an entry came about. A set, because entries are merged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Causes(u8);

impl Causes {
    /// `POST /logout` of the account API.
    pub(crate) const LOGOUT: Self = Self(1);
    /// `POST /revoke`.
    pub(crate) const REVOKE: Self = Self(1 << 1);
    /// `POST /change-password`.
    pub(crate) const CHANGE_PASSWORD: Self = Self(1 << 2);
    /// `DELETE /me`.
    pub(crate) const DELETE_ME: Self = Self(1 << 3);
    /// An operator, through the admin port.
    pub(crate) const OPERATOR: Self = Self(1 << 4);

    const NAMES: [(Self, &str); 5] = [
        (Self::LOGOUT, "logout"),
        (Self::REVOKE, "revoke"),
        (Self::CHANGE_PASSWORD, "change-password"),
        (Self::DELETE_ME, "delete-me"),
        (Self::OPERATOR, "operator"),
    ];

    fn merged(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Names of the causes.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(cause, _)| self.0 & cause.0 != 0).map(|(_, name)| name)
    }
}

impl fmt::Debug for Causes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// Entry of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What is revoked.
    pub(crate) key: Key,
    /// Time from which on no token can exist that the entry matches.
    pub(crate) until: UnixTime,
    /// Kind of the key.
    pub(crate) kind: Kind,
    /// How it came about.
    pub(crate) causes: Causes,
    /// What is revoked of it.
    pub(crate) state: State,
}

impl Entry {
    /// Longest record, in bytes.
    pub(super) const MAX_RECORD_BYTES: usize = 256;

    /// Merges what two replicas know about the same key. The order does not matter, and neither does repetition.
    pub(super) fn merged(&self, other: &Self) -> Self {
        Self {
            key: self.key,
            until: self.until.max(other.until),
            kind: self.kind.min(other.kind),
            causes: self.causes.merged(other.causes),
            state: self.state.merged(&other.state),
        }
    }

    /// Writes the entry as a record. All numbers are in network byte order.
    pub(super) fn to_record(&self) -> Vec<u8> {
        let mut record = Vec::with_capacity(48);
        record.extend([VERSION, self.kind as u8, self.causes.0]);
        record.extend(self.key.to_bytes());
        record.extend(self.until.to_be_bytes());
        self.state.write(&mut record);
        record
    }

    /// Reads a record; `None` if it is not one, for example of a later version.
    pub(super) fn from_record(record: &[u8]) -> Option<Self> {
        let (&[version, kind, causes], rest) = record.split_first_chunk()?;
        let (key, rest) = rest.split_first_chunk()?;
        let (until, rest) = rest.split_first_chunk()?;
        if version != VERSION {
            return None;
        }
        Some(Self {
            key: Key::from_bytes(*key),
            until: UnixTime::from_be_bytes(*until),
            kind: Kind::from_code(kind)?,
            causes: Causes(causes),
            state: State::read(rest)?,
        })
    }
}

/// Version of the form of records.
const VERSION: u8 = 1;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An entry that revokes user number `number` up to the second `before`.
    pub(crate) fn entry(number: u64, before: UnixTime, until: UnixTime) -> Entry {
        Entry {
            key: Key::new(&"eu-west-1_A".parse().unwrap(), Kind::Subject, &number.to_string()),
            until,
            kind: Kind::Subject,
            causes: Causes::LOGOUT,
            state: State::revoked(before, None),
        }
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let plain = entry(1, 10, 20);
        let mut full = Entry { causes: Causes::OPERATOR, ..entry(1, 30, 40) };
        full.state = full.state.revoked_again(35, Some(full.key)).lifted();
        assert_eq!(plain.to_record().len(), 36);
        for entry in [&plain, &full, &plain.merged(&full)] {
            let record = entry.to_record();
            assert!(record.len() <= Entry::MAX_RECORD_BYTES, "{}", record.len());
            assert_eq!(Entry::from_record(&record).as_ref(), Some(entry));
            for length in 0..record.len() {
                assert_eq!(Entry::from_record(&record[..length]), None, "{length}");
            }
            for (place, bad) in [(0, 2), (1, 0), (1, 5), (27, 2)] {
                let mut record = record.clone();
                record[place] = bad;
                assert_eq!(Entry::from_record(&record), None, "{place} {bad}");
            }
        }
        let merged = plain.merged(&full);
        assert_eq!(merged, full.merged(&plain));
        assert_eq!(merged.causes.names().collect::<Vec<_>>(), ["logout", "operator"]);
        assert_eq!(merged.until, 40);
    }
}
