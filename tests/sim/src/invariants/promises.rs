//! What a message promises is durable when it leaves: the sender's term, its vote, the entries it confirms; and a vote is given once
//! per term (Raft section 5.2).

use crate::disk::{Disk, Stored};
use crate::world::World;
use bifro_core::ids::NodeId;
use bifro_raft::{Batch, Body, Message, Term};
use std::collections::BTreeMap;

/// Who voted for whom.
#[derive(Debug, Default)]
pub(crate) struct Promises {
    votes: BTreeMap<(Term, NodeId), NodeId>,
}

/// A batch leaves.
pub(crate) fn check(world: &mut World, disk: &Disk, from: NodeId, to: NodeId, batch: &Batch) {
    let small = batch.beats.iter().map(|beat| (beat.range, beat.term));
    let small = small.chain(batch.replies.iter().map(|reply| (reply.range, reply.term)));
    for (range, term) in small {
        let durable = disk.stored(range).map_or(Term(0), |stored| stored.hard_state.term);
        assert!(term <= durable, "promises: {from} speaks in term {} of {range} before that is durable", term.0);
    }
    let nothing = Stored::default();
    for (range, message) in &batch.messages {
        let stored = disk.stored(*range).unwrap_or(&nothing);
        world.checks[range.0 as usize].promises.check(stored, from, to, message);
    }
}

impl Promises {
    fn check(&mut self, stored: &Stored, from: NodeId, to: NodeId, message: &Message) {
        let (term, durable) = (message.term, stored.hard_state);
        assert!(term <= durable.term, "promises: {from} speaks in term {} before that is durable", term.0);
        match message.body {
            Body::VoteReply { granted: true } => {
                let known = *self.votes.entry((term, from)).or_insert(to);
                assert!(known == to, "promises: {from} votes for {known} and {to} in term {}", term.0);
                let kept = durable.term > term || durable.vote == Some(to);
                assert!(kept, "promises: {from} votes for {to} in term {} before that is durable", term.0);
            }
            // What was confirmed in a term that is over may have been replaced since.
            Body::Accepted { matched, .. } if durable.term == term && !stored.buried => {
                let kept = stored.log.last().index.max(stored.checkpoint.meta.last.index);
                assert!(kept >= matched, "promises: {from} confirms {}, durable is only {}", matched.0, kept.0);
            }
            _ => {}
        }
    }
}
