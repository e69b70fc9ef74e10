//! A command as a record: what the service sees of a request. A client can't set a header that the
//! gateway sets, in any spelling.

use bytes::Bytes;

use super::trace::{self, TRACEPARENT};
use crate::model::{CorrelationId, Identity};

/// The names of the record headers the gateway sets on a command (a preset of the config).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderNames {
    /// The correlation id: command key and fingerprint.
    pub correlation_id: Box<str>,
    /// Header with the topic that the service must reply to.
    pub reply_to: Box<str>,
    /// Issuer and subject; empty for anonymous.
    pub identity: Box<str>,
    /// The client's claims as a JSON object, if its issuer carries some.
    pub claims: Box<str>,
    /// Header with the request's `If-Match` condition, if the request has one.
    pub if_match: Box<str>,
    /// Header with the request's `If-None-Match` condition, if the request has one.
    pub if_none_match: Box<str>,
    /// Header with the client's idempotency key, if the client sent one.
    pub idempotency_key: Box<str>,
    /// Header with the HTTP method of the request.
    pub method: Box<str>,
    /// The request's path and query.
    pub path: Box<str>,
}

/// A header of the request: name as received, value.
pub type ClientHeader<'a> = (&'a str, &'a [u8]);

/// What a command record is made of. Names and values in the request's own spelling.
#[derive(Clone, Copy, Debug)]
pub struct CommandParts<'a> {
    /// The HTTP method of the request, for [`HeaderNames::method`].
    pub method: &'a str,
    /// The request's path and query.
    pub path_and_query: &'a str,
    /// The identity of the client.
    pub identity: &'a Identity,
    /// The client's claims as a JSON object. `None` if its issuer carries none.
    pub claims: Option<&'a str>,
    /// The `If-Match` condition: one tag without its quotes, `*`, or a list.
    pub if_match: Option<&'a [u8]>,
    /// The `If-None-Match` condition, in the same form.
    pub if_none_match: Option<&'a [u8]>,
    /// The idempotency key that the client sent. `None` if the client sent none.
    pub idempotency_key: Option<&'a [u8]>,
    /// The id that the service copies to its reply.
    pub correlation: CorrelationId,
    /// The topic that the service must reply to. `None`: it replies to no command of the route.
    pub reply_to: Option<&'a str>,
    /// The request's single `traceparent`. The header has the same name in every preset, and is
    /// carried only if it is well-formed.
    pub traceparent: Option<&'a [u8]>,
    /// The record's key, expanded from the route's template. `None` if the route has none.
    pub key: Option<&'a [u8]>,
    /// The values of the headers the route sets, in the order they were declared to
    /// [`CommandHeaders::new`].
    pub route_headers: &'a [Vec<u8>],
}

/// What decides a command's partition. All records of a command must be in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionBy {
    /// murmur2 of the record's key, as in Java's producer.
    RecordKey,
    /// murmur2 of the command key, since the record has no key.
    CommandKey,
}

/// Key and headers of the record to produce; its value is the request's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRecord {
    /// The record's key. `None` if the route has no key template.
    pub key: Option<Bytes>,
    /// The record's headers in order: the gateway's, the route's, the client's.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
    /// Which key selects the partition: the record's, or the command key if the record has none.
    pub partition_by: PartitionBy,
}

/// Why a request can't become a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RecordError {
    /// A forwarded header has a value over [`CommandHeaders::VALUE_BYTES_MAX`].
    #[error("a header that goes on the record has a value over 4 KiB")]
    HeaderTooLong,
}

/// Never on a record, whatever a route allows: credentials.
const CREDENTIALS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

/// The headers of a route's command records: which ones the gateway sets, which ones the route
/// sets, and which ones are forwarded from the request. Made once per route, so that a request
/// costs no more than comparing names.
#[derive(Clone, Debug)]
pub struct CommandHeaders {
    names: [Bytes; 9],
    route: Vec<Bytes>,
    pass: Vec<Box<str>>,
}

impl CommandHeaders {
    /// Most bytes of a condition, and of a forwarded header value.
    pub const VALUE_BYTES_MAX: usize = 4096;

    /// `route` names the headers that the route sets, and `forward` those that are forwarded from
    /// the request. Three kinds of names are never forwarded: names that the gateway or the route
    /// sets, in any spelling (case, `-`, `_`, `.`); credentials; and names with `_`, which requests
    /// may not have.
    #[must_use]
    pub fn new<'a>(
        names: &HeaderNames,
        route: impl IntoIterator<Item = &'a str>,
        forward: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let HeaderNames {
            correlation_id,
            reply_to,
            identity,
            claims,
            if_match,
            if_none_match,
            idempotency_key,
            method,
            path,
        } = names;
        let ours = [
            method,
            path,
            identity,
            claims,
            correlation_id,
            reply_to,
            if_match,
            if_none_match,
            idempotency_key,
        ];
        let route: Vec<&str> = route.into_iter().collect();
        let set = ours.iter().map(|name| &***name);
        let set: Vec<String> = set
            .chain(route.iter().copied())
            .chain(CREDENTIALS)
            .chain([TRACEPARENT])
            .map(spelling)
            .collect();
        let may_pass = |name: &&str| !name.contains('_') && !set.contains(&spelling(name));
        let pass = forward.into_iter().filter(may_pass);
        Self {
            names: ours.map(|name| Bytes::copy_from_slice(name.as_bytes())),
            pass: pass.map(|name| name.to_ascii_lowercase().into()).collect(),
            route: route
                .into_iter()
                .map(|name| Bytes::copy_from_slice(name.as_bytes()))
                .collect(),
        }
    }

    /// Whether [`Self::record`] would accept these conditions and headers. Called before the body
    /// of a request is asked for.
    ///
    /// # Errors
    /// A condition or a forwarded value is too long.
    pub fn check<'a>(
        &self,
        conditions: [Option<&[u8]>; 2],
        headers: impl IntoIterator<Item = ClientHeader<'a>>,
    ) -> Result<(), RecordError> {
        let mut passing = headers.into_iter();
        let long = |(name, value)| self.passes(name, value).is_some() && is_too_long(value);
        if conditions.into_iter().flatten().any(is_too_long) || passing.any(long) {
            return Err(RecordError::HeaderTooLong);
        }
        Ok(())
    }

    /// The record header under which a request header is forwarded, or `None`.
    fn passes(&self, name: &str, value: &[u8]) -> Option<&str> {
        let mut pass = self.pass.iter();
        let name = pass.find(|pass| name.eq_ignore_ascii_case(pass))?;
        trace::may_pass(name, value).then_some(name)
    }

    /// Makes a record of a request. The record carries the `headers` that the route forwards: every
    /// value of a repeated one, under the name in lower case.
    ///
    /// # Errors
    /// A condition or a forwarded value is too long.
    ///
    /// # Panics
    /// If there is not one value for each header of the route.
    pub fn record<'a>(
        &self,
        parts: &CommandParts<'_>,
        headers: impl IntoIterator<Item = ClientHeader<'a>>,
    ) -> Result<CommandRecord, RecordError> {
        assert_eq!(
            parts.route_headers.len(),
            self.route.len(),
            "one value each"
        );
        let conditions = [parts.if_match, parts.if_none_match];
        if conditions
            .iter()
            .flatten()
            .any(|it| it.len() > Self::VALUE_BYTES_MAX)
        {
            return Err(RecordError::HeaderTooLong);
        }
        let text = |text: String| Some(Bytes::from(text));
        let copy = |bytes: &[u8]| Some(Bytes::copy_from_slice(bytes));
        // In the order of `names`; absent ones are left out.
        let ours = [
            copy(parts.method.as_bytes()),
            copy(parts.path_and_query.as_bytes()),
            text(parts.identity.to_string()),
            parts.claims.and_then(|it| copy(it.as_bytes())),
            text(parts.correlation.to_string()),
            parts.reply_to.and_then(|topic| copy(topic.as_bytes())),
            parts.if_match.and_then(copy),
            parts.if_none_match.and_then(copy),
            parts.idempotency_key.and_then(copy),
        ];
        let mut out: Vec<(Bytes, Option<Bytes>)> = Vec::with_capacity(ours.len() + 4);
        let named = self.names.iter().zip(ours);
        out.extend(named.filter_map(|(name, value)| Some((name.clone(), Some(value?)))));
        if let Some(context) = parts.traceparent.filter(|it| trace::is_traceparent(it)) {
            out.push((Bytes::from_static(TRACEPARENT.as_bytes()), copy(context)));
        }
        let route = self.route.iter().zip(parts.route_headers);
        out.extend(route.map(|(name, value)| (name.clone(), copy(value))));
        for (name, value) in headers {
            let Some(name) = self.passes(name, value) else {
                continue;
            };
            if is_too_long(value) {
                return Err(RecordError::HeaderTooLong);
            }
            out.push((Bytes::copy_from_slice(name.as_bytes()), copy(value)));
        }
        Ok(CommandRecord {
            key: parts.key.and_then(copy),
            headers: out,
            partition_by: match parts.key {
                Some(_) => PartitionBy::RecordKey,
                None => PartitionBy::CommandKey,
            },
        })
    }
}

/// Whether a value is over [`CommandHeaders::VALUE_BYTES_MAX`].
const fn is_too_long(value: &[u8]) -> bool {
    value.len() > CommandHeaders::VALUE_BYTES_MAX
}

/// What two spellings of one name have in common: `X_Tenant.Id` and `x-tenant-id`.
fn spelling(name: &str) -> String {
    let letters = name.chars().filter(|c| !matches!(c, '-' | '_' | '.'));
    letters.map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CommandKey, Fingerprint};

    fn names(correlation_id: &str, reply_to: &str) -> HeaderNames {
        HeaderNames {
            correlation_id: correlation_id.into(),
            reply_to: reply_to.into(),
            identity: "identity".into(),
            claims: "claims".into(),
            if_match: "if-match".into(),
            if_none_match: "if-none-match".into(),
            idempotency_key: "idempotency-key".into(),
            method: ":method".into(),
            path: ":path".into(),
        }
    }

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    const PARTS: CommandParts<'static> = CommandParts {
        method: "POST",
        path_and_query: "/pay?x=1",
        identity: &Identity::ANONYMOUS,
        claims: None,
        if_match: None,
        if_none_match: None,
        idempotency_key: None,
        correlation: CorrelationId {
            key: CommandKey([1; 16]),
            fingerprint: Fingerprint([2; 16]),
        },
        reply_to: Some("replies"),
        traceparent: None,
        key: None,
        route_headers: &[],
    };

    fn texts(record: &CommandRecord) -> Vec<(&str, &str)> {
        let text = |bytes| std::str::from_utf8(bytes).expect("text");
        let headers = record.headers.iter();
        headers
            .map(|(name, value)| (text(name), text(value.as_ref().expect("a value"))))
            .collect()
    }

    #[test]
    fn a_bare_command_has_what_a_service_needs_to_answer() {
        let headers = CommandHeaders::new(&names("correlation-id", "reply-to"), [], []);
        let record = headers.record(&PARTS, [("x", &b"y"[..])]).expect("short");
        let id = PARTS.correlation.to_string();
        let expected = [
            (":method", "POST"),
            (":path", "/pay?x=1"),
            ("identity", ""),
            ("correlation-id", &*id),
            ("reply-to", "replies"),
        ];
        assert_eq!(texts(&record), expected);
        assert_eq!(
            (record.key, record.partition_by),
            (None, PartitionBy::CommandKey)
        );
    }

    #[test]
    fn a_full_command_has_everything_in_order() {
        let names = names("kafka_correlationId", "kafka_replyTopic");
        let headers = CommandHeaders::new(&names, ["operation"], ["x-tenant"]);
        let parts = CommandParts {
            identity: &Identity::new("idp", "ann"),
            if_match: Some(b"7"),
            if_none_match: Some(b"*"),
            idempotency_key: Some(b"k"),
            traceparent: Some(TRACE.as_bytes()),
            key: Some(b"acc"),
            route_headers: &[b"pay".to_vec()],
            ..PARTS
        };
        let request = [
            ("X-Tenant", &b"a"[..]),
            ("Accept", b"*/*"),
            ("x-tenant", b"b"),
        ];
        let record = headers.record(&parts, request).expect("short");
        let id = PARTS.correlation.to_string();
        let expected = [
            (":method", "POST"),
            (":path", "/pay?x=1"),
            ("identity", "idp#ann"),
            ("kafka_correlationId", &*id),
            ("kafka_replyTopic", "replies"),
            ("if-match", "7"),
            ("if-none-match", "*"),
            ("idempotency-key", "k"),
            ("traceparent", TRACE),
            ("operation", "pay"),
            ("x-tenant", "a"),
            ("x-tenant", "b"),
        ];
        assert_eq!(texts(&record), expected);
        assert_eq!(record.key.as_deref(), Some(&b"acc"[..]));
        assert_eq!(record.partition_by, PartitionBy::RecordKey);
    }

    /// RELIABILITY: names the gateway sets can't come from a client, in no spelling. The grid is
    /// each name we set, in each preset, in the spellings that have fooled others.
    #[test]
    fn no_spelling_of_a_name_we_set_passes() {
        for names in [
            names("correlation-id", "reply-to"),
            names("zilla:correlation-id", "zilla:reply-to"),
            names("kafka_correlationId", "kafka_replyTopic"),
        ] {
            let set = [
                &*names.correlation_id,
                &names.reply_to,
                &names.identity,
                &names.if_match,
                &names.if_none_match,
                &names.idempotency_key,
                &names.method,
                &names.path,
                "traceparent",
                "authorization",
                "Cookie",
                "operation",
            ];
            let spellings = set.iter().flat_map(|name| {
                [
                    (*name).to_owned(),
                    name.to_uppercase(),
                    name.to_lowercase(),
                    name.replace('-', "_"),
                    name.replace('_', "-"),
                    name.replace(['-', '_'], "."),
                    name.replace(['-', '_'], ""),
                ]
            });
            let spellings: Vec<String> = spellings.collect();
            let forward = spellings.iter().map(String::as_str);
            let headers = CommandHeaders::new(&names, ["operation"], forward);
            let parts = CommandParts {
                route_headers: &[b"pay".to_vec()],
                ..PARTS
            };
            let request = spellings.iter().map(|name| (name.as_str(), &b"evil"[..]));
            let record = headers.record(&parts, request).expect("short");
            let evil = texts(&record)
                .into_iter()
                .filter(|(_, value)| *value == "evil");
            assert_eq!(evil.collect::<Vec<_>>(), []);
        }
    }

    /// `X_Tenant` and `X-Tenant` are one name to many readers: only the latter is HTTP's here.
    #[test]
    fn a_name_with_an_underscore_never_passes() {
        let headers = CommandHeaders::new(&names("c", "r"), [], ["x_tenant", "x-tenant"]);
        let request = [("X_Tenant", &b"evil"[..]), ("X-Tenant", b"good")];
        let record = headers.record(&PARTS, request).expect("short");
        let passed = texts(&record).split_off(5);
        assert_eq!(passed, [("x-tenant", "good")]);
    }

    /// Tracing never makes a request fail.
    #[test]
    fn a_malformed_trace_context_is_not_carried() {
        let forward = ["tracestate", "baggage"];
        let headers = CommandHeaders::new(&names("c", "r"), [], forward);
        let long = "0".repeat(5000);
        let parts = CommandParts {
            traceparent: Some(long.as_bytes()),
            ..PARTS
        };
        let request = [
            ("tracestate", long.as_bytes()),
            ("Baggage", long.as_bytes()),
        ];
        let record = headers
            .record(&parts, request)
            .expect("the request proceeds");
        assert_eq!(texts(&record).split_off(5), []);
        assert_eq!(headers.check([None, None], request), Ok(()));
        let request = [("TraceState", &b"a=1"[..]), ("baggage", b"b=2")];
        let record = headers.record(&PARTS, request).expect("short");
        let carried = [("tracestate", "a=1"), ("baggage", "b=2")];
        assert_eq!(texts(&record).split_off(5), carried);
    }

    #[test]
    fn a_value_that_passes_is_bounded() {
        let headers = CommandHeaders::new(&names("c", "r"), [], ["x-long"]);
        let long = vec![b'a'; CommandHeaders::VALUE_BYTES_MAX + 1];
        let record = headers.record(&PARTS, [("x-long", &long[..])]);
        assert_eq!(record, Err(RecordError::HeaderTooLong));
        let checked = headers.check([None, None], [("x-long", &long[..])]);
        assert_eq!(checked, Err(RecordError::HeaderTooLong));
        let record = headers.record(&PARTS, [("x-other", &long[..])]);
        assert!(record.is_ok());
        let parts = CommandParts {
            if_none_match: Some(&long),
            ..PARTS
        };
        let record = headers.record(&parts, []);
        assert_eq!(record, Err(RecordError::HeaderTooLong));
    }
}
