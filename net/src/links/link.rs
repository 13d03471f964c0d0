//! One link: a QUIC connection with its greeting and its lanes.
//!
//! ```text
//!  Unproven ──(both greetings verified)──► Up ──┐
//!     └────────────(lost, refused, late)────────┴──► Down ──(drained)──► forgotten
//! ```
//! Invariants:
//! - before the peer's proof nothing is read but its greeting, and QUIC holds at most [`UNPROVEN_WINDOW_BYTES`] for it;
//! - the acceptor greets after it has verified the dialler: it proves nothing to strangers;
//! - a link goes down once; nothing of it is reported afterwards.
//!
//! [`UNPROVEN_WINDOW_BYTES`]: super::limits::UNPROVEN_WINDOW_BYTES

use super::hello;
use super::lane::{Blocks, Incoming, Lane};
use super::limits::LINK_WINDOW_BYTES;
use super::secret::End;
use super::{LinkCounters, LinkEvent, LinkId, LinksConfig, tls};
use bifro_core::ids::ClusterId;
use bytes::Bytes;
use quinn_proto::{
    Connection, ConnectionError, Dir, Event, ReadError, ReadableError, Side, StreamEvent, StreamId, VarInt,
};
use std::net::SocketAddr;
use std::time::Instant;

/// How a peer can be wrong, or why this end wants no more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it speaks another protocol than bifro-links, or another version of it")]
    Foreign,
    #[error("the cluster's secret was not proven: see that cluster.secret_file is the same on all nodes")]
    Unproven,
    #[error("this end is of the cluster {ours}, the other of {theirs}")]
    Stranger { ours: ClusterId, theirs: ClusterId },
    #[error("the secret was not proven in time")]
    Late,
    #[error("a message of {bytes} bytes was announced; at most {most} are taken")]
    TooLong { bytes: usize, most: usize },
    #[error("a lane was ended")]
    LaneEnded,
    #[error("{0}")]
    Closed(String),
}

impl Refusal {
    /// QUIC's application error code.
    fn code(&self) -> VarInt {
        VarInt::from_u32(match self {
            Self::Closed(_) => 0,
            Self::Unproven => 1,
            Self::Foreign => 2,
            Self::Late => 3,
            Self::TooLong { .. } => 4,
            Self::LaneEnded => 5,
            Self::Stranger { .. } => 6,
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Unproven,
    Up,
    Down,
}

/// What a link works with that is its endpoint's.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) config: &'a LinksConfig,
    pub(super) counters: &'a mut LinkCounters,
    pub(super) events: &'a mut Vec<LinkEvent>,
    /// Another cluster that was told of: each once in a row is enough.
    pub(super) stranger: &'a mut Option<ClusterId>,
    /// What arrives stays with QUIC for now.
    pub(super) is_held: bool,
}

/// See the module's page.
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) connection: Connection,
    /// Something has to be written or sent.
    pub(super) dirty: bool,
    /// Something has happened that was not looked at.
    pub(super) touched: bool,
    address: SocketAddr,
    end: End,
    stage: Stage,
    /// The peer has proven the secret.
    proven: bool,
    /// By when it has to be up.
    deadline: Instant,
    /// What has come of the peer's greeting.
    greeting: Vec<u8>,
    outgoing: [Blocks; 2],
    incoming: [Incoming; 2],
    readable: [bool; 2],
}

impl Link {
    pub(super) fn new(id: LinkId, connection: Connection, deadline: Instant) -> Self {
        let end = if connection.side().is_client() { End::Dialler } else { End::Acceptor };
        Self {
            id,
            address: connection.remote_address(),
            connection,
            dirty: false,
            touched: false,
            end,
            stage: Stage::Unproven,
            proven: false,
            deadline,
            greeting: Vec::new(),
            outgoing: Default::default(),
            incoming: Default::default(),
            readable: [false; 2],
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.stage == Stage::Up
    }

    /// Whether it takes one of the places for callers that have proven nothing. It does until it has, or is forgotten.
    pub(super) fn is_stranger(&self) -> bool {
        self.end == End::Acceptor && !self.proven
    }

    /// Whether messages may have arrived that were not handed on.
    pub(super) fn has_unread(&self) -> bool {
        self.stage == Stage::Up && self.readable.contains(&true)
    }

    /// Bytes that QUIC has not taken over yet.
    pub(super) fn queued(&self) -> usize {
        self.outgoing.iter().map(Blocks::queued).sum()
    }

    /// What is to go over a lane.
    pub(super) fn outgoing(&mut self, lane: Lane) -> &mut Blocks {
        &mut self.outgoing[lane.index()]
    }

    /// When the link wants to be looked at again, whatever comes.
    pub(super) fn timeout(&mut self) -> Option<Instant> {
        let quic = self.connection.poll_timeout();
        let deadline = (self.stage == Stage::Unproven).then_some(self.deadline);
        quic.into_iter().chain(deadline).min()
    }

    /// Does what is due.
    pub(super) fn expire(&mut self, context: &mut Context<'_>) {
        self.connection.handle_timeout(context.now);
        if self.stage == Stage::Unproven && context.now >= self.deadline {
            self.fail(context, &Refusal::Late);
        }
    }

    /// Looks at what QUIC has to say. Messages that came before the connection was lost are still handed on.
    pub(super) fn progress(&mut self, context: &mut Context<'_>) {
        let mut lost = None;
        while let Some(event) = self.connection.poll() {
            match event {
                Event::Connected if self.end == End::Dialler => self.greet(context),
                Event::Stream(StreamEvent::Opened { .. }) => self.readable = [true; 2],
                Event::Stream(StreamEvent::Readable { id }) => self.readable[usize::from(id.index() > 0)] = true,
                Event::ConnectionLost { reason } => lost = Some(reason),
                _ => {}
            }
        }
        if let Err(refusal) = self.receive(context) {
            self.fail(context, &refusal);
        }
        if let Some(reason) = lost {
            let refusal = tls::refusal(&reason);
            if let Some(reason) = &refusal {
                tracing::warn!(address = %self.address, reason, "a link to another node was refused");
            }
            self.go_down(context, refusal.unwrap_or_else(|| described(&reason)));
        }
    }

    /// Writes what waits to the streams. Their errors are the peer's doing.
    pub(super) fn flush(&mut self, context: &mut Context<'_>) {
        if self.stage == Stage::Down {
            return;
        }
        for lane in Lane::ALL {
            let outgoing = &mut self.outgoing[lane.index()];
            if outgoing.is_empty() {
                continue;
            }
            let id = stream(self.connection.side(), lane);
            if outgoing.flush(&mut self.connection.send_stream(id)).is_err() {
                return self.fail(context, &Refusal::LaneEnded);
            }
        }
    }

    /// Ends the link from this side and tells the peer why.
    pub(super) fn fail(&mut self, context: &mut Context<'_>, refusal: &Refusal) {
        if self.stage == Stage::Down {
            return;
        }
        let reason = refusal.to_string();
        self.connection.close(context.now, refusal.code(), Bytes::from(reason.clone()));
        if matches!(refusal, Refusal::Unproven) {
            context.counters.proofs_refused += 1;
            tracing::warn!(address = %self.address, reason, "a link to another node was refused");
        }
        if let Refusal::Stranger { theirs, .. } = refusal
            && context.stranger.replace(*theirs) != Some(*theirs)
        {
            tracing::warn!(address = %self.address, reason, "a link to a node of another cluster was refused");
        }
        self.go_down(context, reason);
    }

    fn go_down(&mut self, context: &mut Context<'_>, reason: String) {
        let was_up = match self.stage {
            Stage::Down => return,
            Stage::Up => true,
            Stage::Unproven => {
                context.counters.handshakes_failed += 1;
                false
            }
        };
        self.stage = Stage::Down;
        self.outgoing = Default::default();
        self.incoming = Default::default();
        if was_up || self.end == End::Dialler {
            context.events.push(LinkEvent::Down { link: self.id, was_up, reason });
        }
    }

    /// Opens the streams and says who this is.
    fn greet(&mut self, context: &mut Context<'_>) {
        for lane in Lane::ALL {
            let opened = self.connection.streams().open(Dir::Uni);
            if opened != Some(stream(self.connection.side(), lane)) {
                return self.fail(context, &Refusal::Foreign);
            }
            let set = self.connection.send_stream(stream(self.connection.side(), lane)).set_priority(lane.priority());
            debug_assert!(set.is_ok(), "just opened");
        }
        let session = self.connection.crypto_session();
        let export = |output: &mut [u8], label: &[u8], about: &[u8]| {
            session.export_keying_material(output, label, about).is_ok()
        };
        let Some(proof) = context.config.secret.proof(self.end, export) else {
            return self.fail(context, &Refusal::Foreign);
        };
        self.outgoing[Lane::Control.index()].push_raw(&hello::encode(&context.config.me, &proof));
    }

    /// Reads what the peer has sent, as far as it may.
    fn receive(&mut self, context: &mut Context<'_>) -> Result<(), Refusal> {
        if self.stage == Stage::Unproven && std::mem::take(&mut self.readable[Lane::Control.index()]) {
            self.receive_greeting(context)?;
        }
        if self.stage == Stage::Up && !context.is_held {
            for lane in Lane::ALL {
                if std::mem::take(&mut self.readable[lane.index()]) {
                    self.receive_messages(lane, context)?;
                }
            }
        }
        Ok(())
    }

    /// Reads the greeting, not a byte more of the stream, and brings the link up when it is whole and proven.
    fn receive_greeting(&mut self, context: &mut Context<'_>) -> Result<(), Refusal> {
        let id = stream(!self.connection.side(), Lane::Control);
        let mut stream = self.connection.recv_stream(id);
        let Some(mut chunks) = readable(stream.read(true))? else { return Ok(()) };
        while self.greeting.len() < hello::FRAME_BYTES {
            let Some(chunk) = next(chunks.next(hello::FRAME_BYTES - self.greeting.len()))? else { break };
            self.greeting.extend_from_slice(&chunk);
        }
        drop(chunks);
        if !hello::may_become(&self.greeting) {
            return Err(Refusal::Foreign);
        }
        let Ok(frame) = <[u8; hello::FRAME_BYTES]>::try_from(&self.greeting[..]) else { return Ok(()) };
        let (peer, proof) = hello::decode(&frame).ok_or(Refusal::Foreign)?;
        let (session, other) = (self.connection.crypto_session(), other(self.end));
        let export = |output: &mut [u8], label: &[u8], about: &[u8]| {
            session.export_keying_material(output, label, about).is_ok()
        };
        if !context.config.secret.verify(other, proof, export) {
            return Err(Refusal::Unproven);
        }
        if let (Some(ours), Some(theirs)) = (context.config.me.cluster, peer.cluster)
            && ours != theirs
        {
            return Err(Refusal::Stranger { ours, theirs });
        }
        if self.end == End::Acceptor {
            self.greet(context);
            if self.stage == Stage::Down {
                return Ok(());
            }
        }
        self.stage = Stage::Up;
        self.proven = true;
        self.greeting = Vec::new();
        self.readable = [true; 2];
        self.connection.set_receive_window(VarInt::from_u32(LINK_WINDOW_BYTES));
        context.events.push(LinkEvent::Up { link: self.id, peer, dialled: self.end == End::Dialler });
        Ok(())
    }

    fn receive_messages(&mut self, lane: Lane, context: &mut Context<'_>) -> Result<(), Refusal> {
        let most = context.config.limits.message_bytes;
        let link = self.id;
        let mut stream = self.connection.recv_stream(stream(!self.connection.side(), lane));
        let Some(mut chunks) = readable(stream.read(true))? else { return Ok(()) };
        while let Some(chunk) = next(chunks.next(usize::MAX))? {
            let hand_on = |run: Bytes| {
                context.counters.bytes_received += run.len() as u64;
                context.events.push(LinkEvent::Messages { link, lane, run });
            };
            let taken = self.incoming[lane.index()].take(chunk, most, hand_on);
            taken.map_err(|too_long| Refusal::TooLong { bytes: too_long.bytes, most })?;
        }
        Ok(())
    }
}

/// The stream on which `side` sends this lane.
fn stream(side: Side, lane: Lane) -> StreamId {
    StreamId::new(side, Dir::Uni, lane.index() as u64)
}

const fn other(end: End) -> End {
    match end {
        End::Dialler => End::Acceptor,
        End::Acceptor => End::Dialler,
    }
}

/// None for a stream that is over already.
fn readable<T>(result: Result<T, ReadableError>) -> Result<Option<T>, Refusal> {
    match result {
        Ok(chunks) => Ok(Some(chunks)),
        Err(ReadableError::ClosedStream) => Ok(None),
        Err(ReadableError::IllegalOrderedRead) => unreachable!("streams are only read in order"),
    }
}

/// None once nothing more is there for now.
fn next(result: Result<Option<quinn_proto::Chunk>, ReadError>) -> Result<Option<Bytes>, Refusal> {
    match result {
        Ok(Some(chunk)) => Ok(Some(chunk.bytes)),
        Err(ReadError::Blocked) => Ok(None),
        Ok(None) | Err(ReadError::Reset(_)) => Err(Refusal::LaneEnded),
    }
}

/// Why a connection was lost, fit for a log: the peer may have written part of it.
fn described(reason: &ConnectionError) -> String {
    match reason {
        ConnectionError::TimedOut => "the peer was not heard for too long".to_owned(),
        other => tls::printable(&other.to_string()),
    }
}
