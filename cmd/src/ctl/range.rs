//! `bifroctl range`: the ranges, who leads them, and who has their replicas; told by the admin endpoint of any node.

use super::Console;
use super::cluster::{ask, print};
use super::error::CtlError;
use super::node::checked;
use crate::admin::{RangePage, RangesPage};
use bifro_core::ids::{RangeId, RangeKind};
use clap::{Args, Subcommand, ValueEnum};

const PAGE: &str = "/ranges";

/// Shows the ranges, has them led by other nodes, and recovers what is left of them.
#[derive(Debug, Args)]
pub(super) struct RangeArgs {
    #[command(subcommand)]
    command: RangeCommand,
}

#[derive(Debug, Subcommand)]
enum RangeCommand {
    /// Show all ranges: who leads them, who votes, how they are.
    List {
        /// Only those of which this node has a replica.
        #[arg(long)]
        node: Option<String>,
        /// Only those of this kind.
        #[arg(long, value_enum)]
        kind: Option<Kind>,
        #[command(flatten)]
        from: Endpoint,
    },
    /// Show one range with its replicas.
    Show {
        /// As `bifroctl range list` names it: inbox:7.
        range: String,
        #[command(flatten)]
        from: Endpoint,
    },
    /// Have a range led by another of its voters. It stays so until a node comes or goes.
    Lead {
        /// As `bifroctl range list` names it: inbox:7.
        range: String,
        /// Id of the node, as `bifroctl cluster` shows it.
        #[arg(long)]
        node: String,
        /// Admin endpoint of any node: host and port.
        #[arg(long, default_value = "127.0.0.1:9091")]
        admin: String,
    },
    /// Have a range go on without a majority of its replicas, which is lost for good; with the newest that is left. The nodes that had the
    /// others must have been removed as lost before.
    Recover {
        /// As `bifroctl range list` names it: inbox:7.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        range: Option<String>,
        /// All ranges that have lost their majority.
        #[arg(long)]
        all: bool,
        /// What was acknowledged and only the lost replicas had is lost.
        #[arg(long, required = true)]
        accept_loss: bool,
        /// Admin endpoint of any node: host and port.
        #[arg(long, default_value = "127.0.0.1:9091")]
        admin: String,
    },
}

/// What ranges are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Persistent sessions.
    Inbox,
    /// Retained messages.
    Retain,
}

#[derive(Debug, Args)]
struct Endpoint {
    /// Admin endpoint of any node: host and port.
    #[arg(long, default_value = "127.0.0.1:9091")]
    admin: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl RangeArgs {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<(), CtlError> {
        match &self.command {
            RangeCommand::List { node, kind, from } => {
                let node = node.as_deref().map(checked).transpose()?;
                let mut page = from.page()?;
                page.ranges.retain(|range| {
                    let is_of_kind = kind.is_none_or(|kind| range.kind == kind.name());
                    is_of_kind && node.as_ref().is_none_or(|node| range.replicas.iter().any(|one| one.node == *node))
                });
                from.print(console, &page, table)
            }
            RangeCommand::Show { range, from } => {
                let name = checked_range(range)?;
                let mut page = from.page()?;
                page.ranges.retain(|range| range.range == name);
                if page.ranges.is_empty() {
                    let silent = if page.silent.is_empty() { "" } else { " that answers" };
                    return Err(CtlError::Usage(format!("no node{silent} has a replica of {name}")));
                }
                from.print(console, &page, details)
            }
            RangeCommand::Lead { range, node, admin } => {
                let path = format!("/ranges/{}/lead/{}", checked_range(range)?, checked(node)?);
                print(console, &ask(admin, "POST", &path)?)
            }
            RangeCommand::Recover { range, admin, .. } => {
                let range = range.as_deref().map_or(Ok("all".to_owned()), checked_range)?;
                print(console, &ask(admin, "POST", &format!("/ranges/{range}/recover?accept-loss"))?)
            }
        }
    }
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Inbox => RangeKind::Inbox.name(),
            Self::Retain => RangeKind::Retain.name(),
        }
    }
}

impl Endpoint {
    fn page(&self) -> Result<RangesPage, CtlError> {
        let body = ask(&self.admin, "GET", PAGE)?;
        serde_json::from_str(&body).map_err(|error| {
            let problem = format!("its answer is no list of ranges ({error})");
            CtlError::Admin { server: self.admin.clone(), problem }
        })
    }

    fn print(
        &self,
        console: &mut Console<'_>,
        page: &RangesPage,
        text: fn(&RangesPage) -> String,
    ) -> Result<(), CtlError> {
        let shown = if self.json {
            serde_json::to_string(page).expect("strings and numbers are JSON") + "\n"
        } else {
            let silent: String = page.silent.iter().map(|node| format!("{node} does not answer\n")).collect();
            text(page) + &silent
        };
        print(console, &shown)
    }
}

/// The name as nodes write it.
fn checked_range(range: &str) -> Result<String, CtlError> {
    let wrong = |_| CtlError::Usage(format!("{range:?} is no range: `bifroctl range list` shows them"));
    range.parse().map(|range: RangeId| range.to_string()).map_err(wrong)
}

fn table(page: &RangesPage) -> String {
    let mut text = line(["RANGE", "LEADER", "TERM", "COMMITTED", "SESSIONS", "MESSAGES", "VOTERS"], "HEALTH");
    for range in &page.ranges {
        text += &line(
            [
                &range.range,
                range.leader.as_deref().unwrap_or("-"),
                &range.term.to_string(),
                &range.committed.to_string(),
                &count(range.sessions),
                &count(range.messages),
                &voters(range),
            ],
            &range.health,
        );
    }
    text
}

fn count(of: Option<u64>) -> String {
    of.map_or_else(|| "-".to_owned(), |count| count.to_string())
}

/// Who votes, and who learns.
fn voters(range: &RangePage) -> String {
    let learners: String = range.learners.iter().map(|node| format!(",+{node}")).collect();
    range.voters.join(",") + &learners
}

fn line([range, leader, term, committed, sessions, messages, voters]: [&str; 7], health: &str) -> String {
    format!("{range:<12} {leader:<22} {term:>6} {committed:>10} {sessions:>8} {messages:>9}  {voters:<65} {health}\n")
}

fn details(page: &RangesPage) -> String {
    let mut text = String::new();
    for range in &page.ranges {
        text += &format!(
            "range      {}\nleader     {}\nterm       {}\ncommitted  {}\nvoters     {}\n",
            range.range,
            range.leader.as_deref().unwrap_or("nobody"),
            range.term,
            range.committed,
            range.voters.join(" ")
        );
        for (what, nodes) in [("leaving", &range.outgoing), ("learners", &range.learners)] {
            if !nodes.is_empty() {
                text += &format!("{what:<10} {}\n", nodes.join(" "));
            }
        }
        if let (Some(messages), Some(bytes)) = (range.messages, range.bytes) {
            let sessions = range.sessions.map_or_else(String::new, |sessions| format!("{sessions} sessions, "));
            text += &format!("holds      {sessions}{messages} messages of {bytes} bytes\n");
        }
        text += &format!("health     {}\n\n", range.health);
        text += &replica_line(["REPLICA", "ROLE", "TERM", "LAST", "COMMITTED", "APPLIED", "LOG", "BEHIND"]);
        for one in &range.replicas {
            text += &replica_line([
                &one.node,
                &one.role,
                &one.term.to_string(),
                &format!("{}.{}", one.last.0, one.last.1),
                &one.committed.to_string(),
                &one.applied.to_string(),
                &one.log_entries.to_string(),
                &count(one.behind),
            ]);
        }
    }
    text
}

fn replica_line([node, role, term, last, committed, applied, log, behind]: [&str; 8]) -> String {
    format!("{node:<22} {role:<8} {term:>6} {last:>14} {committed:>10} {applied:>10} {log:>8} {behind:>8}\n")
}
