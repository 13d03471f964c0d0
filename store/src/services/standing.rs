//! What a shard says of itself to whoever simulates it.

use super::RangeServices;

impl RangeServices {
    /// What the turn that has just ended has left for whatever comes next, if anything comes; none if it has seen to all it could.
    pub fn overlooked(&self) -> Option<&'static str> {
        let host = self.host.as_ref()?;
        if self.inboxes.iter().any(|range| range.is_releasable(host)) {
            return Some("effects of sessions whose changes are applied");
        }
        if self.retained.iter().any(|range| range.is_releasable(host)) {
            return Some("effects of retained messages whose changes are applied");
        }
        (self.is_touched && !self.has_loaded()).then_some("changes that nobody has proposed")
    }

    /// Where this shard stands, for whoever looks for the reason that something is not as it should be.
    pub fn standing(&self) -> String {
        let unclaimed: Vec<_> = self.reigns.iter().flat_map(|reigns| reigns.unclaimed()).collect();
        let cluster = self.cluster.as_ref().map(|cluster| cluster.standing()).unwrap_or_default();
        let additions: Vec<_> = self.additions.iter().take(4).map(|(_, addition)| addition).collect();
        let held = self.inboxes.iter().map(|range| (range.idx, range.held(), range.machine.totals().messages));
        let held: Vec<_> = held.collect();
        format!(
            "unclaimed {unclaimed:?}; states {:?}; {cluster}; additions {}, as {additions:?}; held {held:?}",
            self.states,
            self.additions.len()
        )
    }
}
