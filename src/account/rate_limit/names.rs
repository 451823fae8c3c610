//! Names of users for the rate limits: which names belong to the same user, and which addresses get its messages.
//!
//! A user has several names (user name, `sub`, e-mail address, phone number, preferred name). A request uses one of
//! them, and only Cognito knows the user behind it. It reveals the user when a sign-in makes progress: in the
//! parameters of a challenge, in tokens, in a profile. From then on, everything that is counted for one of these names
//! is *also* counted for the user. Failures do not identify a user, so names that were never used successfully are
//! counted separately.
//!
//! A name also keeps its own count, so what is learnt here can only make a limit stricter. Names are stored as keyed
//! hashes, in caches of fixed size.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

/// Keyed hash of a name or an address.
pub(super) type Key = u64;

/// Maximum number of names, and of users with known destinations, at about 100 bytes each.
const MAX_NAMES: u64 = 50_000;
/// Time after which an unused name is forgotten.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Maximum length of a chain of names, the first included: the name in the request, the user name, and one for a
/// rename.
const MAX_LINKS: usize = 3;
/// Maximum number of destinations of one user: an e-mail address, a phone number, and the previous ones.
const MAX_DESTINATIONS: usize = 4;

#[derive(Debug)]
pub(super) struct Names {
    hasher: RandomState,
    /// User name by another name of the user.
    users: Cache<Key, Key>,
    /// Addresses that get messages, by user name.
    destinations: Cache<Key, Arc<[Key]>>,
}

impl Default for Names {
    fn default() -> Self {
        Self { hasher: RandomState::new(), users: cache(), destinations: cache() }
    }
}

fn cache<V: Clone + Send + Sync + 'static>() -> Cache<Key, V> {
    Cache::builder().max_capacity(MAX_NAMES).time_to_idle(KEPT).build()
}

impl Names {
    fn key(&self, name: &str) -> Key {
        // User names in Cognito are case-insensitive, unless the pool was created otherwise.
        self.hasher.hash_one(name.trim().to_lowercase())
    }

    fn destination(&self, address: &str) -> Key {
        self.hasher.hash_one(destination(address))
    }

    /// Returns the keys to count for `name`: the name itself, and the user that it is known to belong to.
    pub(super) fn of(&self, name: &str) -> Vec<Key> {
        let mut keys = vec![self.key(name)];
        while let Some(user) = keys.last().and_then(|key| self.users.get(key)) {
            if keys.len() == MAX_LINKS || keys.contains(&user) {
                break;
            }
            keys.push(user);
        }
        keys
    }

    /// Remembers that `name` belongs to `user`. Returns the key of the user if that is new.
    pub(super) fn learn(&self, name: &str, user: &str) -> Option<Key> {
        let (name, user) = (self.key(name), self.key(user));
        if name == user || self.users.get(&name) == Some(user) {
            return None;
        }
        self.users.insert(name, user);
        Some(user)
    }

    /// Remembers that messages to `user` go to `addresses`, in addition to those known before.
    pub(super) fn send_to<'a>(&self, user: &str, addresses: impl Iterator<Item = &'a str>) {
        let user = self.key(user);
        let known = self.destinations.get(&user);
        let mut all: Vec<Key> = addresses.map(|address| self.destination(address)).collect();
        all.extend(known.iter().flat_map(|known| known.iter().copied()));
        let all = distinct(all.into_iter()).take(MAX_DESTINATIONS).collect::<Arc<[Key]>>();
        if !all.is_empty() && known.as_deref() != Some(&*all) {
            self.destinations.insert(user, all);
        }
    }

    /// Returns the keys to count for a message to these names: each name as an address, the user behind it, and the
    /// known destinations of that user.
    pub(super) fn recipients(&self, names: &[&str]) -> Vec<Key> {
        let mut keys = Vec::new();
        for name in names {
            let users = self.of(name);
            keys.push(self.destination(name));
            keys.extend(users.iter().filter_map(|user| self.destinations.get(user)).flat_map(|all| all.to_vec()));
            keys.extend(users);
        }
        distinct(keys.into_iter()).collect()
    }
}

fn distinct(keys: impl Iterator<Item = Key>) -> impl Iterator<Item = Key> {
    let mut seen = Vec::new();
    keys.filter(move |key| {
        let is_new = !seen.contains(key);
        seen.push(*key);
        is_new
    })
}

/// Normalizes an address, so that all spellings of one mailbox or phone number are equal: an e-mail address in lower
/// case without white space and sub-address (`ada+x@`, RFC 5233), the digits of a phone number, anything else in lower
/// case.
fn destination(address: &str) -> String {
    let plain: String = address.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect();
    let plain = plain.to_lowercase();
    if let Some((mailbox, domain)) = plain.rsplit_once('@') {
        let mailbox = mailbox.split_once('+').map_or(mailbox, |(mailbox, _)| mailbox);
        return format!("{mailbox}@{}", domain.trim_end_matches('.'));
    }
    let digits: String = plain.chars().filter(char::is_ascii_digit).collect();
    let is_phone = digits.len() >= 5 && plain.chars().all(|c| c.is_ascii_digit() || "+-./()".contains(c));
    // +49 and 0049 are the same prefix.
    if is_phone { digits.trim_start_matches('0').to_owned() } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_a_destination_are_equal() {
        for spellings in [
            &["ada@example.test", "ADA@Example.TEST", " ada@example.test ", "ada+1@example.test", "ada@example.test."]
                [..],
            &["+4912345678", "+49 123 45678", "+49 (123) 456-78", "004912345678", "+49.123.45678"],
            &["ada", "ADA", " Ada"],
        ] {
            for spelling in spellings {
                assert_eq!(destination(spelling), destination(spellings[0]), "{spelling}");
            }
        }
        let others =
            ["ada@example.test", "adb@example.test", "ada@example.org", "+4912345678", "+4912345679", "ada", "a12345"];
        for (index, one) in others.iter().enumerate() {
            assert!(others[..index].iter().all(|other| destination(other) != destination(one)), "{one}");
        }
        assert_ne!(destination("12-34"), destination("1234"), "too short for a phone number");
    }

    #[test]
    fn chains_of_names_end() {
        let names = Names::default();
        let key = |name: &str| names.key(name);
        assert_eq!(names.of("Ada@example.test"), [key("ada@example.test")]);
        assert_eq!(names.learn("ada@example.test", "u"), Some(key("u")));
        assert_eq!(names.learn(" ADA@example.test", "U"), None, "known");
        assert_eq!(names.learn("u", "u"), None);
        assert_eq!(names.of("ada@example.test"), [key("ada@example.test"), key("u")]);
        // The name keeps its own count, and chains have a maximum length.
        for (name, user) in [("u", "v"), ("v", "w"), ("w", "ada@example.test")] {
            names.learn(name, user);
        }
        assert_eq!(names.of("ada@example.test"), ["ada@example.test", "u", "v"].map(key));
        names.learn("u", "ada@example.test");
        assert_eq!(names.of("ada@example.test"), ["ada@example.test", "u"].map(key));
    }

    #[test]
    fn messages_count_for_their_destinations() {
        let names = Names::default();
        names.send_to("mallory", ["victim@example.test"].into_iter());
        names.learn("sub-of-mallory", "mallory");
        let victim = names.destination("Victim@example.test");
        assert!(names.recipients(&["sub-of-mallory"]).contains(&victim));
        assert!(!names.recipients(&["someone"]).contains(&victim));
        for n in 0..10 {
            names.send_to("mallory", [&*format!("{n}@example.test")].into_iter());
        }
        assert!(names.recipients(&["mallory"]).len() <= MAX_DESTINATIONS + 2);
    }

    #[test]
    fn memory_is_limited() {
        let names = Names::default();
        for n in 0..(2 * MAX_NAMES) {
            names.learn(&n.to_string(), "u");
        }
        names.users.run_pending_tasks();
        assert!(names.users.entry_count() <= MAX_NAMES);
    }
}
