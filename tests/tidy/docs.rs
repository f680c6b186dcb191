//! The pages for readers: what they name is there. A code span with `::` in `SEMANTICS.md` is the path of a test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::{assert_none, files, root};

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// README, CHANGELOG and all pages of `doc/`, relative to the repository.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![PathBuf::from("README.md"), PathBuf::from("CHANGELOG.md")];
    for path in files(&root().join("doc")) {
        pages.push(path.strip_prefix(root()).unwrap().to_owned());
    }
    assert!(pages.len() > 4, "the pages were not found");
    pages
}

/// What stands between backticks, outside of fenced blocks.
fn code_spans(text: &str) -> Vec<&str> {
    let mut fenced = false;
    let mut spans = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            spans.extend(line.split('`').skip(1).step_by(2));
        }
    }
    spans
}

/// Where the links of a page lead, within the repository.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    let files = targets.filter_map(|target| target.split('#').next());
    files
        .filter(|file| !file.is_empty() && !file.contains("://"))
        .collect()
}

/// The module that a file below `src` or `tests` holds.
fn module(file: &Path) -> String {
    let parts: Vec<_> = file.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("::")
}

/// The paths of all tests of a file, as `cargo nextest` names them.
fn tests_in(module: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inner = "";
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if line == "mod tests {" {
            inner = "::tests";
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
            let name = rest.split('(').next().unwrap_or_default();
            found.push(format!("{module}{inner}::{name}"));
            is_test = false;
        }
    }
    found
}

fn all_tests() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for dir in ["src", "tests"].map(|dir| root().join(dir)) {
        for path in files(&dir) {
            if path.extension().is_some_and(|ext| ext == "rs") {
                let below = path.strip_prefix(&dir).unwrap().with_extension("");
                let text = fs::read_to_string(&path).unwrap();
                found.extend(tests_in(&module(&below), &text));
            }
        }
    }
    assert!(found.len() > 100, "the tests were not found");
    found
}

#[test]
fn every_test_that_a_promise_rests_on_exists() {
    let tests = all_tests();
    let text = read("doc/SEMANTICS.md");
    let named = code_spans(&text).into_iter();
    let named: Vec<_> = named.filter(|span| span.contains("::")).collect();
    assert!(named.len() > 40, "no tests are named");
    let missing = named.into_iter().filter(|name| !tests.contains(*name));
    assert_none(
        missing
            .map(|name| format!("SEMANTICS.md: no test {name}"))
            .collect(),
    );
}

#[test]
fn every_link_leads_to_a_file() {
    let mut broken = Vec::new();
    for page in pages() {
        let text = read(&page.to_string_lossy());
        for target in links(&text) {
            let dir = page.parent().unwrap_or(Path::new(""));
            if !root().join(dir).join(target).exists() {
                broken.push(format!("{}: {target} is not there", page.display()));
            }
        }
    }
    assert_none(broken);
}

#[test]
fn every_table_of_the_index_is_described() {
    let schema = read("src/replica/schema.rs");
    let names = schema.split("CREATE TABLE ").skip(1);
    let names: Vec<_> = names.filter_map(|rest| rest.split(' ').next()).collect();
    assert!(names.len() > 10, "the tables were not found");
    let page = read("doc/FORMAT.md");
    let described = code_spans(&page);
    let missing = names.into_iter().filter(|name| !described.contains(name));
    assert_none(
        missing
            .map(|name| format!("FORMAT.md: no table `{name}`"))
            .collect(),
    );
}

#[test]
fn the_rules_see_what_pages_name() {
    let text = "`a::b` and [x](y.md#z), [w](https://x)\n```\n`c`\n```\n[v](#here) `d`\n";
    assert_eq!(code_spans(text), ["a::b", "d"]);
    assert_eq!(links(text), ["y.md"]);
    let text = "#[test]\nfn one() {}\nfn other() {}\nmod tests {\n    #[tokio::test]\n    async fn two() {}\n}\n";
    assert_eq!(tests_in("m", text), ["m::one", "m::tests::two"]);
}
