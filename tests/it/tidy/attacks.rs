//! R29: each class of attack in `docs/testing.md` names tests that exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{none, walk};

/// Classes of attack that the table must have.
const CLASSES: usize = 26;

/// The names of the functions below these folders.
fn functions() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<PathBuf> = Vec::new();
    walk(&root.join("src"), &mut paths);
    walk(&root.join("tests/it"), &mut paths);
    let mut names = BTreeSet::new();
    for path in paths {
        let text = fs::read_to_string(path).expect("a source file");
        for rest in text.split("fn ").skip(1) {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            names.insert(rest[..end.unwrap_or(rest.len())].to_owned());
        }
    }
    names
}

#[test]
fn every_class_of_attack_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/testing.md")).expect("the page");
    let (_, after) = page.split_once("\n## Attacks\n").expect("the section");
    let section = after.split("\n## ").next().unwrap_or(after);
    let functions = functions();
    let (mut rows, mut tests, mut wrong) = (0, 0, Vec::new());
    for line in section.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [class, _, named] = cells[..] else {
            wrong.push(format!("a row of three cells: {line}"));
            continue;
        };
        if class == "class" {
            continue;
        }
        rows += 1;
        let names: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            wrong.push(format!("{class}: no test"));
        }
        for name in names {
            tests += 1;
            if !functions.contains(name) {
                wrong.push(format!("{class}: there is no `{name}`"));
            }
        }
    }
    println!("{rows} classes of attack, {tests} tests");
    none("attacks without their tests", &wrong);
    assert_eq!(rows, CLASSES);
}
