//! The endpoint: its socket, QUIC's endpoint and all links, and what a turn does with them. See [`super`].
//!
//! Invariants:
//! - the place of a link in `links` is the number QUIC's endpoint has given to its connection, so QUIC says which link a datagram is for;
//! - a touched link is looked at before `read` returns, a dirty one by the next `transmit` that the kernel has room for.

use super::lane::{Lane, PREFIX_BYTES};
use super::limits::{
    BLOCKED, DATAGRAM_BYTES, INITIAL_RTT, SEND_BATCHES_PER_TURN, SEND_WINDOW_BYTES, STREAM_WINDOW_BYTES,
    UNPROVEN_WINDOW_BYTES, UNVALIDATED_LINKS,
};
use super::link::{Context, Link, Refusal};
use super::socket::{Arrival, Socket, datagrams};
use super::{LinkCounters, LinkEvent, LinkId, LinksConfig, SendError, tls};
use bifro_core::ids::ClusterId;
use bifro_core::time::Instant;
use bytes::Bytes;
use quinn_proto::{
    ClientConfig, ConnectError, Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, IdleTimeout,
    Incoming, MtuDiscoveryConfig, ServerConfig, Transmit, TransportConfig, VarInt,
};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Without a look at the links for so long, what has waited in the socket does not show who lives now: a link that is over by its time is over,
/// though QUIC would begin to count anew with the first of it.
const STALE: std::time::Duration = std::time::Duration::from_secs(1);

/// The protocol's name and version.
pub(super) const ALPN: &[u8] = b"bifro-links/7";

/// One shard's links to other nodes.
pub struct Links {
    config: LinksConfig,
    address: SocketAddr,
    socket: Socket,
    endpoint: Endpoint,
    client: ClientConfig,
    /// By the number of their connection.
    links: Vec<Option<Link>>,
    /// When each wants to be looked at.
    timeouts: Vec<Option<std::time::Instant>>,
    /// When it was last looked what has arrived.
    read_at: Option<std::time::Instant>,
    /// Generation of the next link.
    generation: u32,
    /// Callers that have not proven the secret.
    strangers: usize,
    /// Links to look at.
    touched: Vec<usize>,
    /// Links to send for.
    dirty: Vec<usize>,
    /// Events of between two reads.
    events: Vec<LinkEvent>,
    arrivals: Vec<Arrival>,
    /// What QUIC writes datagrams to.
    buffer: Vec<u8>,
    /// Reading has stopped at its bound.
    more_to_read: bool,
    /// See [`Links::hold`].
    is_held: bool,
    /// The kernel has no room: when to ask again.
    blocked: Option<std::time::Instant>,
    counters: LinkCounters,
    /// Another cluster that was told of.
    stranger: Option<ClusterId>,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links")
            .field("address", &self.address)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Links {
    /// An endpoint that takes calls and makes them.
    ///
    /// # Errors
    /// As `bind`; or if there are no random numbers for a certificate; `InvalidInput` for an idle timeout of more than 2^62 ms.
    pub fn bind(config: LinksConfig) -> io::Result<Self> {
        let transport = Arc::new(transport(&config)?);
        let mut server = ServerConfig::with_crypto(Arc::new(tls::server(ALPN, config.certificates.as_ref())?));
        server.transport_config(transport.clone()).migration(false);
        let mut client = ClientConfig::new(Arc::new(tls::client(ALPN, config.certificates.as_ref())?));
        client.transport_config(transport);
        let mut quic = EndpointConfig::default();
        quic.max_udp_payload_size(DATAGRAM_BYTES).expect("at least the 1200 bytes QUIC asks for");
        let socket = Socket::bind(config.bind)?;
        Ok(Self {
            address: socket.udp().local_addr()?,
            endpoint: Endpoint::new(Arc::new(quic), Some(Arc::new(server)), !socket.may_fragment(), None),
            config,
            socket,
            client,
            links: Vec::new(),
            timeouts: Vec::new(),
            read_at: None,
            generation: 0,
            strangers: 0,
            touched: Vec::new(),
            dirty: Vec::new(),
            events: Vec::new(),
            arrivals: Vec::new(),
            buffer: Vec::new(),
            more_to_read: false,
            is_held: false,
            blocked: None,
            counters: LinkCounters::default(),
            stranger: None,
        })
    }

    /// From now on this end is of this cluster. Before the first call is made or taken: the port has to be there before the cluster is known.
    pub const fn set_cluster(&mut self, cluster: ClusterId) {
        self.config.me.cluster = Some(cluster);
    }

    /// Where it listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What it has done so far.
    pub const fn counters(&self) -> LinkCounters {
        self.counters
    }

    /// Calls an endpoint. [`LinkEvent::Up`] or [`LinkEvent::Down`] follows within [`super::LinkLimits::handshake`].
    pub fn dial(&mut self, now: Instant, address: SocketAddr) -> LinkId {
        let now = self.config.clock.monotonic(now);
        let connected = match self.in_own_family(address) {
            Some(address) => self.endpoint.connect(now, self.client.clone(), address, tls::SERVER_NAME),
            None => Err(ConnectError::InvalidRemoteAddress(address)),
        };
        match connected {
            Ok((handle, connection)) => self.insert(now, handle, connection),
            Err(error) => {
                let link = self.next_id(usize::MAX);
                self.counters.handshakes_failed += 1;
                let reason = format!("{address} cannot be called from {}: {error}", self.address);
                self.events.push(LinkEvent::Down { link, was_up: false, reason });
                link
            }
        }
    }

    /// Queues a message for [`Self::transmit`].
    ///
    /// # Errors
    /// See [`SendError`]; the message is then not sent at all.
    pub fn send(&mut self, link: LinkId, lane: Lane, message: &[u8]) -> Result<(), SendError> {
        let most = self.config.limits.message_bytes;
        if message.len() > most {
            return Err(SendError::TooLong { bytes: message.len(), most });
        }
        self.queue(link, PREFIX_BYTES + message.len(), |link| link.outgoing(lane).push(message))
    }

    /// Queues a run of messages, none of them longer than a link takes, without copying it.
    ///
    /// # Errors
    /// See [`SendError`]; nothing of it is sent then.
    pub fn send_run(&mut self, link: LinkId, lane: Lane, run: &Bytes) -> Result<(), SendError> {
        self.queue(link, run.len(), |link| link.outgoing(lane).push_run(run.clone()))
    }

    fn queue(&mut self, link: LinkId, bytes: usize, push: impl FnOnce(&mut Link)) -> Result<(), SendError> {
        let most = self.config.limits.queued_bytes;
        let link = self.find(link).filter(|link| link.is_up()).ok_or(SendError::NotUp)?;
        let queued = link.queued();
        if queued + bytes > most {
            return Err(SendError::QueueFull { queued, most });
        }
        push(link);
        let (index, dirty) = (link.id.index as usize, std::mem::replace(&mut link.dirty, true));
        if !dirty {
            self.dirty.push(index);
        }
        self.counters.bytes_sent += bytes as u64;
        Ok(())
    }

    /// Bytes queued in both lanes, lengths included, that QUIC has not taken over yet. 0 for a link that is gone.
    pub fn queued_bytes(&self, link: LinkId) -> usize {
        let known = self.links.get(link.index as usize).and_then(Option::as_ref).filter(|known| known.id == link);
        known.map_or(0, Link::queued)
    }

    /// Ends a link at once: what is queued or on its way may be lost. [`LinkEvent::Down`] follows with the next read, the peer learns of
    /// it with the next transmit. Does nothing on a link that is gone.
    pub fn close(&mut self, now: Instant, link: LinkId, reason: &str) {
        let now = self.config.clock.monotonic(now);
        if self.find(link).is_some() {
            let index = link.index as usize;
            self.with(index, now, |link, context| link.fail(context, &Refusal::Closed(reason.to_owned())));
            self.mark_dirty(index);
        }
    }

    /// Whether messages that arrive are to stay with QUIC, which holds their senders back once its windows are full
    /// ([`super::limits::LINK_WINDOW_BYTES`]). For an owner that has enough to do; everything else goes on.
    pub fn hold(&mut self, held: bool) {
        let was_held = std::mem::replace(&mut self.is_held, held);
        if was_held && !held {
            for index in 0..self.links.len() {
                if self.links[index].as_ref().is_some_and(Link::has_unread) {
                    self.touch(index);
                }
            }
        }
    }

    /// Takes what has arrived, up to a bound, and what time has brought about, and appends what came of it to `events`. Costs a system
    /// call at least: worth it when the socket is readable, [`Self::next_timeout`] has come or [`Self::has_more`] says so.
    pub fn read(&mut self, now: Instant, events: &mut Vec<LinkEvent>) {
        let now = self.config.clock.monotonic(now);
        let before = self.read_at.replace(now);
        if before.is_some_and(|before| now.saturating_duration_since(before) > STALE) {
            self.expire(now);
        }
        self.receive(now);
        self.expire(now);
        let mut touched = std::mem::take(&mut self.touched);
        for index in touched.drain(..) {
            self.with(index, now, |link, context| {
                link.touched = false;
                link.progress(context);
            });
            self.mark_dirty(index);
            self.settle(index);
        }
        self.touched = touched;
        events.append(&mut self.events);
    }

    /// Has time bring about what it has to.
    fn expire(&mut self, now: std::time::Instant) {
        for index in 0..self.timeouts.len() {
            if self.timeouts[index].is_some_and(|due| due <= now) {
                self.with(index, now, Link::expire);
                self.touch(index);
            }
        }
    }

    /// Hands queued messages to QUIC and its datagrams to the kernel.
    pub fn transmit(&mut self, now: Instant) {
        let now = self.config.clock.monotonic(now);
        if !self.socket.unblock() {
            self.blocked = Some(now + BLOCKED);
            return;
        }
        self.blocked = None;
        let mut dirty = std::mem::take(&mut self.dirty);
        let mut done = 0;
        for index in &dirty {
            if self.blocked.is_some() {
                break;
            }
            done += 1;
            if let Some(link) = self.links[*index].as_mut() {
                link.dirty = false;
                self.transmit_link(*index, now);
                self.settle(*index);
            }
        }
        // Links whose turn came are marked again if they have more; those behind them go first next time.
        dirty.drain(..done);
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// When to call [`Self::read`] and [`Self::transmit`] at the latest, whatever arrives.
    pub fn next_timeout(&self) -> Option<Instant> {
        let soonest = self.timeouts.iter().copied().chain([self.blocked]).flatten().min();
        soonest.map(|at| self.config.clock.moment(at))
    }

    /// Whether [`Self::read`] and [`Self::transmit`] have something to do without waiting for the socket or [`Self::next_timeout`].
    pub fn has_more(&self) -> bool {
        self.more_to_read
            || !self.events.is_empty()
            || !self.touched.is_empty()
            || (!self.dirty.is_empty() && self.blocked.is_none())
    }

    /// The address as this socket sends to it: an IPv6 socket reaches IPv4 under mapped addresses, an IPv4 socket no IPv6 at all.
    fn in_own_family(&self, address: SocketAddr) -> Option<SocketAddr> {
        match (self.address, address) {
            (SocketAddr::V6(_), SocketAddr::V4(four)) => Some((four.ip().to_ipv6_mapped(), four.port()).into()),
            (SocketAddr::V4(_), SocketAddr::V6(_)) => None,
            _ => Some(address),
        }
    }

    fn find(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(id.index as usize)?.as_mut().filter(|link| link.id == id)
    }

    fn next_id(&mut self, index: usize) -> LinkId {
        let generation = self.generation;
        self.generation = generation.wrapping_add(1);
        LinkId { index: u32::try_from(index).unwrap_or(u32::MAX), generation }
    }

    fn insert(&mut self, now: std::time::Instant, handle: ConnectionHandle, connection: Connection) -> LinkId {
        let index = handle.0;
        let id = self.next_id(index);
        if self.links.len() <= index {
            self.links.resize_with(index + 1, || None);
            self.timeouts.resize(index + 1, None);
        }
        debug_assert!(self.links[index].is_none(), "QUIC gives a number again once its link is forgotten");
        let link = Link::new(id, connection, now + self.config.limits.handshake);
        self.strangers += usize::from(link.is_stranger());
        self.links[index] = Some(link);
        self.mark_dirty(index);
        id
    }

    /// Calls `work` with the link and what it works with.
    fn with(&mut self, index: usize, now: std::time::Instant, work: impl FnOnce(&mut Link, &mut Context<'_>)) {
        let Some(link) = self.links[index].as_mut() else { return };
        let stranger = link.is_stranger();
        let (config, counters, events) = (&self.config, &mut self.counters, &mut self.events);
        work(link, &mut Context { now, config, counters, events, stranger: &mut self.stranger, is_held: self.is_held });
        self.strangers -= usize::from(stranger && !link.is_stranger());
    }

    fn touch(&mut self, index: usize) {
        if let Some(link) = self.links[index].as_mut()
            && !std::mem::replace(&mut link.touched, true)
        {
            self.touched.push(index);
        }
    }

    fn mark_dirty(&mut self, index: usize) {
        if let Some(link) = self.links[index].as_mut()
            && !std::mem::replace(&mut link.dirty, true)
        {
            self.dirty.push(index);
        }
    }

    /// Passes on what the connection has to tell QUIC's endpoint, forgets the link if that was the last, and notes its timeout.
    fn settle(&mut self, index: usize) {
        let Some(link) = self.links[index].as_mut() else { return };
        while let Some(event) = link.connection.poll_endpoint_events() {
            let drained = event.is_drained();
            if let Some(event) = self.endpoint.handle_event(ConnectionHandle(index), event) {
                link.connection.handle_event(event);
            }
            if drained {
                self.strangers -= usize::from(link.is_stranger());
                self.links[index] = None;
                self.timeouts[index] = None;
                return;
            }
        }
        self.timeouts[index] = link.timeout();
    }

    fn receive(&mut self, now: std::time::Instant) {
        let mut arrivals = std::mem::take(&mut self.arrivals);
        let mut taken = 0;
        self.more_to_read = true;
        while self.more_to_read && taken < self.config.limits.read_bytes_per_turn {
            self.more_to_read = self.socket.receive(&mut arrivals).unwrap_or_else(|error| {
                tracing::debug!(address = %self.address, %error, "receiving from other nodes");
                false
            });
            for mut arrival in arrivals.drain(..) {
                taken += arrival.bytes.len();
                while !arrival.bytes.is_empty() {
                    self.handle_datagram(now, &mut arrival);
                }
            }
        }
        self.arrivals = arrivals;
    }

    /// Takes the next datagram of an arrival.
    fn handle_datagram(&mut self, now: std::time::Instant, arrival: &mut Arrival) {
        let datagram = arrival.bytes.split_to(arrival.stride.min(arrival.bytes.len()));
        self.counters.datagrams_received += 1;
        self.buffer.clear();
        let (remote, local_ip, ecn) = (arrival.remote, arrival.local_ip, arrival.ecn);
        match self.endpoint.handle(now, remote, local_ip, ecn, datagram, &mut self.buffer) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(link) = self.links.get_mut(handle.0).and_then(Option::as_mut) {
                    link.connection.handle_event(event);
                    self.touch(handle.0);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.welcome(now, incoming),
            Some(DatagramEvent::Response(transmit)) => self.answer(&transmit),
            None => self.counters.datagrams_ignored += 1,
        }
    }

    /// Takes a call, unless too many have called that proved nothing.
    fn welcome(&mut self, now: std::time::Instant, incoming: Incoming) {
        self.buffer.clear();
        if self.strangers >= self.config.limits.unproven_links {
            self.counters.callers_refused += 1;
            let refusal = self.endpoint.refuse(incoming, &mut self.buffer);
            return self.answer(&refusal);
        }
        if self.strangers >= UNVALIDATED_LINKS && !incoming.remote_address_validated() && incoming.may_retry() {
            if let Ok(retry) = self.endpoint.retry(incoming, &mut self.buffer) {
                self.answer(&retry);
            }
            return;
        }
        match self.endpoint.accept(incoming, now, &mut self.buffer, None) {
            Ok((handle, connection)) => {
                self.insert(now, handle, connection);
                self.touch(handle.0);
            }
            Err(error) => {
                self.counters.handshakes_failed += 1;
                if let Some(response) = error.response {
                    self.answer(&response);
                }
            }
        }
    }

    /// Sends what QUIC's endpoint has written to the buffer.
    fn answer(&mut self, transmit: &Transmit) {
        self.counters.datagrams_sent += datagrams(transmit);
        self.socket.answer(transmit, &self.buffer);
    }

    /// Sends what one link has to send, up to a bound: it is dirty again if there is more, or if the kernel has no room.
    fn transmit_link(&mut self, index: usize, now: std::time::Instant) {
        self.with(index, now, Link::flush);
        for _ in 0..SEND_BATCHES_PER_TURN {
            let Some(link) = self.links[index].as_mut() else { return };
            let batch = self.socket.batch(link.connection.current_mtu());
            self.buffer.clear();
            let Some(transmit) = link.connection.poll_transmit(now, batch, &mut self.buffer) else { return };
            self.counters.datagrams_sent += datagrams(&transmit);
            if !self.socket.send(transmit, &self.buffer) {
                self.blocked = Some(now + BLOCKED);
                break;
            }
        }
        self.mark_dirty(index);
    }
}

impl AsFd for Links {
    /// The UDP socket, to wait until it is readable.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.udp().as_fd()
    }
}

fn transport(config: &LinksConfig) -> io::Result<TransportConfig> {
    let idle = IdleTimeout::try_from(config.limits.idle);
    let idle = idle.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("idle timeout: {error}")))?;
    let mut mtu_discovery = MtuDiscoveryConfig::default();
    mtu_discovery.upper_bound(DATAGRAM_BYTES);
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(config.limits.keep_alive))
        .initial_rtt(INITIAL_RTT)
        .max_concurrent_uni_streams(VarInt::from_u32(Lane::ALL.len() as u32))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(UNPROVEN_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .mtu_discovery_config(Some(mtu_discovery))
        .datagram_receive_buffer_size(None);
    Ok(transport)
}
