//! `bifroctl node`: what an operator wants of one node of the cluster, told to the admin endpoint of any.

use super::Console;
use super::cluster::{ClusterArgs, ask, page, print};
use super::error::CtlError;
use bifro_core::ids::NodeId;
use clap::{Args, Subcommand};
use std::time::Duration;

/// From one look at a node that is being drained to the next.
const LOOK: Duration = Duration::from_millis(500);

/// Shows, drains or removes nodes.
#[derive(Debug, Args)]
pub(super) struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Show the nodes of the cluster, as `bifroctl cluster` does.
    List(ClusterArgs),
    /// Have a node give away its replicas and send its clients elsewhere, and wait until it has.
    Drain {
        #[command(flatten)]
        node: NodeOptions,
        /// Do not wait.
        #[arg(long)]
        no_wait: bool,
    },
    /// Have a node that is draining, or drained, be as any other again.
    Undrain {
        #[command(flatten)]
        node: NodeOptions,
    },
    /// Have others take the place of a node that does not come back: it is dead, or drained and then ends.
    Remove {
        /// Id of the node, as `bifroctl cluster` shows it.
        node: String,
        /// Its disk is lost for good: it is never let in again with the data it had, and ranges may be without what only it had.
        #[arg(long)]
        lost: bool,
        /// Admin endpoint of any other node: host and port.
        #[arg(long, default_value = "127.0.0.1:9091")]
        admin: String,
    },
}

#[derive(Debug, Args)]
struct NodeOptions {
    /// Id of the node, as `bifroctl cluster` shows it; without one, the node whose admin endpoint is asked.
    node: Option<String>,
    /// Admin endpoint of any node: host and port.
    #[arg(long, default_value = "127.0.0.1:9091")]
    admin: String,
}

impl NodeArgs {
    pub(super) fn run(&self, console: &mut Console<'_>) -> Result<(), CtlError> {
        match &self.command {
            NodeCommand::List(args) => args.run(console),
            NodeCommand::Drain { node, no_wait } => {
                let id = node.id()?;
                print(console, &tell(&node.admin, &id, "drain")?)?;
                if *no_wait { Ok(()) } else { watch(console, &node.admin, &id) }
            }
            NodeCommand::Undrain { node } => print(console, &tell(&node.admin, &node.id()?, "undrain")?),
            NodeCommand::Remove { node, lost, admin } => {
                let wish = if *lost { "remove?lost" } else { "remove" };
                print(console, &tell(admin, &checked(node)?, wish)?)
            }
        }
    }
}

impl NodeOptions {
    fn id(&self) -> Result<String, CtlError> {
        let alone = || CtlError::Usage("this node is alone: its configuration has no [cluster]".to_owned());
        match &self.node {
            Some(node) => checked(node),
            None => page(&self.admin)?.local.ok_or_else(alone),
        }
    }
}

/// The id as nodes write it.
pub(super) fn checked(node: &str) -> Result<String, CtlError> {
    let wrong = |_| CtlError::Usage(format!("{node:?} is no id of a node: `bifroctl cluster` shows them"));
    node.parse().map(|id: NodeId| id.to_string()).map_err(wrong)
}

fn tell(admin: &str, node: &str, wish: &str) -> Result<String, CtlError> {
    ask(admin, "POST", &format!("/cluster/nodes/{node}/{wish}"))
}

/// Shows what is left on a node until nothing is.
fn watch(console: &mut Console<'_>, admin: &str, id: &str) -> Result<(), CtlError> {
    let mut shown = None;
    loop {
        let page = page(admin)?;
        let node = page.nodes.iter().find(|node| node.id == id);
        let node = node.ok_or_else(|| CtlError::Usage(format!("{id} is not there any more")))?;
        if !["alive", "suspect"].contains(&node.status.as_str()) {
            return Err(CtlError::Usage(format!("{id} is {} and was not drained", node.status)));
        }
        if !node.draining {
            return Err(CtlError::Usage(format!("{id} is not to be drained any more")));
        }
        let left = node.load.map(|load| (load.replicas, load.connections));
        if let Some((replicas, connections)) = left.filter(|left| shown.replace(*left) != Some(*left)) {
            if (replicas, connections) == (0, 0) {
                return print(console, &format!("{id} is drained: it can be stopped, or removed\n"));
            }
            print(console, &format!("{replicas} replicas, {connections} connections\n"))?;
        }
        std::thread::sleep(LOOK);
    }
}
