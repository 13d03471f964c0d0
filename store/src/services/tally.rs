//! What a shard's services show in its metric cells.

use super::RangeServices;

impl RangeServices {
    /// Shows what there is, and counts what was dropped since.
    pub(super) fn tell_metrics(&mut self) {
        let mut totals = bifro_range::inbox::Totals::default();
        for range in &self.inboxes {
            let of = range.machine.totals();
            totals.inboxes += of.inboxes;
            totals.messages += of.messages;
            totals.bytes += of.bytes;
            totals.dropped_full += of.dropped_full;
            totals.dropped_expired += of.dropped_expired;
        }
        self.metrics.inboxes.set(totals.inboxes);
        self.metrics.inbox_messages.set(totals.messages);
        self.metrics.inbox_bytes.set(totals.bytes);
        self.metrics.retained_messages.set(self.retained.iter().map(|range| range.machine.messages()).sum());
        self.metrics.retained_bytes.set(self.retained.iter().map(|range| range.machine.bytes()).sum());
        self.metrics.routes.set(self.routes.routes());
        if let Some(reigns) = &self.reigns {
            self.metrics.ranges_unled.set(reigns.unled() as u64);
            self.metrics.ranges_led.set(self.states.iter().filter(|state| state.leads()).count() as u64);
        }
        let (full, expired) = self.dropped_told;
        if (full, expired) != (totals.dropped_full, totals.dropped_expired) {
            self.metrics.dropped_queue_full.add(totals.dropped_full - full);
            self.metrics.dropped_expired.add(totals.dropped_expired - expired);
            self.dropped_told = (totals.dropped_full, totals.dropped_expired);
        }
    }
}
