//! Templates that open part of what another route protects: beside `path_prefix: /admin`, `/{service}/health` is also
//! `/admin/health`.
//!
//! Such a route is no error, because it may be meant; `check-config` and each reload warn of it. Start from
//! [`openings`].

use super::pattern::{PathPattern, Segment};
use super::requirement::{AnyAll, Requirements};
use super::route::Route;
use super::{Access, Policies, Policy};

/// Most openings that are told. More of them would be a list that is not read.
const MAX_OPENINGS: usize = 20;
/// Most pairs of routes that are compared: all pairs of two thousand routes, in a fraction of a second.
const MAX_COMPARED: usize = 4_000_000;

/// A route that opens part of what another one protects.
#[derive(Debug, PartialEq, Eq)]
pub struct Opening {
    /// Place of the template in the file, from 0.
    pub opener: usize,
    /// Place of the route that protects.
    pub protected: usize,
    /// Paths that both match, as a pattern.
    pub path: PathPattern,
}

/// The openings of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Openings {
    /// The first ones, at most 20.
    pub found: Vec<Opening>,
    /// `true` if there may be more: the list is full, or the file has too many routes to compare each with each.
    pub is_cut: bool,
}

/// Finds the routes that take precedence over another one, match some of its requests only because a `{name}` of theirs
/// stands where the other names a segment, and have a weaker policy.
///
/// A policy is weaker than another if it does not ask for all that the other asks for.
pub fn openings(policies: &Policies) -> Openings {
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
            if counts(policies, opener, template, other, &path) {
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

/// The paths that both match, if a `{name}` of the first is what makes it match a segment that the second names. The first
/// takes precedence, so it has at least as many segments.
fn common(template: &Route, other: &Route) -> Option<PathPattern> {
    let (template, other) = (template.path.as_ref()?, other.path.as_ref()?);
    if template.segments.len() < other.segments.len()
        || (!other.is_prefix && template.segments.len() > other.segments.len())
    {
        return None;
    }
    let mut by_name = false;
    let mut segments = Vec::with_capacity(template.segments.len());
    for (place, ours) in template.segments.iter().enumerate() {
        segments.push(match (ours, other.segments.get(place)) {
            (Segment::Literal(one), Some(Segment::Literal(other))) if one != other => return None,
            (Segment::Literal(text), Some(Segment::Variable(_))) if text.is_empty() => return None,
            (Segment::Variable(_), Some(Segment::Literal(text))) if text.is_empty() => return None,
            (Segment::Variable(_), Some(literal @ Segment::Literal(_))) => {
                by_name = true;
                literal.clone()
            }
            _ => ours.clone(),
        });
    }
    by_name.then_some(PathPattern { segments, is_prefix: template.is_prefix })
}

/// `true` if the template is the route that counts for some request that both match: a third route may protect them again.
fn counts(policies: &Policies, opener: usize, template: &Route, other: &Route, path: &PathPattern) -> bool {
    // No literal segment has a `/`, so that only a `{name}` matches this.
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

/// The names that stand in both lists, where an empty list is every name; the empty name stands for those that no list has.
fn shared<'n>(one: &'n [Box<str>], other: &'n [Box<str>]) -> Vec<&'n str> {
    match (one, other) {
        ([], []) => vec![""],
        ([], names) | (names, []) => names.iter().map(|name| &**name).collect(),
        (one, other) => one.iter().filter(|name| other.contains(name)).map(|name| &**name).collect(),
    }
}

/// `true` if the first policy does not ask for all that the second asks for.
fn is_weaker(one: &Policy, other: &Policy) -> bool {
    match (&one.access, &other.access) {
        (_, Access::Public) | (Access::Optional | Access::Required(_), Access::Optional) => false,
        (Access::Public, _) | (Access::Optional, Access::Required(_)) => true,
        (Access::Required(one), Access::Required(other)) => !asks_for_all_of(one, other),
    }
}

/// `true` if all that `other` asks for is asked for by `one`, too, as far as that can be told from what is written.
fn asks_for_all_of(one: &Requirements, other: &Requirements) -> bool {
    let Requirements { token_use, pools, clients, audiences, no_actor, scopes, groups, claims, max_auth_age, acr, amr } =
        other;
    (token_use.is_none() || *token_use == one.token_use)
        && is_narrower(&one.pools, pools)
        && is_narrower(&one.clients, clients)
        && is_narrower(values(one.audiences.as_ref()), values(audiences.as_ref()))
        && (no_actor.is_none() || one.no_actor.is_some())
        && names_all_of(&one.scopes, scopes)
        && names_all_of(&one.groups, groups)
        && claims.iter().all(|claim| one.claims.contains(claim))
        && max_auth_age.is_none_or(|(_, most)| one.max_auth_age.is_some_and(|(_, ours)| ours <= most))
        && is_narrower(values(one.acr.as_ref()), values(acr.as_ref()))
        && amr.as_ref().is_none_or(|(_, names)| one.amr.as_ref().is_some_and(|(_, ours)| names_all_of(ours, names)))
}

fn values<I, V>(requirement: Option<&(I, Vec<V>)>) -> &[V] {
    requirement.map_or(&[], |(_, values)| values)
}

/// Of two lists of which one value has to be there, and where an empty list asks for nothing.
fn is_narrower<V: PartialEq>(one: &[V], other: &[V]) -> bool {
    other.is_empty() || (!one.is_empty() && one.iter().all(|value| other.contains(value)))
}

fn names_all_of(one: &AnyAll, other: &AnyAll) -> bool {
    other.all.iter().all(|name| one.all.contains(name))
        && (is_narrower(&one.any, &other.any) || one.all.iter().any(|name| other.any.contains(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::policy::route::Routes;

    /// Policies: 0 is public, 1 optional, 2 a good token, 3 the group `a`, 4 both groups `a` and `b`, 5 the group `c`.
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

    /// The openings between routes of `METHOD HOST PATH` and a policy.
    fn told(rows: &[(&str, usize)]) -> Vec<String> {
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
    fn a_name_that_reaches_into_a_protected_area_is_told() {
        for (rows, expected) in [
            (&[ADMIN, ("* * /{s}/health", 0)][..], &["1 0 /admin/health"][..]),
            (&[ADMIN, ("* * /{s}/{t}/c", 1)], &["1 0 /admin/{t}/c"]),
            (&[ADMIN, ("* * /{s}", 2)], &["1 0 /admin"]),
            // Prefixes and templates with fewer literal segments are protected areas, too.
            (&[ADMIN, ("* * /{s}/open/\u{2026}", 0)], &["1 0 /admin/open/\u{2026}"]),
            (&[("* * /admin/{x}/{y}", 3), ("* * /{s}/b/c", 0)], &["1 0 /admin/b/c"]),
            (
                &[("* * /{s}/b/{y}", 0), ("* * /a/\u{2026}", 3), ("* * /b/\u{2026}", 3)],
                &["0 1 /a/b/{y}", "0 2 /b/b/{y}"],
            ),
            (&[("* a,b /admin/\u{2026}", 3), ("GET b,c /{s}/health", 0)], &["1 0 /admin/health"]),
            (&[("PUT,GET * /admin/\u{2026}", 3), ("* c /{s}/health", 0)], &["1 0 /admin/health"]),
        ] {
            assert_eq!(told(rows), expected, "{rows:?}");
        }
    }

    #[test]
    fn what_opens_nothing_is_not_told() {
        for rows in [
            // The area is named, so that it is meant.
            &[ADMIN, ("* * /admin/{x}", 0)][..],
            &[ADMIN, ("* * /admin/{x}/health", 0), ("* * /admin/health", 0)],
            // Nothing that both match.
            &[ADMIN, ("* * /b/{x}", 0)],
            &[("* a /admin/\u{2026}", 3), ("* b /{s}/health", 0)],
            &[("PUT * /admin/\u{2026}", 3), ("GET * /{s}/health", 0)],
            &[("* * /admin/health/x/\u{2026}", 3), ("* * /{s}/health", 0)],
            // The other one takes precedence.
            &[("* * /admin/health", 3), ("* * /{s}/health", 0)],
            &[("* * /admin/a/\u{2026}", 3), ("* * /{s}/\u{2026}", 0)],
            // As strict, or stricter.
            &[ADMIN, ("* * /{s}/health", 3)],
            &[ADMIN, ("* * /{s}/health", 4)],
            &[("* * /open/\u{2026}", 0), ("* * /{s}/health", 1)],
            &[("* * /open/\u{2026}", 1), ("* * /{s}/health", 5)],
            // A third route protects it again, for all that both match.
            &[ADMIN, ("* * /{s}/health", 0), ("* * /admin/health", 3)],
            &[ADMIN, ("GET * /{s}/health", 0), ("GET,PUT * /admin/health", 3)],
        ] {
            assert_eq!(told(rows), [""; 0], "{rows:?}");
        }
        // Not for all: the host of the third route is one of many.
        assert_eq!(told(&[ADMIN, ("* * /{s}/health", 0), ("* h /admin/health", 3)]), ["1 0 /admin/health"]);
    }

    #[test]
    fn weaker_is_to_ask_for_less() {
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
            assert_eq!(names_all_of(&one, &other), narrower, "{one:?} {other:?}");
        }
    }

    #[test]
    fn a_file_full_of_them_is_told_in_part() {
        let areas: Vec<String> = (0..30).map(|number| format!("* * /area{number}/\u{2026}")).collect();
        let rows: Vec<_> = areas.iter().map(|row| (&**row, 3)).chain([("* * /{s}/health", 0)]).collect();
        assert_eq!(told(&rows).len(), MAX_OPENINGS);
    }
}
