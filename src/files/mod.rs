//! Files that the operator names: bounded reads ([`read()`] and its variants) and change detection ([`FileWatch`]).

mod read;
mod watch;

pub(crate) use self::read::{
    Fingerprint, MAX_SECRET_BYTES, MAX_TEXT_BYTES, ReadError, kind_name, read, read_text, read_version, version,
};
pub(crate) use self::watch::{FileWatch, KeepsChanging};
