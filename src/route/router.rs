//! Finds the route of a request.

use std::fmt;

use smallvec::SmallVec;

use crate::config::{CommandMethod, Config, OWN_SEGMENT, PathPattern, SEGMENTS_MAX, Segment};
use crate::http::{Method, Path};

/// A route by its index among the config's commands, queries or streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteIndex {
    /// Index of a command route in `config.commands`.
    Command(usize),
    /// Index of a query route in `config.queries`.
    Query(usize),
    /// Index of a stream route in `config.streams`.
    Stream(usize),
    /// Index of a stream route in `config.streams`. The request asks for a ticket for it.
    Ticket(usize),
    /// Index of a command route in `config.commands`. The request asks for the reply to one of its
    /// commands; the parameter is the token of the location.
    Location(usize),
}

/// The decoded parameters of a path, in order.
pub type Params<'p> = SmallVec<[&'p str; 4]>;

/// The route of a request, with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match<'p> {
    /// The route that matches the request.
    pub route: RouteIndex,
    /// Values of the route's parameters, in order.
    pub params: Params<'p>,
}

/// The result of routing a method and a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Routed<'p> {
    /// A route matches the request.
    To(Match<'p>),
    /// Routes match the path, but only with these methods.
    MethodNotAllowed(Methods),
    /// No route matches the path.
    NotFound,
}

/// A set of HTTP methods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Methods(u8);

/// Two routes of one config match the same requests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{method} {path}` is defined twice (lines {first} and {second})")]
pub struct RouteConflict {
    /// The method of both routes.
    pub method: &'static str,
    /// The path pattern of the second route.
    pub path: String,
    /// Line that declares the first route, counted from 1.
    pub first: usize,
    /// Line that declares the second route, counted from 1.
    pub second: usize,
}

/// The routes of one snapshot as a tree of segments. A literal is tried before a parameter. If the
/// literal's subtree has no route for the rest of the path and the method, the parameter is tried
/// too, so a route never hides another one that could match. Matching allocates nothing for up to 4
/// parameters.
#[derive(Clone, Debug)]
pub struct Router {
    /// All nodes of the tree; the first is the root.
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// Children by literal segment, sorted.
    literals: Vec<(Box<str>, usize)>,
    param: Option<usize>,
    routes: Vec<Leaf>,
}

#[derive(Clone, Copy, Debug)]
struct Leaf {
    method: Method,
    route: RouteIndex,
    line: usize,
}

impl Router {
    /// Builds the router of a config.
    ///
    /// # Errors
    /// Two routes match the same requests.
    pub fn new(config: &Config) -> Result<Self, RouteConflict> {
        let mut router = Self {
            nodes: vec![Node::default()],
        };
        for (index, it) in config.commands.iter().enumerate() {
            let method = match it.method {
                CommandMethod::Post => Method::Post,
                CommandMethod::Put => Method::Put,
                CommandMethod::Patch => Method::Patch,
                CommandMethod::Delete => Method::Delete,
            };
            router.add(method, &it.path, RouteIndex::Command(index), it.line)?;
            if it.replies.is_some() {
                let location = location_pattern(&it.name);
                let index = RouteIndex::Location(index);
                router.add(Method::Get, &location, index, it.line)?;
            }
        }
        for (index, it) in config.queries.iter().enumerate() {
            router.add(Method::Get, &it.path, RouteIndex::Query(index), it.line)?;
        }
        for (index, it) in config.streams.iter().enumerate() {
            router.add(Method::Get, &it.path, RouteIndex::Stream(index), it.line)?;
            if let Some(ticket) = &it.ticket {
                router.add(Method::Post, ticket, RouteIndex::Ticket(index), it.line)?;
            }
        }
        Ok(router)
    }

    /// Finds the route of a request. `HEAD` matches like `GET`. `OPTIONS` matches no route, so the
    /// result has the path's methods.
    #[must_use]
    pub fn route<'p>(&self, method: Method, path: &'p Path<'_>) -> Routed<'p> {
        let Some(segments) = segments(path) else {
            return Routed::NotFound;
        };
        let method = match method {
            Method::Head => Method::Get,
            method => method,
        };
        let (mut params, mut methods) = (Params::new(), Methods::default());
        match self.find(0, &segments, method, &mut params, &mut methods) {
            Some(route) => Routed::To(Match { route, params }),
            None if methods.is_empty() => Routed::NotFound,
            None => Routed::MethodNotAllowed(methods),
        }
    }

    /// Searches the subtree of `node`. The depth is limited by [`SEGMENTS_MAX`]; it branches only
    /// where a literal and a parameter both match.
    fn find<'p>(
        &self,
        node: usize,
        segments: &[&'p str],
        method: Method,
        params: &mut Params<'p>,
        methods: &mut Methods,
    ) -> Option<RouteIndex> {
        let node = &self.nodes[node];
        let Some((first, rest)) = segments.split_first() else {
            for leaf in &node.routes {
                methods.add(leaf.method);
            }
            let leaf = node.routes.iter().find(|leaf| leaf.method == method)?;
            return Some(leaf.route);
        };
        if let Some(child) = node.literal(first) {
            let found = self.find(child, rest, method, params, methods);
            if found.is_some() {
                return found;
            }
        }
        let child = node.param.filter(|_| !first.is_empty())?;
        params.push(first);
        let found = self.find(child, rest, method, params, methods);
        if found.is_none() {
            params.pop();
        }
        found
    }

    fn add(
        &mut self,
        method: Method,
        path: &PathPattern,
        route: RouteIndex,
        line: usize,
    ) -> Result<(), RouteConflict> {
        let mut at = 0;
        for segment in &path.segments {
            at = self.child(at, segment);
        }
        let routes = &mut self.nodes[at].routes;
        if let Some(first) = routes.iter().find(|leaf| leaf.method == method) {
            return Err(RouteConflict {
                method: method.as_str(),
                path: path.to_string(),
                first: first.line,
                second: line,
            });
        }
        routes.push(Leaf {
            method,
            route,
            line,
        });
        Ok(())
    }

    /// Returns the child for a segment, and creates it if necessary.
    fn child(&mut self, at: usize, segment: &Segment) -> usize {
        let new = self.nodes.len();
        let node = &mut self.nodes[at];
        let child = match segment {
            Segment::Param(_) => *node.param.get_or_insert(new),
            Segment::Literal(text) => {
                let place = node.literals.binary_search_by(|(l, _)| (**l).cmp(text));
                match place {
                    Ok(index) => node.literals[index].1,
                    Err(index) => {
                        node.literals.insert(index, (text.as_str().into(), new));
                        new
                    }
                }
            }
        };
        if child == new {
            self.nodes.push(Node::default());
        }
        child
    }
}

/// The path of the locations of a route's commands, up to their tokens.
#[must_use]
pub fn location_path(route: &str) -> String {
    format!("/{OWN_SEGMENT}/{COMMANDS_SEGMENT}/{route}/")
}

const COMMANDS_SEGMENT: &str = "commands";

fn location_pattern(route: &str) -> PathPattern {
    let literals = [OWN_SEGMENT, COMMANDS_SEGMENT, route].map(|it| Segment::Literal(it.to_owned()));
    let token = Segment::Param("token".to_owned());
    PathPattern {
        segments: literals.into_iter().chain([token]).collect(),
    }
}

impl Node {
    fn literal(&self, segment: &str) -> Option<usize> {
        let place = self.literals.binary_search_by(|(l, _)| (**l).cmp(segment));
        Some(self.literals[place.ok()?].1)
    }
}

/// The segments of a path as patterns count them: `/` has none. `None` if there are more than a
/// pattern can have.
fn segments<'p>(path: &'p Path<'_>) -> Option<SmallVec<[&'p str; SEGMENTS_MAX]>> {
    let mut segments = SmallVec::new();
    if path.as_str() == "/" {
        return Some(segments);
    }
    for segment in path.segments() {
        if segments.len() == SEGMENTS_MAX {
            return None;
        }
        segments.push(segment);
    }
    // The target `*` of OPTIONS has no segments, but is not `/`.
    (!segments.is_empty()).then_some(segments)
}

impl Methods {
    /// Every method, in the order of an `Allow` header.
    const ALL: [Method; 7] = [
        Method::Get,
        Method::Head,
        Method::Post,
        Method::Put,
        Method::Patch,
        Method::Delete,
        Method::Options,
    ];

    /// Whether the set has no method.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the set has this method.
    #[must_use]
    pub const fn has(self, method: Method) -> bool {
        self.0 & (1 << method as u8) != 0
    }

    /// The methods of the set, in order.
    pub fn iter(self) -> impl Iterator<Item = Method> {
        Self::ALL.into_iter().filter(move |m| self.has(*m))
    }

    fn add(&mut self, method: Method) {
        self.0 |= 1 << method as u8;
        if method == Method::Get {
            self.add(Method::Head);
        }
    }
}

/// The value of the `Allow` header (RFC 9110 10.2.1).
impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, method) in self.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            f.write_str(method.as_str())?;
        }
        Ok(())
    }
}
