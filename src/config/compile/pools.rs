//! Pools of the flags and of the policy file, and the app client of the account API.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use super::faults::Faults;
use crate::config::file::fault::{Fault, YamlPath};
use crate::config::file::text::{FilePath, Parsed};
use crate::config::file::values::Name;
use crate::config::file::{AccountEntry, PoolEntry};
use crate::config::policy::{AccountClient, AccountClientError, PolicySource};
use crate::config::pool::{self, PoolMember};
use crate::jwks::KeySet;
use crate::user_pool::{Clients, PoolIndex, UserPool, UserPools};

/// All pools, in the order of their [`PoolIndex`]: the pool of the flags, then those of the file by name.
pub(super) struct Pools {
    all: UserPools,
    /// Keys of each pool to use until the first set is fetched.
    seeds: Vec<KeySet>,
    /// Names of all pools, also of those with a fault.
    names: Vec<Box<str>>,
    /// Secret files of pools, by name.
    secrets: HashMap<Box<str>, PathBuf>,
}

impl Pools {
    /// Builds the pools of `entries`, which are the members of the map at `at`.
    pub(super) fn build(
        entries: BTreeMap<Name, PoolEntry>,
        source: &PolicySource,
        at: &YamlPath,
        warnings: &mut Vec<String>,
        faults: &mut Faults,
    ) -> Self {
        let of_flags = source.pool.iter().map(|pool| pool.name.clone());
        let names = of_flags.chain(entries.keys().map(|name| name.as_str().into())).collect();
        let mut pools = Self { all: UserPools::default(), seeds: Vec::new(), names, secrets: HashMap::new() };
        if let Some(pool) = &source.pool {
            faults.keep(pools.add(pool.clone(), KeySet::default(), at));
        }
        for (name, entry) in entries {
            let at = at.member(name.as_str());
            if pools.all.named(name.as_str()).is_some() {
                faults.add(at.fault(format!("the flags define the pool {name}, too (--user-pool-id)")));
                continue;
            }
            let (pool, seed) = match pool::build(name.as_str(), &entry, source.allow_insecure_endpoints) {
                Ok(built) => built,
                Err(found) => {
                    for fault in found {
                        faults.add(place(&at, fault.member).fault(fault.why));
                    }
                    continue;
                }
            };
            if pool.clients == Clients::Any {
                warnings
                    .push(format!("the tokens of every app client of the pool {name} are accepted (client_ids: any)"));
            }
            let secret = entry.client_secret_file.map(|Parsed(FilePath(path))| (name.as_str().into(), path));
            pools.secrets.extend(secret);
            faults.keep(pools.add(pool, seed, &at));
        }
        pools
    }

    fn add(&mut self, pool: UserPool, seed: KeySet, at: &YamlPath) -> Result<(), Fault> {
        self.all.add(pool).map_err(|why| at.fault(why.to_string()))?;
        self.seeds.push(seed);
        Ok(())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &UserPool> + Clone {
        self.all.iter()
    }

    /// Returns the index of the pool that `at` names.
    pub(super) fn index(&self, name: &Name, at: &YamlPath, faults: &Faults) -> Result<PoolIndex, Fault> {
        let found = self.all.iter().position(|pool| *pool.name == *name.as_str());
        found.ok_or_else(|| {
            let definition = YamlPath::default().member("pools").member(name.as_str());
            faults.unknown("pool", name.as_str(), at, &definition, self.names.iter().map(|name| &**name))
        })
    }

    /// Selects the app client of the account API.
    pub(super) fn account(&self, entry: AccountEntry, at: &YamlPath, faults: &Faults) -> Result<AccountClient, Fault> {
        let at_pool = at.member("pool");
        let pool = self.all.get(self.index(&entry.pool, &at_pool, faults)?).ok_or_else(|| at_pool.consequence())?;
        let path = |Parsed(FilePath(path))| path;
        let secret_file = entry.client_secret_file.map(path).or_else(|| self.secrets.get(&pool.name).cloned());
        let client_id = entry.client_id.map(|Parsed(client)| client);
        AccountClient::select(pool, client_id, secret_file).map_err(|why| match why {
            AccountClientError::NotAccepted(..) => at.member("client_id").fault(why.to_string()),
            AccountClientError::Unnamed(_) => at.fault(format!("{why} in `client_id`")),
        })
    }

    pub(super) fn into_inner(self) -> Vec<(UserPool, KeySet)> {
        self.all.into_inner().into_iter().zip(self.seeds).collect()
    }
}

/// Returns the place of a member of the pool at `at`.
fn place(at: &YamlPath, member: PoolMember) -> YamlPath {
    match member {
        PoolMember::UserPoolId => at.member("user_pool_id"),
        PoolMember::ClientIds => at.member("client_ids"),
        PoolMember::Issuers => at.member("issuers"),
        PoolMember::ReplicaRegion(index) => at.member("replica_regions").item(index),
        PoolMember::Endpoint => at.member("endpoint"),
        PoolMember::JwksUrl => at.member("jwks_url"),
        PoolMember::JwksFile => at.member("jwks_file"),
    }
}
