//! The routes of the file.

use super::{Compiler, segments};
use crate::authz::Policy;
use crate::authz::policy::pattern::PathPattern;
use crate::authz::policy::route::{Route, Routes, host_name};
use crate::authz::request::is_token;
use crate::config::file::RouteEntry;
use crate::config::file::locate::{Fault, Place};
use crate::config::file::values::OneOrMany;

impl Compiler {
    pub(super) fn routes(
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
