//! Connections to other nodes: one per address at a time, made when there is something to send, proven before anything else is
//! said, dropped by QUIC when nothing was said for long.

use crate::error::UnderlayError;
use crate::frame::{self, Kind};
use crate::view::UnderlayMetrics;
use bifro_net::links::{Certificates, End, PROOF_BYTES, Secret, tls};
use bifro_swim::{Message, wire};
use bytes::Bytes;
use quinn::{Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, Incoming, TransportConfig, VarInt};
use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

/// The protocol's name and version.
const ALPN: &[u8] = b"bifro-cluster/1";
/// How long a connection may take to be made and proven.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// A connection on which nothing was said for so long is closed.
const IDLE: Duration = Duration::from_secs(30);
/// The round trip that is assumed before one was measured: nodes are near each other, and a lost packet of a handshake is not to
/// cost a second.
const INITIAL_RTT: Duration = Duration::from_millis(50);
/// How long a table may take to be sent or received.
const BULK: Duration = Duration::from_secs(10);
/// Messages that wait for a connection to be made.
const QUEUE: usize = 64;
/// Streams one peer may have open at a time.
const STREAMS: u32 = 64;
/// Bytes of the largest message: a table of [`bifro_swim::limits::MEMBERS`].
const BULK_BYTES: usize = bifro_swim::limits::MEMBERS * 2 * bifro_swim::limits::RUMOUR_BYTES;
/// Bytes of the greeting: a proof and an address.
const HELLO_BYTES: usize = 256;
/// Connections of others that have not proven themselves yet.
const STRANGERS: usize = 256;
/// Why a connection is closed: the secret was not proven.
const REFUSED: u32 = 1;

/// What goes over a connection.
struct Parcel {
    frame: Bytes,
    /// Over a stream of its own.
    bulk: bool,
}

/// Why there is no connection to a node.
enum NoLink {
    /// One end does not take the other's certificate: nothing that mends itself.
    Certificate(String),
    /// Anything else.
    Other(String),
}

impl NoLink {
    fn lost(error: &ConnectionError) -> Self {
        tls::refusal(error).map_or_else(|| Self::Other(error.to_string()), Self::Certificate)
    }
}

/// What there is to one address.
#[derive(Default)]
struct Link {
    open: Option<Connection>,
    /// A connection is being made.
    dialling: bool,
    queue: Vec<Parcel>,
}

/// See the module's page. Copies share everything.
#[derive(Clone)]
pub(crate) struct Links(Arc<Inner>);

struct Inner {
    endpoint: Endpoint,
    secret: Secret,
    /// Where others reach this node.
    advertised: SocketAddr,
    links: Mutex<HashMap<SocketAddr, Link>>,
    strangers: Arc<Semaphore>,
    inbox: mpsc::Sender<Message>,
    metrics: Arc<UnderlayMetrics>,
}

impl Links {
    /// Takes messages of others from now on. To be called on the runtime that is to do the work.
    pub(crate) fn start(
        socket: UdpSocket,
        advertised: SocketAddr,
        secret: Secret,
        certificates: Option<&Certificates>,
        inbox: mpsc::Sender<Message>,
        metrics: Arc<UnderlayMetrics>,
    ) -> Result<Self, UnderlayError> {
        let transport = Arc::new(transport());
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(tls::server(ALPN, certificates)?));
        server.transport_config(transport.clone());
        let mut client = quinn::ClientConfig::new(Arc::new(tls::client(ALPN, certificates)?));
        client.transport_config(transport);
        let runtime = Arc::new(quinn::TokioRuntime);
        let mut endpoint = Endpoint::new(EndpointConfig::default(), Some(server), socket, runtime)?;
        endpoint.set_default_client_config(client);
        let links = Mutex::new(HashMap::new());
        let strangers = Arc::new(Semaphore::new(STRANGERS));
        let inner = Inner { endpoint, secret, advertised, links, strangers, inbox, metrics };
        let links = Self(Arc::new(inner));
        tokio::spawn(links.clone().accept());
        Ok(links)
    }

    /// Sends a message, or drops it: membership says everything more than once.
    pub(crate) fn send(&self, address: SocketAddr, message: &Message) {
        let payload = wire::encode(message);
        let frame = Bytes::from(frame::wrap(Kind::Membership, &payload));
        let parcel = Parcel { frame, bulk: message.is_bulk() };
        let mut links = self.links();
        let link = links.entry(address).or_default();
        if let Some(connection) = link.open.as_ref().filter(|open| open.close_reason().is_none()) {
            self.transmit(connection.clone(), parcel);
            return;
        }
        if link.queue.len() < QUEUE {
            link.queue.push(parcel);
        } else {
            self.0.metrics.messages_dropped.add(1);
        }
        self.start_to_dial(address, link);
    }

    /// Makes another connection, to be used instead of the one there is: that may lead to a process that is gone.
    pub(crate) fn renew(&self, address: SocketAddr) {
        self.start_to_dial(address, self.links().entry(address).or_default());
    }

    fn start_to_dial(&self, address: SocketAddr, link: &mut Link) {
        if !link.dialling {
            link.dialling = true;
            tokio::spawn(self.clone().dial(address));
        }
    }

    /// Tells everybody connected that this process ends, and waits until it has been said.
    pub(crate) async fn close(&self) {
        self.0.endpoint.close(VarInt::from_u32(0), b"the node ends");
        let _ = timeout(Duration::from_secs(1), self.0.endpoint.wait_idle()).await;
    }

    fn links(&self) -> MutexGuard<'_, HashMap<SocketAddr, Link>> {
        self.0.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transmit(&self, connection: Connection, parcel: Parcel) {
        let metrics = self.0.metrics.clone();
        metrics.messages_sent.add(1);
        metrics.sent_bytes.add(parcel.frame.len() as u64);
        if !parcel.bulk {
            if connection.send_datagram(parcel.frame).is_err() {
                metrics.messages_dropped.add(1);
            }
            return;
        }
        tokio::spawn(async move {
            let sent = timeout(BULK, async {
                let mut stream = connection.open_uni().await.ok()?;
                stream.write_all(&parcel.frame).await.ok()?;
                stream.finish().ok()
            });
            if !matches!(sent.await, Ok(Some(()))) {
                metrics.messages_dropped.add(1);
            }
        });
    }

    async fn dial(self, address: SocketAddr) {
        let made = timeout(HANDSHAKE, self.connect(address));
        match made.await.unwrap_or_else(|_| Err(NoLink::Other("no answer".to_owned()))) {
            Ok(connection) => {
                self.register(address, &connection);
                self.receive(address, connection).await;
            }
            Err(problem) => {
                self.0.metrics.connects_failed.add(1);
                match problem {
                    NoLink::Certificate(problem) => tracing::warn!(%address, problem, "no connection to another node"),
                    NoLink::Other(problem) => tracing::debug!(%address, problem, "no connection to another node"),
                }
                let mut links = self.links();
                let Some(link) = links.get_mut(&address) else { return };
                link.dialling = false;
                self.0.metrics.messages_dropped.add(link.queue.len() as u64);
                link.queue.clear();
                if link.open.is_none() {
                    links.remove(&address);
                }
            }
        }
    }

    async fn connect(&self, address: SocketAddr) -> Result<Connection, NoLink> {
        let connecting = self.0.endpoint.connect(address, tls::SERVER_NAME);
        let connecting = connecting.map_err(|error| NoLink::Other(error.to_string()))?;
        let connection = connecting.await.map_err(|error| NoLink::lost(&error))?;
        match self.greet(&connection).await {
            Ok(()) => Ok(connection),
            // Whoever was called judges the caller's certificate when the caller has finished already.
            Err(problem) => Err(match connection.close_reason().as_ref().and_then(tls::refusal) {
                Some(refusal) => NoLink::Certificate(refusal),
                None => NoLink::Other(problem),
            }),
        }
    }

    /// Proves the secret to whom this node has called, and sees it proven.
    async fn greet(&self, connection: &Connection) -> Result<(), String> {
        const UNPROVEN: &str = "it does not know this cluster's secret, or not the same";
        let (mut send, mut receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
        let hello = self.hello(connection, End::Dialler).ok_or("the connection is gone")?;
        send.write_all(&hello).await.map_err(|error| error.to_string())?;
        send.finish().map_err(|error| error.to_string())?;
        let answer = receive.read_to_end(HELLO_BYTES).await.map_err(|error| format!("{UNPROVEN} ({error})"))?;
        self.check(connection, End::Acceptor, &answer).map(|_| ()).ok_or_else(|| UNPROVEN.to_owned())
    }

    fn hello(&self, connection: &Connection, end: End) -> Option<Vec<u8>> {
        let mut payload = self.0.secret.proof(end, exporter(connection))?.to_vec();
        payload.extend(self.0.advertised.to_string().as_bytes());
        Some(frame::wrap(Kind::Hello, &payload))
    }

    /// Where the peer says that it listens, if it knows the secret.
    fn check(&self, connection: &Connection, end: End, hello: &[u8]) -> Option<SocketAddr> {
        let (proof, address) = frame::unwrap(Kind::Hello, hello)?.split_at_checked(PROOF_BYTES)?;
        let address = std::str::from_utf8(address).ok()?.parse().ok()?;
        self.0.secret.verify(end, proof, exporter(connection)).then_some(address)
    }

    async fn accept(self) {
        while let Some(incoming) = self.0.endpoint.accept().await {
            let Ok(stranger) = self.0.strangers.clone().try_acquire_owned() else {
                incoming.refuse();
                continue;
            };
            let links = self.clone();
            tokio::spawn(async move {
                let welcomed = timeout(HANDSHAKE, links.welcome(incoming)).await;
                drop(stranger);
                if let Ok(Some((address, connection))) = welcomed {
                    links.register(address, &connection);
                    links.receive(address, connection).await;
                }
            });
        }
    }

    /// Sees the secret proven by whoever has called, and proves it.
    async fn welcome(&self, incoming: Incoming) -> Option<(SocketAddr, Connection)> {
        let peer = incoming.remote_address();
        let connection = match incoming.await {
            Ok(connection) => connection,
            Err(error) => {
                let problem = tls::refusal(&error)?;
                self.0.metrics.handshakes_refused.add(1);
                tracing::warn!(%peer, problem, "a node of another cluster, or a stranger, was refused");
                return None;
            }
        };
        let (mut send, mut receive) = connection.accept_bi().await.ok()?;
        let hello = receive.read_to_end(HELLO_BYTES).await.unwrap_or_default();
        let Some(address) = self.check(&connection, End::Dialler, &hello) else {
            self.0.metrics.handshakes_refused.add(1);
            tracing::warn!(%peer, "a node of another cluster, or a stranger, was refused: it does not know the secret in cluster.secret_file");
            connection.close(VarInt::from_u32(REFUSED), b"the cluster's secret was not proven");
            return None;
        };
        send.write_all(&self.hello(&connection, End::Acceptor)?).await.ok()?;
        send.finish().ok()?;
        Some((address, connection))
    }

    /// Uses this connection from now on, first for what waits.
    fn register(&self, address: SocketAddr, connection: &Connection) {
        self.0.metrics.connections.add(1);
        let mut links = self.links();
        let link = links.entry(address).or_default();
        link.open = Some(connection.clone());
        link.dialling = false;
        for parcel in link.queue.drain(..) {
            self.transmit(connection.clone(), parcel);
        }
    }

    /// Takes what comes until the connection is closed.
    async fn receive(&self, address: SocketAddr, connection: Connection) {
        loop {
            tokio::select! {
                datagram = connection.read_datagram() => match datagram {
                    Ok(frame) => self.take(&frame),
                    Err(_) => break,
                },
                stream = connection.accept_uni() => match stream {
                    Ok(mut stream) => {
                        let links = self.clone();
                        tokio::spawn(async move {
                            if let Ok(Ok(frame)) = timeout(BULK, stream.read_to_end(BULK_BYTES)).await {
                                links.take(&frame);
                            }
                        });
                    }
                    Err(_) => break,
                },
            }
        }
        self.0.metrics.connections.sub(1);
        let mut links = self.links();
        let ours = |open: &Connection| open.stable_id() == connection.stable_id();
        if let Some(link) = links.get_mut(&address)
            && link.open.as_ref().is_some_and(ours)
        {
            link.open = None;
            if !link.dialling {
                links.remove(&address);
            }
        }
    }

    fn take(&self, frame: &[u8]) {
        let metrics = &self.0.metrics;
        let message = frame::unwrap(Kind::Membership, frame).and_then(|payload| wire::decode(payload).ok());
        let Some(message) = message else {
            metrics.messages_malformed.add(1);
            return;
        };
        metrics.messages_received.add(1);
        if self.0.inbox.try_send(message).is_err() {
            metrics.messages_dropped.add(1);
        }
    }
}

/// What [`Secret`] asks of a TLS session.
fn exporter(connection: &Connection) -> impl FnOnce(&mut [u8], &[u8], &[u8]) -> bool {
    |output, label, context| connection.export_keying_material(output, label, context).is_ok()
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE.as_millis() as u32))))
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .datagram_receive_buffer_size(Some(1 << 20))
        .datagram_send_buffer_size(1 << 20);
    transport
}
