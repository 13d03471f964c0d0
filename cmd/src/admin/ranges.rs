//! The ranges as the admin endpoint shows them, from what all nodes say of their replicas, and what operators change of them.

use super::AdminState;
use super::cluster::{Told, find, refused};
use axum::Json;
use axum::http::StatusCode;
use bifro_cluster::Handle;
use bifro_core::ids::{NodeId, RangeId, RangeKind};
use bifro_core::ranges::{Held, RangeAnswer, RangeOrder, ReplicaReport};
use bifro_swim::{Order, Status};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long this node's shards may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a node may take to become the leader, and how often that is looked at.
const ELECTION: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(100);
/// So many entries behind the leader a replica is worth a word: a leader does not make a learner a voter before.
const BEHIND: u64 = 256;

/// What `GET /ranges` answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct RangesPage {
    /// All ranges of which some node that answered has a replica.
    pub ranges: Vec<RangePage>,
    /// Nodes that live and did not answer in time.
    pub silent: Vec<String>,
}

/// One range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangePage {
    /// Its name: `inbox:7`. A range of retained messages is there once for each node that has a copy.
    pub range: String,
    /// What it is for: `inbox` or `retain`.
    pub kind: String,
    /// Who leads it; none if nobody does.
    pub leader: Option<String>,
    /// In which term, or the newest one that was heard of.
    pub term: u64,
    /// Up to where its log is known to be committed.
    pub committed: u64,
    /// Who votes.
    pub voters: Vec<String>,
    /// Who voted before the change of members under way.
    pub outgoing: Vec<String>,
    /// Who is sent the log and does not vote.
    pub learners: Vec<String>,
    /// `well`, or what is wrong.
    pub health: String,
    /// Persistent sessions; none while nobody serves the range.
    pub sessions: Option<u64>,
    /// Messages queued in these, or retained; likewise.
    pub messages: Option<u64>,
    /// Bytes of the messages; likewise.
    pub bytes: Option<u64>,
    /// The replicas of nodes that answered.
    pub replicas: Vec<ReplicaPage>,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaPage {
    /// Where it is.
    pub node: String,
    /// `leader`, `voter`, `learner`, or `none` if it is no member any more, or not yet.
    pub role: String,
    /// The newest term it has seen.
    pub term: u64,
    /// Term and index of the last entry of its log.
    pub last: (u64, u64),
    /// Up to where it knows its log to be committed.
    pub committed: u64,
    /// Up to where it has applied it.
    pub applied: u64,
    /// Entries in its log.
    pub log_entries: u64,
    /// Entries that the leader does not know it to have; none if that is not known.
    pub behind: Option<u64>,
}

/// What the nodes that answered say of their replicas.
#[derive(Default)]
pub(super) struct Reports {
    pub(super) replicas: Vec<ReplicaReport>,
    pub(super) silent: Vec<NodeId>,
}

/// All ranges.
pub(super) async fn page(state: &AdminState) -> Json<RangesPage> {
    let Reports { replicas, silent } = gather(state).await;
    let silent = silent.iter().map(ToString::to_string).collect();
    Json(RangesPage { ranges: pages(replicas), silent })
}

/// Asks every node of the cluster, or this one alone.
pub(super) async fn gather(state: &AdminState) -> Reports {
    let mut reports = Reports::default();
    match state.cluster.handle() {
        Some(handle) => {
            for (node, answer) in handle.ask_all(Order::Ranges(RangeOrder::Show)).await {
                match answer {
                    Some(answer) if answer.ranges.refusal.is_none() => reports.replicas.extend(answer.ranges.replicas),
                    _ => reports.silent.push(node),
                }
            }
        }
        None => {
            let (said, heard) = oneshot::channel();
            // Whoever asked may have gone.
            state.shards.ask(RangeOrder::Show, Box::new(move |answer| drop(said.send(answer))));
            let answer = tokio::time::timeout(PATIENCE, heard).await.ok().and_then(Result::ok);
            reports.replicas = answer.unwrap_or_default().replicas;
        }
    }
    reports
}

/// What all replicas together say of each range, in order.
fn pages(reports: Vec<ReplicaReport>) -> Vec<RangePage> {
    let mut ranges: BTreeMap<(RangeId, Option<NodeId>), Vec<ReplicaReport>> = BTreeMap::new();
    for report in reports {
        let Some((kind, _)) = report.range.parts() else { continue };
        // Each node's retained messages are a group of their own.
        let group = (report.range, (kind == RangeKind::Retain).then_some(report.node));
        ranges.entry(group).or_default().push(report);
    }
    ranges.into_iter().filter_map(|((range, _), replicas)| range_page(range, &replicas)).collect()
}

/// The replica that knows most: the leader of the newest term, else that with the newest log.
pub(super) fn best(replicas: &[ReplicaReport]) -> Option<&ReplicaReport> {
    replicas.iter().max_by_key(|one| (one.leads(), one.leads().then_some(one.term), one.last_term, one.last_index))
}

fn range_page(range: RangeId, replicas: &[ReplicaReport]) -> Option<RangePage> {
    let (kind, _) = range.parts()?;
    let best = best(replicas)?;
    let names = |nodes: &[NodeId]| nodes.iter().map(ToString::to_string).collect();
    let held = replicas.iter().filter(|one| one.leads()).find_map(|one| one.held);
    let held = |count: fn(&Held) -> u64| held.as_ref().map(count);
    let mut rows: Vec<ReplicaPage> = replicas.iter().map(|one| replica_page(one, best)).collect();
    rows.sort_by(|one, other| one.node.cmp(&other.node));
    Some(RangePage {
        range: range.to_string(),
        kind: kind.name().to_owned(),
        leader: best.leads().then(|| best.node.to_string()),
        term: replicas.iter().map(|one| one.term).max().unwrap_or_default(),
        committed: best.committed,
        voters: names(&best.voters),
        outgoing: names(&best.outgoing),
        learners: names(&best.learners),
        health: health(best, replicas),
        sessions: held(|held| held.sessions).filter(|_| kind == RangeKind::Inbox),
        messages: held(|held| held.messages),
        bytes: held(|held| held.bytes),
        replicas: rows,
    })
}

fn replica_page(one: &ReplicaReport, best: &ReplicaReport) -> ReplicaPage {
    let role = match one.node {
        node if best.leads() && node == best.node => "leader",
        node if best.voters.contains(&node) || best.outgoing.contains(&node) => "voter",
        node if best.learners.contains(&node) => "learner",
        _ => "none",
    };
    ReplicaPage {
        node: one.node.to_string(),
        role: role.to_owned(),
        term: one.term,
        last: (one.last_term, one.last_index),
        committed: one.committed,
        applied: one.applied,
        log_entries: one.log_entries,
        behind: best.lags.iter().find(|(node, _)| *node == one.node).map(|(_, lag)| *lag),
    }
}

/// What is wrong with a range, of which `best` knows most.
fn health(best: &ReplicaReport, replicas: &[ReplicaReport]) -> String {
    let here: BTreeSet<NodeId> = replicas.iter().map(|one| one.node).collect();
    if !best.leads() {
        let voters = best.voters.iter().filter(|voter| here.contains(voter)).count();
        let since = replicas.iter().map(|one| one.leaderless_ms).min().unwrap_or_default();
        return format!("no leader for {} s: {voters} of {} voters answer", since / 1_000, best.voters.len());
    }
    let mut wrong = Vec::new();
    if !best.outgoing.is_empty() || !best.learners.is_empty() {
        wrong.push("members change".to_owned());
    }
    for voter in best.voters.iter().filter(|voter| !here.contains(voter)) {
        wrong.push(format!("{voter} does not answer"));
    }
    for (node, lag) in best.lags.iter().filter(|(node, lag)| here.contains(node) && *lag > BEHIND) {
        wrong.push(format!("{node} is {lag} entries behind"));
    }
    if wrong.is_empty() { "well".to_owned() } else { wrong.join(", ") }
}

/// Reads the name of a range in an address.
pub(super) fn named(range: &str) -> Result<RangeId, Told> {
    let wrong = format!("{range} is no range: `bifroctl range list` shows them\n");
    range.parse().map_err(|_| (StatusCode::BAD_REQUEST, wrong))
}

/// Has a range led by another of its voters.
pub(super) async fn lead(state: &AdminState, range: &str, node: &str) -> Told {
    match give_lead(state, range, node).await {
        Ok(text) => (StatusCode::OK, text + "\n"),
        Err(told) => told,
    }
}

async fn give_lead(state: &AdminState, range: &str, node: &str) -> Result<String, Told> {
    let range = named(range)?;
    let (handle, to, status) = find(&state.cluster, node)?;
    if !status.is_none_or(Status::is_present) {
        return Err(refused(format!("{to} does not live, so it cannot lead {range}")));
    }
    let leader = leader_of(state, range).await?;
    // It keeps what it leads already, too.
    order(&handle, to, RangeOrder::Lead(range, to)).await?;
    if leader == to {
        return Ok(format!("{range} is led by {to} already, and stays so until a node comes or goes"));
    }
    order(&handle, leader, RangeOrder::Lead(range, to)).await?;
    let start = tokio::time::Instant::now();
    while start.elapsed() < ELECTION {
        if leader_of(state, range).await == Ok(to) {
            return Ok(format!("{range} is led by {to}, until a node comes or goes"));
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(refused(format!(
        "{to} does not lead {range} yet: it may lack entries, or be out of reach; `bifroctl range show {range}` tells"
    )))
}

async fn leader_of(state: &AdminState, range: RangeId) -> Result<NodeId, Told> {
    let Reports { mut replicas, .. } = gather(state).await;
    replicas.retain(|one| one.range == range);
    match best(&replicas) {
        Some(best) if best.leads() => Ok(best.node),
        Some(_) => Err(refused(format!("{range} has no leader: `bifroctl range show {range}` tells more"))),
        None => Err((StatusCode::NOT_FOUND, format!("nobody who answers has a replica of {range}\n"))),
    }
}

/// Tells a node what is wanted of it, and why it does not do it.
pub(super) async fn order(handle: &Handle, node: NodeId, order: RangeOrder) -> Result<RangeAnswer, Told> {
    let answer = handle.order(node, Order::Ranges(order)).await;
    let silent = || (StatusCode::SERVICE_UNAVAILABLE, format!("{node} has not answered: try again\n"));
    let answer = answer.ok_or_else(silent)?.ranges;
    match answer.refusal {
        Some(why) => Err(refused(why)),
        None => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bifro_core::ids::RangeIdx;

    fn replica(range: RangeId, node: u64, leader: Option<u64>) -> ReplicaReport {
        ReplicaReport {
            range,
            node: NodeId(node),
            leader: leader.map(NodeId),
            leaderless_ms: 0,
            term: 4,
            last_term: 4,
            last_index: 10,
            committed: 9,
            applied: 9,
            log_entries: 5,
            voters: [1, 2, 3].map(NodeId).to_vec(),
            outgoing: Vec::new(),
            learners: Vec::new(),
            lags: Vec::new(),
            held: None,
        }
    }

    const INBOX: RangeId = RangeId::of(RangeKind::Inbox, RangeIdx(0));
    const RETAIN: RangeId = RangeId::of(RangeKind::Retain, RangeIdx(0));

    #[test]
    fn the_leader_of_the_newest_term_is_believed() {
        let held = Some(Held { sessions: 7, messages: 8, bytes: 9 });
        let deposed = ReplicaReport { term: 3, last_index: 20, ..replica(INBOX, 1, Some(1)) };
        let leader = ReplicaReport { held, lags: vec![(NodeId(3), 300)], ..replica(INBOX, 2, Some(2)) };
        let pages = pages(vec![deposed, leader, replica(INBOX, 3, Some(2))]);
        let [page] = &pages[..] else { panic!("{pages:?}") };
        assert_eq!((page.range.as_str(), page.leader.as_deref(), page.sessions), ("inbox:0", Some("n2"), Some(7)));
        assert_eq!(page.health, "n3 is 300 entries behind");
        let roles: Vec<&str> = page.replicas.iter().map(|one| one.role.as_str()).collect();
        assert_eq!(roles, ["voter", "leader", "voter"]);
        assert_eq!(page.replicas[2].behind, Some(300));
    }

    #[test]
    fn a_range_that_lost_its_majority_says_for_how_long_and_who_is_left() {
        let lost = ReplicaReport { leaderless_ms: 12_345, ..replica(INBOX, 2, None) };
        let pages = pages(vec![lost, replica(RETAIN, 2, Some(2)), replica(RETAIN, 1, Some(1))]);
        assert_eq!(pages[0].health, "no leader for 12 s: 1 of 3 voters answer");
        assert_eq!((pages[0].leader.clone(), pages[0].sessions), (None, None));
        let copies: Vec<_> = pages[1..].iter().map(|page| (page.range.as_str(), page.leader.as_deref())).collect();
        assert_eq!(copies, [("retain:0", Some("n1")), ("retain:0", Some("n2"))], "each node has its own");
    }

    #[test]
    fn who_is_missing_or_on_the_move_is_named() {
        let mut leader = replica(INBOX, 1, Some(1));
        assert_eq!(health(&leader, &[1, 2, 3].map(|node| replica(INBOX, node, Some(1)))), "well");
        leader.learners.push(NodeId(4));
        let told = health(&leader, &[1, 3].map(|node| replica(INBOX, node, Some(1))));
        assert_eq!(told, "members change, n2 does not answer");
    }
}
