//! Finds templates that open part of an area that another route protects ([`openings`]).
//!
//! For example, `/{service}/health` also matches `/admin/health`, which `path_prefix: /admin` protects. This is not an
//! error, because it can be intended. `check-config` and each reload log a warning.

use super::pattern::{PathPattern, Segment};
use super::requirement::{AnyAll, Requirements};
use super::route::Route;
use super::{Access, Policies, Policy};

/// Maximum number of openings that are reported. Operators do not read longer lists.
const MAX_OPENINGS: usize = 20;
/// Maximum number of pairs of routes that are compared: all pairs of 2000 routes, which takes a fraction of a second.
const MAX_COMPARED: usize = 4_000_000;

/// Route that opens part of what another route protects.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opening {
    /// Position of the template in the file, from 0.
    pub(crate) opener: usize,
    /// Position of the protecting route in the file, from 0.
    pub(crate) protected: usize,
    /// Pattern of the paths that both routes match.
    pub(crate) path: PathPattern,
}

/// Openings in a policy file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Openings {
    /// First openings, at most [`MAX_OPENINGS`].
    pub(crate) found: Vec<Opening>,
    /// `true` if there may be more: the list is full, or the file has too many routes to compare all pairs.
    pub(crate) is_cut: bool,
}

/// Finds the routes that open part of what another route protects. A route does so if
/// - it takes precedence over the other route,
/// - it matches some of its requests only because it has a `{name}` where the other route has a literal segment, and
/// - its policy is weaker: it does not require everything that the policy of the other route requires.
pub(crate) fn openings(policies: &Policies) -> Openings {
    let (mut openings, mut compared) = (Openings::default(), 0);
    let policy = |route: &Route| policies.get(route.policy);
    let templates = policies
        .routes()
        .iter()
        .enumerate()
        .filter(|(_, route)| route.path.as_ref().is_some_and(|path| path.variables().next().is_some()));
    for (opener, template) in templates {
        for (protected, other) in policies.routes().iter().enumerate() {
            compared += 1;
            if compared > MAX_COMPARED {
                openings.is_cut = true;
                return openings;
            }
            let (Some(weak), Some(strong)) = (policy(template), policy(other)) else { continue };
            if template.rank() <= other.rank() || !is_weaker(weak, strong) {
                continue;
            }
            let Some(path) = common(template, other) else { continue };
            if is_effective(policies, opener, template, other, &path) {
                if openings.found.len() == MAX_OPENINGS {
                    openings.is_cut = true;
                    return openings;
                }
                openings.found.push(Opening { opener, protected, path });
            }
        }
    }
    openings
}

/// Returns the pattern of the paths that both match, if a `{name}` of `template` matches a literal segment of `other`.
/// `template` takes precedence, so it has at least as many segments.
fn common(template: &Route, other: &Route) -> Option<PathPattern> {
    let (template, other) = (template.path.as_ref()?, other.path.as_ref()?);
    if template.segments.len() < other.segments.len()
        || (!other.is_prefix && template.segments.len() > other.segments.len())
    {
        return None;
    }
    let mut has_opening = false;
    let mut segments = Vec::with_capacity(template.segments.len());
    for (position, ours) in template.segments.iter().enumerate() {
        segments.push(match (ours, other.segments.get(position)) {
            (Segment::Literal(one), Some(Segment::Literal(other))) if one != other => return None,
            (Segment::Literal(text), Some(Segment::Variable(_))) if text.is_empty() => return None,
            (Segment::Variable(_), Some(Segment::Literal(text))) if text.is_empty() => return None,
            (Segment::Variable(_), Some(literal @ Segment::Literal(_))) => {
                has_opening = true;
                literal.clone()
            }
            _ => ours.clone(),
        });
    }
    has_opening.then_some(PathPattern { segments, is_prefix: template.is_prefix })
}

/// `true` if `template` is chosen for some request that both routes match. A third route may take precedence and protect
/// them again.
fn is_effective(policies: &Policies, opener: usize, template: &Route, other: &Route, path: &PathPattern) -> bool {
    // A literal segment never contains `/`, so only a `{name}` matches this segment.
    let segments = path.segments.iter().map(|segment| match segment {
        Segment::Literal(text) => &**text,
        Segment::Variable(_) => "/",
    });
    let (hosts, methods) = (shared(&template.hosts, &other.hosts), shared(&template.methods, &other.methods));
    hosts.iter().any(|host| {
        let best = |method: &&str| policies.routes().best(method.as_bytes(), host, Some(&segments));
        methods.iter().any(|method| best(method) == Some(opener))
    })
}

/// Returns the names that are in both lists. An empty list stands for every name; if both are empty, the result is the empty
/// name, which stands for names that no list contains.
fn shared<'n>(one: &'n [Box<str>], other: &'n [Box<str>]) -> Vec<&'n str> {
    match (one, other) {
        ([], []) => vec![""],
        ([], names) | (names, []) => names.iter().map(|name| &**name).collect(),
        (one, other) => one.iter().filter(|name| other.contains(name)).map(|name| &**name).collect(),
    }
}

/// `true` if `one` does not require everything that `other` requires. A policy in shadow mode requires nothing yet.
fn is_weaker(one: &Policy, other: &Policy) -> bool {
    match (&one.access, &other.access) {
        (_, Access::Optional | Access::Required(_)) if one.is_shadow() && !other.is_shadow() => true,
        (_, Access::Public) | (Access::Optional | Access::Required(_), Access::Optional) => false,
        (Access::Public, _) | (Access::Optional, Access::Required(_)) => true,
        (Access::Required(one), Access::Required(other)) => !requires_all_of(one, other),
    }
}

/// `true` if `one` evidently requires everything that `other` requires. Only compares what is written in the policy file.
fn requires_all_of(one: &Requirements, other: &Requirements) -> bool {
    let Requirements {
        token_use,
        pools,
        clients,
        audiences,
        resource,
        no_actor,
        scopes,
        groups,
        claims,
        max_auth_age,
        acr,
        amr,
    } = other;
    (token_use.is_none() || *token_use == one.token_use)
        && is_narrower(&one.pools, pools)
        && is_narrower(&one.clients, clients)
        && is_narrower(values(one.audiences.as_ref()), values(audiences.as_ref()))
        && resource.as_ref().is_none_or(|theirs| {
            one.resource.as_ref().is_some_and(|ours| {
                is_narrower(&ours.identifiers, &theirs.identifiers) && (theirs.if_present || !ours.if_present)
            })
        })
        && (no_actor.is_none() || one.no_actor.is_some())
        && implies(&one.scopes, scopes)
        && implies(&one.groups, groups)
        && claims.iter().all(|claim| one.claims.contains(claim))
        && max_auth_age.is_none_or(|(_, most)| one.max_auth_age.is_some_and(|(_, ours)| ours <= most))
        && is_narrower(values(one.acr.as_ref()), values(acr.as_ref()))
        && amr.as_ref().is_none_or(|(_, names)| one.amr.as_ref().is_some_and(|(_, ours)| implies(ours, names)))
}

fn values<I, V>(requirement: Option<&(I, Vec<V>)>) -> &[V] {
    requirement.map_or(&[], |(_, values)| values)
}

/// `true` if every token that has a value of `one` has a value of `other`. An empty list requires nothing.
fn is_narrower<V: PartialEq>(one: &[V], other: &[V]) -> bool {
    other.is_empty() || (!one.is_empty() && one.iter().all(|value| other.contains(value)))
}

/// `true` if every token that meets `one` evidently meets `other`.
fn implies(one: &AnyAll, other: &AnyAll) -> bool {
    other.all.iter().all(|name| one.all.contains(name))
        && (is_narrower(&one.any, &other.any) || one.all.iter().any(|name| other.any.contains(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::policy::route::Routes;

    /// Returns these policies: 0 public, 1 optional, 2 any valid token, 3 group `a`, 4 groups `a` and `b`, 5 group `c`.
    fn policies() -> Vec<Policy> {
        let groups = |names: &[&str]| {
            let all = names.iter().map(|name| (*name).into()).collect();
            Access::Required(Box::new(Requirements {
                groups: AnyAll { all, ..AnyAll::default() },
                ..Default::default()
            }))
        };
        let access =
            [Access::Public, Access::Optional, groups(&[]), groups(&["a"]), groups(&["a", "b"]), groups(&["c"])];
        access.into_iter().map(|access| Policy { access, ..Policy::default() }).collect()
    }

    /// Returns the openings between routes, each given as `METHOD HOST PATH` and a policy.
    fn found(rows: &[(&str, usize)]) -> Vec<String> {
        let route = |(row, policy): &(&str, usize)| {
            let [method, host, path] = row.split(' ').collect::<Vec<_>>()[..] else { panic!("{row}") };
            let list = |text: &str| text.split(',').filter(|name| *name != "*").map(Into::into).collect();
            let path = match path.strip_suffix("/\u{2026}") {
                Some(prefix) => PathPattern::prefix(prefix).unwrap(),
                None => path.parse().unwrap(),
            };
            Route { hosts: list(host), methods: list(method), path: Some(path), policy: *policy }
        };
        let routes = Routes::new(rows.iter().map(route).collect(), false).unwrap();
        let openings = openings(&Policies::new(policies(), 2, routes));
        assert_eq!(openings.is_cut, openings.found.len() == MAX_OPENINGS);
        openings
            .found
            .iter()
            .map(|Opening { opener, protected, path }| format!("{opener} {protected} {path}"))
            .collect()
    }

    const ADMIN: (&str, usize) = ("* * /admin/\u{2026}", 3);

    #[test]
    fn a_template_that_matches_a_protected_path_is_found() {
        for (rows, expected) in [
            (&[ADMIN, ("* * /{s}/health", 0)][..], &["1 0 /admin/health"][..]),
            (&[ADMIN, ("* * /{s}/{t}/c", 1)], &["1 0 /admin/{t}/c"]),
            (&[ADMIN, ("* * /{s}", 2)], &["1 0 /admin"]),
            // A prefix, or a template with fewer literal segments, can protect an area as well.
            (&[ADMIN, ("* * /{s}/open/\u{2026}", 0)], &["1 0 /admin/open/\u{2026}"]),
            (&[("* * /admin/{x}/{y}", 3), ("* * /{s}/b/c", 0)], &["1 0 /admin/b/c"]),
            (
                &[("* * /{s}/b/{y}", 0), ("* * /a/\u{2026}", 3), ("* * /b/\u{2026}", 3)],
                &["0 1 /a/b/{y}", "0 2 /b/b/{y}"],
            ),
            (&[("* a,b /admin/\u{2026}", 3), ("GET b,c /{s}/health", 0)], &["1 0 /admin/health"]),
            (&[("PUT,GET * /admin/\u{2026}", 3), ("* c /{s}/health", 0)], &["1 0 /admin/health"]),
        ] {
            assert_eq!(found(rows), expected, "{rows:?}");
        }
    }

    #[test]
    fn a_route_that_opens_nothing_is_not_found() {
        for rows in [
            // The route names the area, so it is intended.
            &[ADMIN, ("* * /admin/{x}", 0)][..],
            &[ADMIN, ("* * /admin/{x}/health", 0), ("* * /admin/health", 0)],
            // No request matches both.
            &[ADMIN, ("* * /b/{x}", 0)],
            &[("* a /admin/\u{2026}", 3), ("* b /{s}/health", 0)],
            &[("PUT * /admin/\u{2026}", 3), ("GET * /{s}/health", 0)],
            &[("* * /admin/health/x/\u{2026}", 3), ("* * /{s}/health", 0)],
            // The other route takes precedence.
            &[("* * /admin/health", 3), ("* * /{s}/health", 0)],
            &[("* * /admin/a/\u{2026}", 3), ("* * /{s}/\u{2026}", 0)],
            // The policy is as strict, or stricter.
            &[ADMIN, ("* * /{s}/health", 3)],
            &[ADMIN, ("* * /{s}/health", 4)],
            &[("* * /open/\u{2026}", 0), ("* * /{s}/health", 1)],
            &[("* * /open/\u{2026}", 1), ("* * /{s}/health", 5)],
            // A third route protects all requests that both match.
            &[ADMIN, ("* * /{s}/health", 0), ("* * /admin/health", 3)],
            &[ADMIN, ("GET * /{s}/health", 0), ("GET,PUT * /admin/health", 3)],
        ] {
            assert_eq!(found(rows), [""; 0], "{rows:?}");
        }
        // The third route protects only one host.
        assert_eq!(found(&[ADMIN, ("* * /{s}/health", 0), ("* h /admin/health", 3)]), ["1 0 /admin/health"]);
    }

    #[test]
    fn a_policy_that_requires_less_is_weaker() {
        let policies = policies();
        let weaker: Vec<Vec<usize>> = policies
            .iter()
            .map(|one| (0..policies.len()).filter(|other| is_weaker(one, &policies[*other])).collect())
            .collect();
        assert_eq!(weaker, [vec![1, 2, 3, 4, 5], vec![2, 3, 4, 5], vec![3, 4, 5], vec![4, 5], vec![5], vec![3, 4]]);
        let any = |any: &[&str], all: &[&str]| {
            let list = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
            AnyAll { any: list(any), all: list(all) }
        };
        for (one, other, narrower) in [
            (any(&["a"], &[]), any(&["a", "b"], &[]), true),
            (any(&["a", "c"], &[]), any(&["a", "b"], &[]), false),
            (any(&[], &["b"]), any(&["a", "b"], &[]), true),
            (any(&["a"], &[]), any(&[], &["a"]), false),
            (any(&[], &[]), any(&["a"], &[]), false),
        ] {
            assert_eq!(implies(&one, &other), narrower, "{one:?} {other:?}");
        }
    }

    #[test]
    fn the_number_of_openings_is_limited() {
        let areas: Vec<String> = (0..30).map(|number| format!("* * /area{number}/\u{2026}")).collect();
        let rows: Vec<_> = areas.iter().map(|row| (&**row, 3)).chain([("* * /{s}/health", 0)]).collect();
        assert_eq!(found(&rows).len(), MAX_OPENINGS);
    }
}
