//! Reads the few fields of a certificate that rustls does not expose: how long it is valid, and
//! whom it names (RFC 5280 4.1). It trusts nothing: whether a certificate is signed is rustls's
//! task, before or after.

use crate::model::{CertificateName, UnixMillis};

/// ASN.1 tags in DER (X.690).
mod tag {
    pub(super) const BOOLEAN: u8 = 0x01;
    pub(super) const INTEGER: u8 = 0x02;
    pub(super) const OCTET_STRING: u8 = 0x04;
    pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
    pub(super) const UTF8_STRING: u8 = 0x0c;
    pub(super) const PRINTABLE_STRING: u8 = 0x13;
    pub(super) const IA5_STRING: u8 = 0x16;
    pub(super) const UTC_TIME: u8 = 0x17;
    pub(super) const GENERALIZED_TIME: u8 = 0x18;
    pub(super) const SEQUENCE: u8 = 0x30;
    pub(super) const SET: u8 = 0x31;
    /// `[0]`, the version of a certificate.
    pub(super) const VERSION: u8 = 0xa0;
    /// `[1]` and `[2]`, identifiers of issuer and subject that nobody uses.
    pub(super) const UNIQUE_IDS: [u8; 2] = [0x81, 0x82];
    /// `[3]`, the extensions.
    pub(super) const EXTENSIONS: u8 = 0xa3;
    /// The kinds of a subject alternative name (RFC 5280 4.2.1.6).
    pub(super) const EMAIL: u8 = 0x81;
    pub(super) const DNS: u8 = 0x82;
    pub(super) const URI: u8 = 0x86;
}

/// `subjectAltName`, 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];

/// Attribute types with a short name (RFC 4514 3).
const SHORT_NAMES: [(&[u8], &str); 9] = [
    (&[0x55, 0x04, 0x03], "CN"),
    (&[0x55, 0x04, 0x07], "L"),
    (&[0x55, 0x04, 0x08], "ST"),
    (&[0x55, 0x04, 0x0a], "O"),
    (&[0x55, 0x04, 0x0b], "OU"),
    (&[0x55, 0x04, 0x06], "C"),
    (&[0x55, 0x04, 0x09], "STREET"),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19],
        "DC",
    ),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01],
        "UID",
    ),
];

/// What a certificate says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFields {
    /// The first moment at which it is valid.
    pub valid_from: UnixMillis,
    /// The last moment at which it is valid.
    pub valid_until: UnixMillis,
    /// The subject in the form of RFC 4514. Empty if it has none.
    pub subject: String,
    /// The subject alternative names that are DNS names, URIs or e-mail addresses.
    pub names: Vec<(CertificateName, String)>,
}

impl CertificateFields {
    /// Reads a certificate. `None`: it is not DER of an X.509 certificate, or one of its names has
    /// characters that no such name may have.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let mut certificate = Der(Der(der).only(tag::SEQUENCE)?);
        let mut tbs = Der(certificate.expect(tag::SEQUENCE)?);
        tbs.optional(tag::VERSION)?;
        tbs.expect(tag::INTEGER)?; // the serial number
        tbs.expect(tag::SEQUENCE)?; // the algorithm of the signature
        tbs.expect(tag::SEQUENCE)?; // the issuer
        let mut validity = Der(tbs.expect(tag::SEQUENCE)?);
        let (valid_from, valid_until) = (time(validity.next()?)?, time(validity.next()?)?);
        let subject = distinguished_name(tbs.expect(tag::SEQUENCE)?)?;
        tbs.expect(tag::SEQUENCE)?; // the public key
        for unique_id in tag::UNIQUE_IDS {
            tbs.optional(unique_id)?;
        }
        let names = match tbs.optional(tag::EXTENSIONS)? {
            Some(extensions) => alternative_names(Der(extensions).only(tag::SEQUENCE)?)?,
            None => Vec::new(),
        };
        Some(Self {
            valid_from,
            valid_until,
            subject,
            names,
        })
    }

    /// The one name of this kind. `None` if there is none, or more than one: an identity must not
    /// depend on the order of names.
    #[must_use]
    pub fn only_name(&self, kind: CertificateName) -> Option<&str> {
        if kind == CertificateName::Subject {
            return Some(&*self.subject).filter(|subject| !subject.is_empty());
        }
        let mut names = self.names_of(kind);
        let name = names.next()?;
        names.next().is_none().then_some(name)
    }

    /// The names of one kind.
    pub fn names_of(&self, kind: CertificateName) -> impl Iterator<Item = &str> {
        let names = self.names.iter().filter(move |(found, _)| *found == kind);
        names.map(|(_, name)| &**name)
    }
}

/// Reads values of DER one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (len, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // The long form, with the number of its bytes. DER has no indefinite length.
            0x81..=0x84 => {
                let (len, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let len = len
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
                (len, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next value, which must have this tag.
    fn expect(&mut self, wanted: u8) -> Option<&'a [u8]> {
        let (tag, content) = self.next()?;
        (tag == wanted).then_some(content)
    }

    /// The content of the only value that is left, which must have this tag.
    fn only(mut self, wanted: u8) -> Option<&'a [u8]> {
        let content = self.expect(wanted)?;
        self.0.is_empty().then_some(content)
    }

    /// The content of the next value if it has this tag. The outer `None`: it is not DER.
    fn optional(&mut self, wanted: u8) -> Option<Option<&'a [u8]>> {
        if self.0.first() == Some(&wanted) {
            self.expect(wanted).map(Some)
        } else {
            Some(None)
        }
    }
}

/// The names of the extension `subjectAltName`, if it is among the extensions.
fn alternative_names(extensions: &[u8]) -> Option<Vec<(CertificateName, String)>> {
    let mut extensions = Der(extensions);
    let mut names = Vec::new();
    while !extensions.0.is_empty() {
        let mut extension = Der(extensions.expect(tag::SEQUENCE)?);
        let kind = extension.expect(tag::OBJECT_IDENTIFIER)?;
        extension.optional(tag::BOOLEAN)?; // whether it is critical
        let value = extension.expect(tag::OCTET_STRING)?;
        if kind != SUBJECT_ALT_NAME {
            continue;
        }
        let mut all = Der(Der(value).only(tag::SEQUENCE)?);
        while !all.0.is_empty() {
            let (kind, name) = all.next()?;
            let kind = match kind {
                tag::EMAIL => CertificateName::Email,
                tag::DNS => CertificateName::Dns,
                tag::URI => CertificateName::Uri,
                _ => continue,
            };
            // All three are IA5 strings. One with a NUL or a space has been used to deceive.
            let is_plain = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
            let name = std::str::from_utf8(name).ok().filter(|_| is_plain)?;
            names.push((kind, name.to_owned()));
        }
    }
    Some(names)
}

/// Writes a name as RFC 4514 2 says: the last part first, values with escapes.
fn distinguished_name(name: &[u8]) -> Option<String> {
    let mut name = Der(name);
    let mut parts = Vec::new();
    while !name.0.is_empty() {
        let mut set = Der(name.expect(tag::SET)?);
        let mut part = String::new();
        while !set.0.is_empty() {
            let mut attribute = Der(set.expect(tag::SEQUENCE)?);
            let kind = attribute.expect(tag::OBJECT_IDENTIFIER)?;
            if !part.is_empty() {
                part.push('+');
            }
            write_attribute(&mut part, kind, attribute)?;
        }
        parts.push(part);
    }
    parts.reverse();
    Some(parts.join(","))
}

fn write_attribute(out: &mut String, kind: &[u8], mut value: Der<'_>) -> Option<()> {
    let der = value.0;
    let (tag, content) = value.next()?;
    let short = SHORT_NAMES.iter().find(|(id, _)| *id == kind);
    match short {
        Some((_, short)) => out.push_str(short),
        None => out.push_str(&dotted(kind)?),
    }
    out.push('=');
    let is_text = matches!(
        tag,
        tag::UTF8_STRING | tag::PRINTABLE_STRING | tag::IA5_STRING
    );
    match std::str::from_utf8(content) {
        // RFC 4514 2.4: a value of a type without a short name is written in hexadecimal.
        Ok(text) if is_text && short.is_some() => escape(out, text),
        _ => {
            out.push('#');
            der.iter().for_each(|byte| push_hex(out, *byte));
        }
    }
    Some(())
}

/// An object identifier in numbers: `1.2.840.113549.1.9.1`.
fn dotted(id: &[u8]) -> Option<String> {
    let mut text = String::new();
    let mut number: u64 = 0;
    for byte in id {
        number = number.checked_mul(128)? | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if text.is_empty() {
            // X.690 8.19.4: the first number has two parts.
            let first = (number / 40).min(2);
            text = format!("{first}.{}", number - first * 40);
        } else {
            text.push_str(&format!(".{number}"));
        }
        number = 0;
    }
    Some(text)
}

/// RFC 4514 2.4. Control characters are escaped too, so that the text is safe in a header.
fn escape(out: &mut String, text: &str) {
    let last = text.chars().count().saturating_sub(1);
    for (at, char) in text.chars().enumerate() {
        match char {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => {
                out.push('\\');
                out.push(char);
            }
            '#' if at == 0 => out.push_str("\\#"),
            ' ' if at == 0 || at == last => out.push_str("\\ "),
            char if char.is_control() => {
                for byte in char.encode_utf8(&mut [0; 4]).bytes() {
                    out.push('\\');
                    push_hex(out, byte);
                }
            }
            char => out.push(char),
        }
    }
}

fn push_hex(out: &mut String, byte: u8) {
    for half in [byte >> 4, byte & 15] {
        out.push(char::from_digit(u32::from(half), 16).unwrap_or('0'));
    }
}

/// A moment of a certificate, always in UTC and with seconds (RFC 5280 4.1.2.5).
fn time((tag, text): (u8, &[u8])) -> Option<UnixMillis> {
    let (year, rest) = match tag {
        tag::UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year = digits(year)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        tag::GENERALIZED_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (digits(year)?, rest)
        }
        _ => return None,
    };
    let rest: &[u8; 11] = rest.try_into().ok()?;
    let [month, day, hour, minute, second] =
        [0, 2, 4, 6, 8].map(|at| digits(&rest[at..at + 2]).unwrap_or(99));
    let fits = (1..=12).contains(&month) && (1..=31).contains(&day);
    if rest[10] != b'Z' || !fits || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Some(UnixMillis(seconds * 1000))
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |number, byte| {
        byte.is_ascii_digit()
            .then(|| number * 10 + i64::from(byte - b'0'))
    })
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    // Count years from March, so that the leap day is a year's last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + (month * 306 + 5) / 10 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use rcgen::{
        CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, KeyPair, SanType,
    };

    use super::*;

    fn der(params: &CertificateParams) -> Vec<u8> {
        let key = KeyPair::generate().expect("a key");
        let made = params.self_signed(&key).expect("a certificate");
        made.der().to_vec()
    }

    fn params(names: &[(DnType, &str)]) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in names {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params
    }

    fn subject(names: &[(DnType, &str)]) -> String {
        let fields = CertificateFields::read(&der(&params(names)));
        fields.expect("a certificate").subject
    }

    #[test]
    fn a_subject_is_written_with_its_last_part_first_and_escapes() {
        assert_eq!(subject(&[]), "");
        let names = [
            (DnType::CountryName, "CH"),
            (DnType::OrganizationName, "Example, Inc."),
            (DnType::CommonName, "till 7"),
        ];
        assert_eq!(subject(&names), "CN=till 7,O=Example\\, Inc.,C=CH");
        let common = |text| subject(&[(DnType::CommonName, text)]);
        // No value can look like two parts, or like another value.
        assert_eq!(common("a,O=b"), "CN=a\\,O=b");
        assert_eq!(common("a\\,O=b"), "CN=a\\\\\\,O=b");
        assert_eq!(common(" #a "), "CN=\\ #a\\ ");
        assert_eq!(common("#a"), "CN=\\#a");
        assert_eq!(common("a+b\r\n"), "CN=a\\+b\\0d\\0a");
        assert_eq!(common("Zoë"), "CN=Zoë");
        let custom = DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]);
        assert_eq!(subject(&[(custom, "a")]), "1.2.840.113549.1.9.1=#0c0161");
    }

    #[test]
    fn a_value_that_is_no_text_is_written_as_it_is() {
        let mut params = params(&[]);
        let value = DnValue::BmpString("ab".try_into().expect("two characters"));
        params.distinguished_name.push(DnType::CommonName, value);
        let fields = CertificateFields::read(&der(&params)).expect("a certificate");
        assert_eq!(fields.subject, "CN=#1e0400610062");
    }

    #[test]
    fn alternative_names_are_found_by_kind() {
        let mut params = params(&[]);
        params.subject_alt_names = vec![
            SanType::DnsName("a.example".try_into().expect("a name")),
            SanType::IpAddress([10, 0, 0, 1].into()),
            SanType::DnsName("*.b.example".try_into().expect("a name")),
            SanType::URI("spiffe://example/till".try_into().expect("a name")),
            SanType::Rfc822Name("till@example".try_into().expect("a name")),
        ];
        let fields = CertificateFields::read(&der(&params)).expect("a certificate");
        let of = |kind| fields.names_of(kind).collect::<Vec<_>>();
        assert_eq!(of(CertificateName::Dns), ["a.example", "*.b.example"]);
        assert_eq!(of(CertificateName::Uri), ["spiffe://example/till"]);
        assert_eq!(of(CertificateName::Email), ["till@example"]);
        // An identity is the only name of its kind.
        let only = |kind| fields.only_name(kind);
        assert_eq!(only(CertificateName::Uri), Some("spiffe://example/till"));
        assert_eq!(only(CertificateName::Email), Some("till@example"));
        assert_eq!(only(CertificateName::Dns), None);
        assert_eq!(only(CertificateName::Subject), None);
    }

    /// A browser that reads C strings takes `bank.example\0.evil.example` for `bank.example`.
    #[test]
    fn a_name_with_a_nul_or_a_space_makes_the_certificate_unreadable() {
        for name in ["bank.example\0.evil", "a b", ""] {
            let mut value = vec![tag::SEQUENCE, name.len() as u8 + 2, tag::DNS];
            value.push(name.len() as u8);
            value.extend_from_slice(name.as_bytes());
            let mut params = params(&[(DnType::CommonName, "a")]);
            let extension = CustomExtension::from_oid_content(&[2, 5, 29, 17], value);
            params.custom_extensions.push(extension);
            assert_eq!(CertificateFields::read(&der(&params)), None, "{name:?}");
        }
    }

    #[test]
    fn moments_are_read_in_both_forms() {
        let millis = |tag, text: &str| time((tag, text.as_bytes())).map(|it| it.0 / 1000);
        let utc = |text| millis(tag::UTC_TIME, text);
        let general = |text| millis(tag::GENERALIZED_TIME, text);
        assert_eq!(utc("700101000000Z"), Some(0));
        assert_eq!(utc("261130195500Z"), Some(1_796_068_500));
        assert_eq!(utc("491231235959Z"), Some(2_524_607_999));
        assert_eq!(utc("500101000000Z"), Some(-631_152_000));
        assert_eq!(general("20240229120000Z"), Some(1_709_208_000));
        assert_eq!(general("40960101000000Z"), Some(67_090_118_400));
        for bad in [
            "261130195500",
            "261330195500Z",
            "26113019550Z",
            "2611301955+0Z",
            "",
        ] {
            assert_eq!(utc(bad), None, "{bad}");
        }
        assert_eq!(general("261130195500Z"), None);
    }

    #[test]
    fn every_cut_of_a_certificate_is_refused() {
        let whole = der(&params(&[(DnType::CommonName, "a")]));
        for end in 0..whole.len() {
            assert_eq!(CertificateFields::read(&whole[..end]), None, "{end}");
        }
        let longer = [&whole[..], &[0]].concat();
        assert_eq!(CertificateFields::read(&longer), None);
    }
}
