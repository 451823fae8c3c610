//! Protected resources: the policies, the pool and the app client of each.

use std::collections::{BTreeSet, HashMap, HashSet};

use url::Url;

use super::faults::Faults;
use super::known::KnownPolicies;
use super::pools::Pools;
use super::{policy_place, unknown_policy};
use crate::authz::policy::requirement::ResourceAudience;
use crate::authz::protected_resource::{METADATA_PATH, ProtectedResource, PublicClient, ResourceOrigin};
use crate::authz::token::claims::{ClaimPath, WantedClaims};
use crate::authz::{Access, ProtectedResources, Requirements, TokenUse};
use crate::config::file::fault::{Fault, YamlPath};
use crate::config::file::resources::{AudienceMode, ProtectedResourceEntry, ResourceUrl};
use crate::config::file::text::Parsed;
use crate::user_pool::{AcceptedUse, ClientId, PoolIndex};

/// Compiles the resources. Their policies get the audience to judge, and the URL of the metadata for challenges.
pub(super) fn resources(
    entries: &[ProtectedResourceEntry],
    policies: &mut KnownPolicies,
    pools: &Pools,
    wanted: &mut WantedClaims,
    at: &YamlPath,
    faults: &mut Faults,
) -> ProtectedResources {
    let mut origins = Origins::default();
    for (index, entry) in entries.iter().enumerate() {
        let at = at.item(index);
        let added = resource(entry, policies, pools, wanted, &at, faults, &mut origins);
        faults.keep(added);
    }
    ProtectedResources::new(origins.all)
}

/// Origins of the resources so far, with indexes of what must be unique in them.
#[derive(Default)]
struct Origins {
    all: Vec<ResourceOrigin>,
    by_address: HashMap<(Box<str>, u16), usize>,
    /// Paths of the resources of an origin.
    paths: HashSet<(usize, Box<str>)>,
    /// Redirect URIs of the app client of an origin.
    redirect_uris: HashSet<(usize, Box<str>)>,
}

/// Compiles one resource, and adds it to its origin.
fn resource(
    entry: &ProtectedResourceEntry,
    policies: &mut KnownPolicies,
    pools: &Pools,
    wanted: &mut WantedClaims,
    at: &YamlPath,
    faults: &mut Faults,
    origins: &mut Origins,
) -> Result<(), Fault> {
    let Parsed(ResourceUrl { url, text }) = &entry.resource;
    let client = entry.client_id.as_ref().map(|Parsed(client)| client);
    let are_known = !faults.touch(&at.member("client_id")) && !faults.touch(&at.member("redirect_uris"));
    match (client, entry.redirect_uris.is_empty()) {
        (Some(_), true) if are_known => {
            faults.add(at.member("client_id").fault("`redirect_uris` is required with `client_id`"));
        }
        (None, false) if are_known => {
            faults.add(at.member("redirect_uris").fault("`client_id` is required with `redirect_uris`"));
        }
        _ => {}
    }
    let pool = pool(entry, &own_policies(entry, policies, at, faults)?, client, pools, at, faults)?;
    let resource = ProtectedResource {
        identifier: text.clone(),
        path: if url.path() == "/" { "".into() } else { url.path().into() },
        name: entry.name.as_ref().map(|name| (**name).into()),
        scopes: entry.scopes_supported.iter().map(|scope| (**scope).into()).collect(),
    };
    let audience = ResourceAudience {
        claim: ClaimPath::new(["aud"]).map(|path| wanted.want(path)).unwrap_or_default(),
        identifiers: identifiers(url),
        if_present: entry.audience == AudienceMode::IfPresent,
    };
    for (place, name) in entry.policy.0.iter().enumerate() {
        let index = policies.index(name.as_str());
        if let Some(policy) = index.and_then(|index| policies.get_mut(index))
            && let Access::Required(requirements) = &mut policy.access
        {
            if requirements.resource.is_some() {
                let why = format!("the policy {name} belongs to a protected resource already");
                return Err(at.member("policy").item(place).fault(why));
            }
            requirements.resource = Some(audience.clone());
            let origin = url.origin().ascii_serialization();
            policy.challenge.resource_metadata = Some(format!("{origin}{METADATA_PATH}{}", resource.path).into());
        }
    }
    add(origins, url, entry, pool, resource, at)
}

/// Returns the requirements of the resource's policies, after checking that they can belong to it.
fn own_policies<'p>(
    entry: &ProtectedResourceEntry,
    policies: &'p KnownPolicies,
    at: &YamlPath,
    faults: &Faults,
) -> Result<Vec<&'p Requirements>, Fault> {
    let mut own = Vec::new();
    for (place, name) in entry.policy.0.iter().enumerate() {
        if faults.touch(&policy_place(name)) {
            return Err(at.consequence());
        }
        let at = at.member("policy").item(place);
        let Some((_, policy)) = policies.named(name.as_str()) else {
            return Err(unknown_policy(name, &at, policies, faults));
        };
        let Access::Required(requirements) = &policy.access else {
            let why = format!("the policy {name} is public or optional, and a protected resource requires a token");
            return Err(at.fault(why));
        };
        if policy.challenge.resource_metadata.is_some() && requirements.resource.is_none() {
            let why =
                format!("the policy {name} has the member `resource_metadata`, which the resource sets; remove it");
            return Err(at.fault(why));
        }
        if entry.audience == AudienceMode::Required && requirements.token_use == Some(TokenUse::Id) {
            let why =
                format!("the policy {name} requires ID tokens, whose audience is the app client; remove `audience`");
            return Err(at.fault(why));
        }
        own.push(&**requirements);
    }
    Ok(own)
}

/// Returns the pool whose sign-in pages clients use: its tokens meet every policy of the resource, and it accepts those of
/// the app client.
fn pool(
    entry: &ProtectedResourceEntry,
    policies: &[&Requirements],
    client: Option<&ClientId>,
    pools: &Pools,
    at: &YamlPath,
    faults: &Faults,
) -> Result<PoolIndex, Fault> {
    if let Some(client) = client
        && policies.iter().any(|policy| !policy.clients.is_empty() && !policy.clients.contains(client))
    {
        let why = format!("a policy of this resource does not accept the app client {}", client.as_str());
        return Err(at.member("client_id").fault(why));
    }
    let named = entry.pool.as_ref().map(|name| pools.index(name, &at.member("pool"), faults)).transpose()?;
    if faults.touch(&YamlPath::default().member("pools")) {
        return Err(at.consequence());
    }
    // The pools that the resource or its policies name; `None` if they name none.
    let named = match (named, policies.iter().find(|policy| !policy.pools.is_empty())) {
        (Some(named), _) => Some(BTreeSet::from([named])),
        (None, Some(policy)) => Some(policy.pools.iter().copied().collect::<BTreeSet<_>>()),
        (None, None) => None,
    };
    let is_possible = |index: &PoolIndex| {
        named.as_ref().is_none_or(|named| named.contains(index))
            && policies.iter().all(|policy| policy.pools.is_empty() || policy.pools.contains(index))
            && pools.get(*index).is_some_and(|pool| pool.token_use != AcceptedUse::Id)
            && client.is_none_or(|client| pools.accepts_client(*index, client))
    };
    // A pool that lists the app client, before pools that accept any. Two pools are as ambiguous as more.
    let listing = client.into_iter().flat_map(|client| pools.listing(client));
    let listing: Vec<PoolIndex> = listing.filter(is_possible).take(2).collect();
    let possible: Vec<PoolIndex> = match &named {
        Some(named) => named.iter().copied().filter(is_possible).take(2).collect(),
        None => (0..pools.iter().count()).filter(is_possible).take(2).collect(),
    };
    match (listing.as_slice(), possible.as_slice()) {
        ([only], _) | ([], [only]) => Ok(*only),
        (_, []) if client.is_some() => Err(at
            .member("client_id")
            .fault("no pool accepts this app client, access tokens, and the policies of this resource")),
        (_, []) => Err(at.member("policy").fault("no pool accepts access tokens and all policies of this resource")),
        _ => Err(at.fault("several pools are possible; name the one whose sign-in pages clients use in `pool`")),
    }
}

/// Adds a resource to its origin.
fn add(
    origins: &mut Origins,
    url: &Url,
    entry: &ProtectedResourceEntry,
    pool: PoolIndex,
    resource: ProtectedResource,
    at: &YamlPath,
) -> Result<(), Fault> {
    let client = entry.client_id.as_ref().map(|Parsed(client)| PublicClient {
        id: client.clone(),
        redirect_uris: entry.redirect_uris.iter().map(|Parsed(uri)| uri.as_str().into()).collect(),
    });
    let mut new = ResourceOrigin::new(url, pool, client);
    let count = origins.all.len();
    let index = *origins.by_address.entry(new.address()).or_insert(count);
    let Some(known) = origins.all.get_mut(index) else {
        let uris = new.client.iter().flat_map(|client| &client.redirect_uris);
        origins.redirect_uris.extend(uris.map(|uri| (index, uri.clone())));
        origins.paths.insert((index, resource.path.clone()));
        new.resources.push(resource);
        origins.all.push(new);
        return Ok(());
    };
    if known.origin != new.origin {
        return Err(at.member("resource").fault(format!("{} has this host and port, too", known.origin)));
    }
    if origins.paths.contains(&(index, resource.path.clone())) {
        return Err(at.member("resource").fault("another protected resource has this identifier"));
    }
    // Each origin is one authorization server to its clients.
    if known.pool != new.pool {
        return Err(at.fault(format!("resources of {} have one pool; set `pool` alike", known.origin)));
    }
    match (&mut known.client, new.client) {
        (None, None) => {}
        (Some(known), Some(new)) if known.id == new.id => {
            for uri in new.redirect_uris {
                if origins.redirect_uris.insert((index, uri.clone())) {
                    known.redirect_uris.push(uri);
                }
            }
        }
        (_, new) => {
            let at = if new.is_some() { at.member("client_id") } else { at.clone() };
            return Err(at.fault(format!("resources of {} have one `client_id`", known.origin)));
        }
    }
    origins.paths.insert((index, resource.path.clone()));
    known.resources.push(resource);
    Ok(())
}

/// Forms of the identifier that clients send as `resource`: some libraries write a URL without a path with a slash at its
/// end.
fn identifiers(url: &Url) -> Vec<Box<str>> {
    let text = url.as_str();
    match text.strip_suffix('/').filter(|_| url.path() == "/") {
        Some(short) => vec![short.into(), text.into()],
        None => vec![text.into()],
    }
}
