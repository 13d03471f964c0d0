//! `bifroctl service`: what each node of the cluster does, and how far; from what it says of itself.

use super::Console;
use super::cluster::{page, print};
use super::error::CtlError;
use crate::admin::{LoadPage, NodePage};
use bifro_core::roles::Roles;
use clap::{Args, Subcommand};
use serde::Serialize;

/// Shows what each node does.
#[derive(Debug, Args)]
pub(super) struct ServiceArgs {
    #[command(subcommand)]
    command: ServiceCommand,
}

#[derive(Debug, Subcommand)]
enum ServiceCommand {
    /// Show the services of all nodes that are not gone: those of their roles, and in which state each is.
    List {
        /// Admin endpoint of any node: host and port.
        #[arg(long, default_value = "127.0.0.1:9091")]
        admin: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// One service of one node.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Row<'a> {
    node: &'a str,
    status: &'a str,
    service: &'static str,
    state: String,
}

impl ServiceArgs {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<(), CtlError> {
        let ServiceCommand::List { admin, json } = &self.command;
        let page = page(admin)?;
        if page.local.is_none() {
            let alone = "this node is alone and does everything: its configuration has no [cluster]";
            return Err(CtlError::Usage(alone.to_owned()));
        }
        let nodes = page.nodes.iter().filter(|node| !["left", "removed", "lost"].contains(&node.status.as_str()));
        let rows: Vec<Row<'_>> = nodes.flat_map(rows).collect();
        let text = if *json {
            serde_json::to_string(&rows).expect("strings are JSON") + "\n"
        } else {
            let header = line("NODE", "STATUS", "SERVICE", "STATE");
            header + &rows.iter().map(|row| line(row.node, row.status, row.service, &row.state)).collect::<String>()
        };
        print(console, &text)
    }
}

fn line(node: &str, status: &str, service: &str, state: &str) -> String {
    format!("{node:<22} {status:<8} {service:<12} {state}\n")
}

fn rows(node: &NodePage) -> Vec<Row<'_>> {
    let status = match node.status.as_str() {
        "alive" if node.draining => "draining",
        "alive" if node.health != "well" => &node.health,
        status => status,
    };
    let services = Roles::NAMED.into_iter().map(|(service, _)| Row {
        node: &node.id,
        status,
        service,
        state: state(node, service),
    });
    services.collect()
}

/// What is known of a service. A node that does not answer may be doing anything.
fn state(node: &NodePage, service: &str) -> String {
    if !node.roles.iter().any(|role| role == service) {
        return "off".to_owned();
    }
    if !["alive", "suspect"].contains(&node.status.as_str()) {
        return "down".to_owned();
    }
    let Some(load) = &node.load else { return "no answer".to_owned() };
    let LoadPage { connections, replicas, led, listeners, retained } = load;
    match service {
        "mqtt" if node.draining => format!("takes no clients, connections {connections}"),
        "mqtt" => format!("listeners {listeners}, connections {connections}"),
        "inbox" if node.draining => format!("takes no replicas, has {replicas}, leads {led}"),
        "inbox" => format!("replicas {replicas}, leads {led}"),
        "retain" => format!("messages {retained}"),
        _ => "on".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(status: &str, load: Option<LoadPage>) -> NodePage {
        NodePage {
            id: "n7".to_owned(),
            address: "127.0.0.1:7946".to_owned(),
            status: status.to_owned(),
            health: "well".to_owned(),
            starts: 1,
            shards: 1,
            roles: ["mqtt", "inbox", "api"].map(str::to_owned).to_vec(),
            draining: false,
            load,
        }
    }

    fn states(node: &NodePage) -> Vec<String> {
        rows(node).into_iter().map(|row| row.state).collect()
    }

    #[test]
    fn each_role_has_the_state_that_its_node_tells_of() {
        let load = Some(LoadPage { connections: 5, replicas: 8, led: 3, listeners: 2, retained: 9 });
        let all = node("alive", load);
        assert_eq!(states(&all), ["listeners 2, connections 5", "replicas 8, leads 3", "off", "off", "on"]);
        let going = NodePage { draining: true, ..node("alive", load) };
        assert_eq!(rows(&going)[0].status, "draining");
        assert_eq!(states(&going)[..2], ["takes no clients, connections 5", "takes no replicas, has 8, leads 3"]);
        assert_eq!(states(&node("suspect", None))[0], "no answer");
        assert_eq!(states(&node("dead", None)), ["down", "down", "off", "off", "down"]);
    }
}
