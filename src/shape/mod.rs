//! Kafka's messages as schemas, and a walk over bytes by one: what both ends of the wire look at
//! before the codec crate may decode.
//!
//! `kafka-protocol` allocates an array as long as its length field says before it reads the first
//! element, so twelve bytes could ask for gigabytes. The walk refuses arrays that the bytes can't
//! hold, and more elements than its caller ever needs. It judges nothing else: the decoder does.
//! Which messages there are is their rooms' business: `broker/` has the requests' schemas, `kafka/`
//! those of the responses.

// Bytes of strangers: an index that they choose must not end the process.
#![warn(clippy::indexing_slicing)]

/// A message: its body, and the version its encoding became flexible in (KIP-482).
#[derive(Clone, Copy, Debug)]
pub struct Schema {
    /// The struct that contains all others.
    pub body: &'static Shape,
    /// [`NEVER`] where it did not.
    pub flexible_from: i16,
}

/// Above every version, for messages that never became flexible.
pub const NEVER: i16 = i16::MAX;

/// A struct: its fields in order, and the tagged fields that the decoder knows.
#[derive(Debug)]
pub struct Shape {
    /// In the order of the wire.
    pub fields: &'static [Entry],
    /// Number and type. Others are bytes to the decoder, whatever they hold.
    pub tags: &'static [(u32, Field)],
}

/// A field and the versions that have it.
#[derive(Debug)]
pub struct Entry {
    from: i16,
    to: i16,
    field: Field,
}

/// What a field is made of.
#[derive(Clone, Copy, Debug)]
pub enum Field {
    /// A field of this many bytes.
    Fixed(usize),
    /// A string: i16 length, or an unsigned varint in flexible versions.
    Text,
    /// Bytes: i32 length, or an unsigned varint.
    Bytes,
    /// A struct within the struct, without a length.
    Struct(&'static Shape),
    /// An array of structs: a count, then the elements.
    Structs(&'static Shape),
    /// An array of integers of this many bytes.
    Numbers(usize),
    /// An array of strings: a count, then the elements.
    Texts,
}

/// A field of every version.
#[must_use]
pub const fn all(field: Field) -> Entry {
    since(0, field)
}

/// A field that is there from a version on.
#[must_use]
pub const fn since(from: i16, field: Field) -> Entry {
    between(from, i16::MAX, field)
}

/// A field of some versions, both included.
#[must_use]
pub const fn between(from: i16, to: i16, field: Field) -> Entry {
    Entry { from, to, field }
}

/// A struct without known tags.
#[must_use]
pub const fn shape(fields: &'static [Entry]) -> Shape {
    Shape { fields, tags: &[] }
}

impl Schema {
    /// Walks a body. Gives the bytes after it, or nothing if it must not be decoded: an array (or a
    /// list of tagged fields) is longer than the bytes can hold, or all of them together have more
    /// than `elements_max` elements. Integers in arrays are not counted: they take no more memory
    /// than bytes.
    #[must_use]
    pub fn walk<'a>(&self, version: i16, body: &'a [u8], elements_max: usize) -> Option<&'a [u8]> {
        let mut walk = Walk {
            rest: body,
            version,
            flexible: version >= self.flexible_from,
            elements: elements_max,
        };
        walk.structure(self.body)?;
        Some(walk.rest)
    }
}

struct Walk<'a> {
    rest: &'a [u8],
    version: i16,
    flexible: bool,
    elements: usize,
}

impl Walk<'_> {
    fn structure(&mut self, shape: &Shape) -> Option<()> {
        for entry in shape.fields {
            if (entry.from..=entry.to).contains(&self.version) {
                self.field(entry.field)?;
            }
        }
        if self.flexible {
            self.tags(shape)?;
        }
        Some(())
    }

    fn field(&mut self, field: Field) -> Option<()> {
        match field {
            Field::Fixed(len) => self.skip(len),
            Field::Text => self.text(),
            Field::Bytes => {
                let len = self.length(4)?;
                self.skip(len)
            }
            Field::Struct(shape) => self.structure(shape),
            Field::Structs(shape) => {
                for _ in 0..self.count()? {
                    self.structure(shape)?;
                }
                Some(())
            }
            Field::Numbers(size) => {
                let bytes = self.length(4)?.checked_mul(size)?;
                self.skip(bytes)
            }
            Field::Texts => {
                for _ in 0..self.count()? {
                    self.text()?;
                }
                Some(())
            }
        }
    }

    fn text(&mut self) -> Option<()> {
        let len = self.length(2)?;
        self.skip(len)
    }

    /// An array's length: null counts as empty, and no element is shorter than a byte.
    fn count(&mut self) -> Option<usize> {
        let count = self.length(4)?;
        self.take(count)?;
        Some(count)
    }

    fn take(&mut self, count: usize) -> Option<()> {
        if count > self.rest.len() {
            return None;
        }
        self.elements = self.elements.checked_sub(count)?;
        Some(())
    }

    /// A length of `size` bytes, or in flexible versions an unsigned varint that is one more. Null
    /// is 0 bytes.
    fn length(&mut self, size: usize) -> Option<usize> {
        if self.flexible {
            return Some((self.varint()? as usize).saturating_sub(1));
        }
        let (bytes, rest) = self.rest.split_at_checked(size)?;
        self.rest = rest;
        let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
        let length = bytes.iter().fold(0, |n, &b| n << 8 | usize::from(b));
        Some(if negative { 0 } else { length })
    }

    /// Tagged fields. The decoder reads one it knows by its type and not by its length; an honest
    /// sender's agree.
    fn tags(&mut self, shape: &Shape) -> Option<()> {
        let count = self.varint()? as usize;
        self.take(count)?;
        for _ in 0..count {
            let tag = self.varint()?;
            let len = self.varint()? as usize;
            let known = shape.tags.iter().find(|(known, _)| *known == tag);
            let after = self.rest.len().checked_sub(len)?;
            match known {
                None => self.skip(len)?,
                Some((_, field)) => self.field(*field)?,
            }
            if self.rest.len() != after {
                return None;
            }
        }
        Some(())
    }

    /// As the decoder reads it: at most five bytes, what exceeds 32 bits falls away.
    fn varint(&mut self) -> Option<u32> {
        let mut value = 0_u32;
        for i in 0..5 {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u32::from(byte & 0x7f) << (i * 7);
            if byte & 0x80 == 0 {
                break;
            }
        }
        Some(value)
    }

    fn skip(&mut self, len: usize) -> Option<()> {
        self.rest = self.rest.get(len..)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: Shape = Shape {
        fields: &[all(Field::Text), since(1, Field::Fixed(2))],
        tags: &[(0, Field::Structs(&LEAF)), (1, Field::Fixed(4))],
    };
    const LEAF: Shape = shape(&[all(Field::Fixed(1))]);
    const LIST: Schema = Schema {
        body: &shape(&[all(Field::Structs(&PAIR)), all(Field::Numbers(4))]),
        flexible_from: 2,
    };

    fn rest(version: i16, body: &[u8], elements_max: usize) -> Option<usize> {
        LIST.walk(version, body, elements_max).map(<[u8]>::len)
    }

    #[test]
    fn fields_depend_on_the_version_and_lengths_on_the_encoding() {
        // One pair "a", no numbers, and a byte that is not its own.
        assert_eq!(
            rest(0, &[0, 0, 0, 1, 0, 1, b'a', 0, 0, 0, 0, 9], 9),
            Some(1)
        );
        assert_eq!(
            rest(1, &[0, 0, 0, 1, 0, 1, b'a', 7, 7, 0, 0, 0, 0], 9),
            Some(0)
        );
        assert_eq!(rest(2, &[2, 2, b'a', 7, 7, 0, 1, 0], 9), Some(0));
        // Nulls.
        assert_eq!(
            rest(0, &[255, 255, 255, 255, 255, 255, 255, 255], 0),
            Some(0)
        );
        assert_eq!(rest(2, &[0, 0, 0], 0), Some(0));
    }

    #[test]
    fn what_the_bytes_can_not_hold_is_refused() {
        assert_eq!(rest(0, &[0x7f, 255, 255, 255, 0, 0, 0, 0], 1 << 31), None);
        assert_eq!(rest(2, &[255, 255, 255, 255, 15, 0, 0], 1 << 31), None);
        assert_eq!(rest(0, &[0, 0, 0, 0, 0x7f, 255, 255, 255, 0], 9), None);
        // Three pairs announced, bytes for one.
        assert_eq!(rest(0, &[0, 0, 0, 3, 0, 1, b'a', 0, 0, 0, 0], 9), None);
    }

    #[test]
    fn elements_are_counted_over_all_arrays_and_tags() {
        let two = [0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(rest(0, &two, 2), Some(0));
        assert_eq!(rest(0, &two, 1), None);
        // A pair with tag 0 of two leaves, and tag 9, which nobody knows: 1 + 2 + 2.
        let tagged = [2, 1, 7, 7, 2, 0, 5, 3, 1, 0, 2, 0, 9, 1, 1, 1, 0];
        assert_eq!(rest(2, &tagged, 5), Some(0));
        assert_eq!(rest(2, &tagged, 4), None);
    }

    #[test]
    fn a_known_tag_has_the_length_of_its_type() {
        assert_eq!(
            rest(2, &[2, 1, 7, 7, 1, 1, 4, 0, 0, 0, 0, 1, 0], 9),
            Some(0)
        );
        assert_eq!(rest(2, &[2, 1, 7, 7, 1, 1, 3, 0, 0, 0, 0, 1, 0], 9), None);
    }
}
