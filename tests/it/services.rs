//! Services of other people: what `tests/services/` has, installed once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

/// The folder of the services' sources.
pub const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/services");

/// The folder into which their dependencies are installed.
fn home() -> PathBuf {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let done = Command::new(Path::new(SOURCES).join("setup")).status();
        let done = done.expect("bash, python3, mvn and javac, which tests/setup installs");
        assert!(done.success(), "tests/services/setup: {done}");
    });
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/services")
}

/// A Python with librdkafka's client.
pub fn python() -> String {
    text(&home().join("python/bin/python3"))
}

/// A script of the services.
pub fn script(name: &str) -> String {
    text(&Path::new(SOURCES).join(name))
}

/// The class path of Spring Kafka and of the service built on it.
pub fn spring() -> String {
    let spring = home().join("spring");
    format!("{0}/classes:{0}/jars/*", text(&spring))
}

fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}
