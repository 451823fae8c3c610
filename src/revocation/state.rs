//! What is known about one key, as a value that replicas can merge in any order and any number of times.
//!
//! A [`State`] only grows: merging takes the maximum of each part. So replicas that have received the same events agree,
//! whatever the order, and an event that arrives twice changes nothing. A revocation that an operator lifts is not
//! removed, but overruled by a later *epoch*. A sign-out that the lift did not know of stays in effect if it reaches
//! further than what was lifted: lifting forgives only what was there.

use super::key::{Key, UnixTime};

/// Time before every sign-in: nothing is revoked.
const NEVER: UnixTime = UnixTime::MIN;

/// Sign-ins that are revoked: all up to one second, and all up to other seconds with the exception of one session each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    all: UnixTime,
    /// The two latest ones with different sessions: any session is an exception of at most one of them.
    others: [Option<(UnixTime, Key)>; 2],
}

impl Cut {
    const NONE: Self = Self { all: NEVER, others: [None, None] };

    fn up_to(before: UnixTime, except: Option<Key>) -> Self {
        match except {
            None => Self { all: before, ..Self::NONE },
            Some(session) => Self { others: [Some((before, session)), None], ..Self::NONE },
        }
    }

    /// Latest second that a sign-in of the session is revoked for; [`NEVER`] if there is none.
    fn reach(&self, session: Key) -> UnixTime {
        let others = self.others.iter().flatten().filter(|(_, except)| *except != session);
        others.map(|(before, _)| *before).fold(self.all, UnixTime::max)
    }

    /// Latest second of all.
    fn latest(&self) -> UnixTime {
        self.others.iter().flatten().map(|(before, _)| *before).fold(self.all, UnixTime::max)
    }

    fn merged(&self, other: &Self) -> Self {
        let all = self.all.max(other.all);
        let mut others: [Option<(UnixTime, Key)>; 2] = [None, None];
        let mut seen: Vec<_> = self.others.iter().chain(&other.others).flatten().copied().collect();
        // Latest first. What reaches no further than `all` adds nothing, nor does a second one with the same session.
        seen.sort_unstable_by(|one, other| other.cmp(one));
        seen.retain(|(before, _)| *before > all);
        let mut distinct: Vec<(UnixTime, Key)> = Vec::new();
        for one in seen {
            if distinct.iter().all(|(_, session)| *session != one.1) {
                distinct.push(one);
            }
        }
        others.iter_mut().zip(distinct).for_each(|(place, one)| *place = Some(one));
        Self { all, others }
    }
}

/// Everything that is known about one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Full {
    /// Number of times that a revocation was lifted.
    epoch: u32,
    /// Latest second of what was lifted.
    lifted: UnixTime,
    /// Revoked since the last lift.
    current: Cut,
    /// Revoked before the last lift.
    old: Cut,
}

impl Full {
    fn merged(&self, other: &Self) -> Self {
        let lifted = self.lifted.max(other.lifted);
        let (later, earlier) = if self.epoch >= other.epoch { (self, other) } else { (other, self) };
        let old = later.old.merged(&earlier.old);
        let (current, old) = if later.epoch == earlier.epoch {
            (later.current.merged(&earlier.current), old)
        } else {
            (later.current, old.merged(&earlier.current))
        };
        Self { epoch: later.epoch, lifted, current, old }
    }

    /// Latest second that a sign-in of the session is revoked for; [`NEVER`] if there is none.
    fn reach(&self, session: Key) -> UnixTime {
        let old = Some(self.old.reach(session)).filter(|before| *before > self.lifted);
        self.current.reach(session).max(old.unwrap_or(NEVER))
    }

    fn latest(&self) -> UnixTime {
        let old = Some(self.old.latest()).filter(|before| *before > self.lifted);
        self.current.latest().max(old.unwrap_or(NEVER))
    }
}

/// What is known about one key. Nearly all are one second, so the rest is kept apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    all: UnixTime,
    rest: Option<Box<Full>>,
}

impl State {
    /// Revokes sign-ins up to the second `before`, with the exception of one session.
    pub(crate) fn revoked(before: UnixTime, except: Option<Key>) -> Self {
        Self::compact(Full { epoch: 0, lifted: NEVER, current: Cut::up_to(before, except), old: Cut::NONE })
    }

    /// The same as of this state's epoch, so that an earlier lift does not overrule it.
    pub(crate) fn revoked_again(&self, before: UnixTime, except: Option<Key>) -> Self {
        let full = Full { current: Cut::up_to(before, except), ..self.full() };
        self.merged(&Self::compact(full))
    }

    /// Lifts everything that is revoked.
    pub(crate) fn lifted(&self) -> Self {
        let full = self.full();
        Self::compact(Full {
            epoch: full.epoch.saturating_add(1),
            lifted: full.lifted.max(full.latest()),
            current: Cut::NONE,
            old: full.old.merged(&full.current),
        })
    }

    /// Merges what two replicas know. The order does not matter, and neither does repetition.
    pub(crate) fn merged(&self, other: &Self) -> Self {
        match (&self.rest, &other.rest) {
            (None, None) => Self { all: self.all.max(other.all), rest: None },
            _ => Self::compact(self.full().merged(&other.full())),
        }
    }

    /// `true` if a token of this session is revoked whose sign-in was at `since`.
    pub(crate) fn covers(&self, since: UnixTime, session: Key) -> bool {
        let reach = match &self.rest {
            None => self.all,
            Some(full) => full.reach(session),
        };
        reach != NEVER && since <= reach
    }

    /// Latest second that is revoked; `None` if everything was lifted.
    pub(crate) fn before(&self) -> Option<UnixTime> {
        let latest = self.rest.as_ref().map_or(self.all, |full| full.latest());
        Some(latest).filter(|latest| *latest != NEVER)
    }

    /// `true` if one session is an exception.
    pub(crate) fn has_exception(&self) -> bool {
        self.rest.as_ref().is_some_and(|full| full.current.others.iter().any(Option::is_some))
    }

    fn compact(full: Full) -> Self {
        let is_plain =
            full == Full { epoch: 0, lifted: NEVER, current: Cut::up_to(full.current.all, None), old: Cut::NONE };
        Self { all: full.current.all, rest: (!is_plain).then(|| Box::new(full)) }
    }

    fn full(&self) -> Full {
        match &self.rest {
            Some(full) => **full,
            None => Full { epoch: 0, lifted: NEVER, current: Cut::up_to(self.all, None), old: Cut::NONE },
        }
    }

    /// Appends the state to a record.
    pub(super) fn write(&self, record: &mut Vec<u8>) {
        let Some(full) = &self.rest else {
            record.push(PLAIN);
            record.extend(self.all.to_be_bytes());
            return;
        };
        record.push(FULL);
        record.extend(full.epoch.to_be_bytes());
        record.extend(full.lifted.to_be_bytes());
        for cut in [full.current, full.old] {
            record.extend(cut.all.to_be_bytes());
            for (before, session) in cut.others.into_iter().map(|other| other.unwrap_or((NEVER, ABSENT))) {
                record.extend(before.to_be_bytes());
                record.extend(session.to_bytes());
            }
        }
    }

    /// Reads what [`Self::write`] has written, and nothing else.
    pub(super) fn read(record: &[u8]) -> Option<Self> {
        let mut reader = Reader(record);
        let state = match reader.array::<1>()? {
            [PLAIN] => Self { all: reader.time()?, rest: None },
            [FULL] => {
                let (epoch, lifted) = (u32::from_be_bytes(reader.array()?), reader.time()?);
                let mut cut = || {
                    let all = reader.time()?;
                    let mut other = || {
                        let (before, session) = (reader.time()?, Key::from_bytes(reader.array()?));
                        Some(Some((before, session)).filter(|(before, _)| *before != NEVER))
                    };
                    let others = [other()?, other()?];
                    // Merging sorts the parts, which another program may have written in another order.
                    Some(Cut { all, ..Cut::NONE }.merged(&Cut { all, others }))
                };
                let (current, old) = (cut()?, cut()?);
                Self::compact(Full { epoch, lifted, current, old })
            }
            _ => return None,
        };
        reader.0.is_empty().then_some(state)
    }
}

/// Forms of a state in a record.
const PLAIN: u8 = 0;
const FULL: u8 = 1;
/// Key in the place of an exception that does not exist.
const ABSENT: Key = Key::ZERO;

struct Reader<'r>(&'r [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn time(&mut self) -> Option<UnixTime> {
        self.array().map(UnixTime::from_be_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::revocation::key::Kind;

    fn session(number: u8) -> Key {
        Key::new(&"eu-west-1_A".parse().unwrap(), Kind::Session, &number.to_string())
    }

    /// A replica, which knows one key or nothing.
    fn learn(replica: &mut Option<State>, event: &State) {
        *replica = Some(replica.as_ref().map_or_else(|| event.clone(), |known| known.merged(event)));
    }

    #[derive(Clone, Debug)]
    enum Act {
        Revoke(UnixTime, Option<u8>),
        Lift,
    }

    fn acts() -> impl Strategy<Value = Vec<(usize, Act, Vec<usize>)>> {
        let act = prop_oneof![
            3 => (0..8_i64, prop::option::of(0..4_u8)).prop_map(|(before, except)| Act::Revoke(before, except)),
            1 => Just(Act::Lift),
        ];
        // An act at a replica, and the events that some replica receives afterwards.
        prop::collection::vec((0..3_usize, act, prop::collection::vec(0..100_usize, 0..4)), 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        /// Replicas act, and receive events in any order and several times. Once all have received all, they are equal,
        /// also byte by byte, and whatever was revoked last at a replica that had seen every lift is revoked.
        #[test]
        fn replicas_end_equal(acts in acts(), order in prop::collection::vec(0..1000_usize, 60)) {
            let mut replicas: [Option<State>; 3] = [None, None, None];
            let mut events: Vec<State> = Vec::new();
            for (at, act, received) in acts {
                let known = replicas[at].clone();
                let event = match (act, known) {
                    (Act::Revoke(before, except), known) => {
                        let except = except.map(session);
                        let event = known.map_or_else(
                            || State::revoked(before, except),
                            |known| known.revoked_again(before, except),
                        );
                        for number in (0..4).map(session).filter(|number| Some(*number) != except) {
                            prop_assert!(event.covers(before, number), "a new revocation counts at once");
                        }
                        event
                    }
                    (Act::Lift, Some(known)) => {
                        let event = known.lifted();
                        prop_assert_eq!(event.before(), None, "a lift forgives everything that is known");
                        event
                    }
                    (Act::Lift, None) => continue,
                };
                learn(&mut replicas[at], &event);
                prop_assert_eq!(&replicas[at], &Some(event.clone()), "an event is all that its replica knows");
                events.push(event);
                for index in received {
                    learn(&mut replicas[index % 3], &events[index % events.len()]);
                }
            }
            // In a different order for each, with repetitions, and then all of them.
            for (at, replica) in replicas.iter_mut().enumerate() {
                for index in order.iter().skip(at * 20).take(20) {
                    if let Some(event) = events.get(index % events.len().max(1)) {
                        learn(replica, event);
                    }
                }
                let mut rest: Vec<&State> = events.iter().collect();
                rest.rotate_left(order[at] % events.len().max(1));
                for event in rest {
                    learn(replica, event);
                }
            }
            prop_assert_eq!(&replicas[0], &replicas[1]);
            prop_assert_eq!(&replicas[1], &replicas[2]);
            for state in replicas.iter().flatten().chain(&events) {
                let mut record = Vec::new();
                state.write(&mut record);
                prop_assert_eq!(State::read(&record), Some(state.clone()));
                prop_assert_eq!(State::read(&record[..record.len() - 1]), None);
                record.push(0);
                prop_assert_eq!(State::read(&record), None);
            }
        }
    }

    #[test]
    fn every_session_but_one_is_revoked() {
        let first = State::revoked(10, Some(session(1)));
        assert!(first.covers(10, session(2)) && !first.covers(11, session(2)) && !first.covers(5, session(1)));
        let both = first.merged(&State::revoked(20, Some(session(2))));
        assert!(both.covers(20, session(1)) && both.covers(10, session(2)) && !both.covers(11, session(2)));
        assert!(both.covers(20, session(3)) && !both.covers(21, session(3)));
        let all = both.merged(&State::revoked(15, None));
        assert!(all.covers(15, session(2)) && !all.covers(16, session(2)) && all.covers(20, session(1)));
        assert_eq!(all.merged(&State::revoked(20, None)), State::revoked(20, None), "nothing is left of the rest");
    }

    #[test]
    fn a_lift_forgives_only_what_was_known() {
        let lifted = State::revoked(10, None).lifted();
        assert_eq!((lifted.before(), lifted.covers(1, session(1))), (None, false));
        // Signed out at another replica meanwhile: earlier than what was lifted, and later.
        assert!(!lifted.merged(&State::revoked(9, None)).covers(9, session(1)));
        let later = lifted.merged(&State::revoked(11, None));
        assert!(later.covers(11, session(1)) && later.covers(1, session(1)) && !later.covers(12, session(1)));
        // Revoked again, up to an earlier second than before.
        assert!(
            lifted.revoked_again(5, None).covers(5, session(1)) && !lifted.revoked_again(5, None).covers(6, session(1))
        );
        assert_eq!(later.lifted().before(), None);
    }

    #[test]
    fn what_is_not_a_state_is_refused() {
        for record in [&b""[..], b"\x00", b"\x02", b"\x02\0\0\0\0\0\0\0\0", b"\x00\0\0\0\0\0\0\0\0\0", &[1; 30]] {
            assert_eq!(State::read(record), None, "{record:?}");
        }
    }
}
