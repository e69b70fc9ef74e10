//! Comma-separated lists (RFC 9110 5.6.1) with members that may hold quoted strings.

/// The members of a list, without surrounding whitespace. Empty members are skipped, as a recipient
/// must. A comma within a quoted string does not separate.
pub(super) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    parts(value, b',').filter(|m| !m.is_empty())
}

/// The pieces of `value` between `separator`s outside quoted strings, trimmed.
pub(super) fn parts(value: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(value);
    std::iter::from_fn(move || {
        let all = rest?;
        let (part, behind) = match unquoted(all, separator) {
            Some(end) => (all.get(..end)?, all.get(end + 1..)),
            None => (all, None),
        };
        rest = behind;
        Some(part.trim_ascii())
    })
}

/// The first position of `byte` outside a quoted string.
fn unquoted(value: &[u8], byte: u8) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    value.iter().position(|&b| {
        if escaped {
            escaped = false;
        } else if quoted && b == b'\\' {
            escaped = true;
        } else if b == b'"' {
            quoted = !quoted;
        }
        !quoted && b == byte
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 9110 5.6.1.2: empty members are ignored; 5.6.4: a quoted string is one word.
    #[test]
    fn a_list_parts_at_commas_outside_quotes() {
        let all = |v: &'static str| -> Vec<&str> {
            let text = |m: &'static [u8]| std::str::from_utf8(m).expect("was text");
            members(v.as_bytes()).map(text).collect()
        };
        assert_eq!(all("a, b ,\tc"), ["a", "b", "c"]);
        assert_eq!(all(" , ,a,,"), ["a"]);
        assert_eq!(all(r#"a="1,\",2", b"#), [r#"a="1,\",2""#, "b"]);
        assert_eq!(all(r#"a="never ends, b"#), [r#"a="never ends, b"#]);
        assert!(all("").is_empty());
    }
}
