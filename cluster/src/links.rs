//! Connections to other nodes: one per address at a time, made when there is something to send, proven before anything else is
//! said, dropped by QUIC when nothing was said for long.

use crate::error::UnderlayError;
use crate::frame::{self, Kind};
use crate::hello::{Hello, Relation, Standing};
use crate::view::UnderlayMetrics;
use bifro_core::ids::{ClusterId, NodeId};
use bifro_genesis::{Answer, Question, Reply};
use bifro_net::links::{Certificates, End, Secret, tls};
use bifro_swim::{Message, wire};
use bytes::Bytes;
use quinn::{Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout, Incoming, TransportConfig, VarInt};
use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

/// The protocol's name and version.
const ALPN: &[u8] = b"bifro-cluster/3";
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
/// How long a connection for a question may take: it is made anew with the next.
const QUESTION_DIAL: Duration = Duration::from_secs(1);
/// How long the answer to it may take: it may have to be written to a slow disk first.
const QUESTION: Duration = Duration::from_secs(10);
/// Other clusters that are told of, each once.
const STRANGERS_TOLD: usize = 64;
/// Bytes of a question or a reply.
const QUESTION_BYTES: usize = bifro_genesis::limits::MESSAGE_BYTES + frame::HEADER_BYTES;
/// Bytes of the greeting: a proof, a cluster and an address.
const HELLO_BYTES: usize = 256;
/// Connections of others that have not proven themselves yet.
const STRANGERS: usize = 256;
/// Why a connection is closed: the secret was not proven.
const REFUSED: u32 = 1;
/// Why a connection is closed: the ends are of two clusters.
const STRANGER: u32 = 2;

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
    /// Who answers is no member of this cluster; whatever connection there was before led to another process.
    NoMember(&'static str),
    /// Anything else.
    Other(String),
}

impl NoLink {
    fn into_text(self) -> String {
        match self {
            Self::Certificate(problem) | Self::Other(problem) => problem,
            Self::NoMember(problem) => problem.to_owned(),
        }
    }

    fn lost(error: &ConnectionError) -> Self {
        tls::refusal(error).map_or_else(|| Self::Other(error.to_string()), Self::Certificate)
    }
}

/// Who has called.
enum Guest {
    Member(SocketAddr, Connection),
    Asker(Connection),
}

/// A question of another node.
pub(crate) struct Asked {
    pub(crate) question: Question,
    pub(crate) answer: oneshot::Sender<Reply>,
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
    me: NodeId,
    secret: Secret,
    /// Where others reach this node.
    advertised: SocketAddr,
    standing: Mutex<Standing>,
    links: Mutex<HashMap<SocketAddr, Link>>,
    strangers: Arc<Semaphore>,
    told: Mutex<HashSet<ClusterId>>,
    ports: Ports,
    metrics: Arc<UnderlayMetrics>,
}

/// Where what comes is taken.
pub(crate) struct Ports {
    /// Messages of members.
    pub(crate) messages: mpsc::Sender<Message>,
    /// Questions about the genesis. Closed: this node keeps nothing.
    pub(crate) questions: mpsc::Sender<Asked>,
}

impl Links {
    /// Takes questions of others from now on, and messages from when this node is a [member](Self::enter). To be called on the runtime
    /// that is to do the work.
    pub(crate) fn start(
        me: NodeId,
        socket: UdpSocket,
        advertised: SocketAddr,
        secret: Secret,
        certificates: Option<&Certificates>,
        ports: Ports,
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
        let links = Self(Arc::new(Inner {
            endpoint,
            me,
            secret,
            advertised,
            standing: Mutex::new(Standing::Asks),
            links: Mutex::default(),
            strangers: Arc::new(Semaphore::new(STRANGERS)),
            told: Mutex::default(),
            ports,
            metrics,
        }));
        tokio::spawn(links.clone().accept());
        Ok(links)
    }

    /// This node is a member from now on.
    pub(crate) fn enter(&self, standing: Standing) {
        *self.0.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    fn standing(&self) -> Standing {
        *self.0.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of which cluster this node is, if of one that is known.
    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        match self.standing() {
            Standing::Of(cluster) => Some(cluster),
            Standing::Asks | Standing::Any => None,
        }
    }

    /// Asks the node that listens here, over a connection of its own: one that was there before might lead to a process that is gone.
    ///
    /// # Errors
    /// Why there is no reply.
    pub(crate) async fn ask(&self, address: SocketAddr, question: &Question) -> Result<Reply, String> {
        let made = timeout(QUESTION_DIAL, self.connect(address, Standing::Asks)).await;
        let connection = match made {
            Ok(Ok((connection, _))) => connection,
            Ok(Err(problem)) => {
                self.0.metrics.connects_failed.add(1);
                return Err(problem.into_text());
            }
            Err(_) => {
                self.0.metrics.connects_failed.add(1);
                return Err("no answer".to_owned());
            }
        };
        let frame = frame::wrap(Kind::Question, &bifro_genesis::wire::encode_question(question));
        let exchange = timeout(QUESTION, async {
            let (mut send, mut receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
            send.write_all(&frame).await.map_err(|error| error.to_string())?;
            send.finish().map_err(|error| error.to_string())?;
            receive.read_to_end(QUESTION_BYTES).await.map_err(|error| error.to_string())
        });
        let reply = exchange.await.unwrap_or_else(|_| Err("no answer".to_owned()));
        connection.close(VarInt::from_u32(0), b"answered");
        let payload = reply?;
        let payload =
            frame::unwrap(Kind::Reply, &payload).ok_or("its answer cannot be read: is it another version?")?;
        bifro_genesis::wire::decode_reply(payload).map_err(|error| error.to_string())
    }

    /// Answers whoever is no member, or asks although it is one.
    async fn answer(&self, connection: Connection) {
        while let Ok((mut send, mut receive)) = connection.accept_bi().await {
            let frame = receive.read_to_end(QUESTION_BYTES).await.unwrap_or_default();
            let question = frame::unwrap(Kind::Question, &frame);
            let Some(question) = question.and_then(|payload| bifro_genesis::wire::decode_question(payload).ok()) else {
                self.0.metrics.messages_malformed.add(1);
                return;
            };
            let (answer, answered) = oneshot::channel();
            let _ = self.0.ports.questions.send(Asked { question, answer }).await;
            let no_vote = || Reply { from: self.0.me, answer: Answer::NoVote };
            let reply = answered.await.unwrap_or_else(|_| no_vote());
            let frame = frame::wrap(Kind::Reply, &bifro_genesis::wire::encode_reply(&reply));
            if send.write_all(&frame).await.is_err() || send.finish().is_err() {
                return;
            }
        }
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
        let made = timeout(HANDSHAKE, self.connect_to_member(address));
        match made.await.unwrap_or_else(|_| Err(NoLink::Other("no answer".to_owned()))) {
            Ok(connection) => {
                self.register(address, &connection);
                self.receive(address, connection).await;
            }
            Err(problem) => {
                self.0.metrics.connects_failed.add(1);
                let is_replaced = matches!(problem, NoLink::NoMember(_));
                let is_certificate = matches!(problem, NoLink::Certificate(_));
                let problem = problem.into_text();
                if is_certificate {
                    tracing::warn!(%address, problem, "no connection to another node");
                } else {
                    tracing::debug!(%address, problem, "no connection to another node");
                }
                let mut links = self.links();
                let Some(link) = links.get_mut(&address) else { return };
                if is_replaced {
                    link.open = None;
                }
                link.dialling = false;
                self.0.metrics.messages_dropped.add(link.queue.len() as u64);
                link.queue.clear();
                if link.open.is_none() {
                    links.remove(&address);
                }
            }
        }
    }

    async fn connect_to_member(&self, address: SocketAddr) -> Result<Connection, NoLink> {
        let ours = self.standing();
        let (connection, hello) = self.connect(address, ours).await?;
        match self.meet(address, ours, hello.standing) {
            Relation::Members => Ok(connection),
            Relation::Question => {
                connection.close(VarInt::from_u32(0), b"no member yet");
                Err(NoLink::NoMember("it does not know its cluster yet"))
            }
            Relation::Strangers(..) => {
                connection.close(VarInt::from_u32(STRANGER), b"another cluster");
                Err(NoLink::NoMember("it is of another cluster"))
            }
        }
    }

    /// What the ends are to each other. Strangers are told of once, and a node that keeps nothing is from now on of the cluster it meets.
    fn meet(&self, peer: SocketAddr, ours: Standing, theirs: Standing) -> Relation {
        let relation = ours.relation(theirs);
        match relation {
            Relation::Strangers(ours, theirs) => {
                self.0.metrics.handshakes_refused.add(1);
                let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
                if told.len() < STRANGERS_TOLD && told.insert(theirs) {
                    tracing::warn!(
                        %peer, %ours, %theirs,
                        "a node of another cluster was refused: if it is to be part of this one, start it with an empty data_dir; \
                         if not, is one of its addresses in the seeds of the other cluster?"
                    );
                }
            }
            Relation::Members if ours == Standing::Any => self.enter(theirs),
            Relation::Members | Relation::Question => {}
        }
        relation
    }

    async fn connect(&self, address: SocketAddr, ours: Standing) -> Result<(Connection, Hello), NoLink> {
        let connecting = self.0.endpoint.connect(address, tls::SERVER_NAME);
        let connecting = connecting.map_err(|error| NoLink::Other(error.to_string()))?;
        let connection = connecting.await.map_err(|error| NoLink::lost(&error))?;
        match self.greet(&connection, ours).await {
            Ok(hello) => Ok((connection, hello)),
            // Whoever was called judges the caller's certificate when the caller has finished already.
            Err(problem) => Err(match connection.close_reason().as_ref().and_then(tls::refusal) {
                Some(refusal) => NoLink::Certificate(refusal),
                None => NoLink::Other(problem),
            }),
        }
    }

    /// Proves the secret to whom this node has called, and sees it proven.
    async fn greet(&self, connection: &Connection, ours: Standing) -> Result<Hello, String> {
        const UNPROVEN: &str = "it does not know this cluster's secret, or not the same";
        let (mut send, mut receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
        let hello = self.hello(connection, End::Dialler, ours).ok_or("the connection is gone")?;
        send.write_all(&hello).await.map_err(|error| error.to_string())?;
        send.finish().map_err(|error| error.to_string())?;
        let answer = receive.read_to_end(HELLO_BYTES).await.map_err(|error| format!("{UNPROVEN} ({error})"))?;
        self.check(connection, End::Acceptor, &answer).ok_or_else(|| UNPROVEN.to_owned())
    }

    fn hello(&self, connection: &Connection, end: End, standing: Standing) -> Option<Vec<u8>> {
        let proof = self.0.secret.proof(end, exporter(connection))?;
        let hello = Hello { standing, address: self.0.advertised };
        Some(frame::wrap(Kind::Hello, &hello.encode(&proof)))
    }

    /// What the peer says of itself, if it knows the secret.
    fn check(&self, connection: &Connection, end: End, hello: &[u8]) -> Option<Hello> {
        let (hello, proof) = Hello::decode(frame::unwrap(Kind::Hello, hello)?)?;
        self.0.secret.verify(end, proof, exporter(connection)).then_some(hello)
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
                match welcomed {
                    Ok(Some(Guest::Member(address, connection))) => {
                        links.register(address, &connection);
                        links.receive(address, connection).await;
                    }
                    Ok(Some(Guest::Asker(connection))) => links.answer(connection).await,
                    Ok(None) | Err(_) => {}
                }
            });
        }
    }

    /// Sees the secret proven by whoever has called, and proves it.
    async fn welcome(&self, incoming: Incoming) -> Option<Guest> {
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
        let Some(hello) = self.check(&connection, End::Dialler, &hello) else {
            self.0.metrics.handshakes_refused.add(1);
            tracing::warn!(%peer, "a node of another cluster, or a stranger, was refused: it does not know the secret in cluster.secret_file");
            connection.close(VarInt::from_u32(REFUSED), b"the cluster's secret was not proven");
            return None;
        };
        let ours = self.standing();
        send.write_all(&self.hello(&connection, End::Acceptor, ours)?).await.ok()?;
        send.finish().ok()?;
        match self.meet(peer, ours, hello.standing) {
            Relation::Members => Some(Guest::Member(hello.address, connection)),
            Relation::Question => Some(Guest::Asker(connection)),
            Relation::Strangers(..) => {
                // The caller closes when it has read whom it has called.
                connection.closed().await;
                None
            }
        }
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
        if self.0.ports.messages.try_send(message).is_err() {
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
        .max_concurrent_bidi_streams(VarInt::from_u32(2))
        .datagram_receive_buffer_size(Some(1 << 20))
        .datagram_send_buffer_size(1 << 20);
    transport
}
