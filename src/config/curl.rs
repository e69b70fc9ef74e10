//! A curl command for each route: what a user pastes to see the route work.
//!
//! Values are examples that the route accepts by its config: types of parameters, required headers,
//! the members of the body that templates read. A body that a JSON Schema restricts is in a file,
//! because the schema is not read here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::{Value, json};

use super::{
    CommandMethod, CommandRoute, Condition, Config, Idempotency, Listen, ListenOn, ParamKind,
    ParamPlace, ParamRule, Part, PathPattern, Segment, Settings, Template,
};

/// The curl command of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CurlLine {
    /// The route's method and path.
    pub route: String,
    /// The command, on one line.
    pub line: String,
}

/// One curl command for each route, in the order of the file: commands, queries, streams.
#[must_use]
pub fn curl_lines(config: &Config) -> Vec<CurlLine> {
    let base = base(&config.settings);
    let commands = config.commands.iter().map(|route| CurlLine {
        route: format!("{} {}", route.method.as_str(), route.path),
        line: command(route, &base),
    });
    let queries = config.queries.iter().map(|route| CurlLine {
        route: format!("GET {}", route.path),
        line: get("curl -i", &base, &route.path, route.key.as_ref()),
    });
    let streams = config.streams.iter().map(|route| CurlLine {
        route: format!("GET {}", route.path),
        line: get("curl -N", &base, &route.path, route.filter.key.as_ref()),
    });
    commands.chain(queries).chain(streams).collect()
}

/// The URL of the first listener, with the options of curl that it needs.
fn base(settings: &Settings) -> String {
    let first = |all: &[Listen]| all.iter().flat_map(Listen::addresses).next();
    let unix = settings.listen.iter().find_map(|listen| match &listen.on {
        ListenOn::Unix { path, .. } => Some(path),
        _ => None,
    });
    match (first(&settings.listen), first(&settings.tls.listen), unix) {
        (Some(plain), ..) => format!("http://{}", connectable(plain)),
        // `-k`: the certificate is for the name that clients use, which is not known here.
        (None, Some(tls), _) => format!("-k https://{}", connectable(tls)),
        (None, None, Some(path)) => {
            format!("--unix-socket {} http://localhost", path.display())
        }
        (None, None, None) => "http://127.0.0.1:8080".into(),
    }
}

/// An address that a client on this machine can connect to.
fn connectable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn get(curl: &str, base: &str, path: &PathPattern, template: Option<&Template>) -> String {
    let mut inputs = ExampleInputs::default();
    inputs.read(template);
    let target = format!("{base}{}{}", path_of(path, &[]), inputs.query_string());
    let mut line = format!("{curl} {}", url(&target));
    inputs.push_headers(&mut line);
    line
}

fn command(route: &CommandRoute, base: &str) -> String {
    let mut inputs = ExampleInputs::default();
    inputs.read(route.key.as_ref());
    for (_, template) in &route.headers {
        inputs.read(Some(template));
    }
    for rule in &route.params {
        if rule.place == ParamPlace::Query && (rule.required || inputs.reads_query(&rule.name)) {
            inputs.set_query(&rule.name, &example(&rule.kind));
        }
    }
    let target = format!(
        "{base}{}{}",
        path_of(&route.path, &route.params),
        inputs.query_string()
    );
    let mut line = "curl -i".to_owned();
    // `-d` makes a POST.
    if route.method != CommandMethod::Post {
        line.push_str(" -X ");
        line.push_str(route.method.as_str());
    }
    line.push(' ');
    line.push_str(&url(&target));
    if route.idempotency == Idempotency::Required {
        line.push_str(" -H 'Idempotency-Key: \"try-1\"'");
    }
    if route.condition == Condition::Required {
        line.push_str(" -H 'If-None-Match: \"0\"'");
    }
    inputs.push_headers(&mut line);
    let has_body = route.method != CommandMethod::Delete || inputs.body.is_some();
    if has_body && !route.tombstone {
        line.push_str(" -H 'Content-Type: application/json'");
        match &route.schema {
            Some(_) => line.push_str(" -d @body.json"),
            None => {
                let body = inputs.body.unwrap_or_else(|| json!({}));
                line.push_str(&format!(" -d {}", quoted(&body.to_string())));
            }
        }
    }
    line
}

/// What the templates of a route read from a request.
#[derive(Debug, Default)]
struct ExampleInputs {
    headers: Vec<String>,
    query: Vec<(String, String)>,
    body: Option<Value>,
}

impl ExampleInputs {
    fn read(&mut self, template: Option<&Template>) {
        for part in template.map_or(&[][..], |it| &it.parts) {
            match part {
                Part::Header(name) if !self.headers.contains(name) => {
                    self.headers.push(name.clone());
                }
                Part::Query(name) if !self.reads_query(name) => self.set_query(name, "1"),
                Part::Body { pointer } => {
                    let body = self.body.get_or_insert_with(|| json!({}));
                    insert(body, pointer);
                }
                _ => {}
            }
        }
    }

    fn reads_query(&self, name: &str) -> bool {
        self.query.iter().any(|(known, _)| known == name)
    }

    fn set_query(&mut self, name: &str, value: &str) {
        self.query.retain(|(known, _)| known != name);
        self.query.push((name.to_owned(), value.to_owned()));
    }

    fn query_string(&self) -> String {
        let pairs = self.query.iter();
        let pairs = pairs.map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
        let pairs: Vec<_> = pairs.collect();
        match pairs.as_slice() {
            [] => String::new(),
            pairs => format!("?{}", pairs.join("&")),
        }
    }

    fn push_headers(&self, line: &mut String) {
        for name in &self.headers {
            line.push_str(&format!(" -H '{name}: 1'"));
        }
    }
}

/// Gives the member of a JSON object that a pointer names the value `"1"`.
fn insert(body: &mut Value, pointer: &[String]) {
    let mut at = body;
    for token in pointer {
        if !at.is_object() {
            *at = json!({});
        }
        at = &mut at[token.as_str()];
    }
    *at = json!("1");
}

/// A path that the pattern matches, percent-encoded.
fn path_of(path: &PathPattern, rules: &[ParamRule]) -> String {
    let mut out = String::new();
    let mut params = 0;
    for segment in &path.segments {
        out.push('/');
        match segment {
            Segment::Literal(text) => out.push_str(&encoded(text)),
            Segment::Param(_) => {
                let place = ParamPlace::Path(params);
                params += 1;
                let rule = rules.iter().find(|rule| rule.place == place);
                let value = rule.map_or_else(|| "1".into(), |rule| example(&rule.kind));
                out.push_str(&encoded(&value));
            }
        }
    }
    if out.is_empty() { "/".into() } else { out }
}

/// A value of the kind.
fn example(kind: &ParamKind) -> String {
    match kind {
        ParamKind::Text | ParamKind::Number => "1".into(),
        ParamKind::Integer { min, max } => 1.clamp(*min, *max).to_string(),
        ParamKind::Boolean => "true".into(),
        ParamKind::Uuid => "0af76519-16cd-43dd-8448-eb211c80319c".into(),
        ParamKind::OneOf(values) => values.first().cloned().unwrap_or_default(),
    }
}

/// Percent-encodes all bytes but the unreserved ones (RFC 3986 2.3).
fn encoded(text: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~');
    utf8_percent_encode(text, RESERVED).to_string()
}

/// Quotes a URL if a shell would expand a part of it.
fn url(text: &str) -> String {
    let (options, url) = text.rsplit_once(' ').unwrap_or(("", text));
    let url = if url.contains(['?', '&', '[', ']', '*']) {
        quoted(url)
    } else {
        url.to_owned()
    };
    match options {
        "" => url,
        options => format!("{options} {url}"),
    }
}

/// Quotes text for a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::super::{ConfigFile, Sources, load};
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        let file = ConfigFile {
            name: "g.toml".into(),
            text: text.into(),
        };
        let sources = Sources {
            file: Some(file),
            cpus: 1,
            ..Sources::default()
        };
        let loaded = load(sources).unwrap_or_else(|report| panic!("{}", report.render(false)));
        let lines = curl_lines(&loaded.config);
        lines.into_iter().map(|it| it.line).collect()
    }

    #[test]
    fn the_example_has_a_line_for_each_route() {
        let lines = lines(include_str!("example.toml"));
        assert_eq!(
            lines,
            [
                "curl -i http://127.0.0.1:8080/accounts/1/payments -H 'Idempotency-Key: \
                 \"try-1\"' -H 'Content-Type: application/json' -d '{}'",
                "curl -i http://127.0.0.1:8080/accounts/1",
                "curl -i http://127.0.0.1:8080/accounts",
                "curl -N http://127.0.0.1:8080/accounts/1/events",
            ]
        );
    }

    #[test]
    fn a_line_has_what_its_route_asks_for() {
        let lines = lines(
            r#"listen = ["[::]:8080"]
auth = "none"
[[command]]
name = "a"
route = "PUT /o'clock/{id}/{kind}"
topic = "a"
replies = "b"
key = "{query.tenant}-{header.x-region}-{body:/customer/id}"
condition = "required"
[command.params]
path.id = "uuid"
path.kind = { type = "string", values = ["a b"] }
query.n = { type = "integer", min = 5, required = true }
[[command]]
name = "b"
route = "DELETE /a/{id}"
topic = "a"
replies = "b"
key = "{path.id}"
tombstone = true
"#,
        );
        assert_eq!(
            lines,
            [
                "curl -i -X PUT 'http://[::1]:8080/o%27clock/0af76519-16cd-43dd-8448-eb211c80319c/\
                 a%20b?tenant=1&n=5' -H 'If-None-Match: \"0\"' -H 'x-region: 1' -H 'Content-Type: \
                 application/json' -d '{\"customer\":{\"id\":\"1\"}}'",
                "curl -i -X DELETE 'http://[::1]:8080/a/1'",
            ]
        );
    }
}
