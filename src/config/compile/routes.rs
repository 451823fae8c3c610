//! Routes of the policy file.

use super::faults::Faults;
use super::known::KnownPolicies;
use super::unknown_policy;
use crate::authz::policy::pattern::PathPattern;
use crate::authz::policy::route::{Conflicts, Route, Routes};
use crate::authz::{Access, Policy};
use crate::config::file::RouteEntry;
use crate::config::file::fault::YamlPath;
use crate::config::file::text::Plain;
use crate::config::file::values::OneOrMany;

/// Compiles the routes.
pub(super) fn routes(
    entries: Vec<RouteEntry>,
    policies: &KnownPolicies,
    case_insensitive: bool,
    at: &YamlPath,
    warnings: &mut Vec<String>,
    faults: &mut Faults,
) -> Routes {
    // Routes with their places, because those with a fault are missing.
    let mut compiled = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let at = at.item(index);
        compiled.extend(compile_route(entry, policies, &at, warnings, faults).map(|route| (at, route)));
    }
    let routes = compiled.iter().map(|(_, route)| route.clone()).collect();
    let Conflicts { ties, uncompared } = match Routes::new(routes, case_insensitive) {
        Ok(routes) => return routes,
        Err(conflicts) => conflicts,
    };
    for (first, second) in ties {
        let (Some((at_first, first)), Some((at, route))) = (compiled.get(first), compiled.get(second)) else { break };
        faults.add_with(|faults| {
            at.fault(format!(
                "{route} could match the same requests as {}, {first}, and neither takes precedence",
                faults.in_file(at_first)
            ))
        });
    }
    if let Some((at, _)) = uncompared.and_then(|position| compiled.get(position)) {
        let why = "the routes up to this one name more combinations of hosts, methods and paths than can be compared; \
                   name fewer hosts or methods in one route";
        faults.add(at.fault(why));
    }
    Routes::default()
}

/// Compiles a route; `None` if it has a fault.
fn compile_route(
    entry: RouteEntry,
    policies: &KnownPolicies,
    at: &YamlPath,
    warnings: &mut Vec<String>,
    faults: &mut Faults,
) -> Option<Route> {
    let hosts: Vec<Box<str>> = names(entry.host).map(|host| host.to_ascii_lowercase().into()).collect();
    let methods: Vec<Box<str>> = names(entry.method).map(|method| (*method).into()).collect();
    let path = match (&entry.path, &entry.path_prefix) {
        (Some(_), Some(_)) => Err(at.member("path_prefix").fault("conflicts with `path`; remove one of the two")),
        (Some(path), None) => path.parse().map(Some).map_err(|why| at.member("path").fault(format!("{path:?} {why}"))),
        (None, Some(path)) => {
            let prefix = PathPattern::prefix(path);
            prefix.map(Some).map_err(|why| at.member("path_prefix").fault(format!("{path:?} {why}")))
        }
        (None, None) if hosts.is_empty() && methods.is_empty() => {
            Err(at.fault("this route matches every request; use `default` instead"))
        }
        (None, None) => Ok(None),
    };
    let path = faults.keep(path);
    let at_policy = at.member("policy");
    let unknown = || unknown_policy(&entry.policy, &at_policy, policies, faults);
    let found = policies.named(entry.policy.as_str()).ok_or_else(unknown);
    let (index, policy) = faults.keep(found)?;
    let path = path?;
    if faults.touch(at) {
        return None;
    }
    let gives = |name: &str| path.as_ref().is_some_and(|path| path.variables().any(|(known, _)| known == name));
    if let Some(segment) = segments(policy, policies).find(|name| !gives(name)) {
        let why = format!(
            "the policy {} compares with the segment {{{segment}}}, which this path does not have",
            policy.name
        );
        faults.add(at_policy.fault(why));
        return None;
    }
    let route = Route { hosts, methods, path, policy: index };
    if let Some(method) = route.methods.iter().find(|method| !KNOWN_METHODS.contains(&&***method)) {
        warnings
            .push(format!("the route {route} matches only the method {method}, which is not a registered HTTP method"));
    }
    if policy.allows_preflight
        && !route.methods.is_empty()
        && !route.methods.iter().any(|method| **method == *"OPTIONS")
    {
        warnings.push(format!(
            "the route {route} never matches the preflights that its policy {} allows, because it does not name their method, OPTIONS",
            policy.name
        ));
    }
    Some(route)
}

/// Returns the names of the path segments that the claims of a policy, and of the policies of its calls, are compared
/// with.
pub(super) fn segments<'p>(policy: &'p Policy, policies: &'p [Policy]) -> impl Iterator<Item = &'p str> {
    let calls = policy.json_rpc.iter().flat_map(|json_rpc| &json_rpc.calls);
    let claims = |policy: &'p Policy| match &policy.access {
        Access::Required(requirements) => requirements.claims.as_slice(),
        Access::Public | Access::Optional => &[][..],
    };
    let policies = std::iter::once(policy).chain(calls.filter_map(|call| policies.get(call.policy)));
    policies.flat_map(claims).flat_map(|claim| claim.test.segments())
}

/// Names of an optional list.
fn names<K>(entry: Option<OneOrMany<Plain<K>>>) -> impl Iterator<Item = Plain<K>> {
    entry.into_iter().flat_map(|OneOrMany(names)| names)
}

/// Registered methods (IANA "HTTP Method Registry"), and those of caches and event subscriptions.
const KNOWN_METHODS: [&str; 42] = [
    "ACL",
    "BAN",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "CONNECT",
    "COPY",
    "DELETE",
    "GET",
    "HEAD",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "OPTIONS",
    "ORDERPATCH",
    "PATCH",
    "POST",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "PUT",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "TRACE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
    "SUBSCRIBE",
];
