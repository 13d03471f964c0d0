//! Peers behind the beginning of the log, and old entries.

use super::rig::*;
use crate::types::{Index, LogId, SnapshotMeta, WriteId};
use crate::{Body, Effect, FetchId, LogWrite, Membership, Round};
use alloc::vec;
use core::time::Duration;

fn meta(term: u64, index: u64) -> SnapshotMeta {
    SnapshotMeta { last: LogId::new(term, index), membership: Membership::new([N1, N2, N3], []) }
}

/// A leader that has compacted its first entry, which n3 lacks.
fn compacted() -> Rig {
    let mut rig = Rig::settled_leader();
    rig.group.compact(Index(1));
    rig.tell(N3, 1, Body::HeartbeatReply { round: Round(1) });
    rig
}

#[test]
fn a_peer_that_lags_too_far_is_offered_a_snapshot_until_it_has_it() {
    let mut rig = Rig::settled_leader();
    rig.group.compact(Index(1));
    let wanted = || Effect::PrepareSnapshot { to: N3, at_least: Index(1) };
    assert_eq!(rig.tell(N3, 1, Body::HeartbeatReply { round: Round(1) }), [wanted()]);
    rig.group.offer_snapshot(rig.now, N3, meta(1, 1));
    let offer = |round| send(N3, 1, Body::SnapshotOffer { meta: meta(1, 1), round: Round(round) }, 0);
    assert!(rig.poll().contains(&offer(2)));
    assert!(rig.time_out().contains(&offer(3)), "again with each heartbeat");
    rig.tell(N3, 1, Body::SnapshotFailed { last: LogId::new(1, 1) });
    assert!(!rig.time_out().contains(&wanted()), "not at once");
    rig.now = rig.now + Duration::from_secs(1);
    assert!(rig.poll().contains(&wanted()), "but an election timeout later");
}

#[test]
fn with_the_snapshot_a_peer_is_streamed_to() {
    let mut rig = compacted();
    rig.group.offer_snapshot(rig.now, N3, meta(1, 1));
    rig.poll();
    rig.tell(N3, 1, Body::Accepted { matched: Index(1), round: Round(0) });
    rig.group.propose(rig.now, bytes::Bytes::from_static(b"x")).expect("it leads");
    let sent = rig.poll().into_iter().any(|effect| {
        matches!(effect, Effect::Send { to: N3, message, .. } if matches!(message.body, Body::Append { prev, .. } if prev == LogId::new(1, 1)))
    });
    assert!(sent);
}

#[test]
fn an_installed_snapshot_replaces_a_log_that_does_not_reach_it() {
    let mut rig = Rig::follower(&[1, 1]);
    let offer = Body::SnapshotOffer { meta: meta(2, 9), round: Round(3) };
    rig.tell(N2, 2, offer.clone());
    rig.group.handle_durable(rig.now, WriteId(1));
    assert_eq!(rig.tell(N2, 2, offer), [send(N2, 2, Body::SnapshotPending { round: Round(3) }, 0)], "under way");
    rig.group.handle_snapshot_installed(rig.now, &meta(2, 9));
    let restart = LogWrite::Restart { start: LogId::new(2, 9), entries: vec![] };
    assert_eq!(
        rig.poll(),
        [
            Effect::Persist { write: WriteId(2), hard_state: None, log: restart },
            send(N2, 2, Body::Accepted { matched: Index(9), round: Round(0) }, 2)
        ]
    );
    assert_eq!((rig.group.applied(), rig.group.last()), (Index(9), LogId::new(2, 9)));
}

#[test]
fn a_snapshot_of_what_is_here_is_not_fetched() {
    let mut rig = Rig::follower(&[1, 1]);
    let effects = rig.tell(N2, 1, Body::SnapshotOffer { meta: meta(1, 2), round: Round(3) });
    assert!(effects.contains(&send(N2, 1, Body::Accepted { matched: Index(2), round: Round(3) }, 0)));
    assert_eq!(rig.group.committed(), Index(2));
}

#[test]
fn while_a_snapshot_is_installed_nothing_is_applied() {
    let mut rig = Rig::follower(&[1, 1]);
    rig.tell(N2, 1, Body::SnapshotOffer { meta: meta(1, 9), round: Round(3) });
    let append = Body::Append { prev: LogId::new(1, 2), entries: vec![], commit: Index(2), round: Round(4) };
    let applies = |effects: &[Effect]| effects.iter().any(|effect| matches!(effect, Effect::Apply { .. }));
    assert!(!applies(&rig.tell(N2, 1, append)));
    rig.group.handle_snapshot_failed(rig.now);
    assert!(applies(&rig.poll()));
}

#[test]
fn entries_no_longer_in_memory_are_fetched_for_a_slow_peer() {
    let mut rig = Rig::settled_leader();
    // Three entries of a megabyte: the tail keeps one megabyte of what is durable and applied.
    for _ in 0..3 {
        rig.group.propose(rig.now, bytes::Bytes::from(vec![0; 1 << 20])).expect("it leads");
    }
    rig.poll();
    rig.group.handle_durable(rig.now, WriteId(3));
    rig.tell(N2, 1, Body::Accepted { matched: Index(4), round: Round(1) });
    rig.group.handle_applied(rig.now, Index(4));
    rig.poll();
    assert!(rig.group.tail_bytes() <= 1 << 20);
    let effects = rig.tell(N3, 1, Body::Accepted { matched: Index(1), round: Round(1) });
    let fetch = Effect::Fetch { fetch: FetchId(1), first: Index(2), last: Index(4), bytes_max: 512 << 10 };
    assert!(effects.contains(&fetch), "{effects:?}");
    let entry =
        crate::Entry { id: LogId::new(1, 2), kind: crate::EntryKind::Data(bytes::Bytes::from(vec![0; 1 << 20])) };
    rig.group.handle_fetched(rig.now, FetchId(1), Ok(vec![entry]));
    let effects = rig.poll();
    assert!(
        matches!(&effects[0], Effect::Send { to: N3, message, .. } if matches!(&message.body, Body::Append { prev, entries, .. } if prev.index == Index(1) && entries.len() == 1))
    );
    assert!(matches!(effects[1], Effect::Fetch { fetch: FetchId(2), first: Index(3), .. }), "and the next");
}
