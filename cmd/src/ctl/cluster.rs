//! `bifroctl cluster`: the nodes as one of them sees them.

use super::Console;
use super::error::CtlError;
use crate::admin::{ClusterPage, LoadPage, NodePage};
use bifro_core::roles::Roles;
use clap::Args;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// What is asked for.
const PAGE: &str = "/cluster?loads";
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
        let body = ask(&self.admin, "GET", PAGE)?;
        let text = if self.json { format!("{body}\n") } else { table(&read(&self.admin, &body)?) };
        print(console, &text)
    }
}

/// The nodes as the one with this admin endpoint sees them.
pub(super) fn page(admin: &str) -> Result<ClusterPage, CtlError> {
    read(admin, &ask(admin, "GET", PAGE)?)
}

fn read(admin: &str, body: &str) -> Result<ClusterPage, CtlError> {
    serde_json::from_str(body).map_err(|error| {
        let problem = format!("its answer is no list of nodes ({error})");
        CtlError::Admin { server: admin.to_owned(), problem }
    })
}

pub(super) fn print(console: &mut Console<'_>, text: &str) -> Result<(), CtlError> {
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
        &line(["NODE", "ADDRESS", "STATUS", "HEALTH", "STARTS", "SHARDS", "LEADS", "REPLICAS", "CONNECTIONS", "ROLES"]);
    for node in &page.nodes {
        let mark = if node.id == *local { "*" } else { "" };
        let load = |count: fn(&LoadPage) -> u32| {
            node.load.as_ref().map_or_else(|| "-".to_owned(), |load| count(load).to_string())
        };
        text += &line([
            &format!("{}{mark}", node.id),
            &node.address,
            if node.draining && node.status == "alive" { "draining" } else { &node.status },
            &node.health,
            &node.starts.to_string(),
            &node.shards.to_string(),
            &load(|load| load.led.into()),
            &load(|load| load.replicas.into()),
            &load(|load| load.connections),
            &roles(node),
        ]);
    }
    text
}

fn line([id, address, status, health, starts, shards, led, replicas, connections, roles]: [&str; 10]) -> String {
    format!(
        "{id:<22} {address:<22} {status:<8} {health:<8} {starts:>6} {shards:>6} {led:>5} {replicas:>8} {connections:>11}  {roles}\n"
    )
}

/// What a node does, in a word if that is everything or nothing.
fn roles(node: &NodePage) -> String {
    match node.roles.len() {
        0 => "none".to_owned(),
        all if all == Roles::NAMED.len() => "all".to_owned(),
        _ => node.roles.join(","),
    }
}

/// The body of what a node's admin endpoint answers.
pub(super) fn ask(server: &str, method: &str, path: &str) -> Result<String, CtlError> {
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
        Some("400" | "404" | "409" | "503") if method == "POST" && !body.is_empty() => {
            Err(CtlError::Usage(body.trim().to_owned()))
        }
        Some(status) => Err(refuse(format!("answers {path} with status {status}: is it an older version?"))),
        None => Err(refuse("does not speak HTTP: is it another port?".to_owned())),
    }
}
