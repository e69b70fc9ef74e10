//! Integration tests: one binary, so that it is built once.

mod fleet;
