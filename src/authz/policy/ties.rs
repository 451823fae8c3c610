//! Finds routes of equal precedence that can match the same request ([`Ties`]).
//!
//! Two routes tie if they have equal ranks, and share a host, a method and a path. Comparing all pairs would block a core
//! for more than a minute with a generated file of 20,000 routes. Each route is looked up among the earlier ones instead:
//!
//! - Routes can only tie within their [`Class`]: the rank, and the number of segments.
//! - The [`Shape`] of a pattern is the set of the positions at which it has a `{name}`. Patterns of two shapes overlap if
//!   and only if they have the same literals at the positions where both shapes have one. The exception is the empty
//!   literal after a trailing slash, which no `{name}` matches: then the shapes never overlap.
//! - So for each pair of shapes in a class, a map leads from these literals, a host and a method to the first route that
//!   has all of them.
//!
//! A route takes one look-up for each shape of its class, each of its hosts and each of its methods. Real files have few
//! shapes. [`MAX_STEPS`] bounds the time of others, and [`MAX_REMEMBERED`] the memory.

use std::collections::{HashMap, HashSet};

use super::pattern::{PathPattern, Segment};
use super::route::Route;

/// Most steps for all routes of a file: some seconds. A file of 100,000 routes with ten shapes, two hosts and three methods
/// each takes half of them.
const MAX_STEPS: usize = 1 << 25;
/// Most combinations that are remembered for all routes of a file: some 50 MB, for as long as the file is read. A route takes
/// one for each of its hosts and methods, times the sets of positions at which it is compared.
const MAX_REMEMBERED: usize = 900_000;

/// Rank of a route, and the number of its segments. Routes of two classes never tie.
type Class = (((u8, usize, usize), bool, bool), usize);
/// Number that stands for a text or for a sequence of texts.
type Id = usize;
/// Key of the first route that has these literals at the compared positions, this host and this method: the index of its
/// shape, the compared positions, and the ids of the sequence of literals, of the host and of the method.
type Key = (usize, u64, Id, Id, Id);

/// Id of the empty sequence, and of every host and every method.
const NONE: Id = 0;

/// Routes without a tie that were added so far.
#[derive(Debug)]
pub(super) struct Ties {
    /// Ids of literals, hosts and methods.
    texts: HashMap<Box<str>, Id>,
    /// Ids of sequences of literals, by the id of the sequence without its last literal and the id of that.
    sequences: HashMap<(Id, Id), Id>,
    /// Indexes of the shapes of a class.
    classes: HashMap<Class, Vec<usize>>,
    shapes: Vec<Shape>,
    first: HashMap<Key, usize>,
    /// Number of look-ups and of additions to `first` and `sequences`.
    steps: usize,
    max_steps: usize,
}

/// Positions at which patterns have a `{name}`, and the routes of one class with such a pattern.
#[derive(Debug)]
struct Shape {
    /// One bit for each position.
    variables: u64,
    /// Bit of the last position, if the pattern ends with `/`.
    empty: u64,
    routes: Vec<Indexed>,
    /// Sets of compared positions for which the routes are in [`Ties::first`].
    views: HashSet<u64>,
}

/// Route in the form in which it is looked up.
#[derive(Debug)]
struct Indexed {
    /// Position in the file, from 0.
    position: usize,
    /// Literals, with their positions.
    literals: Vec<(u64, Id)>,
    /// `[NONE]` for every host.
    hosts: Vec<Id>,
    /// `[NONE]` for every method.
    methods: Vec<Id>,
}

/// Error: comparing a route would take more than [`MAX_STEPS`], or more memory than [`MAX_REMEMBERED`] combinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Default for Ties {
    fn default() -> Self {
        Self {
            texts: HashMap::new(),
            sequences: HashMap::new(),
            classes: HashMap::new(),
            shapes: Vec::new(),
            first: HashMap::new(),
            steps: 0,
            max_steps: MAX_STEPS,
        }
    }
}

impl Ties {
    /// Returns the position of the first route that ties with `route`. If there is none, adds `route`, which has this
    /// position. Positions must ascend.
    ///
    /// # Errors
    /// [`TooMany`], without a result.
    pub(super) fn add(&mut self, route: &Route, position: usize) -> Result<Option<usize>, TooMany> {
        let segments = route.path.as_ref().map_or(&[][..], |path| &path.segments);
        let class = (route.rank(), segments.len());
        let indexed = Indexed {
            position,
            literals: literals(route.path.as_ref()).map(|(bit, text)| (bit, self.text(text))).collect(),
            hosts: self.names(&route.hosts),
            methods: self.names(&route.methods),
        };
        let shape = self.shape(class, segments)?;
        let first = self.find(class, shape, &indexed)?;
        if first.is_none() {
            for view in self.shapes.get(shape).map(|shape| shape.views.clone()).unwrap_or_default() {
                self.insert(shape, view, &indexed)?;
            }
            if let Some(shape) = self.shapes.get_mut(shape) {
                shape.routes.push(indexed);
            }
        }
        Ok(first)
    }

    /// Number of steps that were taken so far.
    #[cfg(test)]
    pub(super) fn steps(&self) -> usize {
        self.steps
    }

    /// Returns the first route of the class that ties with a route of this shape.
    fn find(&mut self, class: Class, shape: usize, route: &Indexed) -> Result<Option<usize>, TooMany> {
        let mut first: Option<usize> = None;
        for other in self.classes.get(&class).cloned().unwrap_or_default() {
            let Some(view) = self.compared(shape, other) else { continue };
            self.spend(view, route)?;
            let Some(sequence) = self.sequence(view, route) else { continue };
            for host in &route.hosts {
                for method in &route.methods {
                    let found = self.first.get(&(other, view, sequence, *host, *method)).copied();
                    first = first.into_iter().chain(found).min();
                }
            }
        }
        Ok(first)
    }

    /// Returns the index of the shape of these segments. A new shape is compared with the other shapes of its class from
    /// now on.
    fn shape(&mut self, class: Class, segments: &[Segment]) -> Result<usize, TooMany> {
        let of_class = self.classes.entry(class).or_default();
        let (mut variables, mut empty) = (0, 0);
        for (bit, segment) in bits().zip(segments) {
            match segment {
                Segment::Variable(_) => variables |= bit,
                Segment::Literal(text) if text.is_empty() => empty |= bit,
                Segment::Literal(_) => {}
            }
        }
        let is_same = |shape: &Shape| shape.variables == variables && shape.empty == empty;
        if let Some(known) = of_class.iter().find(|index| self.shapes.get(**index).is_some_and(is_same)) {
            return Ok(*known);
        }
        let new = self.shapes.len();
        of_class.push(new);
        let of_class = of_class.clone();
        self.shapes.push(Shape { variables, empty, routes: Vec::new(), views: HashSet::new() });
        for other in of_class {
            let Some(view) = self.compared(new, other) else { continue };
            for shape in [new, other] {
                self.view(shape, view)?;
            }
        }
        Ok(new)
    }

    /// Returns the positions at which patterns of two shapes are compared; `None` if they never overlap.
    fn compared(&self, one: usize, other: usize) -> Option<u64> {
        let (one, other) = (self.shapes.get(one)?, self.shapes.get(other)?);
        let never = (one.empty & other.variables) | (other.empty & one.variables);
        (never == 0).then_some(!(one.variables | other.variables))
    }

    /// Makes the routes of a shape known by their literals at the positions of `view`.
    fn view(&mut self, shape: usize, view: u64) -> Result<(), TooMany> {
        let Some(of) = self.shapes.get_mut(shape) else { return Ok(()) };
        if !of.views.insert(view) {
            return Ok(());
        }
        let routes = std::mem::take(&mut of.routes);
        let added = routes.iter().try_for_each(|route| self.insert(shape, view, route));
        if let Some(of) = self.shapes.get_mut(shape) {
            of.routes = routes;
        }
        added
    }

    fn insert(&mut self, shape: usize, view: u64, route: &Indexed) -> Result<(), TooMany> {
        self.spend(view, route)?;
        let combinations = route.hosts.len().saturating_mul(route.methods.len());
        if self.first.len().saturating_add(combinations) > MAX_REMEMBERED {
            return Err(TooMany);
        }
        let mut sequence = NONE;
        for (_, literal) in route.literals.iter().filter(|(bit, _)| bit & view != 0) {
            let new = self.sequences.len() + 1;
            sequence = *self.sequences.entry((sequence, *literal)).or_insert(new);
        }
        for host in &route.hosts {
            for method in &route.methods {
                self.first.entry((shape, view, sequence, *host, *method)).or_insert(route.position);
            }
        }
        Ok(())
    }

    /// Returns the id of a route's literals at the positions of `view`; `None` if no route has the same.
    fn sequence(&self, view: u64, route: &Indexed) -> Option<Id> {
        let mut compared = route.literals.iter().filter(|(bit, _)| bit & view != 0);
        compared.try_fold(NONE, |sequence, (_, literal)| self.sequences.get(&(sequence, *literal)).copied())
    }

    /// Counts the steps of one look-up or addition, before they are taken.
    fn spend(&mut self, view: u64, route: &Indexed) -> Result<(), TooMany> {
        let literals = route.literals.iter().filter(|(bit, _)| bit & view != 0).count();
        let steps = route.hosts.len().saturating_mul(route.methods.len()).saturating_add(literals);
        self.steps = self.steps.saturating_add(steps);
        if self.steps > self.max_steps { Err(TooMany) } else { Ok(()) }
    }

    fn names(&mut self, names: &[Box<str>]) -> Vec<Id> {
        if names.is_empty() { vec![NONE] } else { names.iter().map(|name| self.text(name)).collect() }
    }

    fn text(&mut self, text: &str) -> Id {
        if let Some(known) = self.texts.get(text) {
            return *known;
        }
        let new = self.texts.len() + 1;
        self.texts.insert(text.into(), new);
        new
    }
}

/// Bits of the positions, from the first one.
fn bits() -> impl Iterator<Item = u64> {
    (0..u64::BITS).map(|position| 1 << position)
}

/// Literals of a pattern, with the bits of their positions.
fn literals(path: Option<&PathPattern>) -> impl Iterator<Item = (u64, &str)> {
    let segments = path.into_iter().flat_map(|path| &path.segments);
    bits().zip(segments).filter_map(|(bit, segment)| match segment {
        Segment::Literal(text) => Some((bit, &**text)),
        Segment::Variable(_) => None,
    })
}

#[cfg(test)]
mod tests;
