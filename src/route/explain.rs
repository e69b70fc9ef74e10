//! Explains which route a request matches, for `sluicegate routes --explain`.

use std::fmt::Write as _;

use super::{Match, RouteIndex, Routed, Router};
use crate::config::{Config, PathPattern, SEGMENTS_MAX, Segment};
use crate::http::{Method, Path};

/// The route of a request, with the values of its parameters, as text. If no route matches, the
/// text says for each route why not.
///
/// # Errors
/// The method or the path is none that the gateway understands, with the reason.
pub fn explain(config: &Config, method: &str, target: &str) -> Result<Explanation, String> {
    let method = Method::parse(method).ok_or_else(|| {
        format!("`{method}` is not a method of routes: GET, HEAD, POST, PUT, PATCH and DELETE are")
    })?;
    let raw = target.split('?').next().unwrap_or_default();
    let path = Path::parse(raw).map_err(|refusal| format!("`{raw}`: {refusal}"))?;
    let router = Router::new(config).map_err(|conflict| conflict.to_string())?;
    let request = format!("{} {}", method.as_str(), path.as_str());
    Ok(match router.route(method, &path) {
        Routed::To(found) => Explanation {
            text: describe_match(config, &request, &found),
            matches: true,
        },
        Routed::MethodNotAllowed(allowed) => {
            let allowed: Vec<_> = allowed.iter().map(Method::as_str).collect();
            Explanation {
                text: format!(
                    "No route matches {request} (405): the path allows {}.\n",
                    allowed.join(", ")
                ),
                matches: false,
            }
        }
        Routed::NotFound => Explanation {
            text: describe_misses(config, &request, &path),
            matches: false,
        },
    })
}

/// What [`explain`] found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The explanation, for a terminal.
    pub text: String,
    /// Whether a route matches.
    pub matches: bool,
}

/// One route of the config, of any kind.
struct AnyRoute<'c> {
    kind: &'static str,
    name: &'c str,
    line: usize,
    method: &'static str,
    path: &'c PathPattern,
    topics: String,
}

fn any_route(config: &Config, route: RouteIndex) -> AnyRoute<'_> {
    match route {
        RouteIndex::Command(index) | RouteIndex::Location(index) => {
            let it = &config.commands[index];
            AnyRoute {
                kind: "command",
                name: &it.name,
                line: it.line,
                method: it.method.as_str(),
                path: &it.path,
                topics: match &it.replies {
                    Some(replies) => format!("{} -> {replies}", it.topic),
                    None => it.topic.to_string(),
                },
            }
        }
        RouteIndex::Query(index) => {
            let it = &config.queries[index];
            AnyRoute {
                kind: "query",
                name: &it.name,
                line: it.line,
                method: "GET",
                path: &it.path,
                topics: it.topic.to_string(),
            }
        }
        RouteIndex::Stream(index) | RouteIndex::Ticket(index) => {
            let it = &config.streams[index];
            AnyRoute {
                kind: "stream",
                name: &it.name,
                line: it.line,
                method: "GET",
                path: &it.path,
                topics: it.topic.to_string(),
            }
        }
    }
}

fn all_routes(config: &Config) -> impl Iterator<Item = AnyRoute<'_>> {
    let commands = (0..config.commands.len()).map(RouteIndex::Command);
    let queries = (0..config.queries.len()).map(RouteIndex::Query);
    let streams = (0..config.streams.len()).map(RouteIndex::Stream);
    let all = commands.chain(queries).chain(streams);
    all.map(|route| any_route(config, route))
}

fn describe_match(config: &Config, request: &str, found: &Match<'_>) -> String {
    let route = any_route(config, found.route);
    let AnyRoute {
        kind,
        name,
        line,
        method,
        path,
        topics,
    } = &route;
    if matches!(found.route, RouteIndex::Location(_)) {
        return format!("{request} asks for the reply to a command of `{name}` (line {line}).\n");
    }
    let mut text = format!(
        "{request} matches the {kind} `{name}` (line {line}).\n  route   {method} {path}\n  \
         topics  {topics}\n"
    );
    for (param, value) in path.params().zip(&found.params) {
        let _ = writeln!(text, "  {{{param}}} = {value}");
    }
    // A route with a parameter where this one has a literal would match too.
    let others = all_routes(config).filter(|it| {
        it.line != *line && it.method == *method && literals(it.path) < literals(path)
    });
    for other in others.filter(|it| first_difference(it.path, request_path(request)).is_none()) {
        let _ = writeln!(
            text,
            "  It wins over {} {} (line {}): a literal segment wins over a parameter.",
            other.method, other.path, other.line
        );
    }
    text
}

fn request_path(request: &str) -> &str {
    request.split_once(' ').map_or(request, |(_, path)| path)
}

fn literals(path: &PathPattern) -> usize {
    let literal = |segment: &&Segment| matches!(segment, Segment::Literal(_));
    path.segments.iter().filter(literal).count()
}

fn describe_misses(config: &Config, request: &str, path: &Path<'_>) -> String {
    let mut text = format!("No route matches {request} (404).\n");
    if path.segments().count() > SEGMENTS_MAX {
        let _ = writeln!(text, "  A path has at most {SEGMENTS_MAX} segments.");
    }
    for route in all_routes(config) {
        let why = first_difference(route.path, path.as_str());
        let why = why.unwrap_or_else(|| "the path matches".into());
        let AnyRoute {
            method, path, line, ..
        } = &route;
        let _ = writeln!(text, "  {method} {path} (line {line}): {why}");
    }
    text
}

/// Why a pattern does not match a decoded path. `None`: it matches.
fn first_difference(pattern: &PathPattern, path: &str) -> Option<String> {
    let rest = path.strip_prefix('/').unwrap_or(path);
    let segments: Vec<&str> = match rest {
        "" => Vec::new(),
        rest => rest.split('/').collect(),
    };
    let pairs = pattern.segments.iter().zip(&segments).zip(1..);
    for ((wanted, found), number) in pairs {
        match wanted {
            Segment::Literal(text) if text != found => {
                return Some(format!("segment {number} is `{text}`, not `{found}`"));
            }
            Segment::Param(name) if found.is_empty() => {
                return Some(format!("segment {number}, `{{{name}}}`, is empty"));
            }
            _ => {}
        }
    }
    let (wanted, found) = (pattern.segments.len(), segments.len());
    (wanted != found).then(|| format!("it has {wanted} segments, the request {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, Sources, load};

    fn said(method: &str, target: &str) -> String {
        let text = r#"[[command]]
name = "pay"
route = "POST /accounts/{id}/payments"
topic = "c"
replies = "r"
[[query]]
route = "GET /accounts/{id}"
topic = "a"
key = "{path.id}"
[[query]]
route = "GET /accounts/all"
topic = "a"
"#;
        let file = ConfigFile {
            name: "g.toml".into(),
            text: text.into(),
        };
        let sources = Sources {
            file: Some(file),
            ..Sources::default()
        };
        let config = load(sources).expect("a good config").config;
        match explain(&config, method, target) {
            Ok(explanation) => explanation.text,
            Err(why) => why,
        }
    }

    #[test]
    fn a_match_names_route_line_and_values() {
        let text = said("POST", "/accounts/a%20na/payments?x=1");
        assert!(
            text.contains("matches the command `pay` (line 3)"),
            "{text}"
        );
        assert!(
            text.contains("c -> r") && text.contains("{id} = a na"),
            "{text}"
        );
        let text = said("GET", "/accounts/all");
        assert!(
            text.contains("(line 11)") && text.contains("wins over GET"),
            "{text}"
        );
        let text = said("GET", "/_sluicegate/commands/pay/x");
        assert!(text.contains("reply to a command of `pay`"), "{text}");
    }

    #[test]
    fn a_miss_says_why_for_each_route() {
        let text = said("POST", "/account/ana/payments");
        assert!(text.contains("(404)"), "{text}");
        assert!(
            text.contains("segment 1 is `accounts`, not `account`"),
            "{text}"
        );
        let text = said("POST", "/accounts/ana/payment");
        assert!(
            text.contains("segment 3 is `payments`, not `payment`"),
            "{text}"
        );
        assert!(text.contains("it has 2 segments, the request 3"), "{text}");
        assert!(said("DELETE", "/accounts/ana").contains("allows GET, HEAD"));
        assert!(said("BREW", "/").contains("not a method"));
        assert!(said("GET", "accounts").contains("slash"));
    }
}
