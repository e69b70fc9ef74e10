//! Temporary: replaced by the room's own branch.
#![allow(missing_docs)]
use smallvec::SmallVec;

use crate::config::{CommandMethod, Config, Part, PathPattern, Segment, Template};
use crate::http::{Fault, Method, Path, Problem, ProblemKind, Request, Status};
use crate::model::Identity;

pub type Params<'p> = SmallVec<[&'p str; 4]>;

#[derive(Debug)]
pub enum Found<'p> {
    Command(usize, Params<'p>),
    Query(usize, Params<'p>),
    Stream(usize, Params<'p>),
    Options(Vec<Method>),
    NotAllowed(Vec<Method>),
    None,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Command,
    Query,
    Stream,
}

#[derive(Debug)]
pub struct Router {
    routes: Vec<(Method, PathPattern, Kind, usize)>,
}

impl Router {
    pub fn new(config: &Config) -> Result<Self, &'static str> {
        let mut routes = Vec::new();
        for (i, r) in config.commands.iter().enumerate() {
            let m = match r.method {
                CommandMethod::Post => Method::Post,
                CommandMethod::Put => Method::Put,
                CommandMethod::Patch => Method::Patch,
                CommandMethod::Delete => Method::Delete,
            };
            routes.push((m, r.path.clone(), Kind::Command, i));
        }
        for (i, r) in config.queries.iter().enumerate() {
            routes.push((Method::Get, r.path.clone(), Kind::Query, i));
        }
        for (i, r) in config.streams.iter().enumerate() {
            routes.push((Method::Get, r.path.clone(), Kind::Stream, i));
        }
        Ok(Self { routes })
    }

    pub fn find<'p>(&self, method: Method, path: &'p Path<'_>) -> Found<'p> {
        let mut allowed = Vec::new();
        let get = if method == Method::Head { Method::Get } else { method };
        let mut best: Option<(usize, Kind, usize, Params<'p>)> = None;
        for (m, pattern, kind, index) in &self.routes {
            let Some(params) = matches(pattern, path) else { continue };
            if *m == get && best.as_ref().is_none_or(|b| params.len() < b.0) {
                best = Some((params.len(), *kind, *index, params));
            } else if *m != get && !allowed.contains(m) {
                allowed.push(*m);
                if *m == Method::Get {
                    allowed.push(Method::Head);
                }
            }
        }
        match best {
            Some((_, Kind::Command, i, p)) => Found::Command(i, p),
            Some((_, Kind::Query, i, p)) => Found::Query(i, p),
            Some((_, Kind::Stream, i, p)) => Found::Stream(i, p),
            None if allowed.is_empty() => Found::None,
            None if method == Method::Options => Found::Options(allowed),
            None => Found::NotAllowed(allowed),
        }
    }
}

fn matches<'p>(pattern: &PathPattern, path: &'p Path<'_>) -> Option<Params<'p>> {
    let mut params = Params::new();
    let mut segments = path.segments();
    for s in &pattern.segments {
        let part = segments.next()?;
        match s {
            Segment::Literal(l) if l.as_str() == part => {}
            Segment::Literal(_) => return None,
            Segment::Param(_) if part.is_empty() => return None,
            Segment::Param(_) => params.push(part),
        }
    }
    segments.next().is_none().then_some(params)
}

#[derive(Debug)]
pub struct Scope<'a, 'b> {
    pub params: &'a [&'a str],
    pub request: &'a Request<'b>,
    pub identity: &'a Identity,
}

pub fn fill(template: &Template, scope: &Scope<'_, '_>) -> Result<Vec<u8>, Problem<'static>> {
    let mut out = Vec::new();
    for part in &template.parts {
        match part {
            Part::Literal(t) => out.extend_from_slice(t.as_bytes()),
            Part::Path { index, .. } => out.extend_from_slice(scope.params[*index].as_bytes()),
            Part::Identity => out.extend_from_slice(scope.identity.to_string().as_bytes()),
            Part::Header(name) => match scope.request.headers.one(name) {
                Ok(Some(v)) => out.extend_from_slice(v),
                _ => return Err(Problems::BAD_KEY),
            },
            Part::Query(name) => match scope.request.query.one(name) {
                Ok(Some(v)) => out.extend_from_slice(v.as_bytes()),
                _ => return Err(Problems::BAD_KEY),
            },
            Part::Body { pointer } => {
                let v: serde_json::Value =
                    serde_json::from_slice(scope.request.body).map_err(|_| Problems::BAD_KEY)?;
                let p: String = pointer.iter().map(|t| format!("/{t}")).collect();
                match v.pointer(&p) {
                    Some(serde_json::Value::String(s)) => out.extend_from_slice(s.as_bytes()),
                    Some(serde_json::Value::Number(n)) => {
                        out.extend_from_slice(n.to_string().as_bytes());
                    }
                    _ => return Err(Problems::BAD_KEY),
                }
            }
        }
    }
    Ok(out)
}

#[derive(Debug)]
pub struct Problems;

const fn p(path: &'static str, title: &'static str, status: Status) -> Problem<'static> {
    Problem { kind: ProblemKind { path, title, status }, detail: "", instance: None, members: &[] }
}

impl Problems {
    pub const NO_ROUTE: Problem<'static> = p("/problems/no-route", "No route", Status::NOT_FOUND);
    pub const NOT_FOUND: Problem<'static> = p("/problems/not-found", "Not found", Status::NOT_FOUND);
    pub const NOT_READY: Problem<'static> =
        p("/problems/not-ready", "Not ready", Status::SERVICE_UNAVAILABLE);
    pub const IDEMPOTENCY_KEY_REQUIRED: Problem<'static> =
        p("/problems/idempotency-key-required", "An idempotency key is required", Status::BAD_REQUEST);
    pub const BAD_KEY: Problem<'static> =
        p("/problems/missing-field", "A field the route needs is missing", Status::BAD_REQUEST);
    pub const METHOD_NOT_ALLOWED: Problem<'static> = Problem {
        kind: Fault::MethodNotAllowed.kind(),
        detail: "",
        instance: None,
        members: &[],
    };

    pub const PRECONDITION_NEVER_HOLDS: Problem<'static> =
        p("/problems/precondition-failed", "Precondition failed", Status::PRECONDITION_FAILED);

    pub fn of_record(_: &crate::command::RecordError) -> Problem<'static> {
        p("/problems/header-too-long", "Header too long", Status::BAD_REQUEST)
    }

    pub fn of_answer(answer: &crate::shard::Answer) -> Problem<'static> {
        use crate::shard::Answer as A;
        match answer {
            A::Mismatch => {
                p("/problems/idempotency-key-reused", "Reused", Status::UNPROCESSABLE_CONTENT)
            }
            A::Overloaded => p("/problems/overloaded", "Overloaded", Status::SERVICE_UNAVAILABLE),
            A::Unknown => p("/problems/outcome-unknown", "Unknown", Status::GATEWAY_TIMEOUT),
            A::TooLarge => p("/problems/too-large", "Too large", Status::CONTENT_TOO_LARGE),
            A::BadReply => p("/problems/bad-reply", "Bad reply", Status::BAD_GATEWAY),
            _ => Self::NOT_READY,
        }
    }
}
