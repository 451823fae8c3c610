//! From the form of the policy file to the rules: names become what they name, and what cannot work is an error.
//!
//! Start from [`compile`].

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::locate::{Fault, Place};
use super::values::{Name, OneOrMany, Parsed};
use super::{
    AccountEntry, AnyAllEntry, ClaimEntry, CorsPreflight, ListForm, PolicyEntry, PolicyFile, PoolEntry, RouteEntry,
    values,
};
use crate::authz::denial::ChallengeDetails;
use crate::authz::extra_claims::{ClaimPath, WantedClaims};
use crate::authz::headers::{ClaimHeader, HeaderIndex, HeaderName, ListEncoding, STANDARD};
use crate::authz::policy::DEFAULT;
use crate::authz::request::is_token;
use crate::authz::requirement::{AnyAll, ClaimRequirement, ClaimTest, Operand};
use crate::authz::route::{PathPattern, Route, Routes, host_name};
use crate::authz::{Access, OwnedHeaders, Policies, Policy, Requirements, TokenUse};
use crate::config::rules::{AccountClient, Rules, RulesSource};
use crate::config::{check_endpoint, clients};
use crate::jwks::KeySet;
use crate::user_pool::{AcceptedUse, ClientId, Clients, PoolIndex, UserPool};

/// Puts the file over what the flags say.
///
/// # Errors
/// The first [`Fault`].
pub(crate) fn compile(file: PolicyFile, source: &RulesSource) -> Result<Rules, Fault> {
    let root = Place::default();
    let mut compiler = Compiler {
        pools: Vec::new(),
        headers: source.owned_headers(),
        wanted: WantedClaims::default(),
        warnings: Vec::new(),
    };
    let secrets = compiler.pools(file.pools.0, source)?;
    let account = file.account.map(|account| compiler.account(account, &secrets)).transpose()?;

    let at = root.member("claim_headers");
    for (index, entry) in file.claim_headers.into_iter().enumerate() {
        let at = at.item(index);
        let claim = compiler.wanted.want(claim_path(&entry.claim, &at.member("claim"))?);
        let list = match entry.list {
            ListForm::Comma => ListEncoding::Comma,
            ListForm::Json => ListEncoding::Json,
            ListForm::Repeated => ListEncoding::Repeated,
        };
        let header = compiler.free(&entry.header, &at.member("header"))?;
        compiler.headers.add_claim(header, ClaimHeader { claim, list });
    }
    if let Some(header) = &file.whole_claims_header {
        let header = compiler.free(header, &root.member("whole_claims_header"))?;
        compiler.headers.add_whole_claims(header);
    }

    // A name of its own for what is always there.
    let implicit = file.default.is_none() && !file.policies.0.keys().any(|name| name.as_str() == DEFAULT);
    let mut policies = Vec::new();
    if implicit {
        policies.push(Policy {
            name: DEFAULT.into(),
            removes_authorization: file.remove_authorization,
            ..Policy::default()
        });
    }
    let taken = compiler.headers.names().len();
    for (name, entry) in file.policies.0 {
        let at = root.member("policies").member(name.as_str());
        policies.push(compiler.policy(&name, entry, file.remove_authorization, taken, &at)?);
    }
    let position = |name: &str| policies.iter().position(|policy| *policy.name == *name);
    let default = match &file.default {
        None if !file.routes.is_empty() => {
            return Err(root.member("routes").fault("a file with routes names its `default` policy"));
        }
        None => position(DEFAULT).unwrap_or_default(),
        Some(name) => {
            let at = root.member("default");
            if name.as_str() != DEFAULT && position(DEFAULT).is_some() {
                return Err(at.fault(format!(
                    "there is a policy called `default`, and {name} is the default one: rename the first"
                )));
            }
            position(name.as_str()).ok_or_else(|| at.fault(format!("there is no policy {name}")))?
        }
    };
    if let Some(segment) = policies.get(default).and_then(|policy| segments(policy).next()) {
        let why = format!("this policy compares with the segment {{{segment}}}, which only a route can give");
        return Err(root.member("default").fault(why));
    }
    let routes = compiler.routes(file.routes, &policies, file.case_insensitive)?;

    let Compiler { pools, headers, wanted, warnings } = compiler;
    let policies = Policies::new(policies, default, routes);
    Ok(Rules { pools, policies, headers, wanted, account, warnings, shown: Value::Null, seen: None })
}

/// What has been put together so far.
struct Compiler {
    pools: Vec<(UserPool, KeySet)>,
    headers: OwnedHeaders,
    wanted: WantedClaims,
    warnings: Vec<String>,
}

/// The secret files of pools, by name.
type SecretFiles = HashMap<Box<str>, std::path::PathBuf>;

impl Compiler {
    fn pools(&mut self, entries: BTreeMap<Name, PoolEntry>, source: &RulesSource) -> Result<SecretFiles, Fault> {
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
            secrets.extend(entry.client_secret_file.clone().map(|file| (name.as_str().into(), file)));
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
        if accepted.is_empty() {
            return Err(at_clients.fault("the list is empty; skipping the check is typed out: any"));
        }
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
        if let Some(Parsed(url)) = entry.endpoint {
            let at = at.member("endpoint");
            check_endpoint(&url, insecure).map_err(|why| at.fault(why))?;
            if url.query().is_some() {
                return Err(at.fault("a base URL has no query"));
            }
            pool = pool.with_endpoint(&url).map_err(|error| at.fault(error.to_string()))?;
        }
        if let Some(Parsed(url)) = entry.jwks_url {
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
            if let Some(index) = entry.issuers.iter().position(String::is_empty) {
                return Err(at.item(index).fault("an issuer is empty"));
            }
            pool.issuers = entry.issuers;
        }
        let seed = match &entry.jwks_file {
            None => KeySet::default(),
            Some(path) => {
                let fault = |why: String| at.member("jwks_file").fault(format!("{}: {why}", path.display()));
                let document = std::fs::read(path).map_err(|why| fault(format!("cannot be read: {why}")))?;
                KeySet::parse(&document, &KeySet::default()).map_err(|why| fault(why.to_string()))?
            }
        };
        Ok((pool, seed))
    }

    fn pool_index(&self, name: &Name, at: &Place) -> Result<PoolIndex, Fault> {
        let known = self.pools.iter().position(|(pool, _)| *pool.name == *name.as_str());
        known.ok_or_else(|| at.fault(format!("there is no pool {name}")))
    }

    fn account(&self, entry: AccountEntry, secrets: &SecretFiles) -> Result<AccountClient, Fault> {
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
        let secret_file = entry.client_secret_file.or_else(|| secrets.get(entry.pool.as_str()).cloned());
        Ok(AccountClient { pool: entry.pool.as_str().into(), client_id, secret_file })
    }

    /// A header that nothing has set so far.
    fn free<'h>(&self, Parsed(header): &'h Parsed<HeaderName>, at: &Place) -> Result<&'h HeaderName, Fault> {
        match self.headers.position(header.as_str()) {
            None => Ok(header),
            Some(index) if index < STANDARD => Err(at.fault(format!("{} is a standard header", header.as_str()))),
            Some(_) => Err(at.fault(format!("{} is set by another claim", header.as_str()))),
        }
    }

    fn policy(
        &mut self,
        name: &Name,
        mut entry: PolicyEntry,
        removes_authorization: bool,
        taken: HeaderIndex,
        at: &Place,
    ) -> Result<Policy, Fault> {
        if entry.public && entry.optional {
            return Err(at.member("optional").fault("a public policy looks at no token at all: choose one of the two"));
        }
        let open = entry.public || entry.optional;
        if let Some(member) = demanding_member(&entry).filter(|_| open) {
            return Err(at
                .member(member)
                .fault("everybody passes here, with or without a token, so nothing can be asked for"));
        }
        let mut headers = Vec::new();
        for (Parsed(header), value) in std::mem::take(&mut entry.headers).0 {
            let at = at.member("headers").member(header.as_str());
            if self.headers.position(header.as_str()).is_some_and(|index| index < taken) {
                return Err(at.fault("this header is set from the token"));
            }
            let plain = value.bytes().all(|b| matches!(b, b' '..=b'~')) && value.trim() == value;
            if value.is_empty() || value.len() > 1024 || !plain {
                return Err(at.fault("not 1 to 1024 printable ASCII characters without spaces at the edges"));
            }
            headers.push((self.headers.add(&header), value.into()));
        }
        headers.sort_unstable();

        let requirements = self.requirements(&entry, at)?;
        let joined = |names: Vec<&str>| names.join(" ").into();
        let challenge = ChallengeDetails {
            scope: joined(requirements.scopes.names().collect()),
            max_age: requirements.max_auth_age.map(|(_, seconds)| seconds),
            acr_values: joined(requirements.acr.iter().flat_map(|(_, values)| values).map(|value| &**value).collect()),
            resource_metadata: match entry.resource_metadata {
                None => None,
                Some(Parsed(url)) => {
                    check_endpoint(&url, false).map_err(|why| at.member("resource_metadata").fault(why))?;
                    Some(url.as_str().into())
                }
            },
        };
        Ok(Policy {
            name: name.as_str().into(),
            access: match (entry.public, entry.optional) {
                (true, _) => Access::Public,
                (_, true) => Access::Optional,
                _ => Access::Required(Box::new(requirements)),
            },
            allows_preflight: entry.cors_preflight == CorsPreflight::Allow,
            headers,
            removes_authorization: entry.remove_authorization.unwrap_or(removes_authorization),
            challenge,
        })
    }

    fn requirements(&mut self, entry: &PolicyEntry, at: &Place) -> Result<Requirements, Fault> {
        let mut pools = Vec::new();
        for (index, name) in entry.pools.iter().enumerate() {
            pools.push(self.pool_index(name, &at.member("pools").item(index))?);
        }
        let token_use = match entry.token_use.map(AcceptedUse::from) {
            None | Some(AcceptedUse::Any) => None,
            Some(AcceptedUse::Access) => Some(TokenUse::Access),
            Some(AcceptedUse::Id) => Some(TokenUse::Id),
        };
        // What no pool lets through would never pass here; saying so now saves a search.
        let among = |index: usize| pools.is_empty() || pools.contains(&index);
        let eligible = self.pools.iter().enumerate().filter(|(index, _)| among(*index)).map(|(_, (pool, _))| pool);
        let accepts = |pool: &UserPool| match token_use {
            None => true,
            Some(TokenUse::Access) => pool.token_use != AcceptedUse::Id,
            Some(TokenUse::Id) => pool.token_use != AcceptedUse::Access,
        };
        if !eligible.clone().any(accepts) {
            return Err(at
                .member("token_use")
                .fault("no pool accepts tokens of this kind (its token_use, or --token-use)"));
        }
        let clients: Vec<ClientId> = entry.clients.iter().map(|Parsed(client)| client.clone()).collect();
        for (index, client) in clients.iter().enumerate() {
            if !eligible.clone().any(|pool| pool.clients.accept(client)) {
                let why = format!("no pool accepts the app client {}", client.as_str());
                return Err(at.member("clients").item(index).fault(why));
            }
        }

        let wanted = &mut self.wanted;
        let mut want = |claim: &str| ClaimPath::new([claim]).map(|path| wanted.want(path)).unwrap_or_default();
        let audiences = texts(&entry.audiences, &at.member("audiences"))?;
        let acr = texts(&entry.acr, &at.member("acr"))?;
        let amr = any_all(entry.amr.as_ref(), &at.member("amr"))?;
        let requirements = Requirements {
            token_use,
            pools,
            clients,
            audiences: (!audiences.is_empty()).then(|| (want("aud"), audiences)),
            no_actor: (entry.allow_delegated == Some(false)).then(|| want("act")),
            scopes: any_all(entry.scopes.as_ref(), &at.member("scopes"))?,
            groups: groups(entry.groups.as_ref(), &at.member("groups"))?,
            claims: Vec::new(),
            max_auth_age: entry.max_auth_age.map(|seconds| (want("auth_time"), seconds.0)),
            acr: (!acr.is_empty()).then(|| (want("acr"), acr)),
            amr: (!amr.is_empty()).then(|| (want("amr"), amr)),
        };
        let mut claims = Vec::new();
        for (index, claim) in entry.claims.iter().enumerate() {
            claims.push(self.claim(claim, &at.member("claims").item(index))?);
        }
        Ok(Requirements { claims, ..requirements })
    }

    fn claim(&mut self, entry: &ClaimEntry, at: &Place) -> Result<ClaimRequirement, Fault> {
        let path = claim_path(&entry.claim, &at.member("claim"))?;
        let label = format!("claims.{path}");
        let is_custom = path.claim().starts_with("custom:");
        let mut operand = |operand: &values::Operand| match operand {
            values::Operand::Segment(name) => Operand::Segment(name.as_str().into()),
            values::Operand::Value(value) => {
                if is_custom && !value.is_string() {
                    self.warnings.push(format!(
                        "{label}: Cognito writes custom attributes into tokens as text, so that {value} without quotes never matches"
                    ));
                }
                Operand::Value(value.clone())
            }
        };
        let test = match (&entry.equals, &entry.one_of, &entry.contains) {
            (Some(value), None, None) => ClaimTest::Equals(operand(value)),
            (None, Some(list), None) if list.is_empty() => {
                return Err(at.member("one_of").fault("the list is empty: nothing would pass"));
            }
            (None, Some(list), None) => ClaimTest::OneOf(list.iter().map(operand).collect()),
            (None, None, Some(value)) => ClaimTest::Contains(operand(value)),
            _ => return Err(at.fault("a claim has one of `equals`, `one_of` and `contains`")),
        };
        Ok(ClaimRequirement { claim: self.wanted.want(path), label: label.into(), test })
    }

    fn routes(
        &mut self,
        entries: Vec<RouteEntry>,
        policies: &[Policy],
        case_insensitive: bool,
    ) -> Result<Routes, Fault> {
        let at = Place::default().member("routes");
        let mut routes = Vec::new();
        for (index, entry) in entries.into_iter().enumerate() {
            routes.push(self.route(entry, policies, &at.item(index))?);
        }
        let shown: Vec<String> = routes.iter().map(Route::to_string).collect();
        Routes::new(routes, case_insensitive).map_err(|(first, second)| {
            let name = |index: usize| shown.get(index).map_or("", |route| route);
            at.item(second).fault(format!(
                "{} could match the same requests as routes[{first}], {}, and nothing says which of the two counts",
                name(second),
                name(first)
            ))
        })
    }

    fn route(&mut self, entry: RouteEntry, policies: &[Policy], at: &Place) -> Result<Route, Fault> {
        let hosts = list(entry.host, &at.member("host"), |host| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'[' | b']');
            let name = host_name(host.as_bytes());
            if host.is_empty() || !host.bytes().all(plain) {
                return Err("not a host name".to_owned());
            }
            if !host.eq_ignore_ascii_case(&name) {
                return Err(format!("hosts are compared without port and trailing dot: write {name}"));
            }
            Ok(name.into())
        })?;
        let methods = list(entry.method, &at.member("method"), |method| {
            if !is_token(method.as_bytes()) {
                return Err("not a method".into());
            }
            if method.bytes().any(|b| b.is_ascii_lowercase()) {
                return Err(format!("methods are compared as they are: write {}", method.to_uppercase()));
            }
            Ok(method.into())
        })?;
        let path = match (&entry.path, &entry.path_prefix) {
            (Some(_), Some(_)) => {
                return Err(at.member("path_prefix").fault("`path` is the whole path: choose one of the two"));
            }
            (Some(path), None) => Some(path.parse().map_err(|why| at.member("path").fault(format!("{path:?} {why}")))?),
            (None, Some(path)) => Some(
                PathPattern::prefix(path).map_err(|why| at.member("path_prefix").fault(format!("{path:?} {why}")))?,
            ),
            (None, None) => None,
        };
        if hosts.is_empty() && methods.is_empty() && path.is_none() {
            return Err(at.fault("this matches every request, which is what `default` is for"));
        }
        let at_policy = at.member("policy");
        let found = policies.iter().enumerate().find(|(_, policy)| *policy.name == *entry.policy.as_str());
        let (index, policy) = found.ok_or_else(|| at_policy.fault(format!("there is no policy {}", entry.policy)))?;
        let gives = |name: &str| path.as_ref().is_some_and(|path| path.variables().any(|(known, _)| known == name));
        if let Some(segment) = segments(policy).find(|name| !gives(name)) {
            let why =
                format!("the policy {} compares with the segment {{{segment}}}, which this path has not", policy.name);
            return Err(at_policy.fault(why));
        }
        let route = Route { hosts, methods, path, policy: index };
        if policy.allows_preflight
            && !route.methods.is_empty()
            && !route.methods.iter().any(|method| **method == *"OPTIONS")
        {
            self.warnings.push(format!(
                "the route {route} never sees the preflights that its policy {} allows: their method is OPTIONS, which it does not name",
                policy.name
            ));
        }
        Ok(route)
    }
}

/// A member that asks for something, if there is one.
fn demanding_member(entry: &PolicyEntry) -> Option<&'static str> {
    let asks = [
        ("token_use", entry.token_use.is_some()),
        ("pools", !entry.pools.is_empty()),
        ("clients", !entry.clients.is_empty()),
        ("audiences", !entry.audiences.is_empty()),
        ("allow_delegated", entry.allow_delegated.is_some()),
        ("scopes", entry.scopes.is_some()),
        ("groups", entry.groups.is_some()),
        ("claims", !entry.claims.is_empty()),
        ("max_auth_age", entry.max_auth_age.is_some()),
        ("acr", !entry.acr.is_empty()),
        ("amr", entry.amr.is_some()),
    ];
    asks.into_iter().find(|(_, asks)| *asks).map(|(member, _)| member)
}

/// The path segments that a policy compares with.
fn segments(policy: &Policy) -> impl Iterator<Item = &str> {
    let claims = match &policy.access {
        Access::Required(requirements) => requirements.claims.as_slice(),
        Access::Public | Access::Optional => &[][..],
    };
    claims.iter().flat_map(|claim| claim.test.segments())
}

fn claim_path(OneOrMany(names): &OneOrMany<String>, at: &Place) -> Result<ClaimPath, Fault> {
    ClaimPath::new(names.iter().map(String::as_str)).ok_or_else(|| at.fault("a claim's name is empty"))
}

/// A list that may be left out, but not empty.
fn list(
    entry: Option<OneOrMany<String>>,
    at: &Place,
    read: impl Fn(&str) -> Result<Box<str>, String>,
) -> Result<Vec<Box<str>>, Fault> {
    let Some(OneOrMany(texts)) = entry else { return Ok(Vec::new()) };
    if texts.is_empty() {
        return Err(at.fault("the list is empty: nothing would match"));
    }
    texts.iter().map(|text| read(text).map_err(|why| at.fault(format!("{text:?}: {why}")))).collect()
}

/// Texts that can stand in a challenge as they are: `NQCHAR` (RFC 6749 appendix A), which is what scopes consist of.
fn texts(list: &[String], at: &Place) -> Result<Vec<Box<str>>, Fault> {
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    if let Some(index) = list.iter().position(|text| !plain(text)) {
        return Err(at
            .item(index)
            .fault("not a text of printable ASCII characters without spaces, quotes and backslashes"));
    }
    Ok(list.iter().map(|text| text.as_str().into()).collect())
}

fn any_all(entry: Option<&AnyAllEntry>, at: &Place) -> Result<AnyAll, Fault> {
    let Some(entry) = entry else { return Ok(AnyAll::default()) };
    named(entry, at)?;
    Ok(AnyAll { any: texts(&entry.any, &at.member("any"))?, all: texts(&entry.all, &at.member("all"))? })
}

/// Groups stand in no challenge, and Cognito allows all of Unicode in their names.
fn groups(entry: Option<&AnyAllEntry>, at: &Place) -> Result<AnyAll, Fault> {
    let Some(entry) = entry else { return Ok(AnyAll::default()) };
    named(entry, at)?;
    let read = |list: &[String], member: &str| match list.iter().position(String::is_empty) {
        Some(index) => Err(at.member(member).item(index).fault("a group's name is empty")),
        None => Ok(list.iter().map(|name| name.as_str().into()).collect()),
    };
    Ok(AnyAll { any: read(&entry.any, "any")?, all: read(&entry.all, "all")? })
}

fn named(entry: &AnyAllEntry, at: &Place) -> Result<(), Fault> {
    if entry.any.is_empty() && entry.all.is_empty() {
        return Err(at.fault("neither `any` nor `all` names anything"));
    }
    Ok(())
}
