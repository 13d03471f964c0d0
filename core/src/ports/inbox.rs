//! The port of persistent sessions.

use super::{GroupMatch, InboxPlaces, SubOptions};
use crate::client::Client;
use crate::ids::{ConnRef, InboxSeq, RangeIdx, ReqId, Slot, TenantIdx};
use crate::message::{Message, QoS};
use crate::origins::group_id;
use crate::tenant::TenantCtx;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// One queued message of an inbox.
#[derive(Clone, Debug)]
pub struct InboxMessage {
    /// Its place in the inbox; named again at commit. QoS 0 messages that were never stored have none.
    pub seq: Option<InboxSeq>,
    /// The message.
    pub message: Arc<Message>,
    /// QoS to deliver with: the lower of publish and subscription, the highest over all that matched.
    pub qos: QoS,
    /// Retain flag to deliver with.
    pub retain: bool,
    /// Ids of all subscriptions that matched, ascending.
    pub subscription_ids: smallvec::SmallVec<[core::num::NonZeroU32; 1]>,
    /// Ask the permission again before delivery.
    pub check_delivery: bool,
}

/// What an inbox hands to the connection that attaches to it.
#[derive(Clone, Debug, Default)]
pub struct Attached {
    /// An earlier session goes on: Session Present.
    pub present: bool,
    /// Place of the inbox, for the caller's later requests.
    pub inbox: Option<(RangeIdx, Slot)>,
    /// Fences off earlier owners: every later request carries it.
    pub epoch: u64,
    /// The inbox outlives the process, and is to be told of each step of a QoS 2 exchange before the client is:
    /// [`Inbox::note_received`], [`Inbox::release`], [`Inbox::hold`].
    pub durable: bool,
    /// Subscriptions of the session: full filter as the client wrote it, and options.
    pub subscriptions: Vec<(Box<str>, SubOptions)>,
    /// Packet ids of QoS 2 publishes received but not yet released.
    pub received_qos2: Vec<u16>,
    /// Messages that were in flight to the client, in the order they were first sent.
    pub in_flight: Vec<InFlight>,
    /// The place of the first message that waits to be pushed, or of the next that will be stored.
    pub next: InboxSeq,
}

/// A message in flight to a client whose connection went away.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// Packet id it was sent with, and is sent again with [MQTT-4.4.0-1].
    pub packet_id: core::num::NonZeroU16,
    /// QoS 2: PUBREC has arrived, PUBREL is what has to be sent again. The message is not needed any more.
    pub released: bool,
    /// The message.
    pub message: InboxMessage,
}

/// A message that a connection leaves behind.
#[derive(Clone, Debug)]
pub enum Left {
    /// The inbox has it, at this place.
    Stored(InboxSeq),
    /// It came from no inbox, as retained messages do; from now on it is the inbox's.
    Unstored(Box<InboxMessage>),
}

/// What a connection has of its inbox's messages: tells who leads the inbox next what it need not push again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InHand {
    /// Those that were pushed to it and are not done.
    pub seqs: Vec<InboxSeq>,
    /// One beyond the last that was pushed to it: all before it that are not in hand are done.
    pub next: InboxSeq,
}

/// What a connection leaves with its inbox when it goes.
#[derive(Clone, Debug, Default)]
pub struct DetachState {
    /// What it has of the inbox's messages.
    pub in_hand: InHand,
    /// Packet ids of QoS 2 publishes received but not yet released.
    pub received_qos2: Vec<u16>,
    /// In flight to the client, in the order first sent: packet id, PUBREC seen, message.
    pub in_flight: Vec<(core::num::NonZeroU16, bool, Left)>,
    /// Messages of QoS 1 and 2 that came from no inbox and were not sent yet, in order.
    pub waiting: Vec<InboxMessage>,
    /// Will to publish when its delay is over or the session ends, whichever comes first [MQTT5-3.1.3-9].
    pub will: Option<(core::time::Duration, Arc<Message>)>,
    /// Session Expiry Interval from now, in seconds; `u32::MAX` = never [MQTT5-3.1.2.11.2]. 0 ends the session now.
    pub expiry_s: u32,
}

/// Persistent sessions: subscriptions, queue, QoS 2 state, will, expiry.
pub trait Inbox {
    /// Attaches `conn` to its client's inbox; creates one if there is none or [`AttachTerms::clean_start`] discards it. Messages
    /// follow as [`Completion::InboxPush`](super::Completion::InboxPush), first those in flight were handed over in [`Attached`].
    fn attach(
        &mut self,
        now: Instant,
        req: ReqId,
        conn: ConnRef,
        client: &Client,
        tenant: &TenantCtx,
        terms: AttachTerms,
    );

    /// Deletes the client's inbox, if there is one (a transient session starts). Completes with [`Completion::Detached`](super::Completion::Detached), or with a refused
    /// [`Completion::Attached`](super::Completion::Attached).
    fn discard(&mut self, now: Instant, req: ReqId, client: &Client, tenant: &TenantCtx);

    /// The connection goes on with its inbox, which another leads now. A refusal is [`Completion::InboxLost`](super::Completion::InboxLost).
    fn reattach(&mut self, now: Instant, owner: InboxOwner<'_>, in_hand: InHand);

    /// The connection has gone; the session stays for its expiry interval.
    fn detach(&mut self, now: Instant, req: ReqId, owner: InboxOwner<'_>, state: DetachState);

    /// Adds or replaces a subscription (full filter as the client wrote it).
    fn subscribe(&mut self, now: Instant, req: ReqId, owner: InboxOwner<'_>, filter: &str, options: SubOptions);

    /// Removes a subscription.
    fn unsubscribe(&mut self, now: Instant, req: ReqId, owner: InboxOwner<'_>, filter: &str);

    /// Stores `message` in the inboxes named, all of one range, and pushes it to their live owners. Of a publish with an
    /// `origin` it is done once, until [`Inbox::forget`], however often it is asked for, even across a crash.
    fn insert(
        &mut self,
        now: Instant,
        req: ReqId,
        tenant: TenantIdx,
        inboxes: (RangeIdx, &InboxPlaces),
        message: &Arc<Message>,
        origin: Option<Origin>,
    );

    /// The client has done with these messages; the inbox forgets them and pushes as many more.
    fn commit(&mut self, now: Instant, owner: InboxOwner<'_>, done: Vec<InboxSeq>);

    /// Everybody has taken a QoS 2 publish of the inbox's client over: its packet identifier is remembered until
    /// [`Inbox::release`], so that the client's repetition is recognised [MQTT-4.3.3-2]. Completes with [`Completion::InboxDone`](super::Completion::InboxDone), as
    /// the next three do. Only for inboxes that are [`Attached::durable`].
    fn note_received(&mut self, now: Instant, req: ReqId, origin: Origin);

    /// [`Inbox::note_received`] is done, or the publish has failed: `range` need not recognise a repetition any more. If it is `in_doubt` the message
    /// may still be on its way there, and is not taken any more.
    fn forget(&mut self, now: Instant, req: ReqId, range: RangeIdx, origin: Origin, in_doubt: bool);

    /// Which groups have members in `range` that a publish was stored for, if it was tried before; what is on its way there of earlier tries is not taken any
    /// more. Completes with [`Completion::Found`](super::Completion::Found).
    fn inquire(&mut self, now: Instant, req: ReqId, range: RangeIdx, origin: Origin);

    /// PUBREL: the identifier is free again. PUBCOMP waits for the completion.
    fn release(&mut self, now: Instant, req: ReqId, origin: Origin);

    /// PUBREC: the client has this QoS 2 message, and will be sent PUBREL for it whatever happens. PUBREL waits for the completion.
    fn hold(&mut self, now: Instant, req: ReqId, owner: InboxOwner<'_>, seq: InboxSeq);
}

/// What a connection asks of its inbox.
#[derive(Clone, Debug, Default)]
pub struct AttachTerms {
    /// The session there is ends, and another begins.
    pub clean_start: bool,
    /// Session Expiry Interval should the process end before the connection does, in seconds; `u32::MAX` = never.
    pub expiry_s: u32,
    /// Will, for the same case.
    pub will: Option<FutureWill>,
}

/// A will that nobody knows the hour of.
#[derive(Clone, Debug)]
pub struct FutureWill {
    /// From the end of the connection to the publication.
    pub delay: core::time::Duration,
    /// From the publication to the message's expiry [MQTT5-3.1.3.2.4].
    pub expiry: Option<core::time::Duration>,
    /// What is published.
    pub message: Arc<Message>,
}

impl FutureWill {
    /// The will of a connection that has ended: when it is due, and what is published then.
    pub fn due(&self, ended_at: Instant) -> (Instant, Arc<Message>) {
        let at = ended_at + self.delay;
        let expiry_at = self.expiry.map(|expiry| at + expiry);
        (at, crate::message::MessageView { expiry_at, ..self.message.view() }.to_message())
    }
}

/// A QoS 2 publish, as the inbox of its client knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The publisher's inbox.
    pub inbox: (RangeIdx, Slot),
    /// From [`Attached::epoch`].
    pub epoch: u64,
    /// The publish's packet identifier.
    pub packet_id: u16,
    /// Counts the publishes of one connection, not from one on: when a publish is tried again it has the same.
    pub nth: u64,
    /// Of what goes to one member of a shared group: which group ([`group_id`]). 0: of what goes to everybody else.
    pub group: u64,
    /// Of what goes to a group: which try it is, counted as `nth` is.
    pub attempt: u64,
}

impl Origin {
    /// Of what goes to everybody but groups, at the first try.
    #[must_use]
    pub const fn new(inbox: (RangeIdx, Slot), epoch: u64, packet_id: u16, nth: u64) -> Self {
        Self { inbox, epoch, packet_id, nth, group: 0, attempt: nth }
    }

    /// As whom the members of a group know it.
    #[must_use]
    pub fn for_group(self, group: &GroupMatch) -> Self {
        Self { group: group_id(&group.filter, &group.group), ..self }
    }
}

/// The connection that speaks for an inbox.
#[derive(Clone, Copy, Debug)]
pub struct InboxOwner<'a> {
    /// The connection.
    pub conn: ConnRef,
    /// Its client.
    pub client: &'a Client,
    /// Its tenant.
    pub tenant: TenantIdx,
    /// From [`Attached::inbox`].
    pub inbox: (RangeIdx, Slot),
    /// From [`Attached::epoch`].
    pub epoch: u64,
}
