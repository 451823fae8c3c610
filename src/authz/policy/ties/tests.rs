use proptest::prelude::*;
use proptest::sample::subsequence;

use super::*;
use crate::authz::policy::route::tests::pattern;
use crate::authz::policy::route::{Conflicts, Routes};

/// Second implementation, as simple as possible: compares a route with every earlier one.
fn by_pairs(routes: &[Route]) -> Conflicts {
    let share = |one: &[Box<str>], other: &[Box<str>]| one.is_empty() || one.iter().any(|name| other.contains(name));
    let ties = |one: &Route, other: &Route| {
        one.rank() == other.rank()
            && one.path.as_ref().zip(other.path.as_ref()).is_none_or(|(one, other)| overlap(one, other))
            && share(&one.hosts, &other.hosts)
            && share(&one.methods, &other.methods)
    };
    let (mut kept, mut conflicts): (Vec<usize>, _) = (Vec::new(), Conflicts::default());
    for (position, route) in routes.iter().enumerate() {
        match kept.iter().find(|earlier| ties(&routes[**earlier], route)) {
            Some(first) => conflicts.ties.push((*first, position)),
            None => kept.push(position),
        }
    }
    conflicts
}

/// `true` if some path matches both patterns, which must have the same rank.
fn overlap(one: &PathPattern, other: &PathPattern) -> bool {
    let compatible = |pair: (&Segment, &Segment)| match pair {
        (Segment::Literal(one), Segment::Literal(other)) => one == other,
        // A variable does not match the empty segment after a trailing slash.
        (Segment::Literal(text), Segment::Variable(_)) | (Segment::Variable(_), Segment::Literal(text)) => {
            !text.is_empty()
        }
        (Segment::Variable(_), Segment::Variable(_)) => true,
    };
    one.segments.len() == other.segments.len() && one.segments.iter().zip(&other.segments).all(compatible)
}

/// Creates a route. Each `{}` of the path becomes a variable with a name of its own. `*` is no path.
fn route(methods: &[&str], hosts: &[&str], path: &str) -> Route {
    let list = |names: &[&str]| names.iter().map(|name| (*name).into()).collect();
    let named = path.split('/').enumerate().map(|(place, segment)| segment.replace("{}", &format!("{{v{place}}}")));
    let text = named.collect::<Vec<_>>().join("/");
    Route { hosts: list(hosts), methods: list(methods), path: pattern(&text), policy: 0 }
}

fn folded(routes: &[Route]) -> Vec<Route> {
    let fold = |route: &Route| Route { path: route.path.clone().map(PathPattern::folded), ..route.clone() };
    routes.iter().map(fold).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Few names, so that many routes tie; long lists, so that many do not.
    #[test]
    fn the_same_ties_are_found_as_by_comparing_all_pairs(
        rows in prop::collection::vec(
            (
                subsequence(vec!["GET", "PUT", "POST", "DELETE"], 0..3),
                subsequence(vec!["h", "i", "j", "k", "l"], 0..3),
                prop_oneof![
                    1 => Just("*".to_owned()),
                    9 => "(/(a|A|b|\\{\\})){1,3}/?|(/(a|b|c|\\{\\})){0,4}/\u{2026}|/|(/(a|b|c|d|\\{\\})){4}",
                ],
            ),
            0..40,
        ),
    ) {
        let routes: Vec<Route> = rows.iter().map(|(methods, hosts, path)| route(methods, hosts, path)).collect();
        let found = |case_insensitive| Routes::new(routes.clone(), case_insensitive).err().unwrap_or_default();
        prop_assert_eq!(found(false), by_pairs(&routes), "{:?}", rows);
        prop_assert_eq!(found(true), by_pairs(&folded(&routes)), "{:?}", rows);
    }
}

#[test]
fn a_later_shape_is_compared_with_earlier_routes() {
    let longest = |last: &str| format!("{}/{last}", "/{}".repeat(63));
    for (one, other, ties) in [
        ("/a/{}", "/{}/b", true),
        ("/a/{}/c", "/{}/b/c", true),
        ("/a/{}/c", "/{}/b/d", false),
        ("/{}/b/c/{}", "/a/{}/{}/d", true),
        ("/{}/b/{}/", "/a/{}/x/{}", false),
        ("/{}/", "/a/{}", false),
        ("/{}/\u{2026}", "/{}/\u{2026}", true),
        ("/{}/b/\u{2026}", "/a/{}/\u{2026}", true),
        (&longest("a"), &longest("a"), true),
        (&longest("a"), &longest("b"), false),
    ] {
        let routes = [route(&[], &[], one), route(&[], &[], other)];
        assert_eq!(Routes::new(routes.to_vec(), false).is_err(), ties, "{one} {other}");
        assert_eq!(!by_pairs(&routes).ties.is_empty(), ties, "{one} {other}");
    }
}

/// Routes of `count` resources, as generated from a description of an API, for some hosts.
fn generated(count: usize) -> Vec<Route> {
    (0..count)
        .flat_map(|number| {
            let host = format!("h{}", number % 50);
            [
                route(&["GET", "HEAD"], &[], &format!("/api/r{number}")),
                route(&["POST"], &[], &format!("/api/r{number}")),
                route(&[], &[], &format!("/api/r{number}/{{}}")),
                route(&[], &[], &format!("/{{}}/s{number}/health")),
                route(&["GET"], &[&host, "all"], &format!("/web/r{number}/\u{2026}")),
                route(&[], &[&format!("tenant{number}")], "/admin/\u{2026}"),
                route(&[], &[&format!("tenant{number}")], "*"),
            ]
        })
        .collect()
}

#[test]
fn the_steps_are_proportional_to_the_number_of_routes() {
    let steps = |routes: Vec<Route>| {
        let mut ties = Ties::default();
        for (position, route) in routes.iter().enumerate() {
            assert_eq!(ties.add(route, position), Ok(None), "{route}");
        }
        ties.steps()
    };
    let (one, two) = (steps(generated(1000)), steps(generated(2000)));
    assert!(two < one * 21 / 10, "{one} steps for 7000 routes, {two} for 14000");
    assert!(one < 30 * 7000, "{one} steps for 7000 routes");
}

#[test]
fn the_number_of_steps_is_limited() {
    let names: Vec<String> = (0..6000).map(|number| format!("N{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let routes = vec![route(&[], &[], "/a"), route(&[], &[], "/a"), route(&names, &names, "/b"), route(&[], &[], "/a")];
    let conflicts = Routes::new(routes, false).err().unwrap();
    assert_eq!(conflicts, Conflicts { ties: vec![(0, 1)], uncompared: Some(2) });
}

#[test]
fn the_number_of_remembered_combinations_is_limited() {
    let names: Vec<String> = (0..1000).map(|number| format!("N{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let routes = vec![route(&names, &names[..800], "/a"), route(&names, &names[..200], "/b")];
    let conflicts = Routes::new(routes, false).err().unwrap();
    assert_eq!(conflicts, Conflicts { ties: Vec::new(), uncompared: Some(1) });
}
