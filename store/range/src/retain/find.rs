//! The search for retained messages: within limits of the answer, and within a bounded number of steps per call.

use super::{RetainEffect, RetainTable};
use crate::key::ReplyTo;
use crate::limits::RETAINED_FIND_STEPS_MAX;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bifro_core::ids::TenantIdx;
use bifro_core::ports::RetainedMessage;
use bifro_core::settings::TenantSettings;
use bifro_core::time::Instant;
use core::ops::ControlFlow;

/// How large an answer may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FindLimits {
    messages: u64,
    bytes: u64,
}

impl FindLimits {
    /// The tenant's limits; 0 there means unlimited.
    pub fn of(settings: &TenantSettings) -> Self {
        let or_unlimited = |limit: u64| if limit == 0 { u64::MAX } else { limit };
        Self {
            messages: or_unlimited(settings.retained_matches_max.into()),
            bytes: or_unlimited(settings.retained_match_bytes_max),
        }
    }

    /// Takes room for one more message; false if there is none.
    pub fn admit(&mut self, retained: &RetainedMessage) -> bool {
        let bytes = retained.message.footprint_bytes() as u64;
        if self.messages == 0 || bytes > self.bytes {
            return false;
        }
        self.messages -= 1;
        self.bytes -= bytes;
        true
    }
}

/// A search under way.
#[derive(Debug)]
pub(super) struct Find {
    to: ReplyTo,
    tenant: TenantIdx,
    filter: Arc<str>,
    limits: FindLimits,
    bookmark: String,
    messages: Vec<RetainedMessage>,
}

impl RetainTable {
    /// Finds the messages whose topics match `filter`, by topic, within the limits. A search of more than
    /// [`RETAINED_FIND_STEPS_MAX`] steps goes on in [`RetainTable::handle_timeout`]; a topic that is retained all
    /// the while is found exactly once.
    pub fn find(
        &mut self,
        now: Instant,
        to: ReplyTo,
        tenant: TenantIdx,
        filter: Arc<str>,
        limits: FindLimits,
        effects: &mut Vec<RetainEffect>,
    ) {
        let find = Find { to, tenant, filter, limits, bookmark: String::new(), messages: Vec::new() };
        self.go_on(now, find, effects);
    }

    /// Takes as many steps as one call may, then answers or puts the search at the end of the queue.
    pub(super) fn go_on(&mut self, now: Instant, mut find: Find, effects: &mut Vec<RetainEffect>) {
        let mut full = false;
        let ahead = self.tenants.get(&find.tenant).and_then(|of| {
            of.topics.scan(&find.filter, &find.bookmark, RETAINED_FIND_STEPS_MAX, |_, entry| {
                // What has expired is not sent [MQTT5-3.3.2-5]; the timer will remove it.
                if entry.retained.message.view().expiry_at.is_some_and(|at| at <= now) {
                    return ControlFlow::Continue(());
                }
                full = !find.limits.admit(&entry.retained);
                if full {
                    return ControlFlow::Break(());
                }
                find.messages.push(entry.retained.clone());
                ControlFlow::Continue(())
            })
        });
        match ahead {
            Some(bookmark) if !full => {
                find.bookmark = bookmark;
                self.finds.push_back(find);
            }
            _ => effects.push(RetainEffect::Found { to: find.to, messages: find.messages }),
        }
    }
}
