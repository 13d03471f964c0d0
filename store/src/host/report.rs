//! What operators see of the replicas here.

use super::range::HostedRange;
use super::shard::Host;
use bifro_core::ids::NodeId;
use bifro_core::ranges::ReplicaReport;
use bifro_core::time::Instant;
use bifro_raft::{Group, Role};

impl Host {
    /// Each replica here, in order; what the machines hold is their owner's to say.
    pub fn report(&self, now: Instant) -> Vec<ReplicaReport> {
        let here = self.multi.groups().filter_map(|group| Some((group, self.ranges.get(&group.identity().range)?)));
        here.map(|(group, range)| report_of(now, group, range)).collect()
    }
}

fn report_of(now: Instant, group: &Group, range: &HostedRange) -> ReplicaReport {
    let (identity, members, last) = (group.identity(), group.membership(), group.last());
    let lag = |peer: NodeId| Some((peer, last.index.0.saturating_sub(group.matched(peer)?.0)));
    let leads = group.role() == Role::Leader;
    let since = range.leaderless_since.map_or(0, |since| now.since(since).as_millis());
    ReplicaReport {
        range: identity.range,
        node: identity.node,
        leader: group.leader(),
        leaderless_ms: u64::try_from(since).unwrap_or(u64::MAX),
        term: group.term().0,
        last_term: last.term.0,
        last_index: last.index.0,
        committed: group.committed().0,
        applied: group.applied().0,
        log_entries: last.index.0 - group.log_start().index.0,
        voters: members.voters.clone(),
        outgoing: members.outgoing.clone(),
        learners: members.learners.clone(),
        lags: if leads { members.members().into_iter().filter_map(lag).collect() } else { Vec::new() },
        held: None,
    }
}
