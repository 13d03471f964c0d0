//! The checkout's own source files, for tests that judge them.

use std::fs;
use std::path::{Path, PathBuf};

/// Directories that are not ours.
const FOREIGN: [&str; 6] = ["target", ".git", ".venv", "node_modules", "data", "__pycache__"];

/// One source file.
pub(crate) struct Source {
    /// Path from the checkout's root, with `/`.
    pub(crate) path: String,
    /// What is in it.
    pub(crate) text: String,
}

/// The checkout's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the checkout").to_owned()
}

/// Every file with one of the extensions, by path.
pub(crate) fn files(extensions: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root(), extensions, &mut found);
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    assert!(!found.is_empty(), "the checkout has sources");
    found
}

fn collect(dir: &Path, extensions: &[&str], found: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).expect("the checkout is readable") {
        let path = entry.expect("the checkout is readable").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if !FOREIGN.contains(&name.as_ref()) {
                collect(&path, extensions, found);
            }
        } else if path.extension().is_some_and(|ext| extensions.iter().any(|wanted| ext == *wanted)) {
            let relative = path.strip_prefix(root()).expect("collected below the root");
            let text = fs::read_to_string(&path).expect("sources are UTF-8");
            found.push(Source { path: relative.to_string_lossy().replace('\\', "/"), text });
        }
    }
}

/// Whether the whole file is test code.
pub(crate) fn is_test_file(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("/tests.rs") || path.ends_with("_test.rs")
}

/// The line, from 0, at which a Rust file's test module begins; the number of lines if there is none. Test modules stand
/// last.
pub(crate) fn test_lines_begin(source: &Source) -> usize {
    if is_test_file(&source.path) {
        return 0;
    }
    let lines: Vec<&str> = source.text.lines().collect();
    let opens =
        |pair: &[&str]| pair[0].starts_with("#[cfg(test)]") && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    lines.windows(2).position(opens).unwrap_or(lines.len())
}
