//! Handing leadership over (dissertation, 3.10): bring the target up to date, then tell it to campaign at once.

use super::leader::Transfer;
use super::timers::Timer;
use super::{Group, State};
use crate::error::TransferError;
use crate::message::Body;
use bifro_core::ids::NodeId;
use bifro_core::time::Instant;

impl Group {
    /// Hands leadership over to another voter. Proposals are refused until that has happened or an election timeout has
    /// passed, after which this replica goes on leading.
    ///
    /// # Errors
    /// If nothing was begun.
    pub fn transfer_leadership(&mut self, now: Instant, to: NodeId) -> Result<(), TransferError> {
        self.advance(now);
        let eligible = to != self.identity.node && self.members.current().is_voter(to);
        let State::Leader(leader) = &mut self.state else {
            return Err(TransferError::NotLeader { leader: self.leader });
        };
        match leader.transfer {
            Some(transfer) if transfer.to != to => return Err(TransferError::Transferring { to: transfer.to }),
            Some(_) => return Ok(()),
            None if !eligible => return Err(TransferError::NotEligible),
            None => leader.transfer = Some(Transfer { to, told: false }),
        }
        leader.busy_at = self.now;
        self.timers.set(Timer::Transfer, self.now + self.config.election_timeout);
        self.wake();
        Ok(())
    }

    /// Whether it leads, and another is to.
    pub const fn is_transferring(&self) -> bool {
        matches!(&self.state, State::Leader(leader) if leader.transfer.is_some())
    }

    /// Tells the target to campaign, once it has the whole log. From then on there is no lease: voters disregard it.
    pub(super) fn hand_over_if_ready(&mut self) {
        let last = self.log.last().index;
        let Some(leader) = self.leader_state() else { return };
        let Some(Transfer { to, told: false }) = leader.transfer else { return };
        if leader.peers.get(&to).is_some_and(|peer| peer.matched == last) {
            leader.transfer = Some(Transfer { to, told: true });
            leader.lease_forfeited = true;
            self.send(to, Body::TimeoutNow);
        }
    }

    pub(super) fn abort_transfer(&mut self) {
        if let Some(leader) = self.leader_state() {
            leader.transfer = None;
        }
    }
}
