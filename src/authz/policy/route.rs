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
use super::ties::{Ties, TooMany};

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
pub(super) struct Node {
    pub(super) literals: HashMap<Box<str>, Node>,
    pub(super) variable: Option<Box<Node>>,
    pub(super) whole: Vec<usize>,
    pub(super) prefix: Vec<usize>,
}

/// Error: the path of a request is not in plain form, and there are routes with paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnsafePath;

/// Routes of equal precedence that can match the same request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conflicts {
    /// Positions of two routes each: the first one that a later one ties with, and the later one, which is not compared
    /// with the routes after it. In the order of the later ones.
    pub(crate) ties: Vec<(usize, usize)>,
    /// Position of the first route that was not compared, because that would take too much time or memory.
    pub(crate) uncompared: Option<usize>,
}

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
    /// Routes of equal precedence that can match the same request.
    pub(crate) fn new(given: Vec<Route>, case_insensitive: bool) -> Result<Self, Conflicts> {
        let mut routes = Self { case_insensitive, ..Self::default() };
        let (mut earlier, mut conflicts) = (Ties::default(), Conflicts::default());
        for (position, mut route) in given.into_iter().enumerate() {
            if case_insensitive {
                route.path = route.path.map(PathPattern::folded);
            }
            match earlier.add(&route, position) {
                Ok(None) => {}
                Ok(Some(first)) => conflicts.ties.push((first, position)),
                Err(TooMany) => {
                    conflicts.uncompared = Some(position);
                    break;
                }
            }
            routes.has_paths |= route.path.is_some();
            if route.hosts.is_empty() {
                routes.any_host.insert(&route, position);
            }
            for host in &route.hosts {
                routes.by_host.entry(host.clone()).or_default().insert(&route, position);
            }
            routes.all.push(route);
        }
        if conflicts == Conflicts::default() { Ok(routes) } else { Err(conflicts) }
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

    /// Returns the trees of the routes that requests for one of these hosts can match.
    pub(super) fn trees<'t>(&'t self, hosts: &'t [Box<str>]) -> impl Iterator<Item = &'t Node> {
        let named = hosts.iter().filter_map(|host| self.by_host.get(host));
        [&self.any_host].into_iter().chain(named).map(|tree| &tree.root)
    }

    /// Returns the route at this position.
    pub(super) fn get(&self, position: usize) -> Option<&Route> {
        self.all.get(position)
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
    pub(super) fn insert(&mut self, pattern: &PathPattern, position: usize) {
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
pub(super) mod tests;
