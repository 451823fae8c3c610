//! `cognito-authz`: Envoy external authorization (`ext_authz`) for Amazon Cognito user pools.
//!
//! Envoy asks about each request; the answer comes from a token, a set of keys and a policy.
//!
//! # The map, in reading order
//! - [`authz`]: the decision. [`authz::Authorizer::authorize`] is the order of the checks.
//! - [`check`]: one check for any door: decide, count, log.
//! - [`jwks`]: the keys of a user pool, and the task that keeps them.
//! - [`user_pool`]: what a pool is called: issuers, JWKS URLs.
//! - [`rulebook`]: the rules in force: pools with their keys, policies; reloaded when the policy file changes.
//! - [`ext_authz`]: Envoy's protocol and the gRPC port.
//! - [`account`]: the clients' door: sign-up, sign-in, sign-out, one's own account. [`account::table`] is what there is.
//! - [`cognito`]: the one caller of the user-pool API.
//! - [`session_cookie`]: browser sessions in cookies, for the account API and the check.
//! - [`admin`]: the operators' port.
//! - [`config`], [`metrics`], [`logging`], [`listen`], [`http_server`], [`progress`], [`descriptors`], [`lifecycle`],
//!   [`file_read`], [`file_watch`], [`field_value`]: leaves that every server has; [`config::file`] is the form of the
//!   policy file.
//! - [`app`]: builds and runs all of it.
//! - [`explain`], [`test_policy`], [`healthcheck`]: the other commands.
//!
//! # Invariants (most are tests in `tests/it/tidy.rs`)
//! - Only `ext_authz/` and `app` know tonic and Envoy's types; only `admin`, `account`, `http_server`,
//!   `ext_authz/server` and `healthcheck` speak HTTP; only `jwks/fetch` and `cognito` make calls.
//! - Everything in `authz/` but its `mod.rs` and the cache has no `async`, no clock and no logging, and neither
//!   has `session_cookie`: the same input gives the same answer.
//! - A check goes by one `Ruleset` from its beginning to its answer, whatever is reloaded meanwhile.
//! - `Claims` is made by one function, the one that has verified the signature. There is no way around it, also not
//!   for tests: they sign real tokens.
//! - There is no global state: two services can run in one process. They share its threads: `file_read` counts those that
//!   hang in a file system.
//! - Every wait has a limit, every cache a bound, every shutdown a deadline.
//! - Nothing that a caller sends becomes a metric label, a URL, or a log line of its own making.

pub mod account;
pub mod admin;
pub mod app;
pub mod authz;
pub mod check;
pub mod cognito;
pub mod config;
pub mod descriptors;
pub mod explain;
pub mod ext_authz;
pub mod field_value;
pub mod file_read;
pub mod file_watch;
pub mod healthcheck;
pub mod http_server;
pub mod jwks;
pub mod lifecycle;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod progress;
pub mod rulebook;
pub mod session_cookie;
pub mod test_policy;
pub mod user_pool;

#[cfg(test)]
#[path = "../tests/support/table.rs"]
mod table;
#[cfg(test)]
#[path = "../tests/support/token.rs"]
#[expect(dead_code, reason = "the integration tests use the rest")]
mod token_builder;

/// The commit this was built from, if the build said so (`COGNITO_AUTHZ_REVISION`).
pub const REVISION: &str = match option_env!("COGNITO_AUTHZ_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// What `--version` shows behind the name: the version, and the commit if it is known.
pub fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    if REVISION == "unknown" { version.to_owned() } else { format!("{version} ({REVISION})") }
}
