//! The modules of `src/` that read bytes from clients and brokers, compiled into the fuzz targets.
//! What must hold for any bytes is asserted in the modules themselves (`check_any_bytes`, which
//! their property tests also use) or in the targets.

#![allow(dead_code, unused_imports)]

#[path = "../../src/command/mod.rs"]
pub mod command;
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
#[path = "../../src/schema/mod.rs"]
pub mod schema;
#[path = "../../src/shape/mod.rs"]
pub mod shape;
#[path = "../../src/sse/mod.rs"]
pub mod sse;
#[path = "../../src/tls/x509.rs"]
pub mod x509;
