//! Connections of clients to a shard: as much of a session as persistent sessions and publishers need (bifro-net's `broker/effects.rs`, and
//! bifro-mqtt's session machine). QoS 2 is in [`super::exactly_once`].

use super::exactly_once::{Departure, Inbound};
use super::shard::{Awaited, Shard, TENANT};
use super::talk::{ConnId, FILTERS, Mark, ToClient, ToServer};
use bifro_core::client::{Client, ClientInfo, Transport, Version};
use bifro_core::ids::{ConnRef, InboxSeq, NodeIdx, RangeIdx, Slot};
use bifro_core::message::QoS;
use bifro_core::ports::{
    AttachTerms, Attached, DetachState, InHand, Inbox, InboxMessage, InboxOwner, Left, PortError, SessionDict,
    SubOptions,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It has no session.
    Open,
    /// It waits for its client id or for its inbox.
    Waiting,
    /// It speaks for its inbox.
    Live { inbox: (RangeIdx, Slot), epoch: u64 },
    /// It leaves its inbox.
    Leaving,
}

#[derive(Debug)]
pub(super) struct Conn {
    id: ConnId,
    pub(super) client: Client,
    phase: Phase,
    /// What it listens to, without a session.
    filter: Option<usize>,
    pub(super) inbound: Inbound,
    /// Some of its publishes are not decided yet.
    pub(super) departure: Option<Box<Departure>>,
    /// Sent and not acknowledged, in order.
    in_flight: Vec<InboxSeq>,
    /// One beyond the last that was pushed to it.
    next: InboxSeq,
}

impl Conn {
    fn in_hand(&self) -> InHand {
        InHand { seqs: self.in_flight.clone(), next: self.next }
    }
}

/// The connections of a shard.
#[derive(Debug, Default)]
pub(super) struct Conns {
    conns: BTreeMap<u32, Conn>,
    by_id: BTreeMap<ConnId, u32>,
    last: u32,
}

impl Conns {
    /// The filter of a connection without a session.
    pub(super) fn listens_to(&self, at: u32) -> Option<usize> {
        self.conns.get(&at)?.filter
    }

    pub(super) fn find_mut(&mut self, at: u32) -> Option<&mut Conn> {
        self.conns.get_mut(&at)
    }
}

/// A client of that name.
pub(crate) fn client(id: String, version: Version) -> Client {
    Arc::new(ClientInfo {
        tenant: "t".into(),
        user: "".into(),
        client_id: id.into(),
        version,
        transport: Transport::Tcp,
        peer: None,
        rules: [].into(),
        expires_at: None,
    })
}

const OPTIONS: SubOptions = SubOptions {
    qos: QoS::ExactlyOnce,
    no_local: false,
    retain_as_published: false,
    subscription_id: None,
    check_deliveries: false,
};

impl Shard {
    /// Something came from a client.
    pub(super) fn handle_client(&mut self, id: ConnId, said: ToServer) {
        let at = self.conns.by_id.get(&id).copied();
        match (said, at) {
            (ToServer::Attach(client), None) => {
                let at = self.accept(id, client.clone(), Phase::Waiting);
                let (req, tenant) = (self.await_completion(Awaited::Register(at)), self.tenant.clone());
                self.services.register(self.now, req, self.conn_ref(at), &client, &tenant);
            }
            (ToServer::Open, None) => {
                let client = client(format!("without session {}", id.0), Version::V5);
                self.accept(id, client, Phase::Open);
            }
            (ToServer::Listen(filter), Some(at)) => {
                if let Some(conn) = self.conns.conns.get_mut(&at) {
                    conn.filter = Some(filter);
                    self.listen(at, filter);
                }
            }
            (ToServer::Subscribe(filter), Some(at)) => {
                let req = self.await_completion(Awaited::Subscribe(at, filter));
                self.with_inbox(at, |shard, owner| {
                    shard.services.subscribe(shard.now, req, owner, FILTERS[filter], OPTIONS);
                });
            }
            (ToServer::Unsubscribe(filter), Some(at)) => {
                let req = self.await_completion(Awaited::Unsubscribe(at, filter));
                self.with_inbox(at, |shard, owner| shard.services.unsubscribe(shard.now, req, owner, FILTERS[filter]));
            }
            (ToServer::Acknowledge(seq), Some(at)) => {
                let conn = self.conns.conns.get_mut(&at);
                let waited = conn.map(|conn| {
                    let before = conn.in_flight.len();
                    conn.in_flight.retain(|of| *of != seq);
                    conn.in_flight.len() < before
                });
                if waited == Some(true) {
                    self.with_inbox(at, |shard, owner| shard.services.commit(shard.now, owner, vec![seq]));
                }
            }
            (ToServer::Publish(mark), Some(at)) => {
                if let Some(client) = self.conns.conns.get(&at).map(|conn| conn.client.clone()) {
                    self.publish(id, mark, &client);
                }
            }
            (ToServer::PublishOnce { mark, packet_id, is_repeated }, Some(at)) => {
                self.receive_once(at, mark, packet_id, is_repeated);
            }
            (ToServer::Release { packet_id }, Some(at)) => self.begin_release(at, packet_id),
            (ToServer::Disconnect | ToServer::Broken, Some(at)) => self.close(at),
            // Of a connection that is over.
            _ => {}
        }
    }

    fn accept(&mut self, id: ConnId, client: Client, phase: Phase) -> u32 {
        self.conns.last += 1;
        let at = self.conns.last;
        let conn = Conn {
            id,
            client,
            phase,
            filter: None,
            inbound: Inbound::default(),
            departure: None,
            in_flight: Vec::new(),
            next: InboxSeq::default(),
        };
        self.conns.conns.insert(at, conn);
        self.conns.by_id.insert(id, at);
        at
    }

    pub(super) const fn conn_ref(&self, at: u32) -> ConnRef {
        ConnRef { node: NodeIdx::HERE, shard: self.me, slot: Slot { index: at, generation: 0 } }
    }

    pub(super) fn say(&mut self, at: u32, what: ToClient) {
        if let Some(conn) = self.conns.conns.get(&at).filter(|conn| conn.phase != Phase::Leaving) {
            self.outputs.clients.push((conn.id, what));
        }
    }

    /// The inbox that a connection speaks for, and its epoch.
    pub(super) fn inbox_of(&self, at: u32) -> Option<((RangeIdx, Slot), u64)> {
        match self.conns.conns.get(&at)?.phase {
            Phase::Live { inbox, epoch } => Some((inbox, epoch)),
            _ => None,
        }
    }

    /// Calls the services on behalf of the connection's inbox, if it has one.
    fn with_inbox(&mut self, at: u32, call: impl FnOnce(&mut Self, InboxOwner<'_>)) {
        let Some(conn) = self.conns.conns.get(&at) else { return };
        let (Some((inbox, epoch)), client) = (self.inbox_of(at), conn.client.clone()) else { return };
        let owner = InboxOwner { conn: self.conn_ref(at), client: &client, tenant: TENANT, inbox, epoch };
        call(self, owner);
    }

    pub(super) fn handle_registered(&mut self, at: u32) {
        let Some(client) = self.conns.conns.get(&at).map(|conn| conn.client.clone()) else { return };
        let (req, tenant) = (self.await_completion(Awaited::Attach(at)), self.tenant.clone());
        let terms = AttachTerms { clean_start: false, expiry_s: u32::MAX, will: None };
        self.services.attach(self.now, req, self.conn_ref(at), &client, &tenant, terms);
    }

    pub(super) fn handle_attached(&mut self, at: u32, result: Result<Box<Attached>, PortError>) {
        if !self.conns.conns.contains_key(&at) {
            return;
        }
        let Ok(attached) = result else { return self.close(at) };
        assert!(attached.durable, "inboxes outlive their processes");
        self.settle_delivered(&attached);
        let Attached { present, inbox, epoch, subscriptions, received_qos2, in_flight, next, .. } = *attached;
        let Some(conn) = self.conns.conns.get_mut(&at) else { return };
        conn.inbound.resume(present, received_qos2);
        conn.phase = Phase::Live { inbox: inbox.expect("who is attached has an inbox"), epoch };
        let place = |full: &str| FILTERS.iter().position(|filter| *filter == full).expect("nobody wants another");
        let filters = subscriptions.iter().map(|(full, _)| place(full)).collect();
        self.say(at, ToClient::Accepted { present, filters });
        let messages: Vec<_> = in_flight.into_iter().map(|in_flight| in_flight.message).collect();
        self.push(at, &messages);
        if let Some(conn) = self.conns.conns.get_mut(&at) {
            conn.next = next;
        }
    }

    /// Messages for a connection.
    pub(super) fn push(&mut self, at: u32, messages: &[InboxMessage]) {
        for message in messages {
            let Some(conn) = self.conns.conns.get_mut(&at).filter(|conn| conn.phase != Phase::Leaving) else { return };
            if let Some(seq) = message.seq {
                assert!(
                    seq >= conn.next,
                    "{} is pushed {seq:?} again, beyond which it has heard",
                    conn.client.client_id
                );
                conn.next = InboxSeq(seq.0 + 1);
                conn.in_flight.push(seq);
            }
            self.say(at, ToClient::Message { mark: Mark::of(&message.message), seq: message.seq });
        }
    }

    /// Another leads the connection's inbox.
    pub(super) fn handle_moved(&mut self, at: u32) {
        let Some(in_hand) = self.conns.conns.get(&at).map(Conn::in_hand) else { return };
        self.with_inbox(at, |shard, owner| shard.services.reattach(shard.now, owner, in_hand));
    }

    /// A connection ends: its inbox is left, then its client id given up.
    pub(super) fn close(&mut self, at: u32) {
        self.say(at, ToClient::Closed);
        let Some(conn) = self.conns.conns.get_mut(&at) else { return };
        match conn.phase {
            Phase::Open => {
                let filter = conn.filter;
                self.drop_conn(at);
                if let Some(filter) = filter {
                    self.stop_listening(at, filter);
                }
            }
            Phase::Waiting => self.unregister(at),
            Phase::Live { inbox, epoch } => {
                let left = conn.in_flight.iter().map(|seq| (seq.packet_id(), false, Left::Stored(*seq))).collect();
                let in_hand = conn.in_hand();
                let (received_qos2, undecided) = conn.inbound.leave();
                let state = DetachState {
                    in_hand,
                    received_qos2,
                    in_flight: left,
                    expiry_s: u32::MAX,
                    ..DetachState::default()
                };
                conn.departure = Some(Box::new(Departure { inbox, epoch, state, undecided }));
                conn.phase = Phase::Leaving;
                self.depart(at);
            }
            Phase::Leaving => {}
        }
    }

    pub(super) fn unregister(&mut self, at: u32) {
        if let Some(client) = self.conns.conns.get(&at).map(|conn| conn.client.clone()) {
            let tenant = self.tenant.clone();
            self.services.unregister(self.now, self.conn_ref(at), &client, &tenant);
            self.drop_conn(at);
        }
    }

    fn drop_conn(&mut self, at: u32) {
        if let Some(conn) = self.conns.conns.remove(&at) {
            self.conns.by_id.remove(&conn.id);
        }
    }
}
