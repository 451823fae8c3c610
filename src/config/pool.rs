//! Checks the description of a user pool, and builds the pool. The flags and the policy file use the same description,
//! [`PoolEntry`], and the same checks.

use super::endpoint::check_endpoint;
use super::file::PoolEntry;
use super::file::text::{FilePath, Parsed, WebUrl};
use super::parse::clients;
use crate::files;
use crate::jwks::KeySet;
use crate::jwks::fetch::MAX_DOCUMENT_BYTES;
use crate::user_pool::UserPool;

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
pub(super) fn build(
    name: &str,
    entry: &PoolEntry,
    allow_insecure_endpoints: bool,
) -> Result<(UserPool, KeySet), PoolFault> {
    let accepted = entry.client_ids.0.iter().map(|Parsed(client)| client.clone());
    let clients = clients(accepted).ok_or_else(|| {
        PoolMember::ClientIds.fault("`any` accepts every app client; remove it or the other app clients")
    })?;
    let Parsed(id) = &entry.user_pool_id;
    let mut pool = UserPool::new(name, id.clone(), clients, entry.token_use.into())
        .map_err(|why| PoolMember::UserPoolId.fault(why.to_string()))?;
    for (index, region) in entry.replica_regions.iter().enumerate() {
        pool = pool.with_replica(region).map_err(|why| PoolMember::ReplicaRegion(index).fault(why.to_string()))?;
    }
    if let Some(Parsed(WebUrl(url))) = &entry.endpoint {
        let fault = |why: String| PoolMember::Endpoint.fault(why);
        check_endpoint(url, allow_insecure_endpoints).map_err(fault)?;
        if url.query().is_some() {
            return Err(fault("a base URL has no query".into()));
        }
        pool = pool.with_endpoint(url).map_err(|why| fault(why.to_string()))?;
    }
    if let Some(Parsed(WebUrl(url))) = &entry.jwks_url {
        check_endpoint(url, allow_insecure_endpoints).map_err(|why| PoolMember::JwksUrl.fault(why))?;
        pool.jwks_urls = vec![url.clone()];
    }
    if !entry.issuers.is_empty() {
        if !entry.replica_regions.is_empty() {
            let why = "`issuers` replaces all issuers, so `replica_regions` has no effect; remove one of the two";
            return Err(PoolMember::Issuers.fault(why));
        }
        pool.issuers = entry.issuers.iter().map(|issuer| (**issuer).to_owned()).collect();
    }
    let seed = match &entry.jwks_file {
        None => KeySet::default(),
        Some(Parsed(FilePath(path))) => {
            let fault = |why: String| PoolMember::JwksFile.fault(format!("{}{why}", path.display()));
            let document = files::read(path, MAX_DOCUMENT_BYTES as u64).map_err(|why| fault(format!(" {why}")))?;
            KeySet::parse(&document, &KeySet::default()).map_err(|why| fault(format!(": {why}")))?
        }
    };
    Ok((pool, seed))
}
