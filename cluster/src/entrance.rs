//! The underlay before the node is a member: its port is open, it answers questions about the genesis of the cluster, and finds out itself
//! what it is a member of. All on the thread on which the underlay runs later.

use crate::agent::{Agent, Inputs, Settings, Underlay};
use crate::error::{FoundingError, UnderlayError};
use crate::founding::{Founder, Founding};
use crate::links::{Links, Ports};
use crate::view::UnderlayMetrics;
use bifro_core::ids::NodeId;
use bifro_genesis::ClusterGenesis;
use bifro_net::links::{Certificates, Secret};
use bifro_swim::Message;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// Messages that wait for the machine.
const INBOX: usize = 8_192;
/// Questions that wait for theirs.
const QUESTIONS: usize = 64;

/// Where a node is, and whom it takes.
pub struct Place {
    /// Who this node is.
    pub id: NodeId,
    /// A random number that no other process has: tells it from one with a copy of its data directory.
    pub nonce: u64,
    /// Where it listens: a socket that is bound already.
    pub socket: UdpSocket,
    /// Where others reach it; none: where it listens.
    pub advertise: Option<SocketAddr>,
    /// Whom it asks to be let in: `host:port`. Names are looked up again and again.
    pub seeds: Vec<String>,
    /// What all nodes of the cluster know.
    pub secret: Secret,
    /// Who this node is to TLS, and whom it takes; none: it takes any certificate, and the secret has to do.
    pub certificates: Option<Certificates>,
}

/// What of a [`Place`] a member needs.
pub(crate) struct Standpoint {
    pub(crate) id: NodeId,
    pub(crate) nonce: u64,
    /// Where others reach this node.
    pub(crate) advertised: SocketAddr,
    /// Where it listens.
    pub(crate) bound: SocketAddr,
    pub(crate) seeds: Vec<String>,
    pub(crate) metrics: Arc<UnderlayMetrics>,
}

/// See the module's page. Dropping it closes the port.
pub struct Entrance {
    at: Standpoint,
    links: Links,
    messages: mpsc::Receiver<Message>,
    known: Option<oneshot::Receiver<Result<ClusterGenesis, FoundingError>>>,
    join: oneshot::Sender<(Agent, Inputs)>,
    thread: JoinHandle<()>,
}

impl Entrance {
    /// Opens it. A node that keeps nothing has no founding.
    ///
    /// # Errors
    /// The socket cannot be used, or the thread not be started.
    pub fn open(place: Place, founding: Option<Founding>) -> Result<Self, UnderlayError> {
        let bound = place.socket.local_addr()?;
        let advertised = place.advertise.unwrap_or(bound);
        let (id, nonce, seeds, metrics) = (place.id, place.nonce, place.seeds, Arc::<UnderlayMetrics>::default());
        let at = Standpoint { id, nonce, advertised, bound, seeds, metrics };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (inbox, messages) = mpsc::channel(INBOX);
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let links = {
            let _entered = runtime.enter();
            let ports = Ports { messages: inbox, questions };
            let certificates = place.certificates.as_ref();
            Links::start(id, place.socket, advertised, place.secret, certificates, ports, at.metrics.clone())?
        };
        let (tell, known) = oneshot::channel();
        let (known, founder) = match founding {
            Some(founding) => (Some(known), Some(Founder::new(&at, links.clone(), founding, tell))),
            None => (None, None),
        };
        let (join, joining) = oneshot::channel::<(Agent, Inputs)>();
        let names = at.seeds.clone();
        let thread = std::thread::Builder::new().name("cluster".to_owned()).spawn(move || {
            runtime.block_on(async move {
                match founder {
                    Some(founder) => drop(tokio::spawn(founder.run(asked))),
                    None => drop(asked),
                }
                if let Ok((mut agent, inputs)) = joining.await {
                    agent.run(names, inputs).await;
                }
            });
            runtime.shutdown_background();
        })?;
        Ok(Self { at, links, messages, known, join, thread })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.at.bound
    }

    /// Waits until the cluster is known, however long that takes; none for a node that keeps nothing.
    ///
    /// # Errors
    /// Why it never will be.
    pub fn wait(&mut self) -> Result<Option<ClusterGenesis>, FoundingError> {
        let Some(known) = self.known.take() else { return Ok(None) };
        known.blocking_recv().unwrap_or(Err(FoundingError::Ended)).map(Some)
    }

    /// The node is a member from now on.
    pub fn join(self, settings: Settings) -> Underlay {
        let (agent, inputs, handle, leave) = Agent::new(&self.at, self.links, self.messages, settings);
        // Should the thread have ended, the underlay has.
        let _ = self.join.send((agent, inputs));
        Underlay { address: self.at.bound, handle, leave: Some(leave), thread: Some(self.thread) }
    }
}

impl std::fmt::Debug for Entrance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entrance").field("address", &self.at.bound).finish_non_exhaustive()
    }
}
