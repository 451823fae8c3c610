//! Requirement of a policy that a token does not meet: the value that the token has, and the accepted ones.

use serde_json::{Value, json};

use super::because::{Because, Findings};
use super::shown::{shown, shown_text, time};
use crate::authz::policy::requirement::{AnyAll, ClaimRequirement, ClaimTest, Operand};
use crate::authz::{Access, Requirements, TokenUse};
use crate::user_pool::ClientId;

/// Explains the requirement that the trace names.
pub(super) fn unmet(findings: &Findings<'_>, claims: &Value) -> Option<Because> {
    let Findings { rules, trace, now, .. } = findings;
    let name = trace.requirement.as_deref()?;
    let policy = trace.policy.and_then(|policy| rules.policies.get(policy));
    let Some(Access::Required(requirements)) = policy.map(|policy| &policy.access) else { return None };
    let claim = |name: &str| shown(claims.get(name).unwrap_or(&Value::Null));
    let Requirements { token_use, pools, clients, audiences, resource, scopes, groups, max_auth_age, acr, amr, .. } =
        &**requirements;
    Some(match name {
        "token_use" => Because::new("token_use", claim("token_use"), json!([token_use.map(TokenUse::as_str)])),
        "pools" => {
            let names: Vec<&str> =
                pools.iter().filter_map(|pool| rules.pools.get(*pool)).map(|pool| &*pool.name).collect();
            Because::new("the pool", json!(findings.pool().map(|pool| &*pool.name)), names)
        }
        "clients" => {
            let name = if claims.get("client_id").is_some() { "client_id" } else { "aud" };
            Because::new(name, claim(name), clients.iter().map(ClientId::as_str).collect::<Vec<_>>())
        }
        "audiences" => {
            Because::new("aud", claim("aud"), json!({"any": audiences.as_ref().map(|(_, accepted)| accepted)}))
        }
        "protected_resources.audience" => {
            Because::new("aud", claim("aud"), json!({"any": resource.as_ref().map(|resource| &resource.identifiers)}))
        }
        "allow_delegated" => Because::new("act", claim("act"), "a token without act, that is, of the user itself"),
        "scopes" => {
            let held: Vec<&str> = claims.get("scope").and_then(Value::as_str).unwrap_or_default().split(' ').collect();
            let has = if held == [""] { Value::Null } else { shown(&json!(held)) };
            Because::new("scope", has, any_all(scopes))
        }
        "groups" => Because::new("cognito:groups", claim("cognito:groups"), any_all(groups)),
        "max_auth_age" => {
            let most = max_auth_age.as_ref().map(|(_, most)| *most).unwrap_or_default();
            let since = claims.get("auth_time").and_then(Value::as_i64);
            Because::new(
                "auth_time",
                since.map_or(Value::Null, |since| time(since, *now)),
                format!("at most {most} s ago"),
            )
        }
        "acr" => Because::new("acr", claim("acr"), json!({"any": acr.as_ref().map(|(_, accepted)| accepted)})),
        "amr" => Because::new("amr", claim("amr"), amr.as_ref().map_or(Value::Null, |(_, methods)| any_all(methods))),
        label => {
            let required = requirements.claims.iter().find(|claim| *claim.label == *label)?;
            of_claim(findings, claims, required)?
        }
    })
}

fn of_claim(findings: &Findings<'_>, claims: &Value, required: &ClaimRequirement) -> Option<Because> {
    let path = findings.rules.wanted.path(required.claim)?;
    let chosen = findings.rules.policies.choose(findings.request).ok();
    let segment = |name: &str| chosen.as_ref().and_then(|chosen| chosen.segment(name)).map(shown_text);
    let operand = |operand: &Operand| match operand {
        Operand::Value(value) => value.clone(),
        Operand::Segment(name) => json!({"segment": name, "value": segment(name)}),
    };
    let accepted = match &required.test {
        ClaimTest::Equals(one) => json!({"equals": operand(one)}),
        ClaimTest::OneOf(some) => json!({"any": some.iter().map(operand).collect::<Vec<_>>()}),
        ClaimTest::Contains(one) => json!({"contains": operand(one)}),
    };
    let has = path.look_up(claims).map_or(Value::Null, shown);
    Some(Because::new(path.to_string(), has, accepted))
}

fn any_all(names: &AnyAll) -> Value {
    let mut accepted = serde_json::Map::new();
    if !names.any.is_empty() {
        accepted.insert("any".into(), json!(names.any));
    }
    if !names.all.is_empty() {
        accepted.insert("all".into(), json!(names.all));
    }
    accepted.into()
}
