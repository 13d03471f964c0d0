//! The tool as its user runs it: command line in, streams and exit out.

mod broker;
mod certificates;
mod messages;
mod passwords;

use super::{Cli, Console, CtlError};
use crate::auth::testing::TempFile;
use clap::Parser;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What a run of the tool left behind.
struct Run {
    result: Result<(), CtlError>,
    output: String,
    notes: String,
}

impl Run {
    /// The error it ended with, as the user reads it.
    fn error(&self) -> String {
        self.result.as_ref().expect_err("the command was to fail").to_string()
    }
}

/// Runs the tool with `input` as standard input and `typed` as what is typed at prompts.
fn bifroctl(args: &[&str], input: &[u8], typed: &[&str]) -> Run {
    let cli =
        Cli::try_parse_from(std::iter::once("bifroctl").chain(args.iter().copied())).expect("a valid command line");
    let (mut output, mut notes) = (Vec::new(), Vec::new());
    let mut typed = typed.iter();
    let mut prompt =
        |_: &str| typed.next().map(|text| (*text).to_owned()).ok_or_else(|| io::ErrorKind::NotFound.into());
    let mut console = Console { input: &mut &input[..], output: &mut output, notes: &mut notes, prompt: &mut prompt };
    let result = cli.run(&mut console);
    let text = |bytes| String::from_utf8(bytes).expect("the tests print text");
    Run { result, output: text(output), notes: text(notes) }
}

/// A command line that must not even parse.
fn is_refused(args: &[&str]) -> bool {
    Cli::try_parse_from(std::iter::once("bifroctl").chain(args.iter().copied())).is_err()
}

/// A directory that is gone after the test.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        let unique = TempFile::new("");
        let path = unique.path().with_extension("d");
        fs::create_dir(&path).expect("the temporary directory is writable");
        Self(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mode(path: impl AsRef<Path>) -> u32 {
    fs::metadata(path).expect("it exists").permissions().mode() & 0o777
}

#[test]
fn the_command_line_is_consistent() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}
