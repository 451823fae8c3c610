//! Finds templates that open part of an area that another route protects ([`openings`]).
//!
//! For example, `/{service}/health` also matches `/admin/health`, which `path_prefix: /admin` protects. This is not an
//! error, because it can be intended. `check-config` and each reload log a warning.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use super::pattern::{PathPattern, Segment};
use super::requirement::{AnyAll, ClaimTest, Requirements};
use super::route::{Node, Route};
use super::{Access, Policies, Policy, PolicyIndex};

/// Maximum number of openings that are reported. Operators do not read longer lists.
const MAX_OPENINGS: usize = 20;
/// Maximum number of steps of the search: segments and routes that are looked at, and names that are compared. They take a
/// fraction of a second.
const MAX_STEPS: usize = 4_000_000;
/// Steps that finding the route of one request counts as.
const STEPS_TO_FIND: usize = 16;

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
    /// `true` if there may be more: the list is full, or the search took too many steps.
    pub(crate) is_cut: bool,
}

/// Finds the routes that open part of what another route protects. A route does so if
/// - it takes precedence over the other route,
/// - it matches some of its requests only because it has a `{name}` where the other route has a literal segment, and
/// - its policy is weaker: it does not require everything that the policy of the other route requires.
///
/// A template is compared with the routes whose paths it can match, which are found in the trees of the routes.
pub(crate) fn openings(policies: &Policies) -> Openings {
    let mut openings = Openings::default();
    let mut search = Search::new(policies);
    for (opener, template) in policies.routes().iter().enumerate() {
        let has_variable = template.path.as_ref().is_some_and(|path| path.variables().next().is_some());
        if has_variable && search.openings_of(opener, template, &mut openings.found).is_err() {
            openings.is_cut = true;
            break;
        }
    }
    openings
}

/// Error: the list is full, or the search took too many steps.
struct Cut;

struct Search<'p> {
    policies: &'p Policies,
    /// Routes of all hosts, for templates that name none.
    every_host: Node,
    /// `true` for a pair of policies if the first one is weaker.
    weaker: HashMap<(PolicyIndex, PolicyIndex), bool>,
    steps: usize,
}

impl<'p> Search<'p> {
    fn new(policies: &'p Policies) -> Self {
        let mut every_host = Node::default();
        for (position, route) in policies.routes().iter().enumerate() {
            if let Some(path) = &route.path {
                every_host.insert(path, position);
            }
        }
        Self { policies, every_host, weaker: HashMap::new(), steps: 0 }
    }

    fn spend(&mut self, steps: usize) -> Result<(), Cut> {
        spend(&mut self.steps, steps)
    }

    /// Adds the openings of one template.
    fn openings_of(&mut self, opener: usize, template: &Route, found: &mut Vec<Opening>) -> Result<(), Cut> {
        let Some(path) = &template.path else { return Ok(()) };
        let policies = self.policies;
        let mut candidates = Vec::new();
        let every = template.hosts.is_empty().then_some(&self.every_host);
        let named = policies.routes().trees(&template.hosts).filter(|_| every.is_none());
        for tree in every.into_iter().chain(named) {
            collect(tree, &path.segments, false, &mut candidates, &mut self.steps)?;
        }
        // In the order of the file. A route with several hosts is in several trees.
        candidates.sort_unstable();
        candidates.dedup();
        for protected in candidates {
            let Some(other) = policies.routes().get(protected) else { continue };
            if template.rank() <= other.rank() || !self.is_weaker(template.policy, other.policy)? {
                continue;
            }
            let Some(path) = common(template, other) else { continue };
            if self.is_effective(opener, template, other, &path)? {
                if found.len() == MAX_OPENINGS {
                    return Err(Cut);
                }
                found.push(Opening { opener, protected, path });
            }
        }
        Ok(())
    }

    /// `true` if the policy `one` does not require everything that the policy `other` requires.
    fn is_weaker(&mut self, one: PolicyIndex, other: PolicyIndex) -> Result<bool, Cut> {
        self.spend(1)?;
        if let Some(known) = self.weaker.get(&(one, other)) {
            return Ok(*known);
        }
        let (Some(weak), Some(strong)) = (self.policies.get(one), self.policies.get(other)) else { return Ok(false) };
        self.spend(names(weak).saturating_add(names(strong)))?;
        self.spend(claims(weak).saturating_mul(claims(strong)))?;
        let is_weaker = is_weaker(weak, strong);
        self.weaker.insert((one, other), is_weaker);
        Ok(is_weaker)
    }

    /// `true` if `template` is chosen for some request that both routes match. A third route may take precedence and
    /// protect them again.
    fn is_effective(
        &mut self,
        opener: usize,
        template: &Route,
        other: &Route,
        path: &PathPattern,
    ) -> Result<bool, Cut> {
        // A literal segment never contains `/`, so only a `{name}` matches this segment.
        let segments = path.segments.iter().map(|segment| match segment {
            Segment::Literal(text) => &**text,
            Segment::Variable(_) => "/",
        });
        let lengths = [&template.hosts, &other.hosts, &template.methods, &other.methods].map(Vec::len);
        self.spend(lengths.into_iter().sum())?;
        let (hosts, methods) = (shared(&template.hosts, &other.hosts), shared(&template.methods, &other.methods));
        for host in &hosts {
            for method in &methods {
                self.spend(STEPS_TO_FIND)?;
                if self.policies.routes().best(method.as_bytes(), host, Some(&segments)) == Some(opener) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// Counts steps before they are taken.
fn spend(spent: &mut usize, steps: usize) -> Result<(), Cut> {
    *spent = spent.saturating_add(steps);
    if *spent > MAX_STEPS { Err(Cut) } else { Ok(()) }
}

/// Collects the routes below `node` that match part of the same paths as the segments `rest` of a template, because a
/// `{name}` of it matches a literal segment. `is_open` is `true` if one did above `node`.
fn collect(node: &Node, rest: &[Segment], is_open: bool, found: &mut Vec<usize>, steps: &mut usize) -> Result<(), Cut> {
    spend(steps, 1)?;
    if is_open {
        let ending = if rest.is_empty() { node.whole.as_slice() } else { &[] };
        spend(steps, node.prefix.len() + ending.len())?;
        found.extend(node.prefix.iter().chain(ending));
    }
    let Some((first, rest)) = rest.split_first() else { return Ok(()) };
    let matches_text = match first {
        Segment::Literal(text) => {
            if let Some(next) = node.literals.get(text) {
                collect(next, rest, is_open, found, steps)?;
            }
            !text.is_empty()
        }
        Segment::Variable(_) => {
            for (_, next) in node.literals.iter().filter(|(text, _)| !text.is_empty()) {
                collect(next, rest, true, found, steps)?;
            }
            true
        }
    };
    match node.variable.as_deref().filter(|_| matches_text) {
        Some(next) => collect(next, rest, is_open, found, steps),
        None => Ok(()),
    }
}

/// Number of names that a policy requires.
fn names(policy: &Policy) -> usize {
    let Access::Required(requirements) = &policy.access else { return 0 };
    let Requirements { pools, clients, audiences, resource, scopes, groups, acr, amr, .. } = &**requirements;
    let any_all = |names: &AnyAll| names.any.len() + names.all.len();
    pools.len()
        + clients.len()
        + values(audiences.as_ref()).len()
        + resource.as_ref().map_or(0, |resource| resource.identifiers.len())
        + any_all(scopes)
        + any_all(groups)
        + values(acr.as_ref()).len()
        + amr.as_ref().map_or(0, |(_, names)| any_all(names))
}

/// Number of values that the claims of a policy are compared with.
fn claims(policy: &Policy) -> usize {
    let Access::Required(requirements) = &policy.access else { return 0 };
    let values = requirements.claims.iter().map(|claim| match &claim.test {
        ClaimTest::OneOf(values) => values.len(),
        ClaimTest::Equals(_) | ClaimTest::Contains(_) => 1,
    });
    values.sum()
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

/// Returns the names that are in both lists. An empty list stands for every name; if both are empty, the result is the empty
/// name, which stands for names that no list contains.
fn shared<'n>(one: &'n [Box<str>], other: &'n [Box<str>]) -> Vec<&'n str> {
    match (one, other) {
        ([], []) => vec![""],
        ([], names) | (names, []) => names.iter().map(|name| &**name).collect(),
        (one, other) => {
            let other: HashSet<&Box<str>> = other.iter().collect();
            one.iter().filter(|name| other.contains(name)).map(|name| &**name).collect()
        }
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
fn is_narrower<V: Eq + Hash>(one: &[V], other: &[V]) -> bool {
    other.is_empty() || (!one.is_empty() && contains_all(other, one))
}

/// `true` if every token that meets `one` evidently meets `other`.
fn implies(one: &AnyAll, other: &AnyAll) -> bool {
    let any: HashSet<_> = other.any.iter().collect();
    contains_all(&one.all, &other.all)
        && (is_narrower(&one.any, &other.any) || one.all.iter().any(|name| any.contains(name)))
}

/// `true` if each of `values` is in `list`.
fn contains_all<V: Eq + Hash>(list: &[V], values: &[V]) -> bool {
    let list: HashSet<_> = list.iter().collect();
    values.iter().all(|value| list.contains(value))
}

#[cfg(test)]
mod tests;
