//! Rules of the source code: which room may import which, where `unsafe`, clocks and runtimes are
//! allowed, how wide and long files may be, which licences are allowed.

mod attacks;
mod circles;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Rooms, and the rooms that each may import, as in docs/ARCHITECTURE.md. `boot` imports all of
/// them; `lib.rs` and `main.rs` only name them.
const ROOMS: [(&str, &[&str]); 21] = [
    ("model", &[]),
    ("sys", &[]),
    ("config", &["model"]),
    ("metrics", &["model"]),
    ("log", &["model"]),
    ("shape", &[]),
    ("kafka", &["model", "log", "shape"]),
    ("tls", &["model"]),
    ("http", &["model"]),
    ("sse", &["model", "log"]),
    ("auth", &["model", "config"]),
    ("cache", &["model", "log"]),
    ("command", &["model", "log"]),
    ("schema", &["model", "config"]),
    ("broker", &["model", "shape"]),
    (
        "route",
        &[
            "model", "config", "log", "kafka", "tls", "http", "sse", "auth", "cache", "command",
            "schema",
        ],
    ),
    (
        "shard",
        &[
            "model", "config", "metrics", "log", "kafka", "tls", "http", "sse", "auth", "cache",
            "command", "schema", "route",
        ],
    ),
    ("reactor", &["model", "config", "metrics", "sys", "shard"]),
    (
        "control",
        // log, kafka and tls: an operator's commands log in to brokers, and `tap` decodes records.
        &[
            "model", "config", "metrics", "log", "kafka", "tls", "auth", "schema", "route",
        ],
    ),
    // The broker's clock and offsets are types of `model`.
    ("demo", &["model", "config", "broker"]),
    ("boot", &["*"]),
];

/// Rooms without a clock, entropy, sockets, threads or a runtime.
const PURE: [&str; 16] = [
    "model", "config", "metrics", "log", "kafka", "tls", "http", "sse", "auth", "cache", "command",
    "schema", "shape", "broker", "route", "shard",
];

/// Words that only these rooms may contain, with the reason.
const WORDS: [(&str, &[&str], &str); 11] = [
    ("glommio", &["reactor"], "one room knows the executor"),
    (
        "io_uring",
        &["sys"],
        "one room knows the ring, and gives it a safe interface",
    ),
    (
        "tokio",
        &["boot", "control", "demo", "http"],
        "shards have no second runtime; `http/` names the traits that h2 reads and writes through",
    ),
    (
        "rskafka",
        &["control", "demo"],
        "the data path has a client of its own",
    ),
    ("hyper", &["control", "demo"], "clients are served by http/"),
    ("unsafe", &["sys"], "one room is audited"),
    (
        "tracing",
        &["boot", "control", "demo", "main", "reactor"],
        "pure rooms return facts",
    ),
    (
        "anyhow",
        &["boot", "main"],
        "a room's errors are in its own words",
    ),
    ("unbounded", &[], "every queue has a limit"),
    (
        "process::exit",
        &["boot", "reactor"],
        "it skips every drop; only a broken invariant may",
    ),
    (
        "kafka_protocol",
        &["broker", "control", "kafka"],
        "two ends of a wire, and topic admin",
    ),
];

/// Calls that a pure room does not make.
const IMPURE: [(&str, &str); 9] = [
    ("Instant::now", "time comes in as `now`"),
    ("SystemTime", "time comes in as `now`"),
    ("std::time::Instant", "the rooms' own Instant is a number"),
    ("thread::", "a pure room has no threads"),
    ("std::net::Tcp", "a pure room has no sockets"),
    ("std::fs", "a pure room reads no files"),
    ("RandomState::new", "its randomness comes from a seed"),
    ("rand::", "its randomness comes from a seed"),
    ("println!", "it returns facts, which `boot` prints"),
];

/// Exceptions to [`IMPURE`]: file, word and reason.
const ALLOWED: [(&str, &str, &str); 1] = [(
    "src/config/cli.rs",
    "std::fs",
    "the command line names the one file that is read, before anything else exists",
)];

struct Source {
    path: String,
    room: String,
    text: String,
    /// The text without comments and strings.
    code: String,
}

impl Source {
    /// The code without its tests, which have fewer rules.
    fn without_tests(&self) -> &str {
        if self.path.contains("tests") {
            return "";
        }
        let mut parts = self.code.split("#[cfg(test)]\nmod tests {");
        parts.next().unwrap_or_default()
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    walk(&root.join("src"), &mut paths);
    paths.sort();
    assert!(paths.len() > 100, "the source is there");
    let source = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("a source file");
        let path = path.strip_prefix(root).expect("below the root");
        let path = path.to_str().expect("UTF-8").to_owned();
        let room = path.split('/').nth(1).expect("src/room");
        let room = room.trim_end_matches(".rs").to_owned();
        let code = code_of(&text);
        Source {
            path,
            room,
            text,
            code,
        }
    };
    paths.into_iter().map(source).collect()
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(&path, paths);
        } else if path.extension().is_some_and(|it| it == "rs") {
            paths.push(path);
        }
    }
}

/// The text with comments, strings and characters blanked. Line breaks remain.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            'r' if rest.starts_with("r\"") || rest.starts_with("r#") => raw_string(rest),
            '"' => string(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if skipped == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            // A word that ends in r, such as `for"`, does not start a raw string.
            if c.is_alphanumeric() || c == '_' {
                let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_'));
                let word = word.unwrap_or(rest.len());
                code.push_str(&rest[..word]);
                rest = &rest[word..];
            }
            continue;
        }
        code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
        code.push(' ');
        rest = &rest[skipped..];
    }
    code
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn raw_string(text: &str) -> usize {
    let hashes = text[1..].bytes().take_while(|b| *b == b'#').count();
    if !text[1 + hashes..].starts_with('"') {
        return 0; // A raw identifier.
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = 2 + hashes;
    text[body..]
        .find(&end)
        .map_or(text.len(), |at| body + at + end.len())
}

fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => text[3..].find('\'').map_or(0, |at| at + 4),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0, // A lifetime.
    }
}

/// The rooms that a file names: by `crate::room`, by `crate::{a, b}`, or by `super` often enough.
fn imports(source: &Source) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in source.code.match_indices("crate::") {
        let before = source.code[..at].chars().next_back();
        if !before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            heads(&source.code[at + "crate::".len()..], &mut found);
        }
    }
    let depth = source.path.trim_end_matches("/mod.rs").matches('/').count();
    let up = "super::".repeat(depth);
    for (at, _) in source.code.match_indices(&up) {
        heads(&source.code[at + up.len()..], &mut found);
    }
    let known = |name: &String| ROOMS.iter().any(|(room, _)| room == name);
    found
        .into_iter()
        .filter(known)
        .filter(|name| *name != source.room)
        .collect()
}

/// The first names of a path or of a list of paths in braces.
fn heads(text: &str, found: &mut BTreeSet<String>) {
    let name = |text: &str| {
        let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_'));
        text[..end.unwrap_or(text.len())].to_owned()
    };
    let Some(list) = text.strip_prefix('{') else {
        found.insert(name(text));
        return;
    };
    let (mut depth, mut start) = (0, true);
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if c.is_whitespace() => {}
            _ if start && depth == 0 => {
                found.insert(name(&list[at..]));
                start = false;
            }
            _ => {}
        }
    }
}

fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn rooms_import_only_what_the_table_allows() {
    let mut strays = Vec::new();
    for source in sources() {
        if ["lib", "main"].contains(&source.room.as_str()) {
            continue;
        }
        let room = ROOMS.iter().find(|(room, _)| *room == source.room);
        let Some((_, may)) = room else {
            strays.push(format!(
                "{}: `{}` is no room of the table",
                source.path, source.room
            ));
            continue;
        };
        for import in imports(&source) {
            if *may != ["*"] && !may.contains(&import.as_str()) {
                strays.push(format!("{}: imports {import}", source.path));
            }
        }
    }
    none("imports that the room table does not allow", &strays);
    // Check that the rule finds existing examples.
    let seen = |path: &str| {
        let source = sources().into_iter().find(|it| it.path == path);
        imports(&source.unwrap_or_else(|| panic!("{path} is there")))
    };
    assert!(
        ["config", "reactor", "shard"]
            .iter()
            .all(|it| seen("src/boot.rs").contains(*it))
    );
    assert!(
        ["log", "model"]
            .iter()
            .all(|it| seen("src/sse/feed.rs").contains(*it))
    );
}

#[test]
fn words_stand_in_their_rooms() {
    let mut strays = Vec::new();
    for source in sources() {
        for (word, rooms, why) in WORDS {
            if rooms.contains(&source.room.as_str()) {
                continue;
            }
            let says = |line: &str| {
                line.match_indices(word).any(|(at, _)| {
                    let within = |c: char| c.is_alphanumeric() || c == '_';
                    let before = line[..at].chars().next_back().is_some_and(within);
                    let after = line[at + word.len()..].chars().next().is_some_and(within);
                    !before && !after
                })
            };
            if let Some(line) = source.code.lines().position(says) {
                strays.push(format!("{}:{}: {word}: {why}", source.path, line + 1));
            }
        }
    }
    none("words outside their rooms", &strays);
}

#[test]
fn pure_rooms_have_no_clock_no_chance_and_no_sockets() {
    let mut strays = Vec::new();
    for source in sources() {
        if !PURE.contains(&source.room.as_str()) {
            continue;
        }
        let code = source.without_tests();
        for (word, why) in IMPURE {
            let allowed = ALLOWED
                .iter()
                .any(|(path, it, _)| *path == source.path && *it == word);
            if let Some(line) = code.lines().position(|line| line.contains(word))
                && !allowed
            {
                strays.push(format!("{}:{}: {word}: {why}", source.path, line + 1));
            }
        }
    }
    none("pure rooms that are not", &strays);
}

/// A shard's secret randomness is keyed in one place, by the operating system: a key that is a
/// constant, a time or a counter would let clients predict idempotency hashes.
#[test]
fn production_takes_its_random_keys_from_the_system() {
    let mut keyed = Vec::new();
    for source in sources() {
        let lines = source.without_tests().lines();
        let keying = lines.filter(|line| line.contains("RandomKey::new"));
        keyed.extend(keying.map(|line| format!("{}: {}", source.path, line.trim())));
    }
    let only = "src/boot.rs: let key = RandomKey::new(security::random_bytes()?);";
    assert_eq!(keyed, [only]);
}

#[test]
fn files_are_of_a_size_to_be_read() {
    let mut strays = Vec::new();
    for source in sources() {
        for (line, text) in source.text.lines().enumerate() {
            // Snapshot tests contain printed text, whatever its width.
            let snapshot = source.path.contains("/tests/") && !text.trim_start().starts_with("//");
            if text.chars().count() > 100 && !snapshot {
                strays.push(format!("{}:{}: over 100 columns", source.path, line + 1));
            }
        }
        // Above 800 lines, the module docs must say why the file is one idea.
        let docs: String = source
            .text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect();
        if source.text.lines().count() > 800 && !docs.contains("one file because") {
            strays.push(format!("{}: over 800 lines, without a why", source.path));
        }
        if docs.is_empty() {
            strays.push(format!("{}: no module docs", source.path));
        }
        let marks = ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("];
        if let Some(mark) = marks.iter().find(|mark| source.text.contains(**mark)) {
            strays.push(format!("{}: {mark}", source.path));
        }
    }
    none("files out of shape", &strays);
}

#[test]
fn the_map_names_every_room() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = fs::read_to_string(root.join("docs/ARCHITECTURE.md"));
    let map = map.expect("docs/ARCHITECTURE.md is the map");
    let rooms: BTreeSet<_> = sources().into_iter().map(|source| source.room).collect();
    let missing = rooms
        .into_iter()
        .filter(|room| !["lib", "main"].contains(&room.as_str()));
    let missing = missing.filter(|room| {
        let named = [
            format!("`{room}`"),
            format!("`{room}/`"),
            format!("`{room}.rs`"),
        ];
        !named.iter().any(|name| map.contains(name))
    });
    none(
        "rooms that the map does not name",
        &missing.collect::<Vec<_>>(),
    );
}

/// A module that no part of `tests/run` names would never run in CI.
#[test]
fn every_module_with_tests_runs_in_a_part() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(root.join(path)).expect("a file of the tests");
    let parts = read("tests/run") + &read(".ci/check");
    let (mut left_out, mut found) = (Vec::new(), 0);
    for line in read("tests/it/main.rs").lines() {
        let Some(module) = line
            .strip_prefix("mod ")
            .and_then(|it| it.strip_suffix(';'))
        else {
            continue;
        };
        let mut paths = vec![root.join(format!("tests/it/{module}.rs"))];
        let folder = root.join("tests/it").join(module);
        if folder.is_dir() {
            walk(&folder, &mut paths);
        }
        let texts = paths
            .iter()
            .filter_map(|path| fs::read_to_string(path).ok());
        // Ignored tests are measurements that are run by hand.
        let runs = |text: &String| {
            let tests = text.matches("\n#[test]\n").count();
            tests > text.matches("\n#[test]\n#[ignore").count()
        };
        if !texts.into_iter().any(|text| runs(&text)) {
            continue;
        }
        found += 1;
        if !parts.contains(&format!(" {module}::")) {
            left_out.push(module.to_owned());
        }
    }
    assert!(found >= 7, "{found} modules: the list is not read right");
    none("modules that no part runs", &left_out);
}

/// The allowed licences, from `.ci/licences.toml`.
#[derive(serde::Deserialize)]
struct Policy {
    allow: BTreeSet<String>,
    #[serde(default)]
    exception: Vec<Exception>,
}

#[derive(serde::Deserialize)]
struct Exception {
    name: String,
    licence: String,
    why: String,
}

/// Whether the allowed licences satisfy an SPDX expression. Old crates write `/` for `OR`.
fn holds(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<&str> = expression.split_whitespace().collect();
    let mut at = 0;
    let holds = alternatives(&words, &mut at, allowed);
    assert_eq!(at, words.len(), "an SPDX expression: {expression}");
    holds
}

fn alternatives(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut holds = conjunction(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        holds |= conjunction(words, at, allowed);
    }
    holds
}

fn conjunction(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let mut holds = licence(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        holds &= licence(words, at, allowed);
    }
    holds
}

fn licence(words: &[&str], at: &mut usize, allowed: &BTreeSet<String>) -> bool {
    let word = words[*at];
    *at += 1;
    if word == "(" {
        let holds = alternatives(words, at, allowed);
        assert_eq!(words.get(*at), Some(&")"), "{words:?}");
        *at += 1;
        return holds;
    }
    let mut name = word.to_owned();
    if words.get(*at) == Some(&"WITH") {
        name = format!("{word} WITH {}", words[*at + 1]);
        *at += 2;
    }
    allowed.contains(&name)
}

/// Name, version and licence of every crate that is built, including those for tests.
fn crates() -> BTreeSet<(String, String, String)> {
    let done = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "--offline",
            "--all-features",
            "--prefix",
            "none",
        ])
        .args(["-e", "normal,build,dev", "-f", "{p}\t{l}"])
        .args(["--target", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let text = String::from_utf8(done.stdout).expect("UTF-8");
    let read = |line: &str| {
        let (package, licence) = line.split_once('\t').expect("as it was asked for");
        let mut words = package.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        (word(), word(), licence.trim_end_matches(" (*)").to_owned())
    };
    text.lines()
        .filter(|line| !line.is_empty())
        .map(read)
        .collect()
}

#[test]
fn licences_are_allowed_or_excepted_in_writing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let policy = fs::read_to_string(root.join(".ci/licences.toml")).expect(".ci/licences.toml");
    let policy: Policy = toml::from_str(&policy).expect("a policy");
    assert!(
        policy.exception.iter().all(|it| it.why.len() > 20),
        "an exception says why"
    );
    let (mut strays, mut used) = (Vec::new(), BTreeSet::new());
    let crates = crates();
    assert!(crates.len() > 100, "the tree was read");
    for (name, version, licence) in crates {
        if !licence.is_empty() && holds(&licence, &policy.allow) {
            continue;
        }
        let excepted = policy
            .exception
            .iter()
            .any(|it| it.name == name && it.licence == licence);
        if !excepted {
            strays.push(format!("{name} {version}: {licence:?}"));
        }
        used.insert(name);
    }
    none("licences that are neither allowed nor excepted", &strays);
    for exception in &policy.exception {
        assert!(
            used.contains(&exception.name),
            "{} needs no exception",
            exception.name
        );
    }
}

/// No second implementation of cryptography, and no OpenSSL.
#[test]
fn no_second_cryptography_and_no_openssl() {
    let banned = [
        "ring",
        "openssl",
        "openssl-sys",
        "native-tls",
        "rustls-pemfile",
        "serde_yml",
    ];
    let crates = crates().into_iter().map(|(name, ..)| name);
    let found = crates.filter(|name| banned.contains(&name.as_str()));
    none("banned crates", &found.collect::<Vec<_>>());
}

#[test]
fn the_reader_of_source_reads_it() {
    let code =
        code_of("let a = \"crate::b\"; // crate::c\nlet d = 'x'; fn f<'a>(r#in: &'a str) {}");
    assert!(
        !code.contains("crate::") && code.contains("r#in") && code.contains("<'a>"),
        "{code}"
    );
    assert_eq!(code_of("r#\"a\"b\"#c"), " c");
    assert_eq!(code_of("'\\'' 'b' '\"' x"), "      x");
    let mut found = BTreeSet::new();
    heads(
        "{config::{Config, Start}, log, model::{self, A}};",
        &mut found,
    );
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        ["config", "log", "model"]
    );
    let allowed = BTreeSet::from([
        "MIT".to_owned(),
        "Apache-2.0 WITH LLVM-exception".to_owned(),
    ]);
    for (expression, wanted) in [
        ("MIT OR GPL-3.0", true),
        ("MIT/GPL-3.0", true),
        ("MIT AND GPL-3.0", false),
        (
            "(MIT OR GPL-3.0) AND (Apache-2.0 WITH LLVM-exception OR GPL-2.0)",
            true,
        ),
        ("GPL-3.0", false),
    ] {
        assert_eq!(holds(expression, &allowed), wanted, "{expression}");
    }
}
