//! Everything one shard says to one peer in a turn.

use crate::message::{Body, Message, Round};
use crate::types::{Index, Term};
use alloc::vec::Vec;
use bifro_core::ids::RangeId;

/// Messages of many groups for one peer. Heartbeats, which are most of the messages of an idle shard, are kept apart in a
/// form of fixed size.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Batch {
    /// Heartbeats.
    pub beats: Vec<Beat>,
    /// Answers to heartbeats.
    pub replies: Vec<BeatReply>,
    /// Everything else, in order.
    pub messages: Vec<(RangeId, Message)>,
}

/// [`Body::Heartbeat`] of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// The group.
    pub range: RangeId,
    /// The sender's term.
    pub term: Term,
    /// What the receiver may take for committed.
    pub commit: Index,
    /// Number of the heartbeat.
    pub round: Round,
    /// The group goes quiet.
    pub quiesce: bool,
}

/// [`Body::HeartbeatReply`] of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeatReply {
    /// The group.
    pub range: RangeId,
    /// The sender's term.
    pub term: Term,
    /// Number of the heartbeat answered.
    pub round: Round,
}

impl Batch {
    /// Adds a message.
    pub fn push(&mut self, range: RangeId, message: Message) {
        let term = message.term;
        match message.body {
            Body::Heartbeat { commit, round, quiesce } => self.beats.push(Beat { range, term, commit, round, quiesce }),
            Body::HeartbeatReply { round } => self.replies.push(BeatReply { range, term, round }),
            _ => self.messages.push((range, message)),
        }
    }

    /// Messages in it.
    pub fn len(&self) -> usize {
        self.beats.len() + self.replies.len() + self.messages.len()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The messages again. What was an append before a heartbeat stays before it, so that a group goes quiet with what it has
    /// been sent.
    pub fn into_messages(self) -> impl Iterator<Item = (RangeId, Message)> {
        let beats = self.beats.into_iter().map(|Beat { range, term, commit, round, quiesce }| {
            (range, Message { term, body: Body::Heartbeat { commit, round, quiesce } })
        });
        let replies = self
            .replies
            .into_iter()
            .map(|BeatReply { range, term, round }| (range, Message { term, body: Body::HeartbeatReply { round } }));
        self.messages.into_iter().chain(beats).chain(replies)
    }
}
