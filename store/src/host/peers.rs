//! The host among its peers: frames in and out, members, leadership.

use super::change::{Change, Malformed};
use super::frame::{self, Part};
use super::shard::Host;
use bifro_core::ids::{NodeId, RangeId};
use bifro_core::time::Instant;
use bifro_raft::{Batch, Body, ChangeError, Group, Membership, TransferError};

impl Host {
    /// Takes in a frame of a peer's host, about ranges that this host was told of; [`frame::split`] cuts one that is also about others.
    /// A frame may be lost, delayed, overtaken and repeated. Afterwards, in the same turn, [`Host::end_turn`] is due.
    ///
    /// # Errors
    /// If it cannot be read. Nothing has changed then.
    pub fn receive(&mut self, now: Instant, from: NodeId, bytes: &[u8]) -> Result<(), Malformed> {
        let parts = frame::read(bytes).ok_or(Malformed)?;
        let mut batch = Batch::default();
        for (range, part) in parts {
            match part {
                Part::Raft(message) => {
                    if matches!(message.body, Body::PreVote { .. } | Body::Vote { .. }) {
                        self.answer_stranger(range, from);
                    }
                    batch.push(range, message);
                }
                Part::Fetch { last, from: key } => self.serve(now, range, from, last, key),
                chunk @ Part::Chunk { .. } => self.take_chunk(now, range, from, chunk),
                Part::NoSnapshot { last } => self.handle_no_snapshot(now, range, from, last),
                Part::IsMember => self.answer_stranger(range, from),
                Part::NotMember { since, as_of } => self.handle_not_member(range, since, as_of),
            }
        }
        let mut refused = Vec::new();
        self.multi.handle_batch(now, from, batch, &mut refused);
        for refusal in refused {
            self.handle_refusal(now, from, refusal);
        }
        self.carry_out(now);
        Ok(())
    }

    /// What is to be sent now, each frame to the host of the same range on that node: by whom, is the caller's business. To be asked after
    /// [`Host::poll`], [`Host::end_turn`] and [`Host::receive`].
    pub fn take_frames(&mut self) -> impl Iterator<Item = (NodeId, Vec<u8>)> + use<> {
        let outgoing = std::mem::take(&mut self.outgoing);
        outgoing.into_iter().flat_map(|(to, frames)| frames.finish().into_iter().map(move |frame| (to, frame)))
    }

    pub(super) fn say(&mut self, to: NodeId, range: RangeId, part: &Part) {
        self.outgoing.entry(to).or_default().push(range, part);
    }

    /// Whether there is a replica of the range here, and not one on its way out.
    pub fn has_replica(&self, range: RangeId) -> bool {
        self.multi.group(range).is_some()
    }

    /// The underlay has declared a node dead: groups that have gone quiet and count on it wake. What comes from it afterwards is to be
    /// dropped, until the underlay has it back: its last word might send a group to sleep.
    pub fn node_down(&mut self, now: Instant, node: NodeId) {
        self.multi.handle_node_down(now, node);
        self.fail_incoming_from(now, node);
        self.carry_out(now);
    }

    /// What has happened since the last call, in order. Gates stand still from the end of a reign until the next [`Change::Leads`] is taken
    /// here: what [`Host::applied`] had let go before that may still be released, or be thrown away with the machine. What is recorded for a
    /// range counts from the moment that its [`Change::Leads`] was taken, until there is a [`Change::Follows`], taken or not.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let changes = std::mem::take(&mut self.changes);
        for change in &changes {
            match change {
                Change::Leads { range, term } => self.hear(*range, Some(*term)),
                Change::Follows { range, .. } => self.hear(*range, None),
                Change::Loaded { range, .. } => self.note_loaded_taken(*range),
                Change::LoadFailed { .. } => {}
            }
        }
        changes
    }

    fn hear(&mut self, range: RangeId, reign: Option<bifro_raft::Term>) {
        if let Some(hosted) = self.ranges.get_mut(&range) {
            hosted.hear(reign);
        }
    }

    /// Who leads a range, as far as is known here.
    pub fn leader(&self, range: RangeId) -> Option<NodeId> {
        self.multi.group(range)?.leader()
    }

    /// Whether this node leads a range, and has applied all before its reign: [`Change::Leads`] was or will be told.
    #[cfg(test)]
    pub(super) fn leads(&self, range: RangeId) -> bool {
        self.ranges.get(&range).is_some_and(|hosted| hosted.reign().is_some())
    }

    /// The members of a range as of the newest entry here that changes them, committed or not. `None` if there is no replica.
    pub fn membership(&self, range: RangeId) -> Option<&Membership> {
        Some(self.multi.group(range)?.membership())
    }

    /// Whether another node is to lead a range, and does not yet. For an election timeout at most.
    pub fn is_transferring(&self, range: RangeId) -> bool {
        self.multi.group(range).is_some_and(Group::is_transferring)
    }

    /// How many entries a node is not known to have yet. `None` unless this node leads and the other is a member.
    pub fn lag(&self, range: RangeId, node: NodeId) -> Option<u64> {
        let group = self.multi.group(range)?;
        Some(group.last().index.0.saturating_sub(group.matched(node)?.0))
    }

    /// Begins to change a range's members to `target`; [`Host::membership`] tells how far that is.
    ///
    /// # Errors
    /// As [`bifro_raft::Group::change_membership`]. Nothing was begun then.
    pub fn change_membership(&mut self, now: Instant, range: RangeId, target: Membership) -> Result<(), ChangeError> {
        let group = self.multi.input(range).ok_or(ChangeError::NotLeader { leader: None })?;
        group.change_membership(now, target.voters, target.learners)?;
        self.carry_out(now);
        Ok(())
    }

    /// Begins to hand leadership over. For an election timeout at most what is recorded waits.
    ///
    /// # Errors
    /// As [`bifro_raft::Group::transfer_leadership`]. Nothing was begun then.
    pub fn transfer_leadership(&mut self, now: Instant, range: RangeId, to: NodeId) -> Result<(), TransferError> {
        let group = self.multi.input(range).ok_or(TransferError::NotLeader { leader: None })?;
        group.transfer_leadership(now, to)?;
        self.carry_out(now);
        Ok(())
    }
}
