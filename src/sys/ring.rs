//! A shard's io_uring.

/// Slots a token can name.
pub const SLOTS_MAX: u32 = 1 << 24;

/// Why the kernel gives no ring, with what to change.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// EPERM.
    #[error("not allowed")]
    Forbidden,
}
