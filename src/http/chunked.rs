//! Chunked bodies (RFC 9112 7.1), decoded in place as they come. Extensions and trailers are
//! bounded and dropped; a byte that does not fit ends the connection.

use super::head::{body_too_large, malformed};
use super::names::{is_token_byte, is_value_byte};
use super::problem::{Fault, Refusal};

/// Most bytes of chunk extensions in one body. The gateway ignores extensions.
const EXTENSION_BYTES_MAX: u16 = 4 * 1024;

/// Most bytes of the trailer section of one body. The gateway ignores trailers: a trailer must not
/// be mistaken for a header.
const TRAILER_BYTES_MAX: u16 = 4 * 1024;

/// Most digits of a chunk size, leading zeros included.
const SIZE_DIGITS_MAX: u8 = 16;

/// The grammatical position of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In the size of a chunk, after so many digits.
    Size(u8),
    /// At the start of an extension's name.
    NameStart,
    /// In the name of a chunk extension.
    Name,
    /// After the `=` of an extension.
    ValueStart,
    /// In an extension's value that is a token.
    Value,
    /// In an extension's value that is a quoted string.
    Quoted,
    /// After a backslash in a quoted string.
    Escaped,
    /// After the closing quote of an extension's value.
    ValueEnd,
    /// After the CR of a size line.
    SizeLf,
    /// In the data, `left` bytes before its end.
    Data,
    /// After the data of a chunk.
    DataCr,
    /// After the CR behind the data.
    DataLf,
    /// At the start of a trailer line, or of the empty line that ends the body.
    TrailerStart,
    /// In the name of a trailer field.
    TrailerName,
    /// In the value of a trailer field.
    TrailerValue,
    /// After the CR of a trailer line.
    TrailerLf,
    /// After the CR of the last line.
    EndLf,
    /// After the end of the body: further bytes belong to the next request.
    Done,
}

/// The state of a decoder between two pieces of a body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunks {
    at: At,
    /// Size of the present chunk as far as read, then what is left of its data: 0 when the next
    /// size begins.
    left: u32,
    /// How many bytes of the body were decoded so far.
    decoded: u32,
    extension_bytes: u16,
    trailer_bytes: u16,
}

impl Chunks {
    /// The decoder of a body of which no byte was received.
    pub(super) const fn new() -> Self {
        Self {
            at: At::Size(0),
            left: 0,
            decoded: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
        }
    }

    /// Decodes `bytes[*read..]`, moving data down to `*write` (never above `*read`) and both marks
    /// along. Returns true once the body is complete; `*read` is then behind it. Otherwise all of
    /// `bytes` was read.
    ///
    /// # Errors
    /// A byte that does not fit, or a body, extension or trailer over its limit (`body_max`, at
    /// most 1 GiB).
    pub(super) fn decode(
        &mut self,
        bytes: &mut [u8],
        read: &mut usize,
        write: &mut usize,
        body_max: usize,
    ) -> Result<bool, Refusal> {
        while self.at != At::Done
            && let Some(&byte) = bytes.get(*read)
        {
            if self.at == At::Data {
                let here = u32::try_from(bytes.len() - *read).unwrap_or(u32::MAX);
                let taken = self.left.min(here);
                let count = taken as usize;
                bytes.copy_within(*read..*read + count, *write);
                *read += count;
                *write += count;
                self.left -= taken;
                if self.left == 0 {
                    self.at = At::DataCr;
                }
            } else {
                self.at = self.step(byte, body_max)?;
                *read += 1;
            }
        }
        Ok(self.at == At::Done)
    }

    /// Handles one byte of framing.
    fn step(&mut self, byte: u8, body_max: usize) -> Result<At, Refusal> {
        let next = match (self.at, byte) {
            (At::Size(digits), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                return self.on_digit(digits, byte, body_max);
            }
            (At::Size(1..) | At::Name | At::Value | At::ValueEnd, b'\r') => At::SizeLf,
            (At::Size(1..) | At::Name | At::Value | At::ValueEnd, b';') => {
                self.extend()?;
                At::NameStart
            }
            (
                At::NameStart | At::Name | At::ValueStart | At::Value | At::Quoted | At::Escaped,
                byte,
            ) => return self.on_extension(byte),
            (At::SizeLf, b'\n') if self.left == 0 => At::TrailerStart,
            (At::SizeLf, b'\n') => {
                self.decoded += self.left;
                At::Data
            }
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => At::Size(0),
            (At::EndLf, b'\n') => At::Done,
            (At::Size(_) | At::ValueEnd | At::SizeLf, _) => {
                return Err(malformed("a chunk size is malformed"));
            }
            (At::DataCr | At::DataLf, _) => {
                return Err(malformed("a chunk is not as long as it says"));
            }
            (_, byte) => return self.on_trailer(byte),
        };
        Ok(next)
    }

    /// RFC 9112 7.1.1: any number of `;` and a token, each optionally followed by `=` and a token
    /// or a quoted string. The clause allows whitespace only for the sake of bad senders. This
    /// parser refuses it: a lenient size line invites request smuggling.
    fn on_extension(&mut self, byte: u8) -> Result<At, Refusal> {
        self.extend()?;
        match (self.at, byte) {
            (At::NameStart | At::Name, byte) if is_token_byte(byte) => Ok(At::Name),
            (At::Name, b'=') => Ok(At::ValueStart),
            (At::ValueStart, b'"') => Ok(At::Quoted),
            (At::ValueStart | At::Value, byte) if is_token_byte(byte) => Ok(At::Value),
            (At::Quoted, b'"') => Ok(At::ValueEnd),
            (At::Quoted, b'\\') => Ok(At::Escaped),
            // RFC 9110 5.6.4: a quoted string may contain what a header's value may.
            (At::Quoted | At::Escaped, byte) if is_value_byte(byte) => Ok(At::Quoted),
            _ => Err(malformed("a chunk extension is malformed")),
        }
    }

    /// Counts one more byte of extensions.
    fn extend(&mut self) -> Result<(), Refusal> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            Err(malformed("the chunk extensions are larger than the limit"))
        } else {
            Ok(())
        }
    }

    fn on_digit(&mut self, digits: u8, byte: u8, body_max: usize) -> Result<At, Refusal> {
        if digits == SIZE_DIGITS_MAX {
            return Err(malformed("a chunk size is malformed"));
        }
        let value = char::from(byte)
            .to_digit(16)
            .expect("a hex digit, by the pattern");
        let size = u64::from(self.left) * 16 + u64::from(value);
        if u64::from(self.decoded) + size > body_max as u64 {
            return Err(body_too_large());
        }
        self.left = u32::try_from(size).map_err(|_| body_too_large())?;
        Ok(At::Size(digits + 1))
    }

    /// RFC 9112 7.1.2: a trailer section has the grammar of headers. It is read only to be dropped.
    fn on_trailer(&mut self, byte: u8) -> Result<At, Refusal> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            let detail = "the trailer section is larger than the limit";
            return Err(Refusal::new(Fault::HeadTooLarge, detail));
        }
        match (self.at, byte) {
            (At::TrailerStart, b'\r') => Ok(At::EndLf),
            (At::TrailerStart | At::TrailerName, byte) if is_token_byte(byte) => {
                Ok(At::TrailerName)
            }
            (At::TrailerName, b':') => Ok(At::TrailerValue),
            (At::TrailerValue, b'\r') => Ok(At::TrailerLf),
            (At::TrailerValue, byte) if is_value_byte(byte) => Ok(At::TrailerValue),
            (At::TrailerLf, b'\n') => Ok(At::TrailerStart),
            _ => Err(malformed("the trailer section is malformed")),
        }
    }
}

const _: () = {
    // One step past a limit still fits its counter.
    assert!(EXTENSION_BYTES_MAX < u16::MAX && TRAILER_BYTES_MAX < u16::MAX);
};

#[cfg(test)]
mod tests {
    use super::*;

    /// The decoded body and how many bytes it took, or `None` if it is not whole.
    fn decode(body: &[u8], max: usize) -> Result<Option<(Vec<u8>, usize)>, Refusal> {
        let (mut bytes, mut read, mut write) = (body.to_vec(), 0, 0);
        let done = Chunks::new().decode(&mut bytes, &mut read, &mut write, max)?;
        Ok(done.then(|| (bytes[..write].to_vec(), read)))
    }

    // RFC 9112 7.1: chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF.
    #[test]
    fn chunks_are_joined_and_what_follows_is_left() {
        for (body, data) in [
            ("0\r\n\r\n", ""),
            ("3\r\nabc\r\n0\r\n\r\n", "abc"),
            ("3\r\nabc\r\n0002\r\nde\r\n000\r\n\r\n", "abcde"),
            ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
            ("3;a=b;c=\"d\"\r\nabc\r\n0;x\r\n\r\n", "abc"),
            ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
            ("1;a=\"x\\\"; \t\\\\\"\r\na\r\n0;a=b;c\r\n\r\n", "a"),
            ("1;a=\"\";!#=~\r\na\r\n0\r\n\r\n", "a"),
            ("1\r\na\r\n0\r\nX: y\r\nContent-Length: 9\r\n\r\n", "a"),
        ] {
            let with_next = format!("{body}GET");
            let (decoded, used) = decode(with_next.as_bytes(), 10).expect(body).expect(body);
            assert_eq!(decoded, data.as_bytes());
            assert_eq!(used, body.len());
            // No proper prefix is a body.
            for end in 0..body.len() {
                assert_eq!(decode(&body.as_bytes()[..end], 10), Ok(None));
            }
        }
    }

    // RFC 9112 7.1 and 11.2: what two readers might read differently is refused.
    #[test]
    fn a_malformed_chunk_is_refused() {
        for body in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\na\r\n",
            " 1\r\na\r\n",
            "1 \r\na\r\n",
            "1 ;x\r\na\r\n",
            "1\na\r\n",
            "1\r\na\n0\r\n\r\n",
            "1\r\nab\r\n",
            "1\r\n\r\n0\r\n\r\n",
            "1\ra\r\n",
            // RFC 9112 7.1.1: a name, and a value that is a token or a quoted string.
            "1;\r\na\r\n",
            "1;a;\r\na\r\n",
            "1;;a\r\na\r\n",
            "1;=b\r\na\r\n",
            "1;a=\r\na\r\n",
            "1;a=;b\r\na\r\n",
            "1;a=b=c\r\na\r\n",
            "1;bad[=x\r\na\r\n",
            "1;a=b[\r\na\r\n",
            "1;a=\"b\r\na\r\n",
            "1;a=\"b\"c\r\na\r\n",
            "1;a=\"b\\\r\na\r\n",
            "1;a=b\"c\"\r\na\r\n",
            "1; a\r\na\r\n",
            "1;a =b\r\na\r\n",
            "1;a= b\r\na\r\n",
            "1;a=b \r\na\r\n",
            "1;\u{fc}\r\na\r\n",
            "1;a\nb\r\n",
            "1;\0\r\n",
            "1;a\r\r\n",
            "0\r\nx\r\n",
            "0\r\nx y: z\r\n",
            "0\r\n: z\r\n",
            "0\r\n x: y\r\n",
            "0\r\nx: y\n",
            "0\r\nx: \0\r\n",
            "0\r\n\rx",
            "00000000000000001\r\na\r\n",
            ";x\r\n",
        ] {
            let refusal = decode(body.as_bytes(), 10).expect_err(body);
            assert_eq!(refusal.fault, Fault::MalformedRequest, "{body:?}");
        }
    }

    #[test]
    fn a_body_over_its_limit_is_refused_by_its_announced_size() {
        let fault = |body: &str, max| decode(body.as_bytes(), max).expect_err(body).fault;
        assert_eq!(fault("b", 10), Fault::BodyTooLarge);
        assert_eq!(fault("5\r\nabcde\r\n6", 10), Fault::BodyTooLarge);
        assert_eq!(fault("ffffffffffffffff", 1 << 30), Fault::BodyTooLarge);
        assert!(decode(b"5\r\nabcde\r\n5\r\nabcde\r\n0\r\n\r\n", 10).is_ok_and(|b| b.is_some()));
    }

    #[test]
    fn extensions_and_trailers_are_bounded_over_the_whole_body() {
        let extensions = format!("1;{}\r\na\r\n", "x".repeat(2000)).repeat(3);
        assert!(decode(extensions.as_bytes(), 10).is_err());
        let trailers = format!("0\r\n{}", "x: y\r\n".repeat(1000));
        let refusal = decode(trailers.as_bytes(), 10).expect_err("too long");
        assert_eq!(refusal.fault, Fault::HeadTooLarge);
    }
}
