//! `bifroctl cluster` and `bifroctl node`: the nodes as one of them sees them, and what an operator knows better.

use super::Console;
use super::error::CtlError;
use crate::admin::ClusterPage;
use bifro_core::ids::NodeId;
use clap::{Args, Subcommand};
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of the longest answer.
const ANSWER_BYTES: u64 = 16 << 20;

/// Shows the nodes of the cluster.
#[derive(Debug, Args)]
pub(super) struct ClusterArgs {
    /// Admin endpoint of any node: host and port.
    #[arg(long, default_value = "127.0.0.1:9091")]
    admin: String,
    /// Print what the node answered, as JSON.
    #[arg(long)]
    json: bool,
}

/// Tells the cluster about one of its nodes.
#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// A dead node does not come back: it is not asked for any more.
    Forget {
        /// Id of the node, as `bifroctl cluster` shows it.
        node: String,
        /// Admin endpoint of any node that lives: host and port.
        #[arg(long, default_value = "127.0.0.1:9091")]
        admin: String,
    },
}

impl ClusterArgs {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<(), CtlError> {
        let body = ask(&self.admin, "GET", "/cluster")?;
        let page = || serde_json::from_str(&body).map_err(|error| format!("its answer is no list of nodes ({error})"));
        let refuse = |problem| CtlError::Admin { server: self.admin.clone(), problem };
        let text = if self.json { format!("{body}\n") } else { table(&page().map_err(refuse)?) };
        print(console, &text)
    }
}

impl NodeArgs {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<(), CtlError> {
        let NodeCommand::Forget { node, admin } = &self.command;
        if node.parse::<NodeId>().is_err() {
            return Err(CtlError::Usage(format!("{node:?} is no id of a node: `bifroctl cluster` shows them")));
        }
        let told = ask(admin, "POST", &format!("/cluster/forget/{node}"))?;
        print(console, &told)
    }
}

fn print(console: &mut Console<'_>, text: &str) -> Result<(), CtlError> {
    console.output.write_all(text.as_bytes()).map_err(CtlError::output)
}

fn table(page: &ClusterPage) -> String {
    let Some(local) = &page.local else {
        return "this node is alone: its configuration has no [cluster]\n".to_owned();
    };
    let mut text = match &page.cluster {
        Some(cluster) => format!("cluster {cluster}\n"),
        None => String::new(),
    };
    text +=
        &format!("{:<22} {:<28} {:<8} {:<9} {:>6} {:>7}\n", "NODE", "ADDRESS", "STATUS", "HEALTH", "STARTS", "SHARDS");
    for node in &page.nodes {
        let mark = if node.id == *local { "*" } else { "" };
        let id = format!("{}{mark}", node.id);
        let line = format!(
            "{id:<22} {:<28} {:<8} {:<9} {:>6} {:>7}\n",
            node.address, node.status, node.health, node.starts, node.shards
        );
        text.push_str(&line);
    }
    text
}

/// The body of what a node's admin endpoint answers.
fn ask(server: &str, method: &str, path: &str) -> Result<String, CtlError> {
    let refuse = |problem: String| CtlError::Admin { server: server.to_owned(), problem };
    let address = server
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| refuse("is no host and port that can be looked up".to_owned()))?;
    let connect = |source| CtlError::Connect { server: server.to_owned(), source };
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(connect)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(connect)?;
    let request =
        format!("{method} {path} HTTP/1.0\r\nHost: {server}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    stream
        .write_all(request.as_bytes())
        .and_then(|()| stream.take(ANSWER_BYTES).read_to_string(&mut answer))
        .map_err(|error| refuse(format!("does not answer ({error})")))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        Some("404") if method == "POST" && !body.is_empty() => Err(CtlError::Usage(body.trim().to_owned())),
        Some(status) => Err(refuse(format!("answers {path} with status {status}: is it an older version?"))),
        None => Err(refuse("does not speak HTTP: is it another port?".to_owned())),
    }
}
