//! The habits of STYLE that a compiler does not check. Where reality is not there yet, a ratchet holds it: the numbers below
//! may only fall, and a test that finds one too high asks for it to be lowered.

mod sources;

use sources::{Source, files, is_test_file, root, test_lines_begin};
use std::collections::BTreeMap;

/// Lines of a file at most.
const FILE_LINES_MAX: usize = 700;

/// Lines of a function at most.
const FUNCTION_LINES_MAX: usize = 100;

/// What functions should stay under; how many are above it is a ratchet.
const FUNCTION_LINES_TARGET: usize = 70;

/// Functions above the target.
const LONG_FUNCTIONS: usize = 0;

/// What files should stay under; how many are above it is a ratchet.
const FILE_LINES_TARGET: usize = 600;

/// Files above the target.
const LONG_FILES: usize = 0;

/// Each crate with the workspace crates it may depend on. Nothing depends on tests, bench or cmd.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("core", &[]),
    ("core/mqtt", &["bifro-core"]),
    ("net", &["bifro-core", "bifro-mqtt"]),
    ("cluster/swim", &["bifro-core"]),
    ("cluster/genesis", &["bifro-core"]),
    ("cluster", &["bifro-core", "bifro-genesis", "bifro-net", "bifro-swim"]),
    ("store/raft", &["bifro-core"]),
    ("store/range", &["bifro-core", "bifro-mqtt"]),
    ("store", &["bifro-core", "bifro-genesis", "bifro-mqtt", "bifro-raft", "bifro-range", "bifro-net"]),
    (
        "cmd",
        &[
            "bifro-core",
            "bifro-genesis",
            "bifro-mqtt",
            "bifro-raft",
            "bifro-range",
            "bifro-net",
            "bifro-store",
            "bifro-swim",
            "bifro-cluster",
        ],
    ),
    ("bench", &["bifro-core", "bifro-mqtt"]),
    ("tests", &["bifro-core", "bifro-mqtt", "bifro-raft", "bifro-range", "bifro-net", "bifro-store", "bifro-cmd"]),
    ("tests/sim", &["bifro-core", "bifro-genesis", "bifro-mqtt", "bifro-raft", "bifro-store", "bifro-swim"]),
];

/// What tests may use besides: the driver's tests drive the real services.
const TESTS_MAY_DEPEND_ON: &[(&str, &[&str])] = &[("net", &["bifro-store"])];

/// Crates below the sans-IO line.
const PURE: [&str; 6] = ["core", "core/mqtt", "cluster/swim", "cluster/genesis", "store/raft", "store/range"];

/// Reports every finding at once.
#[track_caller]
fn assert_none(findings: &[String], rule: &str) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

#[track_caller]
fn assert_ratchet(findings: &[String], held: usize, rule: &str) {
    let found = findings.len();
    assert!(found <= held, "{rule}: {found}, but at most {held} are tolerated:\n  {}", findings.join("\n  "));
    assert!(found == held, "{rule}: only {found} are left, lower the ratchet from {held}");
}

fn rust_files() -> Vec<Source> {
    files(&["rs"])
}

/// `path:line: text` for every line that `is_bad`, from line `from` of each file up to line `to`.
fn lines_where(source: &Source, range: std::ops::Range<usize>, is_bad: impl Fn(&str) -> bool) -> Vec<String> {
    let numbered = source.text.lines().enumerate().take(range.end).skip(range.start);
    numbered
        .filter(|(_, line)| is_bad(line.split("//").next().unwrap_or_default()))
        .map(|(number, line)| format!("{}:{}: {}", source.path, number + 1, line.trim()))
        .collect()
}

fn product_lines_where(is_bad: impl Fn(&str) -> bool) -> Vec<String> {
    rust_files().iter().flat_map(|source| lines_where(source, 0..test_lines_begin(source), &is_bad)).collect()
}

fn all_lines_where(is_bad: impl Fn(&str) -> bool) -> Vec<String> {
    rust_files().iter().flat_map(|source| lines_where(source, 0..usize::MAX, &is_bad)).collect()
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = rust_files().into_iter().filter(|source| !source.text.starts_with("//! ")).map(|source| source.path);
    assert_none(&silent.collect::<Vec<_>>(), "files must open with a //! line");
}

#[test]
fn files_stay_small() {
    let sizes: Vec<(String, usize)> =
        rust_files().into_iter().map(|source| (source.path, source.text.lines().count())).collect();
    let above = |max: usize| -> Vec<String> {
        sizes.iter().filter(|(_, lines)| *lines > max).map(|(path, lines)| format!("{path}: {lines} lines")).collect()
    };
    assert_none(&above(FILE_LINES_MAX), "files must be split");
    assert_ratchet(&above(FILE_LINES_TARGET), LONG_FILES, "files above the target");
}

/// Name and length of every function, by the layout rustfmt gives them.
fn functions(source: &Source) -> Vec<(String, usize)> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let close = format!("{:indent$}}}", "");
        let declared_only = |line: &&str| line.ends_with(';') && line.len() - line.trim_start().len() == indent;
        let length =
            lines[start..].iter().position(|line| *line == close || declared_only(line)).map_or(1, |end| end + 1);
        let one_line = line.ends_with('}') || line.ends_with(';');
        found.push((name.to_owned(), if one_line { 1 } else { length }));
    }
    found
}

/// The name, if the line begins a function.
fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let modifiers = before.split_whitespace().all(|word| {
        ["const", "async", "unsafe", "extern", "\"C\"", "default"].contains(&word)
            || word.starts_with("pub")
            || word.ends_with(')')
    });
    let name = after.split(['(', '<']).next()?;
    (modifiers && !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_')).then_some(name)
}

#[test]
fn functions_stay_short() {
    let sources = rust_files();
    let above = |max: usize| -> Vec<String> {
        let long = |source: &Source| -> Vec<String> {
            let functions = functions(source).into_iter().filter(|(_, lines)| *lines > max);
            functions.map(|(name, lines)| format!("{}: {name}: {lines} lines", source.path)).collect()
        };
        sources.iter().flat_map(long).collect()
    };
    assert_none(&above(FUNCTION_LINES_MAX), "functions must be split");
    assert_ratchet(&above(FUNCTION_LINES_TARGET), LONG_FUNCTIONS, "functions above the target");
}

#[test]
fn function_lengths_are_measured_from_signature_to_closing_brace() {
    let text = "fn one() {}\nimpl A {\n    pub(crate) const fn two(\n        a: u8,\n    ) -> u8 {\n        if a {\n        }\n    }\n\n    fn three();\n}\n";
    let source = Source { path: "x.rs".to_owned(), text: text.to_owned() };
    let expected = [("one".to_owned(), 1), ("two".to_owned(), 6), ("three".to_owned(), 1)];
    assert_eq!(functions(&source), expected);
}

#[test]
fn names_say_what_things_are() {
    let vague = rust_files().into_iter().map(|source| source.path).filter(|path| {
        path.split(['/', '.']).any(|part| ["utils", "util", "common", "helpers", "helper", "misc"].contains(&part))
    });
    assert_none(&vague.collect::<Vec<_>>(), "files must be named for what they hold");
    let vague_type = |line: &str| {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
        let Some(name) = words.find(|word| ["struct", "enum", "trait"].contains(word)).and_then(|_| words.next())
        else {
            return false;
        };
        name.contains("Manager") || name.ends_with("Impl") || name.ends_with("Helper")
    };
    assert_none(&all_lines_where(vague_type), "types must be named for what they do");
    // `get` and `get_mut` are what the standard library calls a look-up.
    let getter = |line: &str| function_name(line).is_some_and(|name| name.starts_with("get_") && name != "get_mut");
    assert_none(&all_lines_where(getter), "getters are named for what they return");
}

#[test]
fn nothing_is_left_undone_or_skipped() {
    // Put together here, so that this file does not find itself.
    let undone = [["todo", "!("].concat(), ["unimplemented", "!("].concat(), ["dbg", "!("].concat()];
    assert_none(&all_lines_where(|line| undone.iter().any(|word| line.contains(word))), "unfinished code");
    let skipped = ["#[", "ignore"].concat();
    assert_none(&all_lines_where(|line| line.trim_start().starts_with(&skipped)), "tests must run");
}

#[test]
fn only_programs_print() {
    // To standard error a dying process may write its reason.
    let prints = |line: &str| {
        let words = line.split(|c: char| !c.is_alphanumeric() && !['_', '!'].contains(&c));
        words.into_iter().any(|word| ["println!", "print!"].contains(&word))
    };
    let libraries =
        rust_files().into_iter().filter(|source| !source.path.contains("/src/bin/") && !is_test_file(&source.path));
    let found: Vec<String> =
        libraries.flat_map(|source| lines_where(&source, 0..test_lines_begin(&source), prints)).collect();
    assert_none(&found, "libraries log by tracing or return what there is to say");
}

#[test]
fn failures_are_typed_or_proven_impossible() {
    let unproven = product_lines_where(|line| line.contains(".unwrap()") || line.contains(".expect(\"\")"));
    assert_none(&unproven, "write .expect(\"why it cannot fail\") or return an error");
}

#[test]
fn allowed_lints_have_a_reason() {
    let mut found = Vec::new();
    for source in rust_files() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let attribute = line.trim_start();
            if !attribute.starts_with("#[allow(") && !attribute.starts_with("#![allow(") {
                continue;
            }
            let end = lines[number..].iter().position(|line| line.trim_end().ends_with(']')).unwrap_or(0);
            let said = lines[number..=number + end].iter().any(|line| line.contains("reason"));
            let above = number.checked_sub(1).is_some_and(|above| lines[above].trim_start().starts_with("// "));
            if !said && !above {
                found.push(format!("{}:{}", source.path, number + 1));
            }
        }
    }
    assert_none(&found, "#[allow] needs a reason, in the attribute or in a comment above");
}

#[test]
fn crates_depend_on_those_below_them() {
    let mut found = Vec::new();
    for (path, allowed) in MAY_DEPEND_ON {
        let manifest = std::fs::read_to_string(root().join(path).join("Cargo.toml")).expect("a crate of the workspace");
        let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let dependencies = manifest.get(section).and_then(toml::Value::as_table).cloned().unwrap_or_default();
            let ours = dependencies.keys().filter(|name| name.starts_with("bifro-"));
            let in_tests = TESTS_MAY_DEPEND_ON.iter().filter(|(user, _)| user == path && section == "dev-dependencies");
            let in_tests: Vec<&str> = in_tests.flat_map(|(_, used)| used.iter().copied()).collect();
            let wrong = ours.filter(|name| !allowed.contains(&name.as_str()) && !in_tests.contains(&name.as_str()));
            found.extend(wrong.map(|name| format!("{path}/Cargo.toml: {section}: {name}")));
        }
    }
    assert_none(&found, "dependencies point upwards");
}

#[test]
fn every_crate_of_the_workspace_has_its_place() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).expect("the workspace has a manifest");
    let manifest: toml::Table = manifest.parse().expect("a manifest is TOML");
    let members = manifest["workspace"]["members"].as_array().expect("members are listed");
    let known: BTreeMap<&str, _> = MAY_DEPEND_ON.iter().copied().collect();
    let unknown = members.iter().filter_map(toml::Value::as_str).filter(|member| !known.contains_key(member));
    assert_none(&unknown.map(str::to_owned).collect::<Vec<_>>(), "crates missing from MAY_DEPEND_ON");
}

#[test]
fn protocol_machines_do_no_io() {
    let mut found = Vec::new();
    for path in PURE {
        let lib = std::fs::read_to_string(root().join(path).join("src/lib.rs")).expect("a library");
        if !lib.lines().any(|line| line == "#![no_std]") {
            found.push(format!("{path}/src/lib.rs is not #![no_std]"));
        }
    }
    let pure = |source: &Source| PURE.iter().any(|path| source.path.starts_with(&format!("{path}/src/")));
    for source in rust_files().iter().filter(|source| pure(source)) {
        found.extend(lines_where(source, 0..usize::MAX, |line| line.split_whitespace().any(|word| word == "unsafe")));
    }
    assert_none(&found, "crates below the sans-IO line are no_std and safe");
}
