//! The stream in which the replicas keep their revocations: its commands, and what their replies say.
//!
//! One stream is push, catch-up and full load at once. A replica appends records and reads on from the last one it has
//! seen, from the beginning at startup. A new record trims those that are too old to matter.

use std::fmt;
use std::time::Duration;

use redis::{Pipeline, Value};

use super::super::entry::Entry;

/// Name of the stream. The braces keep everything with this prefix in one slot of a cluster.
pub(super) const KEY: &str = "{cognito-authz}:revocations";
/// The only field of a record.
const FIELD: &[u8] = b"r";

/// Name of a record: the time at which the server took it in milliseconds, and a number. Names only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) millis: u64,
    pub(super) sequence: u64,
}

impl Id {
    /// Name before that of every record.
    pub(super) const START: Self = Self { millis: 0, sequence: 0 };

    fn read(text: &[u8]) -> Option<Self> {
        let (millis, sequence) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self { millis: millis.parse().ok()?, sequence: sequence.parse().ok()? })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.sequence)
    }
}

/// Records that were read.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The records, in order. One that is not readable is `None`: it is of a later version, or not ours.
    pub(super) records: Vec<(Id, Option<Entry>)>,
    /// `true` if the record that was read last is still there, as of after the reading.
    pub(super) has_last: bool,
}

/// Adds a command that appends a record and trims those from before `oldest`, in milliseconds.
pub(super) fn append(pipeline: &mut Pipeline, entry: &Entry, oldest: Option<u64>) {
    pipeline.cmd("XADD").arg(KEY);
    if let Some(oldest) = oldest {
        // `~` trims whole nodes of the stream only, which is far cheaper.
        pipeline.arg("MINID").arg("~").arg(oldest);
    }
    pipeline.arg("*").arg(FIELD).arg(entry.to_record());
}

/// Returns commands that read up to `count` records after `last`, and then whether `last` is there. The order matters: a
/// stream that has lost records and then received new ones is missing `last` afterwards, whenever that happened.
///
/// With `wait`, the server answers when there is a record, and at the latest after that time.
pub(super) fn read(last: Id, count: usize, wait: Option<Duration>) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(2);
    pipeline.cmd("XREAD").arg("COUNT").arg(count);
    if let Some(wait) = wait {
        pipeline.arg("BLOCK").arg(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
    }
    pipeline.arg("STREAMS").arg(KEY).arg(last.to_string());
    pipeline.cmd("XRANGE").arg(KEY).arg(last.to_string()).arg(last.to_string()).arg("COUNT").arg(1);
    pipeline
}

/// Reads the replies to the commands of [`read`]; `None` if they have another form.
pub(super) fn batch(replies: Vec<Value>) -> Option<Batch> {
    let [read, last] = <[Value; 2]>::try_from(replies).ok()?;
    let Value::Array(last) = last else { return None };
    let records = match read {
        Value::Nil => Vec::new(),
        Value::Array(streams) => {
            let Value::Array(stream) = streams.into_iter().next()? else { return None };
            let [_, Value::Array(records)] = <[Value; 2]>::try_from(stream).ok()? else { return None };
            records.into_iter().map(record).collect::<Option<_>>()?
        }
        _ => return None,
    };
    Some(Batch { records, has_last: !last.is_empty() })
}

fn record(value: Value) -> Option<(Id, Option<Entry>)> {
    let Value::Array(parts) = value else { return None };
    let [Value::BulkString(id), fields] = <[Value; 2]>::try_from(parts).ok()? else { return None };
    let entry = match &fields {
        Value::Array(fields) => match fields.as_slice() {
            [Value::BulkString(field), Value::BulkString(record)] if field == FIELD => Entry::from_record(record),
            _ => None,
        },
        _ => None,
    };
    Some((Id::read(&id)?, entry))
}

#[cfg(test)]
mod tests {
    use super::super::super::entry::tests::entry;
    use super::*;

    fn bulk(bytes: &[u8]) -> Value {
        Value::BulkString(bytes.to_vec())
    }

    fn reply(records: Vec<Value>) -> Value {
        Value::Array(vec![Value::Array(vec![bulk(KEY.as_bytes()), Value::Array(records)])])
    }

    fn stored(id: &[u8], fields: &[&[u8]]) -> Value {
        Value::Array(vec![bulk(id), Value::Array(fields.iter().map(|field| bulk(field)).collect())])
    }

    #[test]
    fn replies_are_read() {
        let one = entry(1, 10, 20);
        let record = one.to_record();
        let read = reply(vec![
            stored(b"5-0", &[FIELD, &record]),
            stored(b"5-1", &[FIELD, b"something else"]),
            stored(b"6-0", &[b"x", &record]),
            stored(b"7-0", &[FIELD, &record, FIELD, &record]),
            Value::Array(vec![bulk(b"18446744073709551615-18446744073709551615"), Value::Nil]),
        ]);
        let got = batch(vec![read, Value::Array(vec![stored(b"4-0", &[])])]).unwrap();
        let id = |millis, sequence| Id { millis, sequence };
        let expected = [
            (id(5, 0), Some(one)),
            (id(5, 1), None),
            (id(6, 0), None),
            (id(7, 0), None),
            (id(u64::MAX, u64::MAX), None),
        ];
        assert!(got.has_last && got.records == expected, "{got:?}");
        let nothing = batch(vec![Value::Nil, Value::Array(vec![])]).unwrap();
        assert!(!nothing.has_last && nothing.records.is_empty());
    }

    #[test]
    fn other_replies_are_refused() {
        let rest = || Value::Array(vec![]);
        for replies in [
            vec![],
            vec![Value::Nil],
            vec![Value::Nil, Value::Nil],
            vec![Value::Int(1), rest()],
            vec![rest(), rest()],
            vec![Value::Array(vec![Value::Array(vec![bulk(b"k")])]), rest()],
            vec![reply(vec![Value::Nil]), rest()],
            vec![reply(vec![stored(b"5", &[])]), rest()],
            vec![reply(vec![stored(b"5-x", &[])]), rest()],
            vec![reply(vec![stored(b"\xff-1", &[])]), rest()],
        ] {
            assert!(batch(replies.clone()).is_none(), "{replies:?}");
        }
    }

    #[test]
    fn commands_are_written() {
        let text = |pipeline: &Pipeline| String::from_utf8_lossy(&pipeline.get_packed_pipeline()).replace("\r\n", " ");
        let read = text(&read(Id { millis: 5, sequence: 1 }, 7, Some(Duration::from_secs(1))));
        assert!(read.contains("BLOCK $4 1000 $7 STREAMS"), "{read}");
        assert!(read.contains("XRANGE $27 {cognito-authz}:revocations $3 5-1 $3 5-1"), "{read}");
        let mut pipeline = Pipeline::new();
        append(&mut pipeline, &entry(1, 10, 20), Some(99));
        assert!(text(&pipeline).contains("MINID $1 ~ $2 99 $1 * $1 r $36"), "{}", text(&pipeline));
    }
}
