//! Most memory of a row in the collections of the standard library, for limits that are proved at
//! compile time. Rows of a few entries take more; tables with a limit worth proving have many.

/// A row of a hash table. A table that has just doubled has 7 of 16 places taken, and each place
/// has a byte of its own.
#[must_use]
pub const fn hash_row_bytes<K, V>() -> usize {
    ((size_of::<(K, V)>() + 1) * 16).div_ceil(7)
}

/// An entry of a B-tree. A node has place for 11 entries and 12 children, and 5 entries at least.
#[must_use]
pub const fn tree_row_bytes<K, V>() -> usize {
    const NODE: usize = 16 + 12 * size_of::<usize>();
    (NODE + 11 * (size_of::<K>() + size_of::<V>())).div_ceil(5)
}

const _: () = {
    // As many as the standard library has today.
    assert!(hash_row_bytes::<u64, u64>() == 39);
    assert!(tree_row_bytes::<u64, u64>() == 58);
};
