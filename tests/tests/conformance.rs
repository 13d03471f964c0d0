//! The table of normative statements and the tests that show them, `tests/CONFORMANCE.md`, generated from citations.
//!
//! A test cites a clause as `[MQTT-3.1.2-4]` (3.1.1) or `[MQTT5-3.1.2-4]` (5.0) in a comment above or inside it. Statements
//! and whom they bind are listed in `tests/conformance/*.tsv`; what needs no test is in `exceptions.tsv` with its reason.
//! `BIFRO_BLESS=1 cargo test -p bifro-tests --test conformance` writes the table anew and prints the clauses still open.

mod sources;

use sources::{Source, files, root, test_lines_begin};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// One normative statement.
struct Clause {
    id: String,
    binds: String,
    asks: String,
}

impl Clause {
    fn binds_server(&self) -> bool {
        self.binds != "client"
    }
}

/// Everything the table is made of.
struct Table {
    versions: Vec<(&'static str, Vec<Clause>)>,
    exceptions: BTreeMap<String, String>,
    /// Clause to the tests that cite it.
    shown: BTreeMap<String, BTreeSet<String>>,
}

impl Table {
    fn read() -> Self {
        let versions = vec![("MQTT 3.1.1", clauses("mqtt311.tsv")), ("MQTT 5.0", clauses("mqtt5.tsv"))];
        let exceptions = rows("exceptions.tsv", 2).into_iter().map(|mut row| (row.remove(0), row.remove(0))).collect();
        let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for source in citing_files() {
            for (id, test) in cited_by_tests(&source) {
                shown.entry(id).or_default().insert(test);
            }
        }
        Self { versions, exceptions, shown }
    }

    fn clauses(&self) -> impl Iterator<Item = &Clause> {
        self.versions.iter().flat_map(|(_, clauses)| clauses)
    }

    /// Server clauses that nothing shows and nothing excepts.
    fn open(&self) -> Vec<&Clause> {
        let settled = |id: &String| self.shown.contains_key(id) || self.exceptions.contains_key(id);
        self.clauses().filter(|clause| clause.binds_server() && !settled(&clause.id)).collect()
    }

    fn markdown(&self) -> String {
        let mut out = String::from(
            "# MQTT conformance\n\nGenerated from citations in tests by `BIFRO_BLESS=1 cargo test -p bifro-tests --test \
             conformance`; do not edit.\nWhat the statements ask is told in our own words; the specifications decide.\n",
        );
        for (version, clauses) in &self.versions {
            let server: Vec<&Clause> = clauses.iter().filter(|clause| clause.binds_server()).collect();
            let count = |has: &dyn Fn(&String) -> bool| server.iter().filter(|clause| has(&clause.id)).count();
            let shown = count(&|id| self.shown.contains_key(id));
            let excepted = count(&|id| self.exceptions.contains_key(id));
            let open = server.len() - count(&|id| self.shown.contains_key(id) || self.exceptions.contains_key(id));
            write!(
                out,
                "\n## {version}\n\n{} statements, {} of them bind a server: {shown} shown by tests, {excepted} excepted, {open} \
                 open.\n\n| clause | binds | asks | shown by |\n|---|---|---|---|\n",
                clauses.len(),
                server.len()
            )
            .expect("a string takes everything");
            for clause in clauses {
                let Clause { id, binds, asks } = clause;
                let asks = asks.replace('|', "\\|");
                writeln!(out, "| {id} | {binds} | {asks} | {} |", self.evidence(clause))
                    .expect("a string takes everything");
            }
        }
        out
    }

    fn evidence(&self, clause: &Clause) -> String {
        let tests = self.shown.get(&clause.id).map(|tests| {
            let quoted: Vec<String> = tests.iter().map(|test| format!("`{test}`")).collect();
            quoted.join("<br>")
        });
        let reason = || self.exceptions.get(&clause.id).map(|reason| format!("excepted: {reason}"));
        tests.or_else(reason).unwrap_or_else(|| if clause.binds_server() { "**open**".into() } else { String::new() })
    }
}

/// Sources that may cite clauses: all but this file, whose citations are examples.
fn citing_files() -> impl Iterator<Item = Source> {
    files(&["rs", "py", "js", "txt"]).into_iter().filter(|source| !source.path.ends_with("tests/conformance.rs"))
}

/// Rows of a file of tab-separated values, comments left out.
fn rows(file: &str, columns: usize) -> Vec<Vec<String>> {
    let path = root().join("tests/conformance").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|(number, line)| {
            let row: Vec<String> = line.split('\t').map(str::to_owned).collect();
            let complete = row.len() == columns && row.iter().all(|cell| !cell.trim().is_empty());
            assert!(complete, "{file}:{}: {columns} columns expected", number + 1);
            row
        })
        .collect()
}

fn clauses(file: &str) -> Vec<Clause> {
    let clause = |row: Vec<String>| {
        let [id, binds, asks] = <[String; 3]>::try_from(row).expect("rows have three columns");
        assert!(["server", "client", "both"].contains(&binds.as_str()), "{file}: {id} binds {binds}");
        Clause { id, binds, asks }
    };
    rows(file, 3).into_iter().map(clause).collect()
}

/// The clauses named in a line, without their brackets. A section alone, as in `[MQTT5-4.12]`, names no clause.
fn citations(line: &str) -> Vec<String> {
    let candidates = line.split('[').skip(1).filter_map(|rest| rest.split_once(']')).map(|(inside, _)| inside);
    let is_clause = |text: &&str| {
        let Some(("MQTT" | "MQTT5", number)) = text.split_once('-') else { return false };
        let Some((section, statement)) = number.rsplit_once('-') else { return false };
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        digits(statement) && section.split('.').all(digits)
    };
    candidates.filter(is_clause).map(str::to_owned).collect()
}

/// Clause and test of every citation in the file's test code. A citation above a function belongs to it as one inside does;
/// one in the file's header, or in a script, belongs to the file.
fn cited_by_tests(source: &Source) -> Vec<(String, String)> {
    let is_rust = source.path.ends_with(".rs");
    let begin = if is_rust { test_lines_begin(source) } else { 0 };
    if !is_rust && !sources::is_test_file(&source.path) {
        return Vec::new();
    }
    let (mut cited, mut waiting) = (Vec::new(), Vec::new());
    let mut current: Option<(String, String)> = None;
    for line in source.text.lines().skip(begin) {
        if let Some(name) = function_name(line) {
            let indent = &line[..line.len() - line.trim_start().len()];
            let test = format!("{}::{name}", source.path);
            cited.extend(waiting.drain(..).map(|id| (id, test.clone())));
            current = Some((test, format!("{indent}}}")));
        }
        let found = citations(line);
        match &current {
            Some((test, _)) => cited.extend(found.into_iter().map(|id| (id, test.clone()))),
            None if line.starts_with("//!") || !is_rust => {
                cited.extend(found.into_iter().map(|id| (id, source.path.clone())))
            }
            None => waiting.extend(found),
        }
        if current
            .as_ref()
            .is_some_and(|(_, close)| line == close || (line.ends_with('}') && function_name(line).is_some()))
        {
            current = None;
        }
    }
    // What no function follows, such as a table of cases, belongs to the file.
    cited.extend(waiting.into_iter().map(|id| (id, source.path.clone())));
    cited
}

/// The name of the Rust or Python function the line begins.
fn function_name(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let after = ["fn ", "pub fn ", "pub(crate) fn ", "pub(super) fn ", "async fn ", "const fn ", "def "]
        .iter()
        .find_map(|start| line.strip_prefix(start))?;
    after.split(['(', '<']).next().filter(|name| !name.is_empty())
}

#[test]
fn the_table_is_what_the_tests_cite() {
    let path = root().join("tests/CONFORMANCE.md");
    let table = Table::read();
    let generated = table.markdown();
    if std::env::var_os("BIFRO_BLESS").is_some() {
        std::fs::write(&path, &generated).expect("the table can be written");
        let open: Vec<String> = table.open().iter().map(|clause| format!("  {} {}", clause.id, clause.asks)).collect();
        eprintln!("{} open clauses:\n{}", open.len(), open.join("\n"));
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = generated.lines().zip(committed.lines()).find(|(a, b)| a != b);
    assert!(
        generated == committed,
        "tests/CONFORMANCE.md is not what the tests cite; run BIFRO_BLESS=1 cargo test -p bifro-tests --test conformance. \
         First difference: {differs:?}"
    );
}

#[test]
fn every_clause_that_binds_a_server_is_shown_or_excepted() {
    let table = Table::read();
    let open: Vec<&str> = table.open().iter().map(|clause| clause.id.as_str()).collect();
    assert!(open.is_empty(), "clauses without a test or a written reason: {open:?}");
}

#[test]
fn every_citation_names_a_clause_that_exists() {
    let table = Table::read();
    let known: BTreeSet<&str> = table.clauses().map(|clause| clause.id.as_str()).collect();
    let mut unknown = Vec::new();
    for source in citing_files() {
        for (number, line) in source.text.lines().enumerate() {
            let wrong = citations(line).into_iter().filter(|id| !known.contains(id.as_str()));
            unknown.extend(wrong.map(|id| format!("{}:{}: [{id}]", source.path, number + 1)));
        }
    }
    assert!(unknown.is_empty(), "no such clause:\n  {}", unknown.join("\n  "));
}

#[test]
fn clauses_are_listed_once_and_exceptions_are_needed() {
    let table = Table::read();
    let mut seen = BTreeSet::new();
    for clause in table.clauses() {
        assert!(seen.insert(&clause.id), "{} is listed twice", clause.id);
    }
    for id in table.exceptions.keys() {
        let clause = table.clauses().find(|clause| &clause.id == id).unwrap_or_else(|| panic!("no such clause: {id}"));
        assert!(clause.binds_server(), "{id} binds no server, so it needs no exception");
        assert!(!table.shown.contains_key(id), "{id} is shown by a test, so it needs no exception");
    }
}

#[test]
fn citations_are_found_where_they_stand() {
    assert_eq!(
        citations("/// [MQTT-3.1.2-4] and [MQTT5-4.2-1], not [MQTT5-4.12] nor [x]"),
        ["MQTT-3.1.2-4", "MQTT5-4.2-1"]
    );
    let text = "//! [MQTT-0.0.0-1]\n/// [MQTT-0.0.0-2]\n#[test]\nfn above() {\n    x();\n}\n\n#[test]\nfn inside() {\n    // [MQTT-0.0.0-3]\n}\n// [MQTT-0.0.0-4]\n";
    let source = Source { path: "a/tests/b.rs".to_owned(), text: text.to_owned() };
    let cited = cited_by_tests(&source);
    let expected = [("1", ""), ("2", "::above"), ("3", "::inside"), ("4", "")]
        .map(|(n, test)| (format!("MQTT-0.0.0-{n}"), format!("a/tests/b.rs{test}")));
    assert_eq!(cited, expected);
}
