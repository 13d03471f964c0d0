//! Mistakes that can be planted, to show that the simulator finds them. Only with the feature `mutations`, which nothing but
//! the simulator's tests turns on; without it every question below is answered `false` at compile time.

use crate::group::Group;

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "mutations"), expect(unreachable_pub, reason = "public with the feature only"))]
pub enum Mutation {
    /// The leader counts itself for entries that its own log may still lose.
    CountUnsyncedLeader,
    /// A vote is told before it is durable.
    VoteWithoutSync,
    /// Entries are confirmed before they are durable.
    AcceptWithoutSync,
    /// Entries of earlier terms are committed by counting (Raft figure 8).
    CommitOldTerm,
    /// Entries are appended whatever stands before them.
    SkipLogMatching,
    /// In the joint phase the new majority alone decides.
    ForgetOutgoingQuorum,
    /// A lease never ends.
    EternalLease,
    /// Reads are answered without asking the peers.
    ReadWithoutQuorum,
    /// A vote is given whether or not one was given before.
    VoteTwice,
    /// A vote is given to a candidate whose log lacks entries.
    VoteForStaleLog,
    /// Heartbeats tell followers to commit what they have not confirmed.
    CommitUnconfirmed,
    /// Elections begin without asking whether they have a chance.
    SkipPreVote,
    /// Whoever has just heard from a leader votes for another all the same.
    VoteDespiteLeader,
    /// A restarted replica forgets that it promised a leader not to vote.
    #[cfg(feature = "mutations")]
    ForgetPromise,
    /// A new term is not made durable unless it comes with a vote.
    ForgetTerm,
}

#[cfg(feature = "mutations")]
impl Mutation {
    /// Every one of them.
    pub const ALL: [Self; 15] = [
        Self::CountUnsyncedLeader,
        Self::VoteWithoutSync,
        Self::AcceptWithoutSync,
        Self::CommitOldTerm,
        Self::SkipLogMatching,
        Self::ForgetOutgoingQuorum,
        Self::EternalLease,
        Self::ReadWithoutQuorum,
        Self::VoteTwice,
        Self::VoteForStaleLog,
        Self::CommitUnconfirmed,
        Self::SkipPreVote,
        Self::VoteDespiteLeader,
        Self::ForgetPromise,
        Self::ForgetTerm,
    ];
}

#[cfg(feature = "mutations")]
impl Group {
    /// Makes the group wrong from now on.
    pub fn plant(&mut self, mutation: Mutation) {
        self.mutation = Some(mutation);
        if mutation == Mutation::ForgetPromise {
            self.forget_promise();
        }
    }

    pub(crate) fn is_planted(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

#[cfg(not(feature = "mutations"))]
impl Group {
    pub(crate) const fn is_planted(&self, _mutation: Mutation) -> bool {
        false
    }
}
