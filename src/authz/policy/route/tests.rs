use super::*;
use crate::table::{codes, table};
use proptest::prelude::*;

/// Returns `docs/policy-routes.md`, whose tables are the data of tests.
fn page() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/policy-routes.md")).unwrap()
}

fn route(method: &str, host: &str, path: &str) -> Route {
    let list = |text: &str| text.split(',').filter(|name| *name != "*").map(Into::into).collect();
    Route { hosts: list(host), methods: list(method), path: pattern(path), policy: 0 }
}

/// Reads a path as the tests write it: `*` is none, and one that ends with `/…` is a prefix.
pub(in crate::authz::policy) fn pattern(path: &str) -> Option<PathPattern> {
    match path.strip_suffix("/…") {
        _ if path == "*" => None,
        Some("") => Some(PathPattern::prefix("/").unwrap()),
        Some(prefix) => Some(PathPattern::prefix(prefix).unwrap()),
        None => Some(path.parse().unwrap()),
    }
}

fn routes(rows: &[(&str, &str, &str)], case_insensitive: bool) -> Routes {
    Routes::new(rows.iter().map(|(method, host, path)| route(method, host, path)).collect(), case_insensitive).unwrap()
}

/// Returns the position of the route that is found.
fn find(routes: &Routes, method: &str, host: &str, path: &str) -> Result<Option<usize>, UnsafePath> {
    let request = RequestContext {
        method: method.as_bytes(),
        host: host.as_bytes(),
        path: path.as_bytes(),
        ..RequestContext::default()
    };
    routes.find(&request).map(|found| found.map(|found| found.position))
}

#[test]
fn precedence_does_not_depend_on_the_order_of_routes() {
    // Each row takes precedence over all rows below it.
    let table = table(&page(), "## Which route counts");
    assert!(table.len() >= 18, "{table:?}");
    let cells = |row| <[&str; 3]>::try_from(codes(row).collect::<Vec<_>>()).unwrap();
    let lines: Vec<String> = table.iter().map(|row| row[..3].concat()).collect();
    let rows: Vec<_> = lines.iter().map(|line| cells(line).into()).collect();
    for first in 0..rows.len() {
        let mut rest = rows[first..].to_vec();
        assert_eq!(find(&routes(&rest, false), "GET", "a.example", "/a/b/c"), Ok(Some(0)), "{:?}", rest[0]);
        rest.reverse();
        assert_eq!(find(&routes(&rest, false), "GET", "a.example", "/a/b/c"), Ok(Some(rest.len() - 1)));
    }
}

#[test]
fn patterns_match_the_paths_in_the_documentation() {
    let rows = table(&page(), "## What a path matches");
    assert!(rows.len() >= 12, "{rows:?}");
    for row in rows {
        let pattern = codes(&row[0]).next().unwrap();
        for (cell, matches) in row[1..].iter().zip([true, false]) {
            for path in codes(cell) {
                let found = find(&routes(&[("*", "*", pattern)], false), "GET", "", path);
                assert_eq!(found, Ok(matches.then_some(0)), "{pattern} {path}");
            }
        }
    }
}

#[test]
fn hosts_methods_and_case_are_compared() {
    for (method, host, request, matches) in [
        ("*", "a.example", ("GET", "A.EXAMPLE:8443"), true),
        ("*", "a.example", ("GET", "a.example."), true),
        ("*", "a.example", ("GET", "a.example.:443"), true),
        ("*", "a.example", ("GET", "b.a.example"), false),
        ("*", "a.example", ("GET", ""), false),
        ("*", "[::1]", ("GET", "[::1]:80"), true),
        ("*", "[::1]", ("GET", "[::1]"), true),
        ("GET,HEAD", "*", ("HEAD", ""), true),
        ("GET", "*", ("HEAD", ""), false),
        ("GET", "*", ("get", ""), false),
    ] {
        let found = find(&routes(&[(method, host, "*")], false), request.0, request.1, "ignored");
        assert_eq!(found, Ok(matches.then_some(0)), "{method} {host} {request:?}");
    }
    let folded = routes(&[("*", "*", "/Admin/{x}"), ("*", "*", "/É/…")], true);
    assert_eq!(find(&folded, "GET", "", "/aDMIN/b"), Ok(Some(0)));
    assert_eq!(find(&folded, "GET", "", "/%C3%A9/b"), Ok(Some(1)));
    assert_eq!(find(&folded, "GET", "", "/%C3%89"), Ok(Some(1)));
}

#[test]
fn an_unsafe_path_matches_no_route() {
    let with_paths = routes(&[("*", "*", "/a"), ("*", "*", "/…"), ("*", "h", "*")], false);
    for path in ["/a/../b", "//a", "/%61", "/a;b", "", "*", "/a%2fb"] {
        assert_eq!(find(&with_paths, "GET", "h", path), Err(UnsafePath), "{path}");
        assert_eq!(find(&routes(&[("*", "h", "*")], false), "GET", "h", path), Ok(Some(0)), "{path}");
        assert_eq!(find(&Routes::default(), "GET", "h", path), Ok(None), "{path}");
    }
}

/// Second implementation, as simple as possible: tries every route, and compares ranks.
fn by_exhaustive_search(rows: &[(&str, &str, String)], method: &str, host: &str, path: &str) -> Option<usize> {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let ranks = rows.iter().enumerate().filter_map(|(place, (methods, hosts, pattern))| {
        let named = |list: &str, name: &str| (list == "*" || list == name).then_some(list != "*");
        let (by_method, by_host) = (named(methods, method)?, named(hosts, host)?);
        let (prefix, pattern) = (pattern.ends_with("/…"), pattern.trim_end_matches("/…"));
        let pattern: Vec<&str> = pattern.split('/').skip(1).collect();
        let fits = |(ours, theirs): (&&str, &&str)| ours == theirs || (ours.starts_with('{') && !theirs.is_empty());
        let long_enough = if prefix { pattern.len() <= segments.len() } else { pattern.len() == segments.len() };
        let literals = pattern.iter().filter(|segment| !segment.starts_with('{')).count();
        let kind = match (prefix, literals == pattern.len()) {
            (false, true) => (3, 0, 0),
            (false, false) => (2, literals, 0),
            (true, _) => (1, pattern.len(), literals),
        };
        (long_enough && pattern.iter().zip(&segments).all(fits)).then_some(((kind, by_host, by_method), place))
    });
    ranks.max().map(|(_, place)| place)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn the_tree_finds_the_same_route_as_an_exhaustive_search(
        rows in prop::collection::vec((prop_oneof![Just("*"), Just("GET")], prop_oneof![Just("*"), Just("h")], "(/(a|b|\\{[xy]\\})){1,3}(/…)?"), 0..8),
        path in "(/(a|b|c)){1,4}/?",
        method in prop_oneof![Just("GET"), Just("PUT")],
        host in prop_oneof![Just("h"), Just("other")],
    ) {
        // Variable names only have to be unique within a pattern.
        let unique = |pattern: &str| {
            let named = pattern.split('/').enumerate().map(|(place, segment)| {
                if segment.starts_with('{') { format!("{{v{place}}}") } else { segment.to_owned() }
            });
            named.collect::<Vec<_>>().join("/")
        };
        let rows: Vec<(&str, &str, String)> = rows.iter().map(|(m, h, p)| (*m, *h, unique(p))).collect();
        let given = rows.iter().map(|(method, host, path)| route(method, host, path)).collect();
        match Routes::new(given, false) {
            Ok(routes) => {
                let found = find(&routes, method, host, &path).unwrap();
                prop_assert_eq!(found, by_exhaustive_search(&rows, method, host, &path), "{:?}", rows);
            }
            // Two routes that tie also tie without the others.
            Err(Conflicts { ties, .. }) => for (first, second) in ties {
                let row = |place: usize| route(rows[place].0, rows[place].1, &rows[place].2);
                prop_assert!(Routes::new(vec![row(first), row(second)], false).is_err());
                prop_assert_eq!(row(first).rank(), row(second).rank());
            }
        }
    }

    /// Of two routes without a tie that match the same request, one takes precedence.
    #[test]
    fn routes_without_a_tie_differ_in_rank(
        one in "(/(a|\\{x\\})){1,3}(/…)?", other in "(/(a|\\{x\\})){1,3}(/…)?", path in "(/(a|c)){1,4}",
    ) {
        let unique = |pattern: &str| {
            pattern.split('/').enumerate().map(|(place, s)| s.replace('x', &format!("x{place}"))).collect::<Vec<_>>().join("/")
        };
        let (one, other) = (route("*", "*", &unique(&one)), route("*", "*", &unique(&other)));
        let matches = |route: &Route| {
            let alone = Route { hosts: Vec::new(), methods: Vec::new(), path: route.path.clone(), policy: 0 };
            find(&Routes::new(vec![alone], false).unwrap(), "GET", "", &path) == Ok(Some(0))
        };
        if matches(&one) && matches(&other) && one.rank() == other.rank() {
            let shown = format!("{one} {other}");
            prop_assert!(Routes::new(vec![one, other], false).is_err(), "{}", shown);
        }
    }
}
