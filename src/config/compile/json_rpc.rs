//! Calls in the body of a request (`json_rpc`).

use std::collections::HashSet;

use super::faults::Faults;
use super::known::KnownPolicies;
use super::unknown_policy;
use crate::authz::policy::json_rpc::{Call, JsonRpc, Names};
use crate::authz::{Access, Policy};
use crate::config::file::fault::{Fault, YamlPath};
use crate::config::file::json_rpc::{BodySize, CallEntry, CallText, JsonRpcEntry};
use crate::config::file::text::{Parsed, Plain};
use crate::config::file::values::{Name, OneOrMany};

/// Compiles the `entries` of policies with `json_rpc`, and adds them to those policies. `at` is the map of all policies.
pub(super) fn json_rpc(
    entries: Vec<(Name, JsonRpcEntry)>,
    policies: &mut KnownPolicies,
    at: &YamlPath,
    faults: &mut Faults,
) {
    let readers: HashSet<Name> = entries.iter().map(|(name, _)| name.clone()).collect();
    for (name, entry) in entries {
        let Some((index, policy)) = policies.named(name.as_str()) else { continue };
        let at = at.member(&*policy.name).member("json_rpc").member("calls");
        let Parsed(BodySize(max_body)) = entry.max_body;
        let mut calls = Vec::new();
        for (place, call) in entry.calls.iter().enumerate() {
            let call = compile_call(call, policy, policies, &readers, &at.item(place), faults);
            calls.extend(faults.keep(call));
        }
        if let Some(policy) = policies.get_mut(index) {
            policy.json_rpc = Some(JsonRpc { max_body, calls });
        }
    }
}

/// Compiles a call in the body of requests whose policy is `of`. `readers` are the policies with `json_rpc`.
fn compile_call(
    entry: &CallEntry,
    of: &Policy,
    policies: &KnownPolicies,
    readers: &HashSet<Name>,
    at: &YamlPath,
    faults: &Faults,
) -> Result<Call, Fault> {
    let names = match (&entry.name, &entry.except) {
        (Some(_), Some(_)) => return Err(at.member("except").fault("conflicts with `name`; remove one of the two")),
        (Some(names), None) => Names::Only(texts(names)),
        (None, Some(names)) => Names::Except(texts(names)),
        (None, None) => Names::Any,
    };
    let at = at.member("policy");
    let name = &entry.policy;
    let (index, policy) = policies.named(name.as_str()).ok_or_else(|| unknown_policy(name, &at, policies, faults))?;
    if !matches!(policy.access, Access::Required(_)) {
        return Err(at.fault(format!("the policy {name} is public or optional, so it has no requirements for a call")));
    }
    if readers.contains(name) {
        return Err(
            at.fault(format!("the policy {name} has `json_rpc` itself; name one with requirements for the token only"))
        );
    }
    if policy.is_shadow() && !of.is_shadow() {
        let why = format!(
            "the policy {name} is in shadow mode, but calls have the mode of the policy {}; remove `mode` of {name}, or set \
             it there",
            of.name
        );
        return Err(at.fault(why));
    }
    Ok(Call { methods: texts(&entry.method), names, policy: index })
}

fn texts(OneOrMany(texts): &OneOrMany<Plain<CallText>>) -> Vec<Box<str>> {
    texts.iter().map(|text| (**text).into()).collect()
}
