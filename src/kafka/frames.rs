//! Splits the bytes of a connection into length-prefixed frames.

// Bytes of strangers: an index that they choose must not end the process.
#![warn(clippy::indexing_slicing)]

use bytes::{Bytes, BytesMut};

use super::KafkaError;

/// Cuts a stream into frames: a length of 4 bytes, and as many bytes.
#[derive(Debug)]
pub(super) struct Frames {
    max: u32,
    head: [u8; 4],
    head_len: usize,
    body: Option<(BytesMut, usize)>,
}

impl Frames {
    pub(super) const fn new(max: u32) -> Self {
        Self {
            max,
            head: [0; 4],
            head_len: 0,
            body: None,
        }
    }

    /// Takes from the front of `bytes` until a frame is complete or nothing is left. The length is
    /// checked before memory is allocated for it.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Bytes>, KafkaError> {
        while self.body.is_none() {
            let Some((&byte, rest)) = bytes.split_first() else {
                return Ok(None);
            };
            *bytes = rest;
            if let Some(next) = self.head.get_mut(self.head_len) {
                *next = byte;
            }
            self.head_len += 1;
            if self.head_len == self.head.len() {
                self.head_len = 0;
                let len = i32::from_be_bytes(self.head);
                let fits = u32::try_from(len).ok().filter(|&len| len <= self.max);
                let Some(len) = fits else {
                    let (bytes, max) = (i64::from(len), self.max);
                    return Err(KafkaError::Frame { bytes, max });
                };
                self.body = Some((BytesMut::with_capacity(len as usize), len as usize));
            }
        }
        let (body, len) = self.body.as_mut().expect("the loop above left one");
        let (taken, rest) = bytes.split_at((*len - body.len()).min(bytes.len()));
        body.extend_from_slice(taken);
        *bytes = rest;
        if body.len() < *len {
            return Ok(None);
        }
        Ok(self.body.take().map(|(body, _)| body.freeze()))
    }
}
