//! Panics that a test plants, to prove what a panic ends (`tests/it/edge/panics.rs`). Bytes of a
//! client that contain a marker panic where the marker says. Without the feature `planted`, which
//! no release has, nothing does; with it, nothing does until [`plant_panics`].

/// Where a planted panic happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanicAt {
    /// While bytes of a client are parsed.
    Parse,
    /// While a response is encoded.
    Encode,
    /// While a request is handled, where state of the shard changes.
    Handle,
}

#[cfg(feature = "planted")]
static PLANTED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Lets bytes that contain a marker panic, on every thread.
#[cfg(feature = "planted")]
pub fn plant_panics() {
    PLANTED.store(true, std::sync::atomic::Ordering::Relaxed);
}

/// Panics if a panic is planted here and the bytes contain its marker: `planted-parse`,
/// `planted-encode` or `planted-handle`.
///
/// # Panics
/// That is the point.
#[cfg(feature = "planted")]
pub fn panic_if_planted(at: PanicAt, bytes: &[u8]) {
    let marker: &[u8] = match at {
        PanicAt::Parse => b"planted-parse",
        PanicAt::Encode => b"planted-encode",
        PanicAt::Handle => b"planted-handle",
    };
    let planted = PLANTED.load(std::sync::atomic::Ordering::Relaxed);
    if planted && bytes.windows(marker.len()).any(|it| it == marker) {
        panic!("planted: {at:?}");
    }
}

/// Does nothing, without the feature `planted`.
#[cfg(not(feature = "planted"))]
#[inline]
pub const fn panic_if_planted(_at: PanicAt, _bytes: &[u8]) {}
