//! The only room that knows Envoy: its gRPC service, its messages, and the port they come in by.
//!
//! A check goes [`server`] (connection, limits) → [`grpc`] (one call, framed as [`unary`] says) → [`request`] (bytes to context) → the
//! authorizer → [`response`] (decision to bytes). [`in_flight`] bounds the memory for messages on their way in.

pub mod grpc;
pub mod health;
pub mod in_flight;
mod preface;
pub mod request;
pub mod response;
pub mod server;
pub mod unary;
