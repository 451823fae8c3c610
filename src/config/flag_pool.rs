//! The pool that the flags describe, as a [`PoolEntry`].

use super::error::ConfigError;
use super::file::PoolEntry;
use super::file::text::{FilePath, Parsed};
use super::file::values::{List, OneOrMany};
use super::options::Options;
use super::policy::FLAG_POOL;
use super::pool::{self, PoolMember};
use super::source::{Source, Sources, missing};
use crate::jwks::KeySet;
use crate::user_pool::{Clients, UserPool, UserPoolId};

/// Options that describe the pool of the flags, beside `--user-pool-id`.
const OF_POOL: [&str; 5] = ["client_id", "cognito_endpoint", "issuer", "jwks_url", "jwks_file"];

/// Builds the pool of the flags and its first keys; `None` if all pools are in the policy file.
pub(super) fn read(
    options: &Options,
    sources: Sources<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<(UserPool, KeySet)>, ConfigError> {
    if options.client_id.is_empty() && sources.is_set("client_id") {
        return Err(sources.error("client_id", "the list is empty"));
    }
    let Some(id) = &options.user_pool_id else {
        if options.config.is_none() {
            return Err(missing("user_pool_id", "the user pool's id"));
        }
        // An option without the pool that it describes has no effect.
        return match OF_POOL.into_iter().find(|id| sources.is_set(id)) {
            Some(id) => Err(sources.error(id, "describes the pool of --user-pool-id, which is unset")),
            None => Ok(None),
        };
    };
    check_region(options, id, sources, warnings)?;
    if options.client_id.is_empty() {
        return Err(missing("client_id", "an app client's id, or `any`,"));
    }
    let (pool, seed) = pool::build(FLAG_POOL, &entry(options, id), options.allow_insecure_endpoints)
        .map_err(|fault| sources.error(option(fault.member), fault.why))?;
    if pool.clients == Clients::Any {
        warnings.push("the tokens of every app client of the pool are accepted (--client-id any)".into());
    }
    Ok(Some((pool, seed)))
}

fn entry(options: &Options, id: &UserPoolId) -> PoolEntry {
    PoolEntry {
        user_pool_id: Parsed(id.clone()),
        client_ids: OneOrMany(options.client_id.iter().cloned().map(Parsed).collect()),
        issuers: List::from(options.issuer.clone()),
        replica_regions: List::default(),
        endpoint: options.cognito_endpoint.clone().map(Parsed),
        jwks_url: options.jwks_url.clone().map(Parsed),
        jwks_file: options.jwks_file.clone().map(|path| Parsed(FilePath(path))),
        token_use: options.token_use,
        client_secret_file: None,
    }
}

/// Returns the id of the option that sets a member.
fn option(member: PoolMember) -> &'static str {
    match member {
        // The flags have no replica regions.
        PoolMember::UserPoolId | PoolMember::ReplicaRegion(_) => "user_pool_id",
        PoolMember::ClientIds => "client_id",
        PoolMember::Issuers => "issuer",
        PoolMember::Endpoint => "cognito_endpoint",
        PoolMember::JwksUrl => "jwks_url",
        PoolMember::JwksFile => "jwks_file",
    }
}

/// Compares `--region` with the region of the pool. A different flag is an error. A different `AWS_REGION` is a warning:
/// platforms set that variable, and it can be the region of the cluster.
fn check_region(
    options: &Options,
    id: &UserPoolId,
    sources: Sources<'_>,
    warnings: &mut Vec<String>,
) -> Result<(), ConfigError> {
    let Some(region) = options.region.as_deref().filter(|region| *region != id.region()) else { return Ok(()) };
    let why = format!("{region:?} is not the region of the user pool {id}");
    match sources.of("region") {
        Source::Flag => Err(sources.error("region", why)),
        source => {
            warnings.push(format!("{why}; the region of the pool is used (from {source})"));
            Ok(())
        }
    }
}
