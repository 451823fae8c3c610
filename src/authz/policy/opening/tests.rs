use proptest::prelude::*;

use super::*;
use crate::authz::policy::route::Routes;

/// Returns these policies: 0 public, 1 optional, 2 any valid token, 3 group `a`, 4 groups `a` and `b`, 5 group `c`.
fn policies() -> Vec<Policy> {
    let groups = |names: &[&str]| {
        let all = names.iter().map(|name| (*name).into()).collect();
        Access::Required(Box::new(Requirements { groups: AnyAll { all, ..AnyAll::default() }, ..Default::default() }))
    };
    let access = [Access::Public, Access::Optional, groups(&[]), groups(&["a"]), groups(&["a", "b"]), groups(&["c"])];
    access.into_iter().map(|access| Policy { access, ..Policy::default() }).collect()
}

/// Returns policies with these routes, each given as `METHOD HOST PATH` and a policy; `None` if routes tie.
fn with_routes(rows: &[(&str, usize)]) -> Option<Policies> {
    let route = |(row, policy): &(&str, usize)| {
        let [method, host, path] = row.split(' ').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let list = |text: &str| text.split(',').filter(|name| *name != "*").map(Into::into).collect();
        let path = match path.strip_suffix("/\u{2026}") {
            Some(prefix) => PathPattern::prefix(prefix).unwrap(),
            None => path.parse().unwrap(),
        };
        Route { hosts: list(host), methods: list(method), path: Some(path), policy: *policy }
    };
    let routes = Routes::new(rows.iter().map(route).collect(), false).ok()?;
    Some(Policies::new(policies(), 2, routes))
}

/// Returns the openings between routes.
fn found(rows: &[(&str, usize)]) -> Vec<String> {
    let openings = openings(&with_routes(rows).unwrap());
    assert_eq!(openings.is_cut, openings.found.len() == MAX_OPENINGS);
    openings.found.iter().map(|Opening { opener, protected, path }| format!("{opener} {protected} {path}")).collect()
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
        (&[("* * /{s}/b/{y}", 0), ("* * /a/\u{2026}", 3), ("* * /b/\u{2026}", 3)], &["0 1 /a/b/{y}", "0 2 /b/b/{y}"]),
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

#[test]
fn a_large_file_is_searched_to_the_end() {
    let rows: Vec<(String, usize)> = (0..2000)
        .flat_map(|number| {
            let template = format!("* * /api/r{number}/{{id}}");
            let area = format!("GET tenant{number} /admin/\u{2026}");
            [(template, 0), (format!("* * /web/r{number}/\u{2026}"), 3), (area, 3)]
        })
        .chain([("PUT * /{s}/r7/open/\u{2026}".to_owned(), 0)])
        .collect();
    let rows: Vec<(&str, usize)> = rows.iter().map(|(row, policy)| (&**row, *policy)).collect();
    assert_eq!(found(&rows), ["6000 22 /web/r7/open/\u{2026}"]);
}

/// Second implementation, as simple as possible: compares each template with each route.
fn by_pairs(policies: &Policies) -> Vec<Opening> {
    let mut search = Search::new(policies);
    let mut openings = Vec::new();
    for (opener, template) in policies.routes().iter().enumerate() {
        for (protected, other) in policies.routes().iter().enumerate() {
            let weaker = is_weaker(policies.get(template.policy).unwrap(), policies.get(other.policy).unwrap());
            let path = common(template, other).filter(|_| weaker && template.rank() > other.rank());
            let Some(path) = path else { continue };
            if search.is_effective(opener, template, other, &path).is_ok_and(|is_effective| is_effective) {
                openings.push(Opening { opener, protected, path });
            }
        }
    }
    openings.truncate(MAX_OPENINGS);
    openings
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_same_openings_are_found_as_by_comparing_all_pairs(
        rows in prop::collection::vec(
            ("(\\*|GET|GET,PUT|PUT) (\\*|a|a,b|b) (/(a|b|\\{x\\})){1,3}(/|/\u{2026})?", 0_usize..6), 0..12),
    ) {
        // Variable names only have to be unique within a pattern.
        let unique = |row: &str| {
            let named = row.split('/').enumerate().map(|(place, segment)| segment.replace("{x}", &format!("{{x{place}}}")));
            named.collect::<Vec<_>>().join("/")
        };
        let rows: Vec<(String, usize)> = rows.iter().map(|(row, policy)| (unique(row), *policy)).collect();
        // Of routes that tie, only the first is kept.
        let mut kept: Vec<(&str, usize)> = Vec::new();
        for (row, policy) in &rows {
            kept.push((row, *policy));
            if with_routes(&kept).is_none() {
                kept.pop();
            }
        }
        let policies = with_routes(&kept).unwrap();
        prop_assert_eq!(openings(&policies).found, by_pairs(&policies), "{:?}", kept);
    }
}
