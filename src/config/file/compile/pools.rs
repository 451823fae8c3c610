//! The pools of the file, and the app client that the account API speaks for.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::{Compiler, SecretFiles};
use crate::config::file::locate::{Fault, Place};
use crate::config::file::text::{Parsed, WebUrl};
use crate::config::file::values::Name;
use crate::config::file::{AccountEntry, PoolEntry};
use crate::config::rules::{AccountClient, RulesSource};
use crate::config::{check_endpoint, clients};
use crate::file_read;
use crate::jwks::KeySet;
use crate::jwks::fetch::MAX_DOCUMENT_BYTES;
use crate::user_pool::{Clients, PoolIndex, UserPool};

impl Compiler {
    pub(super) fn pools(
        &mut self,
        entries: BTreeMap<Name, PoolEntry>,
        source: &RulesSource,
    ) -> Result<SecretFiles, Fault> {
        let mut issuers: HashMap<String, Box<str>> = HashMap::new();
        let mut secrets = SecretFiles::new();
        if let Some(pool) = &source.pool {
            issuers.extend(pool.issuers.iter().map(|issuer| (issuer.clone(), pool.name.clone())));
            self.pools.push((pool.clone(), KeySet::default()));
        }
        for (name, entry) in entries {
            let at = Place::default().member("pools").member(name.as_str());
            if source.pool.as_ref().is_some_and(|pool| *pool.name == *name.as_str()) {
                return Err(at.fault(format!("the flags define the pool {name}, too (--user-pool-id)")));
            }
            secrets.extend(entry.client_secret_file.as_deref().map(|file| (name.as_str().into(), file.into())));
            let (pool, seed) = self.pool(&name, entry, source.allow_insecure_endpoints, &at)?;
            for issuer in &pool.issuers {
                if let Some(other) = issuers.insert(issuer.clone(), pool.name.clone()) {
                    let why =
                        format!("{issuer} is an issuer of the pool {other}, too: a token could not tell them apart");
                    return Err(at.fault(why));
                }
            }
            self.pools.push((pool, seed));
        }
        Ok(secrets)
    }

    fn pool(&mut self, name: &Name, entry: PoolEntry, insecure: bool, at: &Place) -> Result<(UserPool, KeySet), Fault> {
        let at_clients = at.member("client_ids");
        let accepted: Vec<_> = entry.client_ids.0.into_iter().map(|Parsed(client)| client).collect();
        let clients = clients(accepted).ok_or_else(|| at_clients.fault("`any` stands beside app clients"))?;
        if clients == Clients::Any {
            self.warnings.push(format!("tokens of every app client of the pool {name} are accepted (client_ids: any)"));
        }
        let why = |error: crate::user_pool::UserPoolError| at.fault(error.to_string());
        let mut pool =
            UserPool::new(name.as_str(), entry.user_pool_id.0, clients, entry.token_use.into()).map_err(why)?;
        for (index, region) in entry.replica_regions.iter().enumerate() {
            let at = at.member("replica_regions").item(index);
            pool = pool.with_replica(region).map_err(|error| at.fault(error.to_string()))?;
        }
        if let Some(Parsed(WebUrl(url))) = entry.endpoint {
            let at = at.member("endpoint");
            check_endpoint(&url, insecure).map_err(|why| at.fault(why))?;
            if url.query().is_some() {
                return Err(at.fault("a base URL has no query"));
            }
            pool = pool.with_endpoint(&url).map_err(|error| at.fault(error.to_string()))?;
        }
        if let Some(Parsed(WebUrl(url))) = entry.jwks_url {
            check_endpoint(&url, insecure).map_err(|why| at.member("jwks_url").fault(why))?;
            pool.jwks_urls = vec![url];
        }
        if !entry.issuers.is_empty() {
            let at = at.member("issuers");
            if !entry.replica_regions.is_empty() {
                return Err(
                    at.fault("`issuers` names all of them; `replica_regions` would add to those of the pool's id")
                );
            }
            pool.issuers = entry.issuers.iter().map(|issuer| (**issuer).to_owned()).collect();
        }
        let seed = match &entry.jwks_file {
            None => KeySet::default(),
            Some(path) => {
                let fault = |why: String| at.member("jwks_file").fault(format!("{}: {why}", &**path));
                let document = file_read::read(Path::new(&**path), MAX_DOCUMENT_BYTES as u64)
                    .map_err(|why| fault(why.to_string()))?;
                KeySet::parse(&document, &KeySet::default()).map_err(|why| fault(why.to_string()))?
            }
        };
        Ok((pool, seed))
    }

    pub(super) fn pool_index(&self, name: &Name, at: &Place) -> Result<PoolIndex, Fault> {
        let known = self.pools.iter().position(|(pool, _)| *pool.name == *name.as_str());
        known.ok_or_else(|| at.fault(format!("there is no pool {name}")))
    }

    pub(super) fn account(&self, entry: AccountEntry, secrets: &SecretFiles) -> Result<AccountClient, Fault> {
        let at = Place::default().member("account");
        let index = self.pool_index(&entry.pool, &at.member("pool"))?;
        let clients = self.pools.get(index).map(|(pool, _)| &pool.clients);
        let client_id = match (entry.client_id, clients) {
            (Some(Parsed(client)), Some(clients)) if !clients.accept(&client) => {
                let why =
                    format!("not one of the pool's client_ids: the tokens of {} would be refused", client.as_str());
                return Err(at.member("client_id").fault(why));
            }
            (Some(Parsed(client)), _) => client,
            (None, Some(Clients::Only(only))) if only.len() == 1 => {
                only.first().cloned().ok_or_else(|| at.fault("no client"))?
            }
            (None, _) => return Err(at.fault("client_id is needed, because the pool accepts several app clients")),
        };
        let secret_file = entry.client_secret_file.as_deref().map(Into::into);
        let secret_file = secret_file.or_else(|| secrets.get(entry.pool.as_str()).cloned());
        Ok(AccountClient { pool: entry.pool.as_str().into(), client_id, secret_file })
    }
}
