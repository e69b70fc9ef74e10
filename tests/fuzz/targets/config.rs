//! Config files: any text is either read or rejected, and every finding points into it.
#![no_main]

use sluicegate_fuzz::config::{ConfigFile, Sources, load};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let file = ConfigFile { name: "fuzz.toml".into(), text: text.to_owned() };
    let sources = Sources { file: Some(file), cpus: 2, ..Sources::default() };
    match load(sources) {
        Ok(loaded) => assert!(!loaded.report.render(false).contains("error:")),
        Err(report) => assert!(report.render(false).contains("error")),
    }
});
