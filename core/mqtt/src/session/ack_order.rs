//! Bookkeeping of QoS 1 and 2 publishes from the client: which packet identifiers are in use, and the acknowledgements,
//! which leave in the order in which the publishes arrived [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT5-4.6.0-2] [MQTT5-4.6.0-3].
//!
//! Invariants: a QoS 2 identifier is in `open` from its first PUBLISH on this connection until its PUBCOMP, or its PUBREC
//! with an error; `resumed` holds those an earlier connection left behind; `window_used` is what the client's send quota
//! [MQTT5-4.9.0-1] must have been reduced by.

use super::exchange::PublishToken;
use crate::packet::PacketId;
use crate::reason::Reason;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bifro_core::message::QoS;

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    pending: VecDeque<Pending>,
    /// Token of the front of `pending`; the others count on.
    front: u32,
    /// Entries of `pending` that count for the client's send quota, with QoS 1.
    qos1_unfinished: u32,
    /// QoS 2 publishes that were taken on, up to a number that does not matter.
    qos2_begun: u16,
    open: Vec<u16>,
    resumed: Vec<u16>,
    /// Of `open` and `resumed`: PUBREL has come, and the inbox has not forgotten the identifier yet.
    releasing: Vec<u16>,
}

/// A PUBLISH whose acknowledgement has not left.
#[derive(Clone, Copy, Debug)]
struct Pending {
    packet_id: PacketId,
    qos2: bool,
    /// The client says that it may have sent it before.
    dup: bool,
    /// It takes a place of the client's send quota.
    counts: bool,
    answer: Option<Answer>,
}

/// How a PUBLISH is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// PUBACK or PUBREC.
    Send(Reason),
    /// Nothing: MQTT 3.x has no way to say no, and the client is to try again.
    Nothing,
}

/// What is known about a packet identifier when a PUBLISH with it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// Not in use.
    New,
    /// A PUBLISH with the same identifier and QoS is being worked on; its acknowledgement answers both.
    InProgress,
    /// QoS 2, acknowledged with PUBREC on this connection and not released.
    Open,
    /// QoS 2, received by an earlier connection and not released.
    Resumed,
    /// In use with the other QoS.
    OtherQos,
}

/// What a PUBREL means to a session with a durable inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    /// The inbox is to forget the identifier.
    Begun,
    /// It is about to.
    UnderWay,
    /// There is nothing to release.
    Unknown,
}

/// An acknowledgement that may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    pub(super) packet_id: PacketId,
    pub(super) qos2: bool,
    pub(super) answer: Answer,
}

impl Inbound {
    /// What a PUBLISH with this identifier means. The search is linear: the tables are as long as Receive Maximum.
    pub(super) fn known(&self, packet_id: PacketId, qos: QoS) -> Known {
        let qos2 = qos == QoS::ExactlyOnce;
        let id = packet_id.get();
        match self.pending.iter().find(|pending| pending.packet_id == packet_id) {
            Some(pending) if pending.qos2 == qos2 => Known::InProgress,
            Some(_) => Known::OtherQos,
            None if self.open.contains(&id) => {
                if qos2 {
                    Known::Open
                } else {
                    Known::OtherQos
                }
            }
            None if self.resumed.contains(&id) => {
                if qos2 {
                    Known::Resumed
                } else {
                    Known::OtherQos
                }
            }
            None => Known::New,
        }
    }

    /// Places of the client's send quota in use.
    pub(super) fn window_used(&self) -> usize {
        self.qos1_unfinished as usize + self.open.len()
    }

    /// Whether fewer QoS 2 publishes were taken on than an earlier connection can have left unanswered.
    pub(super) const fn may_repeat(&self, receive_maximum: u16) -> bool {
        self.qos2_begun < receive_maximum
    }

    /// Takes on a PUBLISH to be answered later.
    pub(super) fn begin(&mut self, packet_id: PacketId, qos: QoS, dup: bool) -> PublishToken {
        let qos2 = qos == QoS::ExactlyOnce;
        if qos2 {
            self.open.push(packet_id.get());
            self.qos2_begun = self.qos2_begun.saturating_add(1);
        } else {
            self.qos1_unfinished += 1;
        }
        self.push(Pending { packet_id, qos2, dup, counts: true, answer: None })
    }

    /// Queues an answer that changes nothing: to a repetition, or to an identifier in use.
    pub(super) fn answer_in_turn(&mut self, packet_id: PacketId, qos: QoS, reason: Reason) {
        let qos2 = qos == QoS::ExactlyOnce;
        self.push(Pending { packet_id, qos2, dup: false, counts: false, answer: Some(Answer::Send(reason)) });
    }

    fn push(&mut self, pending: Pending) -> PublishToken {
        let place = u32::try_from(self.pending.len()).expect("bounded by twice Receive Maximum");
        self.pending.push_back(pending);
        PublishToken(self.front.wrapping_add(place))
    }

    /// A PUBLISH that an earlier connection received is repeated on this one.
    pub(super) fn reopen(&mut self, packet_id: PacketId) {
        self.resumed.retain(|&id| id != packet_id.get());
        self.open.push(packet_id.get());
    }

    /// The outcome of the PUBLISH with this token is known. A token of none is ignored.
    pub(super) fn settle(&mut self, token: PublishToken, answer: Answer) {
        let place = token.0.wrapping_sub(self.front) as usize;
        if let Some(pending) = self.pending.get_mut(place) {
            pending.answer.get_or_insert(answer);
        }
    }

    /// The next acknowledgement whose turn it is, if it is known.
    pub(super) fn next_ready(&mut self) -> Option<Ready> {
        let Pending { packet_id, qos2, counts, answer, .. } = *self.pending.front()?;
        let answer = answer?;
        self.pending.pop_front();
        self.front = self.front.wrapping_add(1);
        if counts && !qos2 {
            self.qos1_unfinished -= 1;
        }
        // An error ends the exchange, and so does silence: the identifier is free again [MQTT5-4.3.3-9].
        let ends = match answer {
            Answer::Send(reason) => reason.is_error(),
            Answer::Nothing => true,
        };
        if counts && qos2 && ends {
            self.open.retain(|&id| id != packet_id.get());
        }
        Some(Ready { packet_id, qos2, answer })
    }

    /// PUBREL. True if the identifier was in use and acknowledged; it is free now [MQTT-4.3.3-2] [MQTT5-4.3.3-11].
    pub(super) fn release(&mut self, packet_id: PacketId) -> bool {
        if self.pending.iter().any(|pending| pending.qos2 && pending.packet_id == packet_id) {
            return false;
        }
        let id = packet_id.get();
        for table in [&mut self.open, &mut self.resumed] {
            if let Some(at) = table.iter().position(|&known| known == id) {
                table.remove(at);
                return true;
            }
        }
        false
    }

    /// PUBREL, of which a durable inbox is to hear before it is answered with PUBCOMP.
    pub(super) fn begin_release(&mut self, packet_id: PacketId) -> Release {
        let id = packet_id.get();
        if self.pending.iter().any(|pending| pending.qos2 && pending.packet_id == packet_id) {
            return Release::Unknown;
        }
        if self.releasing.contains(&id) {
            return Release::UnderWay;
        }
        if !self.open.contains(&id) && !self.resumed.contains(&id) {
            return Release::Unknown;
        }
        self.releasing.push(id);
        Release::Begun
    }

    /// The inbox has forgotten an identifier.
    pub(super) fn finish_release(&mut self, packet_id: PacketId) {
        self.releasing.retain(|&id| id != packet_id.get());
        self.release(packet_id);
    }

    /// Packet identifier of a QoS 2 publish that is being worked on, and whether the client may have sent it before.
    pub(super) fn qos2_publish(&self, token: PublishToken) -> Option<(PacketId, bool)> {
        let place = token.0.wrapping_sub(self.front) as usize;
        let pending = self.pending.get(place).filter(|pending| pending.qos2 && pending.counts)?;
        Some((pending.packet_id, pending.dup))
    }

    /// Identifiers an earlier connection left behind.
    pub(super) fn resume(&mut self, packet_ids: Vec<u16>) {
        self.resumed = packet_ids;
    }

    /// QoS 2 publishes whose routing has not ended yet. Whether the client's repetition is to be routed again, or only
    /// answered, is known when it has.
    pub(super) fn undecided_qos2(&self) -> Vec<(PublishToken, PacketId)> {
        let pending = (0..).map(|place| PublishToken(self.front.wrapping_add(place))).zip(&self.pending);
        let undecided = pending.filter(|(_, pending)| pending.qos2 && pending.counts && pending.answer.is_none());
        undecided.map(|(token, pending)| (token, pending.packet_id)).collect()
    }

    /// QoS 2 identifiers received and not released, without those of [`Inbound::undecided_qos2`].
    pub(super) fn received_qos2(&self) -> Vec<u16> {
        let taken_over = |id: &&u16| {
            !self
                .pending
                .iter()
                .any(|pending| pending.packet_id.get() == **id && pending.counts && pending.answer.is_none())
        };
        self.resumed.iter().chain(self.open.iter().filter(taken_over)).copied().collect()
    }

    /// So much is unanswered that the driver is to stop reading. MQTT 5 clients know Receive Maximum and are held to it;
    /// for the older ones it is a matter of back-pressure.
    pub(super) fn is_full(&self, limit: usize) -> bool {
        self.pending.len() >= limit
    }

    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.pending.capacity() * size_of::<Pending>()
            + (self.open.capacity() + self.resumed.capacity() + self.releasing.capacity()) * size_of::<u16>()
    }

    /// # Panics
    /// If an invariant of the module's page does not hold.
    pub(super) fn validate(&self) {
        let unfinished = self.pending.iter().filter(|pending| pending.counts && !pending.qos2).count();
        assert_eq!(unfinished, self.qos1_unfinished as usize, "QoS 1 publishes are counted once");
        for pending in self.pending.iter().filter(|pending| pending.counts && pending.qos2) {
            assert!(self.open.contains(&pending.packet_id.get()), "a QoS 2 publish in progress holds its identifier");
        }
        for (at, id) in self.open.iter().enumerate() {
            assert!(!self.open[..at].contains(id) && !self.resumed.contains(id), "a QoS 2 identifier is held once");
        }
        assert!(self.pending.front().is_none_or(|front| front.answer.is_none()), "no acknowledgement is held back");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u16) -> PacketId {
        PacketId::new(n).expect("not zero")
    }

    /// [MQTT-4.6.0-2] [MQTT5-4.6.0-2]
    #[test]
    fn acknowledgements_leave_in_the_order_of_the_publishes_whatever_order_they_are_settled_in() {
        let mut inbound = Inbound::default();
        let tokens: Vec<_> = (1..=3).map(|n| inbound.begin(id(n), QoS::AtLeastOnce, false)).collect();
        inbound.settle(tokens[2], Answer::Send(Reason::SUCCESS));
        inbound.settle(tokens[1], Answer::Send(Reason::SUCCESS));
        assert_eq!(inbound.next_ready(), None);
        inbound.settle(tokens[0], Answer::Send(Reason::SUCCESS));
        let order: Vec<_> = core::iter::from_fn(|| inbound.next_ready()).map(|ready| ready.packet_id.get()).collect();
        assert_eq!(order, [1, 2, 3]);
        assert_eq!(inbound.window_used(), 0);
    }

    #[test]
    fn a_token_settled_twice_or_unknown_changes_nothing() {
        let mut inbound = Inbound::default();
        let token = inbound.begin(id(1), QoS::AtLeastOnce, false);
        inbound.settle(PublishToken(77), Answer::Nothing);
        inbound.settle(token, Answer::Send(Reason::SUCCESS));
        inbound.settle(token, Answer::Nothing);
        assert_eq!(inbound.next_ready().map(|ready| ready.answer), Some(Answer::Send(Reason::SUCCESS)));
        inbound.settle(token, Answer::Nothing);
        assert_eq!(inbound.next_ready(), None);
    }

    #[test]
    fn a_qos2_identifier_is_held_until_released_and_freed_at_once_by_an_error() {
        let mut inbound = Inbound::default();
        let token = inbound.begin(id(9), QoS::ExactlyOnce, false);
        assert!(!inbound.release(id(9)), "PUBREL ahead of PUBREC releases nothing");
        inbound.settle(token, Answer::Send(Reason::SUCCESS));
        assert!(inbound.next_ready().is_some());
        assert_eq!(inbound.known(id(9), QoS::ExactlyOnce), Known::Open);
        assert!(inbound.release(id(9)));
        assert_eq!(inbound.known(id(9), QoS::ExactlyOnce), Known::New);
        let token = inbound.begin(id(9), QoS::ExactlyOnce, false);
        inbound.settle(token, Answer::Send(Reason::QUOTA_EXCEEDED));
        assert!(inbound.next_ready().is_some());
        assert_eq!(inbound.window_used(), 0);
    }

    #[test]
    fn what_is_still_being_routed_at_the_end_is_told_apart_from_what_was_taken_over() {
        let mut inbound = Inbound::default();
        inbound.resume(alloc::vec![4]);
        inbound.begin(id(1), QoS::ExactlyOnce, false);
        let done = inbound.begin(id(2), QoS::ExactlyOnce, false);
        inbound.settle(done, Answer::Send(Reason::SUCCESS));
        assert_eq!(inbound.received_qos2(), [4, 2]);
        assert_eq!(inbound.undecided_qos2(), [(PublishToken(0), id(1))], "its fate is the driver's to add");
    }
}
