//! What goes in and out of the machine: the context of a call, the effects it asks the driver to carry out, and where
//! they gather.

use super::PublishToken;
use crate::packet::PacketId;
use crate::wire::Wire;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::client::{Client, Transport};
use bifro_core::event::{DropReason, Event};
use bifro_core::ids::InboxSeq;
use bifro_core::message::Message;
use bifro_core::plugin::{AuthRequest, Authorizer};
use bifro_core::ports::{AttachTerms, DetachState, GroupName, InHand, SubOptions};
use bifro_core::tenant::TenantCtx;
use bifro_core::time::Instant;
use core::net::SocketAddr;

use crate::reason::Reason;

/// What every call needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Cx<'a> {
    /// The time.
    pub now: Instant,
    /// Tenant of the session; before authentication the default tenant.
    pub tenant: &'a TenantCtx,
    /// Answers permission questions.
    pub authorizer: &'a dyn Authorizer,
    /// The shard is over its memory budget: new CONNECTs are refused with 0x97 (3.x: 3).
    pub over_budget: bool,
}

/// Where the machine's outputs go. One `Outbox` serves one session: its effects are carried out before those vectors
/// serve another one, so that neighbouring commits may be joined.
#[derive(Debug)]
pub struct Outbox<'a> {
    /// Bytes for the client.
    pub wire: &'a mut Wire,
    /// Everything else, in order.
    pub effects: &'a mut Vec<Effect>,
    /// What happened to messages, for the metrics; may be shared by all sessions of a shard.
    pub tally: &'a mut Tally,
    /// The connection is over its write high-water mark: QoS 0 is dropped, QoS 1 and 2 wait.
    pub congested: bool,
    /// Bytes of what waits that are put on the wire in one go, so that others get their share of a turn.
    pub share: usize,
}

impl Outbox<'_> {
    /// Adds an event.
    pub(super) fn event(&mut self, event: Event) {
        self.effects.push(Effect::Event(event));
    }

    /// Commits one place in the inbox, in the same effect as the one before if nothing came between.
    pub(super) fn commit(&mut self, seq: Option<InboxSeq>) {
        let Some(seq) = seq else { return };
        match self.effects.last_mut() {
            Some(Effect::Commit(done)) => done.push(seq),
            _ => self.effects.push(Effect::Commit(alloc::vec![seq])),
        }
    }
}

/// Counts of what became of outbound messages; the driver moves them into its metric cells and sets them to zero.
/// It counts every message once, those that [`Session::deliver`](super::Session::deliver) answers for included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// PUBLISH packets put on the wire.
    pub publishes_sent: u32,
    /// Dropped: the connection was over its write high-water mark.
    pub dropped_slow: u32,
    /// Dropped: the session's queue was full.
    pub dropped_queue_full: u32,
    /// Dropped: larger than the client's Maximum Packet Size.
    pub dropped_oversize: u32,
    /// Dropped: expired.
    pub dropped_expired: u32,
    /// Dropped: no permission, or none any more.
    pub dropped_permission: u32,
    /// Publishes beyond a client's or tenant's publish rate.
    pub publish_rate_exceeded: u32,
}

impl Tally {
    /// Counts a drop.
    pub(super) const fn dropped(&mut self, reason: DropReason) {
        let cell = match reason {
            DropReason::ChannelError => &mut self.dropped_slow,
            DropReason::Overflow | DropReason::ResourceExhausted => &mut self.dropped_queue_full,
            DropReason::Oversize => &mut self.dropped_oversize,
            DropReason::Expired => &mut self.dropped_expired,
            DropReason::NoSubPermission => &mut self.dropped_permission,
            DropReason::SessionClosed | DropReason::NoLocal => return,
        };
        *cell = cell.wrapping_add(1);
    }
}

/// What is known of a connection before its first packet.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Listener it arrived on.
    pub listener: u16,
    /// Transport.
    pub transport: Transport,
    /// Peer address.
    pub peer: Option<SocketAddr>,
    /// Leaf certificate (DER) the client proved to own.
    pub certificate: Option<Box<[u8]>>,
    /// Random bits for an assigned client identifier.
    pub nonce: u128,
    /// Largest packet accepted before the client's tenant is known, in bytes: nobody fills memory before
    /// authentication.
    pub pre_auth_packet_bytes_max: u32,
}

/// Correlates a subscription, unsubscription or retained lookup with its completion; unique per session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u32);

/// What the driver is to do.
#[derive(Debug)]
pub enum Effect {
    /// Ask the authentication chain; answer with [`Session::handle_auth`](super::Session::handle_auth).
    Authenticate(Box<AuthRequest>),
    /// The identity is established: from here on `Cx::tenant` is this tenant's. The driver interns the tenant named in
    /// the grant and answers at once with [`Session::handle_identified`](super::Session::handle_identified).
    Identify(Box<Identity>),
    /// Become the owner of the client id; answer with [`Session::handle_registered`](super::Session::handle_registered).
    Register,
    /// Persistent session: attach to the inbox; answer with
    /// [`Session::handle_attached`](super::Session::handle_attached).
    Attach(AttachTerms),
    /// Transient session: delete the inbox an earlier session of the client may have left; answer with
    /// [`Session::handle_attached`](super::Session::handle_attached) and an empty
    /// [`Attached`](bifro_core::ports::Attached).
    Discard,
    /// Make a subscription (or replace the options of one); answer with
    /// [`Session::handle_subscribed`](super::Session::handle_subscribed).
    Subscribe {
        /// For the answer.
        token: Token,
        /// Filter as the client wrote it.
        full: Box<str>,
        /// Filter without share prefix.
        filter: Box<str>,
        /// Group, if shared.
        group: Option<GroupName>,
        /// Options.
        options: SubOptions,
        /// A subscription with this full filter exists and is replaced.
        replaces: bool,
    },
    /// End a subscription; answer with [`Session::handle_unsubscribed`](super::Session::handle_unsubscribed).
    Unsubscribe {
        /// For the answer.
        token: Token,
        /// Filter as the client wrote it.
        full: Box<str>,
        /// Filter without share prefix.
        filter: Box<str>,
        /// Group, if shared.
        group: Option<GroupName>,
    },
    /// Look up retained messages; answer with [`Session::handle_retained`](super::Session::handle_retained).
    FindRetained {
        /// For the answer.
        token: Token,
        /// Filter without share prefix.
        filter: Box<str>,
    },
    /// Publish the will now.
    PublishWill(Arc<Message>),
    /// Tell the inbox that these are done with.
    Commit(Vec<InboxSeq>),
    /// Tell who leads the inbox now what there is of it.
    Reattach(InHand),
    /// PUBREC has come for a message of a durable inbox: have the inbox remember, then call
    /// [`Session::handle_held`](super::Session::handle_held).
    Hold {
        /// The message.
        seq: InboxSeq,
        /// The packet identifier it was sent with.
        packet_id: PacketId,
    },
    /// PUBREL has come: have the durable inbox forget the identifier, then call
    /// [`Session::handle_released`](super::Session::handle_released).
    Release {
        /// The identifier.
        packet_id: PacketId,
    },
    /// Leave the inbox (persistent sessions only). Always before [`Effect::Unregister`].
    Detach {
        /// What is known.
        state: Box<DetachState>,
        /// QoS 2 publishes that are still being routed. The driver waits for each, adds the identifiers of those that
        /// succeeded to `state.received_qos2`, and detaches then: the client repeats them on its next connection, and
        /// a repetition must not reach the subscribers again [MQTT-4.3.3-2] [MQTT5-4.3.3-10].
        undecided: Vec<(PublishToken, PacketId)>,
    },
    /// Give this message of a shared group to another member.
    Redeliver {
        /// Filter without prefix.
        filter: Box<str>,
        /// Group.
        group: GroupName,
        /// The message.
        message: Arc<Message>,
    },
    /// Give up the client id (only after `Register`), once the inbox has been left.
    Unregister,
    /// Credentials or identity changed by re-authentication.
    Reidentified(Client),
    /// Send what is on the wire, then close the connection. Always the last effect of a session.
    Close(Closed),
    /// Tell operators.
    Event(Event),
}

/// The identity a grant establishes, to be completed by the driver.
#[derive(Debug)]
pub struct Identity {
    /// Who the client is.
    pub client: Client,
}

/// Why a session ended, for metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The client said DISCONNECT.
    ByClient,
    /// The transport closed or broke without DISCONNECT.
    Transport,
    /// The server ended it for this reason.
    Server(Reason),
    /// The CONNECT was refused for this reason.
    Refused(Reason),
    /// The peer broke the protocol.
    Violation(Reason),
}
