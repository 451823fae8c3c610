//! Checks the description of a user pool, and builds the pool. The flags ([`of_flags`]) and the policy file use the same
//! description, [`PoolEntry`], and the same checks ([`build`]).

use url::Url;

use super::error::ConfigError;
use super::file::PoolEntry;
use super::file::text::{FilePath, Parsed, WebUrl};
use super::file::values::{List, OneOrMany};
use super::options::Options;
use super::parse::{check_endpoint, clients};
use super::policy::{FLAG_POOL, POOL_SETTINGS};
use super::source::{Source, Sources, missing};
use crate::files;
use crate::jwks::KeySet;
use crate::jwks::fetch::MAX_DOCUMENT_BYTES;
use crate::user_pool::{Clients, UserPool, UserPoolId};

/// Member of a [`PoolEntry`] that has a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PoolMember {
    UserPoolId,
    ClientIds,
    Issuers,
    /// Item of `replica_regions`, from 0.
    ReplicaRegion(usize),
    Endpoint,
    JwksUrl,
    JwksFile,
}

/// Fault in the description of a pool. The caller knows where the member is written: in an option or in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PoolFault {
    pub(super) member: PoolMember,
    pub(super) why: String,
}

impl PoolMember {
    fn fault(self, why: impl Into<String>) -> PoolFault {
        PoolFault { member: self, why: why.into() }
    }
}

/// Builds the pool called `name`, and reads the keys to use until the first set is fetched.
///
/// # Errors
/// Every fault of the description.
pub(super) fn build(
    name: &str,
    entry: &PoolEntry,
    allow_insecure_endpoints: bool,
) -> Result<(UserPool, KeySet), Vec<PoolFault>> {
    let mut faults = Vec::new();
    let accepted = entry.client_ids.0.iter().map(|Parsed(client)| client.clone());
    let clients = clients(accepted).unwrap_or_else(|| {
        faults.push(PoolMember::ClientIds.fault("`any` accepts every app client; remove it or the other app clients"));
        Clients::Any
    });
    if !entry.issuers.is_empty() && !entry.replica_regions.is_empty() {
        let why = "`issuers` replaces all issuers, so `replica_regions` has no effect; remove one of the two";
        faults.push(PoolMember::Issuers.fault(why));
    }
    let seed = seed(entry).map_err(|fault| faults.push(fault));
    let Parsed(id) = &entry.user_pool_id;
    let mut pool = match UserPool::new(name, id.clone(), clients, entry.token_use.into()) {
        Ok(pool) => pool,
        Err(why) => {
            faults.push(PoolMember::UserPoolId.fault(why.to_string()));
            return Err(faults);
        }
    };
    for (index, region) in entry.replica_regions.iter().enumerate() {
        match pool.clone().with_replica(region) {
            Ok(with_replica) => pool = with_replica,
            Err(why) => faults.push(PoolMember::ReplicaRegion(index).fault(why.to_string())),
        }
    }
    if let Some(Parsed(WebUrl(url))) = &entry.endpoint {
        match with_endpoint(&pool, url, allow_insecure_endpoints) {
            Ok(with_endpoint) => pool = with_endpoint,
            Err(why) => faults.push(PoolMember::Endpoint.fault(why)),
        }
    }
    if let Some(Parsed(WebUrl(url))) = &entry.jwks_url {
        match check_endpoint(url, allow_insecure_endpoints) {
            Ok(()) => pool.jwks_urls = vec![url.clone()],
            Err(why) => faults.push(PoolMember::JwksUrl.fault(why)),
        }
    }
    if !entry.issuers.is_empty() {
        pool.issuers = entry.issuers.iter().map(|issuer| (**issuer).to_owned()).collect();
    }
    match seed {
        Ok(seed) if faults.is_empty() => Ok((pool, seed)),
        _ => Err(faults),
    }
}

fn with_endpoint(pool: &UserPool, url: &Url, allow_insecure_endpoints: bool) -> Result<UserPool, String> {
    check_endpoint(url, allow_insecure_endpoints)?;
    if url.query().is_some() {
        return Err("a base URL has no query".into());
    }
    pool.clone().with_endpoint(url).map_err(|why| why.to_string())
}

/// Reads the keys to use until the first set is fetched.
fn seed(entry: &PoolEntry) -> Result<KeySet, PoolFault> {
    let Some(Parsed(FilePath(path))) = &entry.jwks_file else { return Ok(KeySet::default()) };
    let fault = |why: String| PoolMember::JwksFile.fault(format!("{}{why}", path.display()));
    let document = files::read(path, MAX_DOCUMENT_BYTES as u64).map_err(|why| fault(format!(" {why}")))?;
    KeySet::parse(&document, &KeySet::default()).map_err(|why| fault(format!(": {why}")))
}

/// Options that describe the pool of the flags, beside `--user-pool-id` and `--region`.
const OF_POOL: [&str; 6] = ["client_id", "cognito_endpoint", "issuer", "jwks_url", "jwks_file", "token_use"];

/// Builds the pool of the flags and its first keys; `None` if all pools are in the policy file.
pub(super) fn of_flags(
    options: &Options,
    sources: Sources<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<(UserPool, KeySet)>, ConfigError> {
    if options.client_id.is_empty() && sources.is_set("client_id") {
        return Err(sources.error("client_id", "the list is empty"));
    }
    let Some(id) = &options.user_pool_id else {
        if options.config.is_none() {
            let place = if sources.has_dot_env() { "the one there sets none" } else { "there is none" };
            return Err(ConfigError::new(format!(
                "--user-pool-id: no user pool is configured; {POOL_SETTINGS}, in the environment or in a file .env in \
                 the working directory ({place}), or define `pools` in a policy file (--config)"
            )));
        }
        // An option without the pool that it describes has no effect. Platforms set `AWS_REGION`, so only the flag counts.
        let region = Some("region").filter(|id| sources.of(id) == Source::Flag);
        return match OF_POOL.into_iter().find(|id| sources.is_set(id)).or(region) {
            Some(id) => Err(sources.error(id, "describes the pool of --user-pool-id, which is unset")),
            None => Ok(None),
        };
    };
    check_region(options, id, sources, warnings)?;
    if options.client_id.is_empty() {
        return Err(missing("client_id", "an app client's id, or `any`,"));
    }
    let (pool, seed) = build(FLAG_POOL, &entry(options, id), options.allow_insecure_endpoints).map_err(|faults| {
        let mut errors = faults.into_iter().map(|fault| sources.error(option(fault.member), fault.why));
        ConfigError::all(&mut errors).unwrap_or_else(|| missing("user_pool_id", "a pool"))
    })?;
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
