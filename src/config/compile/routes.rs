//! Routes of the policy file.

use crate::authz::policy::pattern::PathPattern;
use crate::authz::policy::route::{Route, Routes};
use crate::authz::{Access, Policy};
use crate::config::file::RouteEntry;
use crate::config::file::locate::{Fault, YamlPath};
use crate::config::file::text::Plain;
use crate::config::file::values::OneOrMany;

/// Compiles the routes.
pub(super) fn routes(
    entries: Vec<RouteEntry>,
    policies: &[Policy],
    case_insensitive: bool,
    at: &YamlPath,
    warnings: &mut Vec<String>,
) -> Result<Routes, Fault> {
    let mut routes = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        routes.push(compile_route(entry, policies, &at.item(index), warnings)?);
    }
    let shown: Vec<String> = routes.iter().map(Route::to_string).collect();
    Routes::new(routes, case_insensitive).map_err(|(first, second)| {
        let name = |index: usize| shown.get(index).map_or("", |route| route);
        at.item(second).fault(format!(
            "{} could match the same requests as routes[{first}], {}, and neither takes precedence",
            name(second),
            name(first)
        ))
    })
}

fn compile_route(
    entry: RouteEntry,
    policies: &[Policy],
    at: &YamlPath,
    warnings: &mut Vec<String>,
) -> Result<Route, Fault> {
    let hosts: Vec<Box<str>> = names(entry.host).map(|host| host.to_ascii_lowercase().into()).collect();
    let methods: Vec<Box<str>> = names(entry.method).map(|method| (*method).into()).collect();
    let path = match (&entry.path, &entry.path_prefix) {
        (Some(_), Some(_)) => {
            return Err(at.member("path_prefix").fault("conflicts with `path`; remove one of the two"));
        }
        (Some(path), None) => Some(path.parse().map_err(|why| at.member("path").fault(format!("{path:?} {why}")))?),
        (None, Some(path)) => {
            Some(PathPattern::prefix(path).map_err(|why| at.member("path_prefix").fault(format!("{path:?} {why}")))?)
        }
        (None, None) => None,
    };
    if hosts.is_empty() && methods.is_empty() && path.is_none() {
        return Err(at.fault("this route matches every request; use `default` instead"));
    }
    let at_policy = at.member("policy");
    let found = policies.iter().enumerate().find(|(_, policy)| *policy.name == *entry.policy.as_str());
    let (index, policy) = found.ok_or_else(|| at_policy.fault(format!("there is no policy {}", entry.policy)))?;
    let gives = |name: &str| path.as_ref().is_some_and(|path| path.variables().any(|(known, _)| known == name));
    if let Some(segment) = segments(policy, policies).find(|name| !gives(name)) {
        let why = format!(
            "the policy {} compares with the segment {{{segment}}}, which this path does not have",
            policy.name
        );
        return Err(at_policy.fault(why));
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
    Ok(route)
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
