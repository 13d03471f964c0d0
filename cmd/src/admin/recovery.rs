//! Ranges that have lost the majority of their replicas for good, and are to go on with what is left. Never by itself: what only the lost
//! replicas had is lost then, and a majority that is only away and comes back would be another range of the same name.
//!
//! So the nodes that are missing must have been declared lost before (`bifroctl node remove --lost`), which nobody lets in again; every node that
//! lives must have said what it has; and of the replicas that are left the one with the newest log goes on.

use super::AdminState;
use super::cluster::{Told, refused};
use super::ranges::{Reports, best, gather, named, order};
use axum::http::StatusCode;
use bifro_cluster::{Handle, View};
use bifro_core::ids::{NodeId, RangeId, RangeKind};
use bifro_core::ranges::{RangeOrder, ReplicaReport};
use bifro_core::roles::Roles;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long the ranges may take until they serve again, and how often that is looked at.
const PATIENCE: Duration = Duration::from_secs(8);
const LOOK: Duration = Duration::from_millis(200);
/// What stands for every range that has lost its majority.
const ALL: &str = "all";

/// How a range is to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Recovery {
    range: RangeId,
    on: NodeId,
    newest: u64,
    /// Up to where the replica there has the log; none if there is no replica left.
    from: Option<(u64, u64)>,
}

/// Why a range is left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Obstacle {
    /// It has a leader, or enough voters live that it will have.
    IsSound,
    /// These may come back, with what is missing.
    Expected(BTreeSet<NodeId>),
    /// Nobody may be given a replica.
    NoHost,
}

/// Has a range, or all that need it, go on without what is lost.
pub(super) async fn recover(state: &AdminState, range: &str) -> Told {
    match try_recover(state, range).await {
        Ok(text) => (StatusCode::OK, text),
        Err(told) => told,
    }
}

async fn try_recover(state: &AdminState, range: &str) -> Result<String, Told> {
    let wanted = if range == ALL { None } else { Some(named(range)?) };
    let alone = || refused("this node is alone: its ranges have no other replicas".to_owned());
    let handle = state.cluster.handle().ok_or_else(alone)?;
    let Reports { replicas, silent } = gather(state).await;
    if !silent.is_empty() {
        let nodes = listed(&silent);
        return Err((
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{nodes} lives and has not answered, and may have a newer replica: try again\n"),
        ));
    }
    let recoveries = plan(wanted, replicas, &state.unled(), &handle.view.get())?;
    if recoveries.is_empty() {
        return Ok("no range has lost its majority\n".to_owned());
    }
    for recovery in &recoveries {
        let Recovery { range, on, newest, .. } = *recovery;
        order(handle, on, RangeOrder::Recover(range, newest)).await?;
    }
    until_served(state, handle, &recoveries).await?;
    Ok(recoveries.iter().map(told).collect())
}

fn told(recovery: &Recovery) -> String {
    let Recovery { range, on, from, .. } = recovery;
    match from {
        Some((term, index)) => format!("{range} goes on on {on}, from its log up to {term}.{index}\n"),
        None => format!("{range} begins anew on {on}: nobody had a replica, its sessions are lost\n"),
    }
}

fn listed<'a>(nodes: impl IntoIterator<Item = &'a NodeId>) -> String {
    nodes.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What to do; nothing at all unless all of it can be done.
fn plan(
    wanted: Option<RangeId>,
    replicas: Vec<ReplicaReport>,
    unled: &[RangeId],
    view: &View,
) -> Result<Vec<Recovery>, Told> {
    let mut ranges: BTreeMap<RangeId, Vec<ReplicaReport>> = unled.iter().map(|range| (*range, Vec::new())).collect();
    for report in replicas {
        ranges.entry(report.range).or_default().push(report);
    }
    ranges.retain(|range, _| match wanted {
        Some(wanted) => *range == wanted,
        None => range.parts().is_some_and(|(kind, _)| kind == RangeKind::Inbox),
    });
    if let (Some(range), true) = (wanted, ranges.is_empty()) {
        return Err((StatusCode::NOT_FOUND, format!("nobody has a replica of {range}, or misses one\n")));
    }
    let (mut recoveries, mut expected) = (Vec::new(), BTreeSet::new());
    for (range, replicas) in &ranges {
        match recovery(*range, replicas, view) {
            Ok(recovery) => recoveries.push(recovery),
            Err(Obstacle::IsSound) if wanted.is_some() => {
                return Err(refused(format!(
                    "{range} has a leader, or a majority of its voters lives and will elect one: nothing is to be recovered"
                )));
            }
            Err(Obstacle::IsSound) => {}
            Err(Obstacle::Expected(nodes)) => expected.extend(nodes),
            Err(Obstacle::NoHost) => {
                return Err(refused(format!(
                    "no node that lives may have a replica of {range}: start one with roles.inbox"
                )));
            }
        }
    }
    if expected.is_empty() { Ok(recoveries) } else { Err(refused(advice(&expected))) }
}

fn advice(expected: &BTreeSet<NodeId>) -> String {
    let commands: Vec<String> = expected.iter().map(|node| format!("`bifroctl node remove {node} --lost`")).collect();
    format!(
        "{} may come back, with what is missing here: start them. If their disks are lost for good, say so first: {}",
        listed(expected),
        commands.join(", ")
    )
}

/// How one range is to go on, if it has lost its majority and whoever is missing is known to be lost.
fn recovery(range: RangeId, replicas: &[ReplicaReport], view: &View) -> Result<Recovery, Obstacle> {
    let is_lost = |node: NodeId| {
        let mut members = view.members.iter();
        members.any(|member| member.announcement.id == node && member.is_expelled())
    };
    let Some(best) = best(replicas) else { return begin_anew(range, view) };
    let here = |node: &NodeId| replicas.iter().any(|one| one.node == *node);
    let has_majority = |voters: &[NodeId]| 2 * voters.iter().filter(|node| here(node)).count() > voters.len();
    let decides = has_majority(&best.voters) && (best.outgoing.is_empty() || has_majority(&best.outgoing));
    if best.leads() || decides {
        return Err(Obstacle::IsSound);
    }
    // A learner may have more than what is left, and know it to be committed.
    let members = best.voters.iter().chain(&best.outgoing).chain(&best.learners);
    let missing = members.filter(|node| !here(node) && !is_lost(**node));
    let missing: BTreeSet<NodeId> = missing.copied().collect();
    if !missing.is_empty() {
        return Err(Obstacle::Expected(missing));
    }
    let newest = replicas.iter().map(|one| one.term).max().unwrap_or_default();
    Ok(Recovery { range, on: best.node, newest, from: Some((best.last_term, best.last_index)) })
}

/// A range of which nobody who lives has a replica. Whoever does not live may have one, unless it is lost.
fn begin_anew(range: RangeId, view: &View) -> Result<Recovery, Obstacle> {
    let away = view.members.iter().filter(|member| !member.status.is_present() && !member.is_expelled());
    let hosts = away.filter(|member| member.announcement.duties.roles.has(Roles::INBOX));
    let expected: BTreeSet<NodeId> = hosts.map(|member| member.announcement.id).collect();
    if !expected.is_empty() {
        return Err(Obstacle::Expected(expected));
    }
    let present = view.members.iter().filter(|member| member.status.is_present()).map(|member| &member.announcement);
    let host = present.chain([&view.me]).filter(|node| node.duties.takes_on(Roles::INBOX)).map(|node| node.id).min();
    Ok(Recovery { range, on: host.ok_or(Obstacle::NoHost)?, newest: 0, from: None })
}

/// Waits until all of them are served again.
async fn until_served(state: &AdminState, handle: &Handle, recoveries: &[Recovery]) -> Result<(), Told> {
    let start = tokio::time::Instant::now();
    loop {
        let Reports { replicas, .. } = gather(state).await;
        let is_served = |one: &Recovery| {
            replicas.iter().any(|replica| replica.range == one.range && replica.leads() && replica.held.is_some())
        };
        let waiting: Vec<String> =
            recoveries.iter().filter(|one| !is_served(one)).map(|one| one.range.to_string()).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            let (me, ranges) = (handle.view.get().me.id, waiting.join(", "));
            return Err(refused(format!(
                "{ranges} go on, and are not served yet, as {me} sees it: `bifroctl range list` tells"
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bifro_core::ids::RangeIdx;
    use bifro_core::roles::Duties;
    use bifro_core::time::Instant;
    use bifro_swim::{Announcement, Health, Incarnation, Member, Status};

    const RANGE: RangeId = RangeId::of(RangeKind::Inbox, RangeIdx(3));

    fn announcement(id: u64, incarnation: Incarnation) -> Announcement {
        let (address, duties) = (([127, 0, 0, 1], 1).into(), Duties::default());
        Announcement { id: NodeId(id), incarnation, nonce: id, address, shards: 1, health: Health::Well, duties }
    }

    /// As node 1 sees nodes of which these are dead, and these lost.
    fn view(dead: &[u64], lost: &[u64]) -> View {
        let member = |id: u64, incarnation, status| Member {
            announcement: announcement(id, incarnation),
            status,
            since: Instant::default(),
            evicted: false,
        };
        let dead = dead.iter().map(|&id| member(id, Incarnation::default(), Status::Dead));
        let lost = lost.iter().map(|&id| member(id, Incarnation::LAST, Status::Removed));
        View { cluster: None, me: announcement(1, Incarnation::default()), members: dead.chain(lost).collect() }
    }

    fn replica(node: u64, last: (u64, u64)) -> ReplicaReport {
        ReplicaReport {
            range: RANGE,
            node: NodeId(node),
            leader: None,
            leaderless_ms: 5_000,
            term: last.0 + 2,
            last_term: last.0,
            last_index: last.1,
            committed: 1,
            applied: 1,
            log_entries: 1,
            voters: [1, 2, 3].map(NodeId).to_vec(),
            outgoing: Vec::new(),
            learners: vec![NodeId(4)],
            lags: Vec::new(),
            held: None,
        }
    }

    #[test]
    fn the_newest_replica_that_is_left_goes_on_once_all_that_is_missing_is_lost() {
        let left = [replica(1, (3, 20)), replica(4, (4, 7))];
        let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        assert_eq!(recovery(RANGE, &left, &view(&[2, 3], &[])), Err(Obstacle::Expected(nodes(&[2, 3]))));
        assert_eq!(recovery(RANGE, &left, &view(&[2], &[3])), Err(Obstacle::Expected(nodes(&[2]))));
        let expected = Recovery { range: RANGE, on: NodeId(4), newest: 6, from: Some((4, 7)) };
        assert_eq!(recovery(RANGE, &left, &view(&[], &[2, 3])), Ok(expected));
    }

    #[test]
    fn a_range_with_a_leader_or_a_majority_is_left_alone() {
        let two = [replica(1, (3, 20)), replica(2, (3, 20))];
        assert_eq!(recovery(RANGE, &two, &view(&[], &[3])), Err(Obstacle::IsSound));
        let led = ReplicaReport { leader: Some(NodeId(1)), ..replica(1, (3, 20)) };
        assert_eq!(recovery(RANGE, &[led], &view(&[], &[2, 3])), Err(Obstacle::IsSound));
        let changing = ReplicaReport { outgoing: [1, 5, 6].map(NodeId).to_vec(), ..replica(1, (3, 21)) };
        let told = recovery(RANGE, &[changing, replica(2, (3, 20))], &view(&[5], &[3, 4, 6]));
        assert_eq!(told, Err(Obstacle::Expected([NodeId(5)].into())), "both majorities are needed");
    }

    #[test]
    fn a_range_without_any_replica_begins_anew_once_nobody_can_have_one() {
        assert_eq!(recovery(RANGE, &[], &view(&[2], &[3])), Err(Obstacle::Expected([NodeId(2)].into())));
        let expected = Recovery { range: RANGE, on: NodeId(1), newest: 0, from: None };
        assert_eq!(recovery(RANGE, &[], &view(&[], &[2, 3])), Ok(expected));
        let told = plan(None, Vec::new(), &[RANGE], &view(&[2], &[3])).expect_err("n2 may have one").1;
        assert!(told.contains("`bifroctl node remove n2 --lost`"), "{told}");
    }
}
