//! The names of users, as far as limits need them: which of them are one user's, and where messages to a user go.
//!
//! A user has several names (user name, `sub`, e-mail address, phone number, preferred name). A request uses one of
//! them, and only Cognito knows whose it is. It says so when a sign-in gets somewhere: in the parameters of a challenge,
//! in tokens, in a profile. From then on whatever is counted for one of these names is *also* counted for the user.
//! A failure names no user: names that were never used to get in are counted each for itself.
//!
//! A name's own count always stays, so nothing that is learnt here can give anybody more than before. Names are kept
//! as keyed hashes, in caches of a fixed size.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

/// A name under a keyed hash.
pub(super) type Key = u64;

/// Names, and users' destinations, that are remembered; about 100 bytes each.
const MAX_NAMES: u64 = 50_000;
/// Time after which a name that was not used is forgotten.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Names that a name leads to, itself included: what was typed, the user name, and one more for a rename.
const MAX_LINKS: usize = 3;
/// Destinations of one user: an e-mail address, a phone number, and the ones before them.
const MAX_DESTINATIONS: usize = 4;

#[derive(Debug)]
pub(super) struct Names {
    hasher: RandomState,
    /// From another name of a user to the user name.
    users: Cache<Key, Key>,
    /// From a user name to the addresses that it gets messages at.
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
        // Cognito's names have no case, unless a pool was made with it.
        self.hasher.hash_one(name.trim().to_lowercase())
    }

    fn destination(&self, address: &str) -> Key {
        self.hasher.hash_one(destination(address))
    }

    /// What is counted for `name`: the name itself, and the user that it is known to belong to.
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

    /// Remembers that `name` belongs to `user`. Returns what is counted for the user, if that is news.
    pub(super) fn learn(&self, name: &str, user: &str) -> Option<Key> {
        let (name, user) = (self.key(name), self.key(user));
        if name == user || self.users.get(&name) == Some(user) {
            return None;
        }
        self.users.insert(name, user);
        Some(user)
    }

    /// Remembers that messages to `user` go to `addresses`, beside the ones known before.
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

    /// What a message counts for that these names ask for: each as an address, the user behind it, and where messages
    /// to that user are known to go.
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

/// One spelling for all spellings of an address that lead to the same mailbox or phone: an e-mail address without
/// case, white space and sub-address (`ada+x@`, RFC 5233), the digits of a phone number. Anything else without case.
fn destination(address: &str) -> String {
    let plain: String = address.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect();
    let plain = plain.to_lowercase();
    if let Some((mailbox, domain)) = plain.rsplit_once('@') {
        let mailbox = mailbox.split_once('+').map_or(mailbox, |(mailbox, _)| mailbox);
        return format!("{mailbox}@{}", domain.trim_end_matches('.'));
    }
    let digits: String = plain.chars().filter(char::is_ascii_digit).collect();
    let is_phone = digits.len() >= 5 && plain.chars().all(|c| c.is_ascii_digit() || "+-./()".contains(c));
    // +49 and 0049 are one prefix.
    if is_phone { digits.trim_start_matches('0').to_owned() } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_destination() {
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
    fn names_lead_to_their_user_and_nowhere_for_ever() {
        let names = Names::default();
        let key = |name: &str| names.key(name);
        assert_eq!(names.of("Ada@example.test"), [key("ada@example.test")]);
        assert_eq!(names.learn("ada@example.test", "u"), Some(key("u")));
        assert_eq!(names.learn(" ADA@example.test", "U"), None, "known");
        assert_eq!(names.learn("u", "u"), None);
        assert_eq!(names.of("ada@example.test"), [key("ada@example.test"), key("u")]);
        // Whatever is learnt, the name's own count stays, and there is an end.
        for (name, user) in [("u", "v"), ("v", "w"), ("w", "ada@example.test")] {
            names.learn(name, user);
        }
        assert_eq!(names.of("ada@example.test"), ["ada@example.test", "u", "v"].map(key));
        names.learn("u", "ada@example.test");
        assert_eq!(names.of("ada@example.test"), ["ada@example.test", "u"].map(key));
    }

    #[test]
    fn messages_count_where_they_go() {
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
    fn memory_has_a_bound() {
        let names = Names::default();
        for n in 0..(2 * MAX_NAMES) {
            names.learn(&n.to_string(), "u");
        }
        names.users.run_pending_tasks();
        assert!(names.users.entry_count() <= MAX_NAMES);
    }
}
