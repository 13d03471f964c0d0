//! Messages at rest: in the range's records, and not in memory until their session's owner is about to want them.
//!
//! ```text
//!  stored ──► carried ──push──► pushed ──commit──► gone
//!               │  ▲
//!          rest │  │ fetched: the owner has fewer than a window of carried messages before it
//!               ▼  │
//!             at rest
//! ```
//! A message rests as soon as nobody is there to have it, or others enough are before it ([`INBOX_CARRIED_MAX`], [`INBOX_CARRIED_BYTES_MAX`]). What has no
//! record (QoS 0) never does, nor what came through a shared group. Of a message that rests the queue keeps what decides about it: place, size,
//! QoS, expiry. One fetch is under way for a session at a time.
//!
//! [`InboxEffect::Fetch`] is an effect like any other: it is carried out when all changes before it are durable and applied. So the record of
//! whatever rested then is there.

use super::books::{Kind, key, place_of_queued};
use super::effect::InboxEffect;
use super::load::read_queued;
use super::session::{Inbox, Presence};
use super::table::InboxTable;
use crate::limits::{INBOX_CARRIED_BYTES_MAX, INBOX_CARRIED_MAX};
use crate::record::{Reader, RecordError};
use alloc::vec::Vec;
use bifro_core::ids::{InboxSeq, Slot};
use bifro_core::limits::INBOX_PUSH_WINDOW;
use bifro_core::time::Instant;

impl InboxTable {
    /// The answer to [`InboxEffect::Fetch`]: records, in the order of their keys.
    ///
    /// # Errors
    /// If one cannot be read, or that of the first message wanted is missing: the range's records are damaged.
    pub fn fetched<'a>(
        &mut self,
        now: Instant,
        inbox: Slot,
        records: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        effects: &mut Vec<InboxEffect>,
    ) -> Result<(), RecordError> {
        let Some(inbox) = self.inboxes.occupant_mut(inbox) else { return Ok(()) };
        let Some(wanted) = inbox.fetching.take() else { return Ok(()) };
        if !inbox.has_owner() {
            return Ok(());
        }
        for (key, value) in records {
            let seq = place_of_queued(inbox.slot, key)?;
            if inbox.queue.rests(seq) {
                let mut value = Reader::new(value)?;
                let (carried, _) = read_queued(&mut value, seq, |number| self.books.shared_message(number))?;
                value.finish()?;
                inbox.queue.wake(seq, carried);
            }
        }
        if inbox.queue.rests(wanted) {
            return Err(RecordError::Value("missing: a queued message"));
        }
        inbox.push(now, &mut self.books, effects);
        inbox.settle(&mut self.books);
        Ok(())
    }
}

impl Inbox {
    pub(super) const fn has_owner(&self) -> bool {
        matches!(self.presence, Presence::Attached(..))
    }

    /// Asks for messages that rest, before the owner, whom there must be, has to wait for them.
    pub(super) fn fetch(&mut self, effects: &mut Vec<InboxEffect>) {
        if self.fetching.is_some() {
            return;
        }
        let is_full = self.queue.resident_bytes() > INBOX_CARRIED_BYTES_MAX;
        let Some(first) = self.queue.next_resting(if is_full { 1 } else { INBOX_PUSH_WINDOW }) else { return };
        self.fetching = Some(first);
        let place = |seq: u64| key(Kind::Queued, Some(self.slot), &seq.to_be_bytes()).to_vec();
        effects.push(InboxEffect::Fetch { inbox: self.slot, from: place(first.0), to: place(self.queue.end().0) });
    }

    /// The last message rests, if nobody wants it or more waits in memory than the owner can have soon.
    pub(super) fn rest_last(&mut self, last: InboxSeq) {
        let waiting = self.queue.carried_waiting();
        let is_crowded = waiting > INBOX_CARRIED_MAX || self.queue.resident_bytes() > INBOX_CARRIED_BYTES_MAX;
        if !self.has_owner() || is_crowded && waiting > 1 {
            self.queue.rest(last);
        }
    }
}
