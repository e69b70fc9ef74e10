//! Trace context (W3C Trace Context 1, W3C Baggage): which values a record may carry. Tracing must
//! never make a request fail. A value that breaks its grammar or its limits is not carried, and the
//! request proceeds without it.

/// Bytes of a `traceparent`. Version 00 has 55; later ones may append fields.
const TRACEPARENT_BYTES_MAX: usize = 128;
/// Bytes and members of a `tracestate` (Trace Context 3.3.1.5: at least 512 bytes are carried).
const TRACESTATE_BYTES_MAX: usize = 512;
const TRACESTATE_MEMBERS_MAX: usize = 32;
/// Bytes and members of a `baggage` (Baggage 3.3.2 asks for at least 8,192 bytes, of which a record
/// header has room for half).
const BAGGAGE_BYTES_MAX: usize = 4096;
const BAGGAGE_MEMBERS_MAX: usize = 64;

/// Names of these headers, in lower case.
pub(super) const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
const BAGGAGE: &str = "baggage";

/// Whether a record may carry a header. True for names that are not trace context.
pub(super) fn may_pass(name: &str, value: &[u8]) -> bool {
    match name {
        TRACEPARENT => is_traceparent(value),
        TRACESTATE => is_tracestate(value),
        BAGGAGE => is_baggage(value),
        _ => true,
    }
}

/// Trace Context 3.2: `version-traceid-parentid-flags` in lower-case hex. Ids of zeros and version
/// ff are invalid. Fields that later versions append are not checked.
pub(super) fn is_traceparent(value: &[u8]) -> bool {
    let Some((known, later)) = value.split_at_checked(55) else {
        return false;
    };
    let hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let some = |part: &[u8]| hex(part) && part.iter().any(|&b| b != b'0');
    let [version, trace, parent, flags] =
        [&known[..2], &known[3..35], &known[36..52], &known[53..]];
    let dashes = [known[2], known[35], known[52]] == [b'-'; 3];
    let versioned = match version {
        b"ff" => false,
        b"00" => later.is_empty(),
        _ => later.is_empty() || later[0] == b'-',
    };
    dashes
        && versioned
        && hex(version)
        && some(trace)
        && some(parent)
        && hex(flags)
        && value.len() <= TRACEPARENT_BYTES_MAX
        && later.iter().all(u8::is_ascii_graphic)
}

/// Trace Context 3.3.1: `key=value` members between commas; empty ones are allowed.
fn is_tracestate(value: &[u8]) -> bool {
    let lower = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_key = |key: &[u8]| {
        let legal = |b: &u8| lower(b) || b"_-*/@".contains(b);
        let whole = (1..=256).contains(&key.len()) && key.iter().all(legal);
        whole && lower(&key[0]) && key.iter().filter(|b| **b == b'@').count() <= 1
    };
    // Visible characters and spaces but `,` and `=`, not ending in a space.
    let is_value = |text: &[u8]| {
        let legal = |b: &u8| matches!(b, b' '..=b'~') && !matches!(b, b',' | b'=');
        (1..=256).contains(&text.len()) && text.iter().all(legal)
    };
    let members = members(value);
    let whole = |member: &[u8]| {
        split(member, b'=').is_some_and(|(key, value)| is_key(key) && is_value(value))
    };
    value.len() <= TRACESTATE_BYTES_MAX && all(members, TRACESTATE_MEMBERS_MAX, whole)
}

/// Baggage 3.1: `key = value` members between commas, each perhaps with properties behind `;`.
fn is_baggage(value: &[u8]) -> bool {
    let is_key = |key: &[u8]| {
        let legal = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
        !key.is_empty() && key.iter().all(legal)
    };
    let is_value = |text: &[u8]| {
        let legal = |b: &u8| b.is_ascii_graphic() && !matches!(b, b'"' | b',' | b';' | b'\\');
        text.iter().all(legal)
    };
    let pair = |text: &[u8]| {
        split(text, b'=').is_some_and(|(key, value)| {
            is_key(key.trim_ascii_end()) && is_value(value.trim_ascii_start())
        })
    };
    let whole = |member: &[u8]| {
        let mut parts = member.split(|&b| b == b';').map(<[u8]>::trim_ascii);
        parts.next().is_some_and(pair) && parts.all(|part| is_key(part) || pair(part))
    };
    value.len() <= BAGGAGE_BYTES_MAX && all(members(value), BAGGAGE_MEMBERS_MAX, whole)
}

fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let members = value.split(|&b| b == b',').map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty())
}

/// At least one member, at most `most`, all of them whole.
fn all<'v>(
    members: impl Iterator<Item = &'v [u8]>,
    most: usize,
    whole: impl Fn(&[u8]) -> bool,
) -> bool {
    let mut count = 0;
    for member in members {
        count += 1;
        if count > most || !whole(member) {
            return false;
        }
    }
    count > 0
}

fn split(text: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = memchr::memchr(at, text)?;
    Some((&text[..place], &text[place + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const PARENT: &str = "b7ad6b7169203331";

    #[test]
    fn a_traceparent_is_four_fields_of_hex() {
        let good = format!("00-{TRACE}-{PARENT}-01");
        assert!(is_traceparent(good.as_bytes()));
        for good in [
            format!("00-{TRACE}-{PARENT}-ff"),
            format!("01-{TRACE}-{PARENT}-00"),
            format!("cc-{TRACE}-{PARENT}-00-what-the-future-will-be-like"),
        ] {
            assert!(is_traceparent(good.as_bytes()), "{good}");
        }
        for bad in [
            String::new(),
            "00-1".into(),
            "x".repeat(55),
            good.to_uppercase(),
            good.replace('-', "_"),
            format!("{good}-01"),
            format!("{good} "),
            format!("ff-{TRACE}-{PARENT}-00"),
            format!("0g-{TRACE}-{PARENT}-00"),
            format!("00-{}-{PARENT}-00", "0".repeat(32)),
            format!("00-{TRACE}-{}-00", "0".repeat(16)),
            format!("00-{TRACE}-{PARENT}-0g"),
            format!("01-{TRACE}-{PARENT}-00x"),
            format!("01-{TRACE}-{PARENT}-00-{}", "x".repeat(100)),
            format!("01-{TRACE}-{PARENT}-00-\u{fc}"),
            "0".repeat(5000),
        ] {
            assert!(!is_traceparent(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn a_tracestate_is_a_list_of_members() {
        let many = |n| vec!["a=1"; n].join(",");
        for good in [
            "a=1",
            "rojo=00f067aa0ba902b7, congo=t61rc WkgMzE",
            "1a@b=x",
            ",a=1,,",
            &many(32),
        ] {
            assert!(is_tracestate(good.as_bytes()), "{good}");
        }
        let long = format!("a={}", "x".repeat(257));
        for bad in [
            "",
            ",",
            "a",
            "=1",
            "a=",
            "A=1",
            "a=1=2",
            "a=\u{fc}",
            "a@b@c=1",
            "@a=1",
            &many(33),
            &long,
        ] {
            assert!(!is_tracestate(bad.as_bytes()), "{bad}");
        }
        assert!(!is_tracestate("0".repeat(5000).as_bytes()));
    }

    #[test]
    fn a_baggage_is_a_list_of_members_with_properties() {
        let many = |n| vec!["a=1"; n].join(",");
        for good in [
            "userId=alice,serverNode=DF%2028,isProduction=false",
            "a = 1 ; p1 = x ; p2 , b=",
            &many(64),
        ] {
            assert!(is_baggage(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "a",
            "=1",
            "a=\"x\"",
            "a=x y",
            "a=1;",
            "a=1;=x",
            "a\u{fc}=1",
            "a=\\",
            &many(65),
        ] {
            assert!(!is_baggage(bad.as_bytes()), "{bad}");
        }
        assert!(!is_baggage(format!("a={}", "x".repeat(5000)).as_bytes()));
    }
}
