//! Which route a request asks for.

use std::fmt;

use smallvec::SmallVec;

use crate::config::{CommandMethod, Config, PathPattern, SEGMENTS_MAX, Segment};
use crate::http::{Method, Path};

/// A route by its place in the config: among its commands, queries or streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteIndex {
    /// `config.commands[_]`
    Command(usize),
    /// `config.queries[_]`
    Query(usize),
    /// `config.streams[_]`
    Stream(usize),
}

/// The parameters of a path in their order, decoded.
pub type Params<'p> = SmallVec<[&'p str; 4]>;

/// A route that takes a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match<'p> {
    /// Which.
    pub route: RouteIndex,
    /// What stands in its parameters.
    pub params: Params<'p>,
}

/// What the router makes of a method and a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Routed<'p> {
    /// A route takes it.
    To(Match<'p>),
    /// Routes of this path take these methods only.
    MethodNotAllowed(Methods),
    /// No route has this path.
    NotFound,
}

/// Some of the methods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Methods(u8);

/// Two routes of one config for the same requests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{method} {path}` has two owners: the routes of lines {first} and {second}")]
pub struct RouteConflict {
    /// The method both take.
    pub method: &'static str,
    /// The path, as the second writes it.
    pub path: String,
    /// Where the first is declared, from 1.
    pub first: usize,
    /// Where the second is declared, from 1.
    pub second: usize,
}

/// The routes of one snapshot as a tree of segments. A literal is tried before a parameter; where
/// the rest of the path or the method leads nowhere, the parameter is tried too, so a route is
/// never hidden by another that could not take the request. A match allocates nothing for up to 4
/// parameters.
#[derive(Clone, Debug)]
pub struct Router {
    /// The root is the first.
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// Sorted by segment.
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
    /// The routes of a config.
    ///
    /// # Errors
    /// Two of them take the same requests.
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
        }
        for (index, it) in config.queries.iter().enumerate() {
            router.add(Method::Get, &it.path, RouteIndex::Query(index), it.line)?;
        }
        for (index, it) in config.streams.iter().enumerate() {
            router.add(Method::Get, &it.path, RouteIndex::Stream(index), it.line)?;
        }
        Ok(router)
    }

    /// The route of a request. `HEAD` goes where `GET` goes; `OPTIONS` has no route of its own, so
    /// it finds the methods of a path.
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

    /// The methods of all routes of a path, `HEAD` beside `GET`; none if no route has it.
    #[must_use]
    pub fn methods(&self, path: &Path<'_>) -> Methods {
        match self.route(Method::Options, path) {
            Routed::MethodNotAllowed(methods) => methods,
            Routed::To(_) | Routed::NotFound => Methods::default(),
        }
    }

    /// As deep as a pattern may be, and wide where a literal and a parameter both fit.
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

    /// The node behind a segment, made if it is not there.
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

impl Node {
    fn literal(&self, segment: &str) -> Option<usize> {
        let place = self.literals.binary_search_by(|(l, _)| (**l).cmp(segment));
        Some(self.literals[place.ok()?].1)
    }
}

/// The segments of a path as patterns count them: `/` has none. `None`: more than any pattern has.
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
    // `*` of OPTIONS has none, and is not `/`.
    (!segments.is_empty()).then_some(segments)
}

impl Methods {
    /// In the order of an `Allow` header.
    const ALL: [Method; 7] = [
        Method::Get,
        Method::Head,
        Method::Post,
        Method::Put,
        Method::Patch,
        Method::Delete,
        Method::Options,
    ];

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a method is among them.
    #[must_use]
    pub const fn has(self, method: Method) -> bool {
        self.0 & (1 << method as u8) != 0
    }

    /// Each of them.
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

/// As `Allow` lists them (RFC 9110 10.2.1).
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
