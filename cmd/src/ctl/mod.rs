//! `bifroctl`, the operator's tool: credential files, certificates of nodes, the cluster, and a first message without other tools.
//!
//! Exit codes: 0 done, 1 failed (the reason is on standard error), 2 wrong usage. Secrets are never written to standard output or
//! error.

mod certs;
mod cluster;
mod connection;
mod credential_file;
mod error;
mod node;
mod options;
mod passwd;
mod publish;
mod range;
mod service;
mod subscribe;
mod tls;

#[cfg(test)]
mod tests;

pub use self::error::CtlError;

use clap::{Parser, Subcommand};
use std::fmt;
use std::io::{self, Read, Write};
use std::process::ExitCode;

/// Manages credential files, certificates and nodes of bifro-uring, and speaks MQTT with it.
#[derive(Debug, Parser)]
#[command(name = "bifroctl", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Change or check a file of passwords or SCRAM credentials.
    Passwd(passwd::PasswdArgs),
    /// Make certificates for the nodes of a cluster.
    Certs(certs::CertsArgs),
    /// Show the nodes of the cluster.
    Cluster(cluster::ClusterArgs),
    /// Drain a node, or remove it from the cluster.
    Node(node::NodeArgs),
    /// Show the ranges, have one led by another node, or recover what is left of it.
    Range(range::RangeArgs),
    /// Show what each node does.
    Service(service::ServiceArgs),
    /// Publish messages.
    Pub(publish::PublishArgs),
    /// Subscribe, and print what comes.
    Sub(subscribe::SubscribeArgs),
}

/// Where the tool reads and writes; the process's streams, or a test's.
pub struct Console<'a> {
    /// Standard input.
    pub input: &'a mut dyn Read,
    /// Standard output.
    pub output: &'a mut dyn Write,
    /// Standard error.
    pub notes: &'a mut dyn Write,
    /// Asks for a password on the terminal.
    pub prompt: &'a mut dyn FnMut(&str) -> io::Result<String>,
}

impl fmt::Debug for Console<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Console")
    }
}

impl Cli {
    /// Does what the command line asks for.
    ///
    /// # Errors
    /// [`CtlError`]: what happened, where, and what to do.
    pub fn run(&self, console: &mut Console<'_>) -> Result<(), CtlError> {
        match &self.command {
            Command::Passwd(args) => args.run(console),
            Command::Certs(args) => args.run(console),
            Command::Cluster(args) => args.run(console),
            Command::Node(args) => args.run(console),
            Command::Range(args) => args.run(console),
            Command::Service(args) => args.run(console),
            Command::Pub(args) => args.run(console),
            Command::Sub(args) => args.run(console),
        }
    }
}

/// The process: parses the command line, runs it on the process's streams, and reports.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let (mut input, mut output, mut notes) = (io::stdin().lock(), io::stdout().lock(), io::stderr());
    let mut prompt = |text: &str| rpassword::prompt_password(text);
    let mut console = Console { input: &mut input, output: &mut output, notes: &mut notes, prompt: &mut prompt };
    match cli.run(&mut console) {
        Ok(()) | Err(CtlError::OutputClosed) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is gone as well, the exit code has to do.
            let _ = writeln!(notes, "bifroctl: {error}");
            ExitCode::FAILURE
        }
    }
}
