//! SUBSCRIBEs and UNSUBSCRIBEs that wait for completions, answered in the order of receipt, and lookups of retained
//! messages under way.
//!
//! The tokens of one request are consecutive, so that a completion finds its filter without search.

use super::{Cx, Effect, Outbox, Session, Token};
use crate::packet::{Packet, PacketId, SubAck};
use crate::property::Properties;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use bifro_core::client::Version;
use bifro_core::event::EventKind;
use bifro_core::ports::SubOptions;
use bifro_core::settings::Resource;

use super::subscriptions::take_apart;

/// SUBSCRIBEs and UNSUBSCRIBEs unanswered at which the driver stops reading.
const PENDING_MAX: usize = 8;

/// See the module's page.
#[derive(Debug, Default)]
pub(super) struct Requests {
    waiting: VecDeque<Request>,
    lookups: Vec<Lookup>,
}

/// One SUBSCRIBE or UNSUBSCRIBE.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) packet_id: PacketId,
    pub(super) unsubscribes: bool,
    /// One per filter of the packet, as MQTT 5 has them.
    pub(super) codes: Vec<u8>,
    /// First token.
    pub(super) first: Token,
    /// Tokens given out.
    pub(super) issued: u32,
    /// Tokens not answered yet.
    pub(super) unanswered: u32,
    /// Per token, for SUBSCRIBE.
    pub(super) filters: Vec<PendingFilter>,
}

/// A filter that is being subscribed to.
#[derive(Debug)]
pub(super) struct PendingFilter {
    pub(super) full: Box<str>,
    /// Place in the packet.
    pub(super) code_at: usize,
    pub(super) options: SubOptions,
    /// What to go back to if it fails.
    pub(super) previous: Option<SubOptions>,
    /// Retained messages are wanted.
    pub(super) wants_retained: bool,
    pub(super) answered: bool,
}

/// Retained messages being looked up.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) token: Token,
    pub(super) full: Box<str>,
}

impl Request {
    fn holds(&self, token: Token) -> Option<usize> {
        let place = token.0.wrapping_sub(self.first.0);
        (place < self.issued).then_some(place as usize)
    }
}

impl Requests {
    /// So much is unanswered that the driver is to stop reading.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= PENDING_MAX
    }

    /// A request with this packet identifier is unanswered.
    pub(super) fn holds_id(&self, packet_id: PacketId) -> bool {
        self.waiting.iter().any(|request| request.packet_id == packet_id)
    }

    pub(super) fn push(&mut self, request: Request) {
        self.waiting.push_back(request);
    }

    /// The request to which a token belongs, and the token's place in it.
    pub(super) fn find(&mut self, token: Token) -> Option<(&mut Request, usize)> {
        self.waiting.iter_mut().find_map(|request| request.holds(token).map(|place| (request, place)))
    }

    fn pop_answered(&mut self) -> Option<Request> {
        self.waiting.pop_front_if(|request| request.unanswered == 0)
    }

    pub(super) fn take_lookup(&mut self, token: Token) -> Option<Lookup> {
        let at = self.lookups.iter().position(|lookup| lookup.token == token)?;
        Some(self.lookups.swap_remove(at))
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.lookups.is_empty()
    }

    /// Bytes on the heap.
    pub(super) fn memory_bytes(&self) -> usize {
        let request = |request: &Request| request.codes.len() + request.filters.len() * size_of::<PendingFilter>();
        size_of::<Self>()
            + self.waiting.capacity() * size_of::<Request>()
            + self.waiting.iter().map(request).sum::<usize>()
            + self.lookups.capacity() * size_of::<Lookup>()
    }

    /// # Panics
    /// If an answered request waits.
    pub(super) fn validate(&self) {
        assert!(self.waiting.front().is_none_or(|front| front.unanswered > 0), "no SUBACK is held back");
    }
}

impl Session {
    /// Answers every request whose turn it is, then looks up the retained messages it asked for.
    pub(super) fn flush_requests(&mut self, cx: &Cx<'_>, out: &mut Outbox<'_>) {
        while let Some(request) = self.requests.as_deref_mut().and_then(Requests::pop_answered) {
            self.acknowledge(&request, out);
            for filter in request.filters {
                self.conclude(cx, filter, &request.codes, out);
            }
        }
        self.forget_idle_requests();
    }

    pub(super) fn forget_idle_requests(&mut self) {
        if self.requests.as_deref().is_some_and(Requests::is_idle) {
            self.requests = None;
        }
    }

    /// SUBACK or UNSUBACK with the identifier of the request [MQTT-3.8.4-2] [MQTT-3.10.4-4] [MQTT5-3.8.4-2]
    /// [MQTT5-3.10.4-4] and one code per filter, in their order [MQTT-3.8.4-5] [MQTT-3.9.3-1] [MQTT5-3.9.3-1].
    pub(super) fn acknowledge(&self, request: &Request, out: &mut Outbox<'_>) {
        let is_v5 = self.version == Version::V5;
        let mut codes = request.codes.clone();
        if !is_v5 {
            // [MQTT-3.9.3-2]: 3.1.1 knows one failure. 3.1 knows none, but no success would be true.
            codes.iter_mut().filter(|code| **code >= 0x80).for_each(|code| *code = 0x80);
        }
        let codes: &[u8] = if request.unsubscribes && !is_v5 { &[] } else { &codes };
        let packet = SubAck { packet_id: request.packet_id, properties: Properties::default(), codes };
        if request.unsubscribes {
            self.send(&Packet::UnsubAck(packet), out);
            self.event(EventKind::UnsubAcked, "", out);
        } else {
            self.send(&Packet::SubAck(packet), out);
        }
    }

    fn conclude(&mut self, cx: &Cx<'_>, filter: PendingFilter, codes: &[u8], out: &mut Outbox<'_>) {
        if codes.get(filter.code_at).is_none_or(|&code| code >= 0x80) {
            return;
        }
        let mut event = self.event_of(EventKind::SubAcked, "").on(&filter.full);
        event.qos = Some(filter.options.qos);
        out.event(event);
        let is_subscribed = self.subscriptions.as_deref().is_some_and(|table| table.find(&filter.full).is_some());
        if !filter.wants_retained || !is_subscribed {
            return;
        }
        if !cx.tenant.quota.spend(Resource::TotalRetainMatchPerSeconds, 1, cx.now) {
            out.event(self.event_of(EventKind::MatchRetainError, "too many lookups per second").on(&filter.full));
            return;
        }
        let token = self.take_token();
        out.effects.push(Effect::FindRetained { token, filter: take_apart(&filter.full).0.into() });
        self.requests.get_or_insert_default().lookups.push(Lookup { token, full: filter.full });
    }
}
