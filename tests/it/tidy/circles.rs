//! Circles of files: within a room, imports point one way, so a file can be read and tested without
//! those that use it. The graph comes from the `use` lines and paths of the source. A name that a
//! `mod.rs` re-exports counts for the file that defines it; a `mod.rs` is a file like any other.

use std::collections::{BTreeMap, BTreeSet};

use super::{none, sources};

/// A module's path below `src`: the file `src/sse/mod.rs` is `[sse]`.
type Module = Vec<String>;

#[derive(Debug, Default)]
struct File {
    /// Absolute paths of all that the file names.
    names: BTreeSet<Module>,
    /// The names that the file re-exports, and where each is from.
    exports: BTreeMap<String, Module>,
}

fn module_of(path: &str) -> Module {
    let path = path.trim_start_matches("src/").trim_end_matches(".rs");
    let parts = path.split('/').map(str::to_owned);
    let mut module: Module = parts.collect();
    if module.last().is_some_and(|it| it == "mod") {
        module.pop();
    }
    module
}

fn words(path: &str) -> impl Iterator<Item = &str> {
    path.split("::").map(str::trim).filter(|it| !it.is_empty())
}

/// The paths of a `use` tree, without the names after `as`.
fn expand(tree: &str, paths: &mut Vec<String>) {
    let Some((before, list)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or(tree);
        paths.push(path.trim().to_owned());
        return;
    };
    let (mut depth, mut start) = (0, 0);
    for (at, c) in list.char_indices() {
        let ends = depth == 0 && (c == ',' || c == '}');
        if ends && !list[start..at].trim().is_empty() {
            expand(&format!("{before}{}", list[start..at].trim()), paths);
        }
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return,
            '}' => depth -= 1,
            _ if ends => start = at + 1,
            _ => {}
        }
    }
}

/// An absolute path, if `path` leads into the crate.
fn absolute(module: &Module, path: &str, modules: &BTreeSet<Module>) -> Option<Module> {
    let mut found = module.clone();
    for (at, word) in words(path).enumerate() {
        match word {
            "crate" if at == 0 => found.clear(),
            "self" => {}
            "super" => {
                found.pop()?;
            }
            _ => {
                if at == 0 {
                    let child = [&module[..], &[word.to_owned()]].concat();
                    modules.contains(&child).then_some(())?;
                }
                found.push(word.to_owned());
            }
        }
    }
    Some(found)
}

/// The trees of the `use` lines, and whether each is a re-export.
fn uses(code: &str) -> Vec<(bool, String)> {
    let mut found = Vec::new();
    let mut at = 0;
    for line in code.split_inclusive('\n') {
        let start = line.find("use ").map(|before| line[..before].trim());
        let exported = start.is_some_and(|it| it.starts_with("pub"));
        if let Some(before) = line.find("use ")
            && (exported || start == Some(""))
        {
            let tree = &code[at + before + "use ".len()..];
            let tree = tree.split(';').next().unwrap_or_default();
            let tree = tree.split_whitespace().collect::<Vec<_>>().join(" ");
            found.push((exported, tree));
        }
        at += line.len();
    }
    found
}

/// Paths such as `super::lines::put_id` outside `use` lines. Whole paths of `use` lines do no harm;
/// `super::{A, B}` is left out, because it would name the `mod.rs` itself.
fn inline(code: &str) -> Vec<&str> {
    let word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let starts = code
        .match_indices("super::")
        .chain(code.match_indices("crate::"));
    let outer = starts.filter(|(at, _)| {
        let before = &code[..*at];
        // `pub(in crate::shard)` names the importers, not what is imported.
        !before.ends_with("(in ") && !before.chars().next_back().is_some_and(word)
    });
    let path = |(at, _): (usize, &str)| {
        let text = &code[at..];
        let end = text.find(|c| !word(c)).unwrap_or(text.len());
        (!text[end..].starts_with('{')).then(|| text[..end].trim_end_matches(':'))
    };
    outer.filter_map(path).collect()
}

fn read(module: &Module, code: &str, modules: &BTreeSet<Module>) -> File {
    let mut file = File::default();
    for (exported, tree) in uses(code) {
        let mut paths = Vec::new();
        expand(&tree, &mut paths);
        for path in paths.iter().filter_map(|it| absolute(module, it, modules)) {
            match path.last().filter(|_| exported) {
                Some(name) => drop(file.exports.insert(name.clone(), path)),
                None => drop(file.names.insert(path)),
            }
        }
    }
    let inline = inline(code).into_iter();
    let paths = inline.filter_map(|path| absolute(module, path, modules));
    file.names.extend(paths);
    file
}

/// The file that defines what a path names.
fn resolve(path: &[String], files: &BTreeMap<Module, File>) -> Option<Module> {
    let lengths = (1..=path.len()).rev();
    let module = lengths
        .map(|n| &path[..n])
        .find(|it| files.contains_key(*it))?;
    let exported = path.get(module.len());
    match exported.and_then(|name| files[module].exports.get(name)) {
        Some(from) if from != path => resolve(from, files),
        _ => Some(module.to_vec()),
    }
}

/// Of each file those that it imports from its own room.
fn graph() -> BTreeMap<Module, BTreeSet<Module>> {
    let is_test = |path: &str| path.contains("/tests/") || path.ends_with("tests.rs");
    let sources: Vec<_> = sources()
        .into_iter()
        .filter(|it| !is_test(&it.path))
        .collect();
    let modules: BTreeSet<Module> = sources.iter().map(|it| module_of(&it.path)).collect();
    let file = |source: &super::Source| {
        let module = module_of(&source.path);
        let code = source.code.split("#[cfg(test)]\nmod tests {").next();
        let file = read(&module, code.unwrap_or_default(), &modules);
        (module, file)
    };
    let files: BTreeMap<Module, File> = sources.iter().map(file).collect();
    let imports = |(module, file): (&Module, &File)| {
        let names = file.names.iter().filter_map(|path| resolve(path, &files));
        let same_room = names.filter(|it| it != module && it.first() == module.first());
        (module.clone(), same_room.collect())
    };
    files.iter().map(imports).collect()
}

fn reached(from: &Module, graph: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<Module> {
    let (mut seen, mut todo) = (BTreeSet::new(), vec![from.clone()]);
    while let Some(at) = todo.pop() {
        for next in graph.get(&at).into_iter().flatten() {
            if seen.insert(next.clone()) {
                todo.push(next.clone());
            }
        }
    }
    seen
}

/// The files that import each other, directly or not.
fn circles(graph: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<Vec<String>> {
    let reach: BTreeMap<_, _> = graph.keys().map(|it| (it, reached(it, graph))).collect();
    let circle = |of: &Module| {
        let both = |other: &&Module| reach[of].contains(*other) && reach[*other].contains(of);
        let files: Vec<_> = graph.keys().filter(both).map(|it| it.join("/")).collect();
        (files.len() > 1).then_some(files)
    };
    graph.keys().filter_map(circle).collect()
}

#[test]
fn files_of_a_room_do_not_import_each_other_in_circles() {
    let found = circles(&graph());
    let found: Vec<_> = found.iter().map(|it| it.join(", ")).collect();
    none("circles of files", &found);
}

#[test]
fn the_reader_of_imports_reads_them() {
    let mut paths = Vec::new();
    expand("super::{a::{B, C as D}, e::{self, F}, G}", &mut paths);
    let wanted = [
        "super::a::B",
        "super::a::C",
        "super::e::self",
        "super::e::F",
        "super::G",
    ];
    assert_eq!(paths, wanted);
    let code = "use a::{B,\n C};\npub(super) use d::E;\nfn f() { super::g::H; }\n";
    let trees: Vec<_> = uses(code).into_iter().collect();
    let wanted = [(false, "a::{B, C}".to_owned()), (true, "d::E".to_owned())];
    assert_eq!(trees, wanted);
    assert_eq!(inline(code), ["super::g::H"]);
    let graph = graph();
    let feed = module_of("src/sse/feed.rs");
    let imports: Vec<_> = graph[&feed].iter().map(|it| it.join("/")).collect();
    assert!(
        imports.contains(&"sse/subscriber".to_owned()),
        "{imports:?}"
    );
    let home = &graph[&module_of("src/shard/topic_feed.rs")];
    assert!(
        home.contains(&module_of("src/shard/message.rs")),
        "{home:?}"
    );
}
