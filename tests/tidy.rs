//! The rules that keep the tree in shape: who may import whom, which modules are pure, how long a file may
//! be, and what must not be in the repository. They are data at the top; the tests below only apply them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

mod docs;

/// Who may import whom, besides itself. The longest matching row counts, so a row for a sub-module replaces
/// the row of its parent. A file that no row matches fails.
const IMPORTS: &[(&str, &[&str])] = &[
    // The vocabulary: everybody speaks it, it knows nobody.
    ("tree", &[]),
    // The decisions: values in, values out.
    ("sync", &["tree"]),
    // The two sides never see each other; only the engine owns both.
    ("replica", &["tree"]),
    ("remote", &["tree"]),
    // The only layer that acts.
    ("engine", &["remote", "replica", "sync", "tree"]),
    // The home as an API, served from the replica; the engine is behind its port.
    ("fs", &["engine", "replica", "tree"]),
    // Only translates; it hears the engine's news through its port.
    ("fuse", &["engine", "fs", "tree"]),
    // Settings name policies of the planner; levels are checked by who uses them.
    ("config", &["logging", "sync"]),
    ("logging", &[]),
    // The one reader of the wall clock. Only the edges below import it; all else is told the time.
    ("clock", &["tree"]),
    // How commands and daemon talk. The protocol is a document of its own.
    ("control", &[]),
    // Logins act through the same door as commands.
    ("login", &["control"]),
    // Ties everything together.
    (
        "daemon",
        &[
            "clock", "config", "control", "engine", "fs", "fuse", "logging", "login", "remote",
            "replica", "sync", "tree",
        ],
    ),
    // Commands: ask a daemon, or become one.
    (
        "cli",
        &["clock", "config", "control", "daemon", "logging", "login"],
    ),
    // Runs other commands against a server of its own.
    ("cli::demo", &["control", "remote"]),
    ("main", &["cli"]),
    ("lib", &[]),
];

/// Modules without effects: what they do depends on their arguments alone.
const PURE: &[&str] = &[
    "cli::generate::pages",
    "cli::generate::settings_page",
    "cli::options",
    "cli::reference",
    "config::bandwidth",
    "config::duration",
    "config::target",
    "control::failure",
    "control::protocol",
    "engine::link",
    "login::session",
    "login::ticket::expiry",
    "remote::layout",
    "remote::wire",
    "replica::blocks",
    "replica::evict",
    "sync",
    "tree",
];

/// What a pure module may not name.
const IMPURE: &[&str] = &[
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant",
    "clock::now",
    "tokio",
    "rusqlite",
    "fuser",
    "russh",
    "rustix",
    "tracing",
    "println",
    "eprintln",
];

/// Libraries that one layer hides from all others.
const HIDDEN: &[(&str, &[&str])] = &[
    ("fuser", &["fuse"]),
    ("rusqlite", &["replica"]),
    ("russh", &["remote"]),
    ("russh_sftp", &["remote"]),
    ("clap", &["cli"]),
    ("zbus", &["daemon"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
];

/// Lines of a file without its tests; past that it is two files.
const LINES_MAX: usize = 400;

/// A source file as the rules see it.
struct Source {
    /// Relative to the repository.
    path: PathBuf,
    /// Such as `engine::push`.
    module: String,
    text: String,
    /// The lines of code before the in-file tests, without comments.
    code: Vec<String>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All files below `dir` that belong to the repository, in order.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !matches!(name.as_str(), ".git" | "target") {
                    dirs.push(path);
                }
            } else if name != ".git" && !path.is_symlink() {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Every source file of the library and the program, without files of tests.
fn sources() -> Vec<Source> {
    let src = root().join("src");
    let rust = |path: &PathBuf| path.extension().is_some_and(|ext| ext == "rs");
    let sources: Vec<_> = files(&src).into_iter().filter(rust).collect();
    assert!(sources.len() > 20, "the sources were not found");
    let sources: Vec<_> = sources
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let module = path.strip_prefix(&src).unwrap().with_extension("");
            let module: Vec<_> = module.iter().map(|part| part.to_string_lossy()).collect();
            Source {
                module: module.join("::"),
                code: code(&text),
                path: path.strip_prefix(root()).unwrap().to_owned(),
                text,
            }
        })
        .collect();
    let tests: Vec<_> = sources.iter().flat_map(test_modules).collect();
    let is_test = |source: &Source| tests.iter().any(|test| is_within(&source.module, test));
    sources
        .into_iter()
        .filter(|source| !is_test(source))
        .collect()
}

/// The modules in files of their own that a file declares for tests alone.
fn test_modules(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for rest in source.text.split("#[cfg(test)]\n").skip(1) {
        let line = rest.lines().next().unwrap_or_default();
        // Whatever its visibility is.
        let declared = line.split_once("mod ").map(|(_, rest)| rest);
        if let Some(name) = declared.and_then(|name| name.strip_suffix(';')) {
            found.push(match source.module.as_str() {
                // The root's modules are called by their own names.
                "lib" => name.to_owned(),
                module => format!("{module}::{name}"),
            });
        }
    }
    found
}

/// The code before the tests. A `mod tests;` is followed by nothing, a `mod tests {` by tests only.
fn code(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest = text.lines().peekable();
    while let Some(line) = rest.next() {
        let tests_follow = line.trim() == "#[cfg(test)]"
            && rest
                .peek()
                .is_some_and(|next| next.trim_start().starts_with("mod "));
        if tests_follow {
            if rest.peek().is_some_and(|next| next.ends_with('{')) {
                break;
            }
            rest.next();
            continue;
        }
        lines.push(line.split("//").next().unwrap_or_default().to_owned());
    }
    lines
}

fn is_within(module: &str, parent: &str) -> bool {
    module == parent
        || module
            .strip_prefix(parent)
            .is_some_and(|rest| rest.starts_with("::"))
}

/// Whether `word` stands in `line` by itself and not as a part of another word.
fn names(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part)
    })
}

/// The top modules that a file imports from its own crate.
fn imported(code: &[String], prefix: &str) -> BTreeSet<String> {
    let text = code.concat();
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices(prefix) {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &text[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(heads(list)),
            None => found.extend(identifier(rest)),
        }
    }
    found
}

/// The first names of the entries of a `{…}` list, whose brace was taken off.
fn heads(list: &str) -> Vec<String> {
    let mut depth = 0;
    let mut starts = true;
    let mut heads = Vec::new();
    for (at, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => starts = true,
            c if starts && !c.is_whitespace() => {
                heads.extend(identifier(&list[at..]));
                starts = false;
            }
            _ => {}
        }
    }
    heads
}

fn identifier(text: &str) -> Option<String> {
    let name: String = text
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    (!name.is_empty()).then_some(name)
}

#[track_caller]
fn assert_none(broken: Vec<String>) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn layers_import_only_what_the_table_allows() {
    let mut broken = Vec::new();
    for source in sources() {
        let row = IMPORTS
            .iter()
            .filter(|(module, _)| is_within(&source.module, module))
            .max_by_key(|(module, _)| module.len());
        let Some((_, allowed)) = row else {
            broken.push(format!("{}: no row in the table", source.path.display()));
            continue;
        };
        let own = source.module.split("::").next().unwrap();
        let prefix = if own == "main" {
            "roamhome::"
        } else {
            "crate::"
        };
        for import in imported(&source.code, prefix) {
            if import != own && !allowed.contains(&import.as_str()) {
                broken.push(format!(
                    "{}: may not import {import}",
                    source.path.display()
                ));
            }
        }
    }
    assert_none(broken);
}

#[test]
fn the_table_has_no_circle() {
    // Each row may only name rows that were reached before: repeat until nothing is added.
    let mut reached: BTreeSet<&str> = BTreeSet::new();
    loop {
        let before = reached.len();
        for (module, allowed) in IMPORTS {
            if allowed.iter().all(|name| reached.contains(name)) {
                reached.insert(module);
            }
        }
        if reached.len() == before {
            break;
        }
    }
    let all = IMPORTS.iter().map(|(module, _)| *module);
    assert_none(
        all.filter(|m| !reached.contains(m))
            .map(str::to_owned)
            .collect(),
    );
}

#[test]
fn pure_modules_have_no_effects() {
    let mut broken = Vec::new();
    for source in sources() {
        if !PURE.iter().any(|pure| is_within(&source.module, pure)) {
            continue;
        }
        for (number, line) in source.code.iter().enumerate() {
            for word in IMPURE.iter().filter(|word| names(line, word)) {
                let at = source.path.display();
                broken.push(format!("{at}:{}: a pure module names {word}", number + 1));
            }
        }
    }
    assert_none(broken);
}

#[test]
fn libraries_are_named_only_in_the_layer_that_hides_them() {
    let mut broken = Vec::new();
    for source in sources() {
        for (library, layers) in HIDDEN {
            let hides = layers.iter().any(|layer| is_within(&source.module, layer));
            let path = format!("{library}::");
            if !hides
                && source
                    .code
                    .iter()
                    .any(|line| names(line, library) && line.contains(&path))
            {
                broken.push(format!("{}: names {library}", source.path.display()));
            }
        }
    }
    assert_none(broken);
}

#[test]
fn files_are_short_and_say_why_they_exist() {
    let mut broken = Vec::new();
    for source in sources() {
        let at = source.path.display();
        if !source.text.starts_with("//! ") {
            broken.push(format!("{at}: opens without //! that says why it exists"));
        }
        if source.code.len() >= LINES_MAX {
            let lines = source.code.len();
            broken.push(format!(
                "{at}: {lines} lines without tests, {LINES_MAX} are too many"
            ));
        }
        if source.path.ends_with("mod.rs") {
            broken.push(format!("{at}: name it after its module"));
        }
        if source.code.iter().any(|line| line.contains("use crate::*")) {
            broken.push(format!("{at}: use crate::* hides what it needs"));
        }
    }
    assert_none(broken);
}

#[test]
fn no_test_file_is_forgotten() {
    let suite = fs::read_to_string(root().join("tests/suite.rs")).unwrap();
    let mut broken = Vec::new();
    for entry in fs::read_dir(root().join("tests")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let is_module = path.extension().is_some_and(|ext| ext == "rs") && name != "suite";
        if is_module && !suite.lines().any(|line| line == format!("mod {name};")) {
            broken.push(format!("tests/{name}.rs is not in tests/suite.rs"));
        }
    }
    assert_none(broken);
}

#[test]
fn nothing_in_the_repository_is_about_one_machine() {
    // Put together here, so that this file does not hold them itself.
    let banned = ["work", "root"].map(|dir| format!("/{dir}/"));
    let mut broken = Vec::new();
    for path in files(&root()) {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let at = path.strip_prefix(root()).unwrap().display().to_string();
        for (number, line) in text.lines().enumerate() {
            for word in banned.iter().filter(|word| line.contains(*word)) {
                broken.push(format!("{at}:{}: {word}", number + 1));
            }
            let registry = line.trim_start().strip_prefix("source = \"");
            let public = "registry+https://github.com/rust-lang/crates.io-index\"";
            if at == "Cargo.lock" && registry.is_some_and(|source| source != public) {
                broken.push(format!("{at}:{}: another registry", number + 1));
            }
        }
    }
    assert_none(broken);
}

#[test]
fn the_rules_see_what_they_look_for() {
    let lines = |text: &str| code(text);
    let text = "use crate::tree::Time; // crate::fuse\nuse crate::{\n    fs::{a, b},\n    remote,\n};\n\
        #[cfg(test)]\nmod tests {\n    use crate::cli;\n}\n";
    let found: Vec<_> = imported(&lines(text), "crate::").into_iter().collect();
    assert_eq!(found, ["fs", "remote", "tree"]);
    assert!(names("a(std::fs::read)", "std::fs") && !names("Instantly", "Instant"));
    assert!(is_within("sync::plan", "sync") && !is_within("synchron", "sync"));
    let source = Source {
        path: PathBuf::new(),
        module: "replica::index".into(),
        text: "#[cfg(test)]\nmod tests;\n#[cfg(test)]\nuse std::fs;\nmod rows;\n".into(),
        code: Vec::new(),
    };
    assert_eq!(test_modules(&source), ["replica::index::tests"]);
    let root = Source {
        module: "lib".into(),
        ..source
    };
    assert_eq!(test_modules(&root), ["tests"]);
}
