//! `cognito-authz`: Envoy external authorization (`ext_authz`) for Amazon Cognito user pools.
//!
//! Envoy asks about each request; the answer comes from a token, a set of keys and a policy.
//!
//! # Modules, in reading order
//! - [`authz`]: the decision. [`authz::Authorizer::authorize`] is the order of the checks.
//! - `check`: one check for any protocol: decides, counts, logs.
//! - [`jwks`]: the keys of a user pool, and the task that fetches them.
//! - [`user_pool`]: names of a user pool: ids, issuers, JWKS URLs.
//! - [`revocation`]: revoked sessions, which every check asks about.
//! - [`reload`]: the rules in effect: pools with their keys, and policies; reloads the policy file when it changes.
//! - [`ext_authz`]: Envoy's protocol and the gRPC port; the HTTP form of the check for other proxies.
//! - [`account`]: the account API: sign-up, sign-in, sign-out, profile. `account/table.rs` lists the operations.
//! - [`cognito`]: the only module that calls Cognito's user-pool API.
//! - [`session_cookie`]: browser sessions in cookies, for the account API and the check.
//! - `admin`: the admin port.
//! - [`config`]: options and their sources; [`config::file`] is the format of the policy file.
//! - [`net`]: sockets, TLS, the HTTP/1.1 server and its limits, file descriptors.
//! - `files`: bounded reads of files, and detection of changes.
//! - `request_id`: the id of a request in log lines and responses.
//! - `telemetry`: traces. The other rooms make spans with it; a thread of its own exports them.
//! - [`lifecycle`], [`logging`], [`metrics`], [`field_value`], [`nearest`], [`clock`]: shared parts without dependencies
//!   on the rest.
//! - [`app`]: builds, connects and runs all parts of the service.
//! - [`check_config`], [`explain`], [`doctor`], [`test_policy`], [`healthcheck`], [`revoke`], [`log_level`]: the other
//!   commands; `admin_client` is the client of the admin port that the last three use, over HTTP or HTTPS.
//!
//! # Invariants (most are tests in `tests/it/tidy.rs`)
//! - Only `ext_authz/` and `app` use tonic and Envoy's types. Only `admin`, `account`, `net/http_server`,
//!   `net/json_body`, `ext_authz/http`, `ext_authz/services`, `ext_authz/connection` and `admin_client` use HTTP. Only
//!   `jwks/fetch`, `cognito` and `telemetry/client` make calls, and `admin_client` and `doctor`, which are commands or part
//!   of them.
//! - Only `main` handles signals. `authz`, `check` and `reload` use no signal and no listening socket, so they can run
//!   inside another process.
//! - Except for its `mod.rs` and the cache, `authz/` has no `async`, no clock and no logging, and neither
//!   has `session_cookie`: the same input gives the same result.
//! - A check uses one `Ruleset` from its start to its answer, even if a reload happens in between.
//! - `Claims` is created by one function, the one that has verified the signature. Tests sign real tokens as well.
//! - There is no global state, so several services can run in one process. They share one limit of the process: `files`
//!   counts the threads that hang in a file system.
//! - Every wait has a time limit, every cache a maximum size, and the shutdown a deadline.
//! - Nothing that a caller sends becomes a metric label, a URL, or a separate line of the log.

pub mod account;
mod admin;
mod admin_client;
pub mod app;
pub mod authz;
mod check;
pub mod check_config;
pub mod clock;
pub mod cognito;
pub mod config;
pub mod doctor;
pub mod explain;
pub mod ext_authz;
pub mod field_value;
mod files;
pub mod healthcheck;
pub mod jwks;
pub mod lifecycle;
pub mod log_level;
pub mod logging;
pub mod metrics;
pub mod nearest;
pub mod net;
pub mod reload;
mod request_id;
pub mod revocation;
pub mod revoke;
pub mod session_cookie;
pub mod telemetry;
pub mod test_policy;
pub mod user_pool;

#[cfg(test)]
#[path = "../tests/support/certificates.rs"]
#[expect(dead_code, reason = "the integration tests use the rest")]
mod certificates;
#[cfg(test)]
#[path = "../tests/support/table.rs"]
mod table;
#[cfg(test)]
#[path = "../tests/support/token.rs"]
#[expect(dead_code, reason = "the integration tests use the rest")]
mod token_builder;

/// Commit that the program was built from (`COGNITO_AUTHZ_REVISION` at build time), or `unknown`.
pub const REVISION: &str = match option_env!("COGNITO_AUTHZ_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Version that `--version` shows, with the commit if it is known.
pub fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    if REVISION == "unknown" { version.to_owned() } else { format!("{version} ({REVISION})") }
}
