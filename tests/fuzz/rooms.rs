//! The rooms that read bytes of strangers, as they are in `src/`. What must hold of any bytes is
//! asserted in the rooms themselves (`check_any_bytes`, shared with their properties) or in the
//! targets.

#![allow(dead_code, unused_imports)]

#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../../src/http/mod.rs"]
pub mod http;
#[path = "../../src/kafka/mod.rs"]
pub mod kafka;
#[path = "../../src/log/mod.rs"]
pub mod log;
#[path = "../../src/model/mod.rs"]
pub mod model;
#[path = "../../src/shape/mod.rs"]
pub mod shape;
#[path = "../../src/sse/mod.rs"]
pub mod sse;
