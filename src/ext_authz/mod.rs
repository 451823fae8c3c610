//! External authorization for proxies: Envoy's gRPC service, its messages and the gRPC port; and the HTTP form of the
//! same check ([`http`]).
//!
//! A check over gRPC passes through these modules, in this order:
//! 1. `workers` accepts the connection and passes it to a thread; `connection` serves it, with limits.
//! 2. `services` routes the call to a service: authorization (`grpc`), `health` or reflection.
//! 3. `unary` reads the message; `message_memory` limits the memory for messages that are not complete yet.
//! 4. [`request`] reads the request context from the message, and `check` decides.
//! 5. [`response`] encodes the answer.

mod connection;
pub(crate) mod grpc;
pub(crate) mod health;
pub(crate) mod http;
mod message_memory;
#[cfg(test)]
mod recent_tests;
pub mod request;
pub mod response;
pub(crate) mod services;
mod unary;
pub(crate) mod workers;

pub use self::services::DESCRIPTORS;
