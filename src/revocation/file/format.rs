//! Format of the file: a header line, then frames. Start with [`read`].
//!
//! A frame is what one write appends: a mark, the length of its content (u32), a check value, and the content, which is
//! a sequence of records, each after its length (u16). All numbers are in network byte order. A frame counts as a whole or
//! not at all, so that a write that was interrupted can be told from damage to what was confirmed.
//!
//! The check value is the first half of a SHA-256 over length and content. It finds every error that a CRC-32 finds, and
//! misses one of 2^128 others. SHA-256 costs about a microsecond for each frame of a few records.

use std::io::{self, Read};

use aws_lc_rs::digest;

use super::super::entry::Entry;

/// First line of the file.
pub(super) const HEADER: &[u8] = b"cognito-authz revocations, version 1\n";
/// Part of the header that all versions have.
const TITLE: &[u8] = b"cognito-authz revocations, version ";

/// First bytes of a frame. No power of two, so that no single bit turns one of them into the zeros of a lost sector.
const MARK: [u8; 4] = [0xC3, b'R', b'V', 0xAA];
/// Length of mark, length and check value.
const HEAD: usize = MARK.len() + 4 + CHECK;
const CHECK: usize = 16;
/// Largest frame.
pub(super) const MAX_FRAME: usize = 64 << 10;
/// Largest number of records that always fit into a frame.
pub(super) const MIN_RECORDS: usize = (MAX_FRAME - HEAD) / (Entry::MAX_RECORD_BYTES + 2);
/// Smallest unit that a disk writes as a whole, or any multiple of it.
const SECTOR: usize = 512;

/// A frame that is being made.
pub(super) struct Frame {
    bytes: Vec<u8>,
    /// Number of records in it.
    pub(super) records: usize,
}

impl Frame {
    pub(super) fn new() -> Self {
        Self { bytes: vec![0; HEAD], records: 0 }
    }

    /// Adds an entry. Returns `false` if the frame is full.
    pub(super) fn push(&mut self, entry: &Entry) -> bool {
        let record = entry.to_record();
        let Ok(length) = u16::try_from(record.len()) else {
            return false;
        };
        if self.bytes.len() + 2 + record.len() > MAX_FRAME {
            return false;
        }
        self.bytes.extend(length.to_be_bytes());
        self.bytes.extend(record);
        self.records += 1;
        true
    }

    /// Returns the bytes to write.
    pub(super) fn seal(mut self) -> Vec<u8> {
        let content = self.bytes.get(HEAD..).unwrap_or_default();
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes();
        let check = check(length, content);
        let head = MARK.iter().chain(&length).chain(&check);
        self.bytes.iter_mut().zip(head).for_each(|(byte, value)| *byte = *value);
        self.bytes
    }
}

fn check(length: [u8; 4], content: &[u8]) -> [u8; CHECK] {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(&length);
    hash.update(content);
    let mut check = [0; CHECK];
    check.iter_mut().zip(hash.finish().as_ref()).for_each(|(byte, hashed)| *byte = *hashed);
    check
}

/// What the beginning of a file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// A file of this version.
    Known,
    /// A file of another version.
    OtherVersion,
    /// There is nothing.
    Empty,
    /// Something else.
    Foreign,
}

/// Reads the header.
pub(super) fn read_header(input: &mut impl Read) -> io::Result<Start> {
    let mut header = Vec::with_capacity(HEADER.len());
    input.take(HEADER.len() as u64).read_to_end(&mut header)?;
    Ok(match &*header {
        HEADER => Start::Known,
        [] => Start::Empty,
        _ if header.starts_with(TITLE) => Start::OtherVersion,
        _ => Start::Foreign,
    })
}

/// Contents of a file, except for its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Length of the header and of all whole frames.
    pub(super) end: u64,
    /// Number of bytes after that: the rest of a write that was interrupted.
    pub(super) torn: u64,
    /// Number of records.
    pub(super) records: usize,
}

/// Reason why frames cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Something at this offset is neither a frame nor what an interrupted write leaves.
    #[error("damaged at byte {0}")]
    Damaged(u64),
    /// A frame is whole, but contains a record of another version.
    #[error("unknown record at byte {0}")]
    Unknown(u64),
}

/// Reads the frames after the header, and passes on the entries of each.
pub(super) fn read(input: &mut impl Read, mut see: impl FnMut(Vec<Entry>)) -> Result<Extent, ReadError> {
    let mut extent = Extent { end: HEADER.len() as u64, torn: 0, records: 0 };
    loop {
        let mut frame = Vec::new();
        input.by_ref().take(HEAD as u64).read_to_end(&mut frame)?;
        if frame.is_empty() {
            return Ok(extent);
        }
        if let Some(length) = content_length(&frame) {
            input.by_ref().take(length as u64).read_to_end(&mut frame)?;
        }
        if let Some(content) = open(&frame).filter(|content| HEAD + content.len() == frame.len()) {
            let entries = entries(content).ok_or(ReadError::Unknown(extent.end))?;
            extent.end += frame.len() as u64;
            extent.records += entries.len();
            see(entries);
            continue;
        }
        input.take((MAX_FRAME + 1 - frame.len()) as u64).read_to_end(&mut frame)?;
        if !is_torn(&frame, extent.end) {
            return Err(ReadError::Damaged(extent.end));
        }
        return Ok(Extent { torn: frame.len() as u64, ..extent });
    }
}

/// Length of the content of the frame that begins here; `None` if none does.
fn content_length(bytes: &[u8]) -> Option<usize> {
    let (length, _) = bytes.strip_prefix(&MARK)?.split_first_chunk()?;
    usize::try_from(u32::from_be_bytes(*length)).ok().filter(|length| (1..=MAX_FRAME - HEAD).contains(length))
}

/// Content of the frame that begins here; `None` if no whole one does.
fn open(bytes: &[u8]) -> Option<&[u8]> {
    let content = bytes.get(HEAD..HEAD + content_length(bytes)?)?;
    let (length, rest) = bytes.strip_prefix(&MARK)?.split_first_chunk()?;
    rest.starts_with(&check(*length, content)).then_some(content)
}

fn entries(mut content: &[u8]) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    while !content.is_empty() {
        let (length, rest) = content.split_first_chunk()?;
        let (record, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
        entries.push(Entry::from_record(record)?);
        content = rest;
    }
    Some(entries)
}

/// `true` if the bytes from `offset` to the end of the file are what a single interrupted write can leave: the beginning
/// of a frame, or a frame some of whose sectors the disk did not write, so that they are zeros. A whole frame further on
/// proves that the write was not the last one.
fn is_torn(rest: &[u8], offset: u64) -> bool {
    if rest.len() > MAX_FRAME {
        return false;
    }
    let is_followed = (1..rest.len()).any(|at| rest.get(at..).is_some_and(|later| open(later).is_some()));
    !is_followed && (is_beginning(rest) || lacks_sector(rest, offset))
}

fn is_beginning(rest: &[u8]) -> bool {
    if rest.len() < MARK.len() + 4 {
        return rest.iter().zip(&MARK).all(|(byte, mark)| byte == mark);
    }
    content_length(rest).is_some_and(|length| rest.len() < HEAD + length)
}

fn lacks_sector(rest: &[u8], offset: u64) -> bool {
    let begun = usize::try_from(offset % SECTOR as u64).unwrap_or(0);
    let first = (SECTOR - begun).min(rest.len());
    let (first, others) = rest.split_at(first);
    let is_lost = |sector: &[u8]| sector.iter().all(|byte| *byte == 0);
    is_lost(first) || others.chunks(SECTOR).any(is_lost)
}
