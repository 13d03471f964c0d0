//! Programs of others, run within a deadline.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// What a program may take that connects, exchanges a few messages and ends.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running program whose output is read line by line. Killed when dropped.
pub(super) struct Program {
    child: Child,
    lines: Receiver<String>,
    errors: Option<std::thread::JoinHandle<String>>,
    name: String,
}

impl Program {
    pub(super) fn start(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let stdout = child.stdout.take().expect("it is piped");
        let mut stderr = child.stderr.take().expect("it is piped");
        let (told, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                if told.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        let errors = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Self { child, lines, errors: Some(errors), name }
    }

    /// The next line for which `wanted` has an answer.
    pub(super) fn wait_for<T>(&mut self, what: &str, wanted: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(found) = wanted(&line) {
                        return found;
                    }
                }
                Err(error) => {
                    let reason = match error {
                        RecvTimeoutError::Timeout => "too late",
                        RecvTimeoutError::Disconnected => "it has ended",
                    };
                    let _ = self.child.kill();
                    let errors = self.stderr();
                    panic!("{}: no {what}, {reason}\n{errors}", self.name);
                }
            }
        }
    }

    /// The next line that is there already or comes within `patience`.
    pub(super) fn line_within(&mut self, patience: Duration) -> Option<String> {
        self.lines.recv_timeout(patience).ok()
    }

    /// Ends it as a crash would.
    pub(super) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    fn stderr(&mut self) -> String {
        self.errors.take().map(|errors| errors.join().expect("reading does not panic")).unwrap_or_default()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end, with `input` on its standard input, and returns what it wrote.
pub(super) fn run(command: &mut Command, input: &[u8], patience: Duration) -> Vec<u8> {
    let name = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut stdin = child.stdin.take().expect("it is piped");
    let (mut stdout, mut stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let (output, errors, status) = std::thread::scope(|scope| {
        let output = scope.spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).map(|_| bytes)
        });
        let errors = scope.spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).map(|_| bytes)
        });
        // It may end without having read everything; its status then says whether that is an error.
        let _ = stdin.write_all(input);
        drop(stdin);
        let deadline = Instant::now() + patience;
        let status = loop {
            match child.try_wait().expect("the child can be waited for") {
                Some(status) => break Some(status),
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
                None => {
                    let _ = child.kill();
                    let _ = child.wait();
                    break None;
                }
            }
        };
        let read = |thread: std::thread::ScopedJoinHandle<'_, std::io::Result<Vec<u8>>>| {
            thread.join().expect("reading does not panic").expect("a pipe can be read")
        };
        (read(output), read(errors), status)
    });
    let ok = status.is_some_and(|status| status.success());
    let (shown, errors) = (String::from_utf8_lossy(&output), String::from_utf8_lossy(&errors));
    assert!(ok, "{name}: {status:?} (none: not within {patience:?})\n{shown}\n{errors}");
    output
}

/// [`run`] for a program that only exchanges a few messages.
pub(super) fn run_short(command: &mut Command, input: &[u8]) -> Vec<u8> {
    run(command, input, PATIENCE)
}
