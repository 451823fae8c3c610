//! Integration tests: the service through its sockets. See `tests/support` for what they share.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::float_cmp,
    reason = "a test that cannot go on has failed"
)]

#[path = "../support/mod.rs"]
mod support;

mod account;
mod check;
mod commands;
mod descriptors;
mod envoy;
mod examples;
mod files;
mod keys;
mod lifecycle;
mod limits;
mod message_memory;
mod policy;
mod reload;
mod slow_clients;
mod tidy;
