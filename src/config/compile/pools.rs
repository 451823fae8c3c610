//! Pools of the flags and of the policy file, and the app client of the account API.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use super::faults::Faults;
use crate::config::file::fault::{Fault, YamlPath};
use crate::config::file::text::{FilePath, Parsed};
use crate::config::file::values::Name;
use crate::config::file::{AccountEntry, PoolEntry};
use crate::config::policy::{AccountClient, AccountClientError, PolicySource};
use crate::config::pool::{self, PoolMember};
use crate::jwks::KeySet;
use crate::user_pool::{AcceptedUse, ClientId, Clients, PoolIndex, UserPool, UserPools};

/// All pools, in the order of their [`PoolIndex`]: the pool of the flags, then those of the file by name.
#[derive(Default)]
pub(super) struct Pools {
    all: UserPools,
    /// Keys of each pool to use until the first set is fetched.
    seeds: Vec<KeySet>,
    /// Names of all pools, also of those with a fault.
    names: Vec<Box<str>>,
    /// Secret files of pools, by name.
    secrets: HashMap<Box<str>, PathBuf>,
    /// Pools that list an app client.
    by_client: HashMap<ClientId, BTreeSet<PoolIndex>>,
    /// Pools that accept every app client.
    open: BTreeSet<PoolIndex>,
    /// Each `token_use` that a pool has.
    uses: Vec<AcceptedUse>,
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
        let mut pools = Self { names, ..Self::default() };
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
        let index = self.seeds.len();
        let (clients, accepted) = (pool.clients.clone(), pool.token_use);
        self.all.add(pool).map_err(|why| at.fault(why.to_string()))?;
        self.seeds.push(seed);
        match clients {
            Clients::Any => drop(self.open.insert(index)),
            Clients::Only(clients) => {
                for client in clients {
                    self.by_client.entry(client).or_default().insert(index);
                }
            }
        }
        if !self.uses.contains(&accepted) {
            self.uses.push(accepted);
        }
        Ok(())
    }

    /// Returns the pools among `named`, or all pools if it is empty.
    pub(super) fn among(&self, named: &BTreeSet<PoolIndex>) -> impl Iterator<Item = &UserPool> {
        let all = if named.is_empty() { Some(self.all.iter()) } else { None };
        all.into_iter().flatten().chain(named.iter().filter_map(|index| self.all.get(*index)))
    }

    /// Returns the pools that list an app client.
    pub(super) fn listing(&self, client: &ClientId) -> impl Iterator<Item = PoolIndex> {
        self.by_client.get(client).into_iter().flatten().copied()
    }

    /// `true` if the pool accepts tokens of the app client.
    pub(super) fn accepts_client(&self, index: PoolIndex, client: &ClientId) -> bool {
        self.open.contains(&index) || self.by_client.get(client).is_some_and(|pools| pools.contains(&index))
    }

    /// `true` if a pool among `named`, or any pool if it is empty, accepts tokens of the app client.
    pub(super) fn accept_client(&self, named: &BTreeSet<PoolIndex>, client: &ClientId) -> bool {
        if named.is_empty() {
            return !self.open.is_empty() || self.by_client.contains_key(client);
        }
        let is_shared = |pools: &BTreeSet<PoolIndex>| {
            let (fewer, more) = if pools.len() < named.len() { (pools, named) } else { (named, pools) };
            fewer.iter().any(|index| more.contains(index))
        };
        self.by_client.get(client).is_some_and(is_shared) || is_shared(&self.open)
    }

    /// `true` if a pool among `named`, or any pool if it is empty, has a `token_use` that `accepts` accepts.
    pub(super) fn accept_use(&self, named: &BTreeSet<PoolIndex>, accepts: impl Fn(AcceptedUse) -> bool) -> bool {
        if named.is_empty() {
            return self.uses.iter().any(|accepted| accepts(*accepted));
        }
        self.among(named).any(|pool| accepts(pool.token_use))
    }

    pub(super) fn get(&self, index: PoolIndex) -> Option<&UserPool> {
        self.all.get(index)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &UserPool> + Clone {
        self.all.iter()
    }

    /// Returns the index of the pool that `at` names.
    pub(super) fn index(&self, name: &Name, at: &YamlPath, faults: &Faults) -> Result<PoolIndex, Fault> {
        self.all.index(name.as_str()).ok_or_else(|| {
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
