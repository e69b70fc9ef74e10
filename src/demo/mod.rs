//! Not yet.

pub mod listener;
