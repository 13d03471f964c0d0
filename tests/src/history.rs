//! What clients did and saw, and whether a broker that keeps its promises could have answered so.
//!
//! A [`History`] is a list of [`Event`]s in the order in which the clients of one thread had them; [`check()`] compares it with
//! what was promised and returns every [`Violation`]. It is pure: no sockets, no clock.
//!
//! # Model
//! A *stream* is what one publisher sends to one topic, numbered from 0. An *audience* is whoever a promise is made to: one
//! subscriber, or all members of one shared group together. Rules, per audience and stream:
//! - what the broker has acknowledged arrives and is kept (unless the promise is at most once);
//! - numbers seen for the first time only grow, if the promise is ordered [MQTT-4.6.0-6];
//! - a number comes again only where MQTT allows it: never at QoS 2; at QoS 1 with DUP set [MQTT-3.3.1-1] or after a member of
//!   the group departed with it; at QoS 0 and 1 after the publisher itself sent it again as a new message, which a QoS 1
//!   publisher does that has no answer, and a QoS 2 publisher never does;
//! - nothing arrives that was not published before, or that nobody promised.
//!
//! And per client id: of two connections that both have their CONNACK, at most one is served for what is asked later.

mod check;
#[cfg(test)]
mod tests;

pub use check::{Violation, check};

/// One message: which stream, and which of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mark {
    /// The stream.
    pub stream: u32,
    /// Its place there, from 0.
    pub seq: u32,
}

impl Mark {
    /// Bytes of a mark at the start of a payload.
    pub const BYTES: usize = 8;

    /// A payload of `length` bytes (at least [`Mark::BYTES`]) that carries the mark; its other bytes repeat the last of it.
    pub fn payload(self, length: usize) -> Vec<u8> {
        let mut payload = Vec::with_capacity(length.max(Self::BYTES));
        payload.extend_from_slice(&self.stream.to_be_bytes());
        payload.extend_from_slice(&self.seq.to_be_bytes());
        payload.resize(length.max(Self::BYTES), self.filler());
        payload
    }

    /// The mark in a payload, if it is whole: nothing of another message in it.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let stream = u32::from_be_bytes(payload.get(..4)?.try_into().ok()?);
        let seq = u32::from_be_bytes(payload.get(4..8)?.try_into().ok()?);
        let mark = Self { stream, seq };
        payload[Self::BYTES..].iter().all(|&byte| byte == mark.filler()).then_some(mark)
    }

    const fn filler(self) -> u8 {
        self.seq.to_be_bytes()[3] ^ self.stream.to_be_bytes()[3]
    }
}

/// Something a client did or saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A publisher sent it, for the first time or, at QoS 1, again. A repetition at QoS 2 is part of the same exchange.
    Published {
        /// What.
        mark: Mark,
    },
    /// The broker took it over: PUBACK or PUBREC without an error, or, at QoS 0, whatever proves that it was taken.
    Acknowledged {
        /// What.
        mark: Mark,
    },
    /// A subscriber got it.
    Received {
        /// For which audience.
        audience: u32,
        /// Which member of it.
        member: u32,
        /// What.
        mark: Mark,
        /// DUP was set.
        dup: bool,
        /// The subscriber acknowledged it, or had not to: it counts as delivered.
        kept: bool,
    },
    /// A member left its group, perhaps with messages unacknowledged.
    Departed {
        /// Of which audience.
        audience: u32,
        /// Who.
        member: u32,
    },
    /// A connection got its CONNACK for a client id.
    Connected {
        /// Client id.
        id: u32,
        /// Connection.
        conn: u32,
    },
    /// A connection got an answer or a message.
    Served {
        /// Client id.
        id: u32,
        /// Connection.
        conn: u32,
        /// When the request was sent, or the message published: a length of the history.
        cause: usize,
    },
}

/// What is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Guarantee {
    /// May be lost, comes no more often than it was sent.
    AtMostOnce,
    /// Not lost once acknowledged, comes again with DUP.
    AtLeastOnce,
    /// Not lost once acknowledged, never comes twice.
    ExactlyOnce,
}

/// A promise to an audience about a part of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// To whom.
    pub audience: u32,
    /// About what.
    pub stream: u32,
    /// The first number it holds for; earlier ones may come or not.
    pub from: u32,
    /// What.
    pub guarantee: Guarantee,
    /// Numbers come in order.
    pub ordered: bool,
}

/// Events in the order they were had.
#[derive(Clone, Debug, Default)]
pub struct History {
    events: Vec<Event>,
}

impl History {
    /// Notes an event.
    pub fn push(&mut self, event: Event) {
        self.events.push(event);
    }

    /// Everything noted.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The logical time: how many events there are.
    pub const fn now(&self) -> usize {
        self.events.len()
    }
}
