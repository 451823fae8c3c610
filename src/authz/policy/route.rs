//! Routes: which policy a request's host, method and path choose.
//!
//! Which of several routes counts does not depend on their order in the file: an exact path goes before a template, a
//! template with more literal segments before one with fewer, a template before a prefix, a longer prefix before a
//! shorter one, a route with a path before one without; then one that names hosts before one that does not; then one
//! that names methods. Two routes that could both match with nothing to choose between them are an error when they
//! are read. Start from [`Routes::find`].

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use super::super::request::RequestContext;
use super::PolicyIndex;
use super::path::{PlainPath, fold};
use super::pattern::{PathPattern, Segment};

/// What a route matches, and the policy it chooses.
#[derive(Debug)]
pub struct Route {
    /// Hosts, in lower case, without port and trailing dot; none is every host.
    pub hosts: Vec<Box<str>>,
    /// Methods, compared as they are (RFC 9110 section 9.1); none is every method.
    pub methods: Vec<Box<str>>,
    /// Paths; none is every path.
    pub path: Option<PathPattern>,
    /// The policy.
    pub policy: PolicyIndex,
}

impl Route {
    /// What goes before what: by path, then hosts, then methods.
    pub(super) fn rank(&self) -> ((u8, usize, usize), bool, bool) {
        let path = self.path.as_ref().map_or((0, 0, 0), PathPattern::rank);
        (path, !self.hosts.is_empty(), !self.methods.is_empty())
    }

    /// Whether some request matches both routes, and nothing says which counts.
    fn ties_with(&self, other: &Self) -> bool {
        let share =
            |one: &[Box<str>], other: &[Box<str>]| one.is_empty() || one.iter().any(|name| other.contains(name));
        let paths_overlap = match (&self.path, &other.path) {
            (Some(one), Some(other)) => one.overlaps(other),
            _ => true, // of one rank: neither has one
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
    /// `GET,HEAD api.example /orders/{id}`; `*` for what is not named.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[Box<str>]| if names.is_empty() { "*".to_owned() } else { names.join(",") };
        write!(f, "{} {} ", list(&self.methods), list(&self.hosts))?;
        match &self.path {
            Some(path) => path.fmt(f),
            None => f.write_str("*"),
        }
    }
}

/// All routes, to be searched by host and by segments.
#[derive(Debug, Default)]
pub struct Routes {
    all: Vec<Route>,
    any_host: Tree,
    by_host: HashMap<Box<str>, Tree>,
    has_paths: bool,
    case_insensitive: bool,
}

/// The routes of a host, or those that name none.
#[derive(Debug, Default)]
struct Tree {
    root: Node,
    /// Routes without a path.
    pathless: Vec<usize>,
}

/// A place in the tree of segments, and the routes whose patterns end there.
#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Box<str>, Node>,
    variable: Option<Box<Node>>,
    whole: Vec<usize>,
    prefix: Vec<usize>,
}

/// A request's path is not in plain form, and there are routes with paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsafePath;

/// The route that counts.
pub struct Found<'r, 'p> {
    /// Its place in the file, from 0.
    pub place: usize,
    /// The route.
    pub route: &'r Route,
    /// The request's path, if routes have paths at all.
    pub path: Option<PlainPath<'p>>,
}

impl Routes {
    /// Indexes the routes, in the order of the file.
    ///
    /// # Errors
    /// The places of two routes of which nothing says which one counts.
    pub fn new(given: Vec<Route>, case_insensitive: bool) -> Result<Self, (usize, usize)> {
        let mut routes = Self { case_insensitive, ..Self::default() };
        let mut by_rank: HashMap<_, Vec<usize>> = HashMap::new();
        for (place, mut route) in given.into_iter().enumerate() {
            if case_insensitive {
                route.path = route.path.map(PathPattern::folded);
            }
            let rivals = by_rank.entry(route.rank()).or_default();
            let ties = |rival: &&usize| routes.all.get(**rival).is_some_and(|rival| rival.ties_with(&route));
            if let Some(rival) = rivals.iter().find(ties) {
                return Err((*rival, place));
            }
            rivals.push(place);
            routes.has_paths |= route.path.is_some();
            if route.hosts.is_empty() {
                routes.any_host.insert(&route, place);
            }
            for host in &route.hosts {
                routes.by_host.entry(host.clone()).or_default().insert(&route, place);
            }
            routes.all.push(route);
        }
        Ok(routes)
    }

    /// The routes, in the order of the file.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Route> {
        self.all.iter()
    }

    /// The route that counts for a request, if one matches.
    ///
    /// # Errors
    /// [`UnsafePath`], whatever else there is to match: what it means is anybody's guess.
    pub fn find<'p>(&self, request: &RequestContext<'p>) -> Result<Option<Found<'_, 'p>>, UnsafePath> {
        if self.all.is_empty() {
            return Ok(None);
        }
        let path = if self.has_paths { Some(PlainPath::new(request.path).ok_or(UnsafePath)?) } else { None };
        let host = if self.by_host.is_empty() { Cow::Borrowed("") } else { host_name(request.host) };
        let best = self.best(request.method, &host, path.as_ref().map(PlainPath::segments).as_ref());
        Ok(best.and_then(|place| self.all.get(place).map(|route| Found { place, route, path })))
    }

    /// The place of the route that counts for a method, a host name and the segments of a path.
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

    /// Looks at every pattern that the segments match from here on. Visits no node twice.
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

    fn consider(&self, places: &[usize], method: &[u8], best: &mut Option<usize>) {
        let route = |place: usize| self.all.get(place);
        for place in places.iter().copied() {
            let accepts = route(place).is_some_and(|route| route.accepts(method));
            let rank = |place| route(place).map(Route::rank);
            if accepts && best.is_none_or(|best| rank(best) < rank(place)) {
                *best = Some(place);
            }
        }
    }
}

impl Tree {
    fn insert(&mut self, route: &Route, place: usize) {
        match &route.path {
            Some(pattern) => self.root.insert(pattern, place),
            None => self.pathless.push(place),
        }
    }
}

impl Node {
    fn insert(&mut self, pattern: &PathPattern, place: usize) {
        let mut node = self;
        for segment in &pattern.segments {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                Segment::Variable(_) => node.variable.get_or_insert_default(),
            };
        }
        if pattern.is_prefix { node.prefix.push(place) } else { node.whole.push(place) }
    }
}

/// `:authority` as hosts are compared: in lower case, without port and trailing dot.
pub fn host_name(authority: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(authority);
    let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit());
    let host = match text.rsplit_once(':') {
        // `[::1]` has colons of its own.
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

    /// Its tables are the data of tests here.
    fn page() -> String {
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/policy.md")).unwrap()
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

    /// The place of the route that counts.
    fn find(routes: &Routes, method: &str, host: &str, path: &str) -> Result<Option<usize>, UnsafePath> {
        let request = RequestContext {
            method: method.as_bytes(),
            host: host.as_bytes(),
            path: path.as_bytes(),
            ..RequestContext::default()
        };
        routes.find(&request).map(|found| found.map(|found| found.place))
    }

    #[test]
    fn what_goes_before_what_does_not_depend_on_the_order() {
        // Each goes before all that stand below it.
        let table = table(&page(), "### Which route counts");
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
    fn what_matches_what() {
        let rows = table(&page(), "### What a path matches");
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
    fn hosts_methods_and_case() {
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
            let found = find(&routes(&[(method, host, "*")], false), request.0, request.1, "not looked at");
            assert_eq!(found, Ok(matches.then_some(0)), "{method} {host} {request:?}");
        }
        let folded = routes(&[("*", "*", "/Admin/{x}"), ("*", "*", "/É/…")], true);
        assert_eq!(find(&folded, "GET", "", "/aDMIN/b"), Ok(Some(0)));
        assert_eq!(find(&folded, "GET", "", "/%C3%A9/b"), Ok(Some(1)));
        assert_eq!(find(&folded, "GET", "", "/%C3%89"), Ok(Some(1)));
    }

    #[test]
    fn an_unsafe_path_falls_through_to_nothing() {
        let with_paths = routes(&[("*", "*", "/a"), ("*", "*", "/…"), ("*", "h", "*")], false);
        for path in ["/a/../b", "//a", "/%61", "/a;b", "", "*", "/a%2fb"] {
            assert_eq!(find(&with_paths, "GET", "h", path), Err(UnsafePath), "{path}");
            assert_eq!(find(&routes(&[("*", "h", "*")], false), "GET", "h", path), Ok(Some(0)), "{path}");
            assert_eq!(find(&Routes::default(), "GET", "h", path), Ok(None), "{path}");
        }
    }

    /// Reference implementation: tries each pattern, and ranks the matches in the order of `docs/policy.md`.
    fn by_the_book(rows: &[(&str, &str, String)], method: &str, host: &str, path: &str) -> Option<usize> {
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
        fn searching_finds_what_the_book_says(
            rows in prop::collection::vec((prop_oneof![Just("*"), Just("GET")], prop_oneof![Just("*"), Just("h")], "(/(a|b|\\{[xy]\\})){1,3}(/…)?"), 0..8),
            path in "(/(a|b|c)){1,4}/?",
            method in prop_oneof![Just("GET"), Just("PUT")],
            host in prop_oneof![Just("h"), Just("other")],
        ) {
            // Names of variables are the test's own: they only have to differ within a pattern.
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
                    prop_assert_eq!(found, by_the_book(&rows, method, host, &path), "{:?}", rows);
                }
                // Two that are refused are refused for themselves, whatever stands beside them.
                Err((first, second)) => {
                    let row = |place: usize| route(rows[place].0, rows[place].1, &rows[place].2);
                    prop_assert!(Routes::new(vec![row(first), row(second)], false).is_err());
                    prop_assert_eq!(row(first).rank(), row(second).rank());
                }
            }
        }

        /// Whatever is let in can be decided: of two routes that match one request, one goes before the other.
        #[test]
        fn routes_without_a_tie_are_never_equal(
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
