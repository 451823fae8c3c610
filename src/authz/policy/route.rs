//! Routes of the policy file: find the policy for the host, the method and the path of a request ([`Routes::find`]).
//!
//! If several routes match, their order in the file does not matter. Precedence, from high to low:
//! 1. an exact path; a template, more literal segments first; a prefix, the longer one first; no path,
//! 2. a route that names hosts,
//! 3. a route that names methods.
//!
//! Two routes of equal precedence that can match the same request are an error when the file is loaded.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use super::super::request::RequestContext;
use super::PolicyIndex;
use super::path::{PlainPath, fold};
use super::pattern::{PathPattern, Segment};

/// Condition on a request, and the policy of the requests that meet it.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// Hosts, in lower case, without port and trailing dot. Empty for every host.
    pub(crate) hosts: Vec<Box<str>>,
    /// Methods, case-sensitive (RFC 9110 section 9.1). Empty for every method.
    pub(crate) methods: Vec<Box<str>>,
    /// Paths. `None` for every path.
    pub(crate) path: Option<PathPattern>,
    /// Policy of the requests that match.
    pub(crate) policy: PolicyIndex,
}

impl Route {
    /// Precedence: by path, then hosts, then methods. The greater value takes precedence.
    pub(super) fn rank(&self) -> ((u8, usize, usize), bool, bool) {
        let path = self.path.as_ref().map_or((0, 0, 0), PathPattern::rank);
        (path, !self.hosts.is_empty(), !self.methods.is_empty())
    }

    /// `true` if the routes have equal precedence and some request matches both.
    fn ties_with(&self, other: &Self) -> bool {
        let share =
            |one: &[Box<str>], other: &[Box<str>]| one.is_empty() || one.iter().any(|name| other.contains(name));
        let paths_overlap = match (&self.path, &other.path) {
            (Some(one), Some(other)) => one.overlaps(other),
            _ => true, // The ranks are equal, so neither has a path.
        };
        self.rank() == other.rank()
            && paths_overlap
            && share(&self.hosts, &other.hosts)
            && share(&self.methods, &other.methods)
    }

    fn accepts(&self, method: &[u8]) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|ours| ours.as_bytes() == method)
    }
}

impl fmt::Display for Route {
    /// `GET,HEAD api.example /orders/{id}`. `*` stands for every method, host or path.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[Box<str>]| if names.is_empty() { "*".to_owned() } else { names.join(",") };
        write!(f, "{} {} ", list(&self.methods), list(&self.hosts))?;
        match &self.path {
            Some(path) => path.fmt(f),
            None => f.write_str("*"),
        }
    }
}

/// All routes, indexed by host and by path segments.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    all: Vec<Route>,
    any_host: Tree,
    by_host: HashMap<Box<str>, Tree>,
    has_paths: bool,
    case_insensitive: bool,
}

/// Routes for one host, or those for every host.
#[derive(Debug, Default)]
struct Tree {
    root: Node,
    /// Routes without a path.
    pathless: Vec<usize>,
}

/// Node of the tree of segments, with the positions of the routes whose patterns end there.
#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, Node>,
    variable: Option<Box<Node>>,
    whole: Vec<usize>,
    prefix: Vec<usize>,
}

/// Error: the path of a request is not in plain form, and there are routes with paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnsafePath;

/// Route that was found for a request.
pub(crate) struct Found<'r, 'p> {
    /// Position of the route in the file, from 0.
    pub(crate) position: usize,
    /// Route.
    pub(crate) route: &'r Route,
    /// Path of the request; `None` if no route has a path.
    pub(crate) path: Option<PlainPath<'p>>,
}

impl Routes {
    /// Indexes the routes, which must be in the order of the file.
    ///
    /// # Errors
    /// Positions of two routes of equal precedence that can match the same request.
    pub(crate) fn new(given: Vec<Route>, case_insensitive: bool) -> Result<Self, (usize, usize)> {
        let mut routes = Self { case_insensitive, ..Self::default() };
        let mut by_rank: HashMap<_, Vec<usize>> = HashMap::new();
        for (position, mut route) in given.into_iter().enumerate() {
            if case_insensitive {
                route.path = route.path.map(PathPattern::folded);
            }
            let rivals = by_rank.entry(route.rank()).or_default();
            let ties = |rival: &&usize| routes.all.get(**rival).is_some_and(|rival| rival.ties_with(&route));
            if let Some(rival) = rivals.iter().find(ties) {
                return Err((*rival, position));
            }
            rivals.push(position);
            routes.has_paths |= route.path.is_some();
            if route.hosts.is_empty() {
                routes.any_host.insert(&route, position);
            }
            for host in &route.hosts {
                routes.by_host.entry(host.clone()).or_default().insert(&route, position);
            }
            routes.all.push(route);
        }
        Ok(routes)
    }

    /// Routes, in the order of the file.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Route> {
        self.all.iter()
    }

    /// Finds the matching route with the highest precedence.
    ///
    /// # Errors
    /// [`UnsafePath`], even if a route without a path would match: upstreams disagree about the meaning of such a path.
    pub(crate) fn find<'p>(&self, request: &RequestContext<'p>) -> Result<Option<Found<'_, 'p>>, UnsafePath> {
        if self.all.is_empty() {
            return Ok(None);
        }
        let path = if self.has_paths { Some(PlainPath::new(request.path).ok_or(UnsafePath)?) } else { None };
        let host = if self.by_host.is_empty() { Cow::Borrowed("") } else { host_name(request.host) };
        let best = self.best(request.method, &host, path.as_ref().map(PlainPath::segments).as_ref());
        Ok(best.and_then(|position| self.all.get(position).map(|route| Found { position, route, path })))
    }

    /// Returns the position of the matching route with the highest precedence for a method, a host name and the segments of a
    /// path.
    pub(super) fn best<'s>(
        &self,
        method: &[u8],
        host: &str,
        segments: Option<&(impl Iterator<Item = &'s str> + Clone)>,
    ) -> Option<usize> {
        let mut best = None;
        for tree in [Some(&self.any_host), self.by_host.get(host)].into_iter().flatten() {
            self.consider(&tree.pathless, method, &mut best);
            if let Some(segments) = segments {
                self.walk(&tree.root, segments.clone(), method, &mut best);
            }
        }
        best
    }

    /// Considers every pattern below `node` that the segments match. Visits no node twice.
    fn walk<'s>(
        &self,
        node: &Node,
        mut segments: impl Iterator<Item = &'s str> + Clone,
        method: &[u8],
        best: &mut Option<usize>,
    ) {
        self.consider(&node.prefix, method, best);
        let Some(segment) = segments.next() else {
            self.consider(&node.whole, method, best);
            return;
        };
        let key = if self.case_insensitive { fold(segment) } else { Cow::Borrowed(segment) };
        if let Some(next) = node.literals.get(&*key) {
            self.walk(next, segments.clone(), method, best);
        }
        if let Some(next) = node.variable.as_deref().filter(|_| !segment.is_empty()) {
            self.walk(next, segments, method, best);
        }
    }

    fn consider(&self, positions: &[usize], method: &[u8], best: &mut Option<usize>) {
        let route = |position: usize| self.all.get(position);
        for position in positions.iter().copied() {
            let accepts = route(position).is_some_and(|route| route.accepts(method));
            let rank = |position| route(position).map(Route::rank);
            if accepts && best.is_none_or(|best| rank(best) < rank(position)) {
                *best = Some(position);
            }
        }
    }
}

impl Tree {
    fn insert(&mut self, route: &Route, position: usize) {
        match &route.path {
            Some(pattern) => self.root.insert(pattern, position),
            None => self.pathless.push(position),
        }
    }
}

impl Node {
    fn insert(&mut self, pattern: &PathPattern, position: usize) {
        let mut node = self;
        for segment in &pattern.segments {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                Segment::Variable(_) => node.variable.get_or_insert_default(),
            };
        }
        if pattern.is_prefix { node.prefix.push(position) } else { node.whole.push(position) }
    }
}

/// Normalizes `:authority` for comparison: lower case, without port and trailing dot.
pub(crate) fn host_name(authority: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(authority);
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    let host = match text.rsplit_once(':') {
        // An IPv6 address such as `[::1]` contains colons.
        Some((host, port)) if is_port(port) && (!host.contains(':') || host.ends_with(']')) => host,
        _ => &text,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.len() == text.len() && !host.bytes().any(|b| b.is_ascii_uppercase()) {
        return text;
    }
    Cow::Owned(host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{codes, table};
    use proptest::prelude::*;

    /// Returns `docs/policy-routes.md`, whose tables are the data of tests.
    fn page() -> String {
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/policy-routes.md")).unwrap()
    }

    fn route(method: &str, host: &str, path: &str) -> Route {
        let list = |text: &str| text.split(',').filter(|name| *name != "*").map(Into::into).collect();
        let path = match path.strip_suffix("/…") {
            _ if path == "*" => None,
            Some("") => Some(PathPattern::prefix("/").unwrap()),
            Some(prefix) => Some(PathPattern::prefix(prefix).unwrap()),
            None => Some(path.parse().unwrap()),
        };
        Route { hosts: list(host), methods: list(method), path, policy: 0 }
    }

    fn routes(rows: &[(&str, &str, &str)], case_insensitive: bool) -> Routes {
        Routes::new(rows.iter().map(|(method, host, path)| route(method, host, path)).collect(), case_insensitive)
            .unwrap()
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
                Err((first, second)) => {
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
                prop_assert!(one.ties_with(&other), "{} {}", one, other);
            }
        }
    }
}
