//! `bifroctl cluster`: the nodes as one of them sees them.

use super::Console;
use super::error::CtlError;
use crate::admin::ClusterPage;
use clap::Args;
use std::io::{self, Read, Write};
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

impl ClusterArgs {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<(), CtlError> {
        let body = get(&self.admin, "/cluster")?;
        let text = if self.json { format!("{body}\n") } else { table(&self.parse(&body)?) };
        match console.output.write_all(text.as_bytes()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(CtlError::OutputClosed),
            Err(error) => Err(CtlError::Output(error)),
        }
    }

    fn parse(&self, body: &str) -> Result<ClusterPage, CtlError> {
        serde_json::from_str(body)
            .map_err(|error| self.unexpected(&format!("its answer is no list of nodes ({error})")))
    }

    fn unexpected(&self, problem: &str) -> CtlError {
        CtlError::Admin { server: self.admin.clone(), problem: problem.to_owned() }
    }
}

fn table(page: &ClusterPage) -> String {
    let Some(local) = &page.local else {
        return "this node is alone: its configuration has no [cluster]\n".to_owned();
    };
    let mut text =
        format!("{:<22} {:<28} {:<8} {:<9} {:>6} {:>7}\n", "NODE", "ADDRESS", "STATUS", "HEALTH", "STARTS", "SHARDS");
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
fn get(server: &str, path: &str) -> Result<String, CtlError> {
    let refuse = |problem: String| CtlError::Admin { server: server.to_owned(), problem };
    let address = server
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| refuse("is no host and port that can be looked up".to_owned()))?;
    let connect = |source| CtlError::Connect { server: server.to_owned(), source };
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(connect)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(connect)?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    stream
        .write_all(request.as_bytes())
        .and_then(|()| stream.take(ANSWER_BYTES).read_to_string(&mut answer))
        .map_err(|error| refuse(format!("does not answer ({error})")))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        Some(status) => Err(refuse(format!("answers {path} with status {status}: is it an older version?"))),
        None => Err(refuse("does not speak HTTP: is it another port?".to_owned())),
    }
}
