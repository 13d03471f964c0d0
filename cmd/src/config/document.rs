//! A configuration file as parsed TOML that still knows on which line each key stands.
//!
//! Two indexes over the same text: the tree, from which sections are taken out and deserialised, and the flat list of
//! [`Entry`]s, by which spans become keys and keys become lines.

use super::error::{ConfigError, ConfigErrors};
use serde::de::DeserializeOwned;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One key of the file, tables included.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Where in the configuration, as an operator would write it: `listener[0].backlog`, `tenant.acme.quota`.
    pub(super) path: String,
    /// The same for every element of an array and for every tenant: `listener.backlog`, `tenant_defaults.quota`.
    pub(super) pattern: String,
    /// The number, if it is one.
    pub(super) integer: Option<i128>,
    key_span: Range<usize>,
    value_span: Range<usize>,
}

/// A parsed file.
pub(super) struct Document<'t> {
    file: String,
    text: &'t str,
    tree: DeTable<'t>,
    entries: Vec<Entry>,
}

impl<'t> Document<'t> {
    /// Parses `text`; `file` names it in errors.
    ///
    /// # Errors
    /// The text is no TOML.
    pub(super) fn parse(file: &str, text: &'t str) -> Result<Self, ConfigErrors> {
        let tree = DeTable::parse(text).map_err(|error| ConfigError {
            file: file.to_owned(),
            line: error.span().map(|span| line_of(text, span.start)),
            key: String::new(),
            problem: error.message().to_owned(),
        })?;
        let tree = tree.into_inner();
        let mut entries = Vec::new();
        index(&tree, "", "", &mut entries);
        Ok(Self { file: file.to_owned(), text, tree, entries })
    }

    /// Every key of the file.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// An error about the key at `path`, or about the nearest table above it that the file has.
    pub(super) fn error(&self, path: &str, problem: impl Into<String>) -> ConfigError {
        let mut at = path;
        let line = loop {
            if let Some(entry) = self.entries.iter().find(|entry| entry.path == at) {
                break Some(line_of(self.text, entry.key_span.start));
            }
            match at.rfind(['.', '[']) {
                Some(end) => at = &at[..end],
                None => break None,
            }
        };
        ConfigError { file: self.file.clone(), line, key: path.to_owned(), problem: problem.into() }
    }

    /// Top-level keys that are none of `tables`.
    pub(super) fn unknown_tables(&self, tables: &[&str]) -> Vec<ConfigError> {
        let names = self.tree.keys().map(|name| name.get_ref().as_ref());
        let unknown = names.filter(|name: &&str| !tables.contains(name));
        unknown.map(|name| self.error(name, format!("unknown table, expected one of {}", tables.join(", ")))).collect()
    }

    /// Takes the table `name` out of the tree; an empty one if the file has none.
    ///
    /// # Errors
    /// `name` is no table.
    pub(super) fn take_table(&mut self, name: &str) -> Result<DeTable<'t>, ConfigErrors> {
        let Some(value) = self.tree.remove(name) else {
            return Ok(DeTable::new());
        };
        self.expect_table(name, value)
    }

    /// Takes the table `name` out of the tree and reads it.
    ///
    /// # Errors
    /// `name` is no table, or a key in it is unknown, mistyped or missing.
    pub(super) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, ConfigErrors> {
        let table = self.take_table(name)?;
        self.read(table)
    }

    /// `value`, which stands at `path`, as a table.
    ///
    /// # Errors
    /// It is something else.
    pub(super) fn expect_table(&self, path: &str, value: Spanned<DeValue<'t>>) -> Result<DeTable<'t>, ConfigErrors> {
        match value.into_inner() {
            DeValue::Table(table) => Ok(table),
            other => Err(self.error(path, format!("expected a table, found a {}", other.type_str())).into()),
        }
    }

    /// Reads what is left of the tree.
    ///
    /// # Errors
    /// A key is unknown, mistyped or missing.
    pub(super) fn read_rest<T: DeserializeOwned>(&mut self) -> Result<T, ConfigErrors> {
        let rest = std::mem::take(&mut self.tree);
        self.read(rest)
    }

    /// Reads a table of this document.
    ///
    /// # Errors
    /// A key is unknown, mistyped or missing.
    pub(super) fn read<T: DeserializeOwned>(&self, table: DeTable<'t>) -> Result<T, ConfigErrors> {
        T::deserialize(toml::de::Deserializer::from(Spanned::new(0..0, table))).map_err(|error| {
            let span = error.span().unwrap_or_default();
            let key = self.key_at(&span).map_or_else(String::new, |entry| entry.path.clone());
            let line = (!span.is_empty()).then(|| line_of(self.text, span.start));
            ConfigError { file: self.file.clone(), line, key, problem: error.message().to_owned() }.into()
        })
    }

    /// The innermost entry whose key or value contains `span`.
    fn key_at(&self, span: &Range<usize>) -> Option<&Entry> {
        let covers = |range: &Range<usize>| range.start <= span.start && span.end <= range.end && !span.is_empty();
        let innermost = |entry: &&Entry| {
            [&entry.key_span, &entry.value_span]
                .into_iter()
                .filter(|range| covers(range))
                .map(|range| range.len())
                .min()
        };
        self.entries.iter().filter(|entry| innermost(entry).is_some()).min_by_key(|entry| innermost(entry))
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|&&byte| byte == b'\n').count()
}

fn index(table: &DeTable<'_>, path: &str, pattern: &str, entries: &mut Vec<Entry>) {
    for (key, value) in table.iter() {
        let name = key.get_ref();
        let join = |parent: &str| if parent.is_empty() { name.to_string() } else { format!("{parent}.{name}") };
        // Each tenant has the keys of the defaults.
        let pattern = if pattern == "tenant" { "tenant_defaults".to_owned() } else { join(pattern) };
        index_value(value, join(path), &pattern, key.span(), entries);
    }
}

fn index_value(
    value: &Spanned<DeValue<'_>>,
    path: String,
    pattern: &str,
    key_span: Range<usize>,
    entries: &mut Vec<Entry>,
) {
    let integer = match value.get_ref() {
        DeValue::Integer(integer) => i128::from_str_radix(integer.as_str(), integer.radix()).ok(),
        _ => None,
    };
    let value_span = value.span();
    match value.get_ref() {
        DeValue::Table(table) => index(table, &path, pattern, entries),
        DeValue::Array(array) => {
            for (place, element) in array.iter().enumerate() {
                index_value(element, format!("{path}[{place}]"), pattern, element.span(), entries);
            }
        }
        _ => {}
    }
    entries.push(Entry { path, pattern: pattern.to_owned(), integer, key_span, value_span });
}
