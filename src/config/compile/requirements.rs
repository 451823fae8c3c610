//! Requirements of a policy.

use super::faults::Faults;
use super::pools::Pools;
use crate::authz::policy::requirement::{AnyAll, ClaimRequirement, ClaimTest, Operand};
use crate::authz::token::claims::{ClaimPath, WantedClaims};
use crate::authz::{Requirements, TokenUse};
use crate::config::file::fault::{Fault, YamlPath};
use crate::config::file::schema::DEMANDING;
use crate::config::file::text::{Any, Kind, Parsed, Plain};
use crate::config::file::values::{self, OneOrMany};
use crate::config::file::{AnyAllEntry, ClaimEntry, PolicyEntry};
use crate::user_pool::{AcceptedUse, ClientId, Clients};

/// Compiles the requirements of a policy. Requirements that no pool can meet are a fault.
pub(super) fn requirements(
    entry: &PolicyEntry,
    known: &Pools,
    wanted: &mut WantedClaims,
    warnings: &mut Vec<String>,
    faults: &mut Faults,
    at: &YamlPath,
) -> Requirements {
    let mut pools = Vec::new();
    for (index, name) in entry.pools.iter().enumerate() {
        let index = known.index(name, &at.member("pools").item(index), faults);
        pools.extend(faults.keep(index));
    }
    // If a pool could not be read, it is unknown what all pools accept.
    let are_pools_known = !faults.touch(&YamlPath::default().member("pools")) && !faults.touch(&at.member("pools"));
    let token_use = match entry.token_use.map(AcceptedUse::from) {
        None | Some(AcceptedUse::Any) => None,
        Some(AcceptedUse::Access) => Some(TokenUse::Access),
        Some(AcceptedUse::Id) => Some(TokenUse::Id),
    };
    // A token that no pool accepts can never meet the requirements.
    let named = pools.iter().copied().collect();
    let accepts = |accepted: AcceptedUse| match token_use {
        None => true,
        Some(TokenUse::Access) => accepted != AcceptedUse::Id,
        Some(TokenUse::Id) => accepted != AcceptedUse::Access,
    };
    if are_pools_known && known.iter().next().is_some() && !known.accept_use(&named, accepts) {
        let why = "no pool accepts tokens of this kind (its token_use, or --token-use)";
        faults.add(at.member("token_use").fault(why));
    }
    let clients: Vec<ClientId> = entry.clients.iter().map(|Parsed(client)| client.clone()).collect();
    for (index, client) in clients.iter().enumerate() {
        if are_pools_known && !known.accept_client(&named, client) {
            let why = format!("no pool accepts the app client {}", client.as_str());
            let accepted = known.among(&named).flat_map(|pool| match &pool.clients {
                Clients::Only(clients) => clients.as_slice(),
                Clients::Any => &[],
            });
            let at = at.member("clients").item(index);
            let fault = faults.unlike(&at, why, client.as_str(), accepted.map(ClientId::as_str));
            faults.add(fault);
        }
    }

    let mut want = |claim: &str| ClaimPath::new([claim]).map(|path| wanted.want(path)).unwrap_or_default();
    let audiences = texts(&entry.audiences);
    let acr = texts(&entry.acr);
    let amr = any_all(entry.amr.as_ref(), &at.member("amr"), faults);
    let requirements = Requirements {
        token_use,
        pools,
        clients,
        audiences: (!audiences.is_empty()).then(|| (want("aud"), audiences)),
        // Set by the resource that the policy belongs to.
        resource: None,
        no_actor: (entry.allow_delegated == Some(false)).then(|| want("act")),
        scopes: any_all(entry.scopes.as_ref(), &at.member("scopes"), faults),
        groups: any_all(entry.groups.as_ref(), &at.member("groups"), faults),
        claims: Vec::new(),
        max_auth_age: entry.max_auth_age.map(|seconds| (want("auth_time"), seconds.0)),
        acr: (!acr.is_empty()).then(|| (want("acr"), acr)),
        amr: (!amr.is_empty()).then(|| (want("amr"), amr)),
    };
    let mut claims = Vec::new();
    for (index, claim) in entry.claims.iter().enumerate() {
        let claim = claim_requirement(claim, wanted, warnings, &at.member("claims").item(index));
        claims.extend(faults.keep(claim));
    }
    Requirements { claims, ..requirements }
}

fn claim_requirement(
    entry: &ClaimEntry,
    wanted: &mut WantedClaims,
    warnings: &mut Vec<String>,
    at: &YamlPath,
) -> Result<ClaimRequirement, Fault> {
    let path = claim_path(&entry.claim, &at.member("claim"))?;
    let label = format!("claims.{path}");
    let is_custom = path.claim().starts_with("custom:");
    let mut operand = |operand: &values::Operand| match operand {
        values::Operand::Segment(name) => Operand::Segment((**name).into()),
        values::Operand::Value(value) => {
            if is_custom && !value.is_string() {
                warnings.push(format!(
                    "{label}: Cognito writes custom attributes into tokens as text, so {value} without quotes never matches"
                ));
            }
            Operand::Value(value.clone())
        }
    };
    let test = match (&entry.equals, &entry.one_of, &entry.contains) {
        (Some(value), None, None) => ClaimTest::Equals(operand(value)),
        (None, Some(list), None) => ClaimTest::OneOf(list.iter().map(operand).collect()),
        (None, None, Some(value)) => ClaimTest::Contains(operand(value)),
        _ => return Err(at.fault("a claim has one of `equals`, `one_of` and `contains`")),
    };
    Ok(ClaimRequirement { claim: wanted.want(path), label: label.into(), test })
}

/// Returns the first member of `entry` that is a requirement.
pub(super) fn demanding_member(entry: &PolicyEntry) -> Option<&'static str> {
    let asks = [
        entry.token_use.is_some(),
        !entry.pools.is_empty(),
        !entry.clients.is_empty(),
        !entry.audiences.is_empty(),
        entry.allow_delegated.is_some(),
        entry.scopes.is_some(),
        entry.groups.is_some(),
        !entry.claims.is_empty(),
        entry.max_auth_age.is_some(),
        !entry.acr.is_empty(),
        entry.amr.is_some(),
        entry.json_rpc.is_some(),
    ];
    DEMANDING.into_iter().zip(asks).find(|(_, asks)| *asks).map(|(member, _)| member)
}

fn texts<K>(list: &[Plain<K>]) -> Vec<Box<str>> {
    list.iter().map(|text| (**text).into()).collect()
}

fn any_all<K: Kind>(entry: Option<&AnyAllEntry<K>>, at: &YamlPath, faults: &mut Faults) -> AnyAll {
    let Some(AnyAllEntry { any, all }) = entry else { return AnyAll::default() };
    if any.is_empty() && all.is_empty() {
        faults.add(at.fault("`any` or `all` is required"));
    }
    AnyAll { any: texts(any), all: texts(all) }
}

/// Returns the path of a claim.
pub(super) fn claim_path(OneOrMany(names): &OneOrMany<Plain<Any>>, at: &YamlPath) -> Result<ClaimPath, Fault> {
    ClaimPath::new(names.iter().map(|name| &**name)).ok_or_else(|| at.fault("a claim's name is empty"))
}
