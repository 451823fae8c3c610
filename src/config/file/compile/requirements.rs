//! What a policy of the file asks for.

use super::{Compiler, claim_path};
use crate::authz::policy::requirement::{AnyAll, ClaimRequirement, ClaimTest, Operand};
use crate::authz::token::claims::ClaimPath;
use crate::authz::{Requirements, TokenUse};
use crate::config::file::locate::{Fault, Place};
use crate::config::file::schema::DEMANDING;
use crate::config::file::text::{Kind, Parsed, Plain};
use crate::config::file::values;
use crate::config::file::{AnyAllEntry, ClaimEntry, PolicyEntry};
use crate::user_pool::{AcceptedUse, ClientId, UserPool};

impl Compiler {
    pub(super) fn requirements(&mut self, entry: &PolicyEntry, at: &Place) -> Result<Requirements, Fault> {
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
        let audiences = texts(&entry.audiences);
        let acr = texts(&entry.acr);
        let amr = any_all(entry.amr.as_ref(), &at.member("amr"))?;
        let requirements = Requirements {
            token_use,
            pools,
            clients,
            audiences: (!audiences.is_empty()).then(|| (want("aud"), audiences)),
            no_actor: (entry.allow_delegated == Some(false)).then(|| want("act")),
            scopes: any_all(entry.scopes.as_ref(), &at.member("scopes"))?,
            groups: any_all(entry.groups.as_ref(), &at.member("groups"))?,
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
            values::Operand::Segment(name) => Operand::Segment((**name).into()),
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
            (None, Some(list), None) => ClaimTest::OneOf(list.iter().map(operand).collect()),
            (None, None, Some(value)) => ClaimTest::Contains(operand(value)),
            _ => return Err(at.fault("a claim has one of `equals`, `one_of` and `contains`")),
        };
        Ok(ClaimRequirement { claim: self.wanted.want(path), label: label.into(), test })
    }
}

/// A member that asks for something, if there is one.
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
    ];
    DEMANDING.into_iter().zip(asks).find(|(_, asks)| *asks).map(|(member, _)| member)
}

fn texts<K>(list: &[Plain<K>]) -> Vec<Box<str>> {
    list.iter().map(|text| (**text).into()).collect()
}

fn any_all<K: Kind>(entry: Option<&AnyAllEntry<K>>, at: &Place) -> Result<AnyAll, Fault> {
    let Some(AnyAllEntry { any, all }) = entry else { return Ok(AnyAll::default()) };
    if any.is_empty() && all.is_empty() {
        return Err(at.fault("neither `any` nor `all` names anything"));
    }
    Ok(AnyAll { any: texts(any), all: texts(all) })
}
