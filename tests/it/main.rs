//! Integration tests: they use the service only through its sockets, files and commands. `tests/support` has what they
//! share. `cargo test --test it MODULE` runs one of these modules.
//!
//! | Topic | Module |
//! |---|---|
//! | Checks: reasons, headers, cache, metrics | [`check`] |
//! | Keys: fetching, startup without Cognito, outages | [`keys`] |
//! | Policy files: pools, policies, routes, headers, the form of the file | [`policy`] |
//! | Examples in the documents | [`examples`] |
//! | Reloads of the policy file | [`reload`]; with the account API, [`account::reload`] |
//! | Revocation: the shared store | [`revocation`] |
//! | The account API | [`account`] |
//! | Operators: `/revocations` on the admin port, `revoke`, `revocations`, the status page | [`admin`] |
//! | The service behind Envoy | [`envoy`] |
//! | The HTTP form of the check, behind nginx, Traefik, Caddy and Envoy | [`doors`] |
//! | Startup, shutdown, health, the admin port | [`lifecycle`] |
//! | The log: floods, level, secrets | [`logs`] |
//! | Ids of requests in responses and in the log | [`request_ids`]; behind Envoy, [`envoy::request_ids`] |
//! | Revocations and where they are kept | [`revocation`] |
//! | Commands: `explain`, `test-policy`, `check-config`, `config-schema` | [`commands`] |
//! | Files that the configuration names | [`files`] |
//! | Limits of the gRPC port and its memory | [`limits`], [`message_memory`] |
//! | Metrics of limits: connections, threads, messages; versions of files | [`saturation`] |
//! | Clients that do not read or that stall | [`slow_clients`] |
//! | Traces, in a collector | [`telemetry`]; behind Envoy, [`envoy::tracing`] |
//! | TLS and mutual TLS of the listeners | [`tls`]; behind Envoy, [`envoy::tls`] |
//! | gRPC reflection | [`lifecycle`]; its descriptors, [`descriptors`] |
//! | Reference pages of the documents | [`reference`] |
//! | Rules of the repository: imports, file sizes, links | [`tidy`] |
//!
//! The signatures, claims, routes and limits themselves have unit tests beside the code.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::float_cmp,
    reason = "a panic fails the test"
)]

#[path = "../support/mod.rs"]
mod support;

mod account;
mod admin;
mod check;
mod commands;
mod descriptors;
mod doors;
mod envoy;
mod examples;
mod files;
mod keys;
mod lifecycle;
mod limits;
mod logs;
mod message_memory;
mod policy;
mod reference;
mod reload;
mod request_ids;
mod revocation;
mod saturation;
mod slow_clients;
mod telemetry;
mod tidy;
mod tls;
