//! The browser module in Node.js, against a demo whose gateways are killed and frozen.

use std::path::Path;
use std::process::Command;

#[test]
fn the_module_holds_its_claims_in_node() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let done = Command::new("node")
        .arg(root.join("tests/clients/module/test.mjs"))
        .arg("--binary")
        .arg(crate::gateway::binary())
        .output()
        .expect("Node.js is installed");
    let said = String::from_utf8_lossy(&done.stdout);
    print!("{said}");
    assert!(
        done.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&done.stderr)
    );
}
