//! Revocations, and where they are kept.

mod file;
