//! Connections here and the leaders of their inboxes: who goes on, who has to go, and who is refused.

use super::*;

/// A connection's tie to its inbox.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attachment {
    pub(super) range: RangeIdx,
    tie: Tie,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tie {
    /// The range's leader knows of the connection, and has said so.
    Firm,
    /// It has been told what the connection has in hand, and may not take it for the owner.
    Told,
    /// The leader that knew of it is none any more, and there is no other.
    Loose,
    /// The driver has been asked what the connection has in hand, for the next leader.
    Asked,
}

/// A range that nobody claims.
#[derive(Clone, Copy, Debug)]
pub(super) enum Orphaned {
    /// For so short a time that it is worth waiting.
    Since(Instant),
    /// For longer than [`INBOX_ORPHANED_MAX`].
    Long,
}

impl Orphaned {
    pub(super) fn is_long_at(self) -> Option<Instant> {
        match self {
            Self::Since(since) => Some(since + INBOX_ORPHANED_MAX),
            Self::Long => None,
        }
    }
}

impl RangeServices {
    /// A connection has its inbox.
    pub(in crate::services) fn note_attached(&mut self, conn: Slot, range: RangeIdx) {
        if let Some(reigns) = &mut self.reigns {
            reigns.attached.insert(conn, Attachment { range, tie: Tie::Firm });
        }
    }

    /// A connection says what it has in hand. False if there is nobody to hear it: it will be asked again.
    pub(in crate::services) fn note_reattached(&mut self, conn: Slot) -> bool {
        let Some(reigns) = &mut self.reigns else { return false };
        let Some(&Attachment { range, tie: Tie::Asked }) = reigns.attached.get(&conn) else { return false };
        let tie = if reigns.leader(range).is_some() { Tie::Told } else { Tie::Loose };
        reigns.attached.insert(conn, Attachment { range, tie });
        tie == Tie::Told
    }

    /// The leader pushes to a connection: it takes it for the owner.
    pub(in crate::services) fn note_owner(&mut self, conn: Slot) {
        let attachment = self.reigns.as_mut().and_then(|reigns| reigns.attached.get_mut(&conn));
        if let Some(attachment) = attachment.filter(|of| of.tie == Tie::Told) {
            attachment.tie = Tie::Firm;
        }
    }

    /// See [`Services::owns_inbox`].
    pub(in crate::services) fn has_firm_tie(&self, conn: Slot) -> bool {
        let Some(reigns) = &self.reigns else { return true };
        reigns.attached.get(&conn).is_some_and(|of| of.tie == Tie::Firm)
    }

    /// Whether a connection takes what the leader counted so pushes to it.
    pub(in crate::services) fn is_attached(&self, conn: Slot, claim: u32) -> bool {
        self.has_tie(conn, claim, |tie| matches!(tie, Tie::Firm | Tie::Told))
    }

    /// Whether a connection has to do with the leader counted so at all.
    pub(in crate::services) fn counts_on(&self, conn: Slot, claim: u32) -> bool {
        self.has_tie(conn, claim, |_| true)
    }

    fn has_tie(&self, conn: Slot, claim: u32, is_meant: impl Fn(Tie) -> bool) -> bool {
        let Some(reigns) = &self.reigns else { return false };
        reigns.attached.get(&conn).is_some_and(|of| is_meant(of.tie) && reigns.is_counted(of.range, claim))
    }

    /// It gives it up. False if it has lost it already.
    pub(in crate::services) fn note_detached(&mut self, conn: Slot) -> bool {
        self.reigns.as_mut().is_none_or(|reigns| reigns.attached.remove(&conn).is_some())
    }

    /// Connections whose inboxes are in the range have another leader, if there `is_led`.
    pub(super) fn move_inboxes(&mut self, range: RangeIdx, is_led: bool) {
        let (Some(reigns), shard) = (&mut self.reigns, self.shard) else { return };
        let mut asked = Vec::new();
        for (&slot, attachment) in reigns.attached.iter_mut().filter(|(_, of)| of.range == range) {
            match attachment.tie {
                Tie::Firm | Tie::Told | Tie::Loose if is_led => {
                    attachment.tie = Tie::Asked;
                    asked.push(slot);
                }
                Tie::Firm | Tie::Told => attachment.tie = Tie::Loose,
                Tie::Loose | Tie::Asked => {}
            }
        }
        repeat_order(&mut asked, |slot| *slot);
        for slot in asked {
            self.complete(Completion::InboxMoved { conn: ConnRef { node: NodeIdx::HERE, shard, slot } });
        }
    }

    /// Whoever has waited too long for a leader hears it: connections have to go, and who would attach is refused.
    pub(in crate::services) fn give_up_orphaned(&mut self, now: Instant) {
        let (Some(reigns), shard) = (&mut self.reigns, self.shard) else { return };
        let mut due = BTreeSet::new();
        for (&range, orphaned) in &mut reigns.orphaned {
            if orphaned.is_long_at().is_some_and(|at| at <= now) {
                *orphaned = Orphaned::Long;
                due.insert(range);
            }
        }
        if due.is_empty() {
            return;
        }
        let mut lost: Vec<_> = reigns.attached.extract_if(|_, of| due.contains(&of.range)).collect();
        repeat_order(&mut lost, |(slot, _)| *slot);
        let is_refused = |(_, range): &Key, request: &mut Request| {
            due.contains(range) && matches!(request, Request::Attach { .. } | Request::Discard { .. })
        };
        let refused: Vec<_> = reigns.asked.extract_if(.., is_refused).collect();
        tracing::warn!(ranges = ?due, "no leader for too long: is a majority of the nodes that have their replicas alive, and reachable from here?");
        for (slot, _) in lost {
            self.complete(Completion::InboxLost { conn: ConnRef { node: NodeIdx::HERE, shard, slot } });
        }
        for (_, request) in refused {
            self.refuse_attach(&request);
        }
    }

    /// Of a range without a leader: true if a connection would attach and that has been so for long.
    pub(super) fn refuses(&mut self, now: Instant, range: RangeIdx, request: &Request) -> bool {
        let Some(reigns) = &mut self.reigns else { return false };
        let orphaned = *reigns.orphaned.entry(range).or_insert(Orphaned::Since(now));
        matches!(orphaned, Orphaned::Long) && self.refuse_attach(request)
    }

    fn refuse_attach(&mut self, request: &Request) -> bool {
        let (Request::Attach { req, .. } | Request::Discard { req, .. }) = request else { return false };
        self.complete(Completion::Attached { req: *req, result: Err(PortError::Unavailable) });
        true
    }
}
