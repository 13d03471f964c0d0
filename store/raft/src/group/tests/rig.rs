//! One replica, n1, whose host the test plays.

use crate::types::{Entry, EntryKind, HardState, LogId, SnapshotMeta, Term, WriteId};
use crate::{Body, Config, Effect, Group, Identity, LogWrite, Membership, Message, Restored, Role, Round};
use alloc::vec::Vec;
use bifro_core::ids::{NodeId, RangeId};
use bifro_core::rng::Prng;
use bifro_core::time::Instant;
use bytes::Bytes;
use core::time::Duration;

pub(super) const N1: NodeId = NodeId(1);
pub(super) const N2: NodeId = NodeId(2);
pub(super) const N3: NodeId = NodeId(3);

pub(super) struct Rig {
    pub(super) group: Group,
    pub(super) now: Instant,
}

impl Rig {
    /// A new replica of a group with these voters.
    pub(super) fn with_voters(voters: &[NodeId]) -> Self {
        Self::restored(HardState::default(), voters, [])
    }

    /// A replica that was here before.
    pub(super) fn restored(hard_state: HardState, voters: &[NodeId], log: impl IntoIterator<Item = Entry>) -> Self {
        let membership = Membership::new(voters.iter().copied(), []);
        let checkpoint = SnapshotMeta { last: LogId::ZERO, membership };
        let restored = Restored { hard_state, checkpoint, log_start: LogId::ZERO };
        let identity = Identity { range: RangeId(1), node: N1 };
        let now = Instant::from_micros(1_000_000);
        let config = Config { quiesce_after: None, ..Config::DEFAULT };
        let group = Group::new(config, identity, restored, log, Prng::new(1), now).expect("a whole log");
        Self { group, now }
    }

    /// A voter of three that follows n2 in term 1 and has these terms of entries, all durable and confirmed.
    pub(super) fn follower(terms: &[u64]) -> Self {
        let log = terms.iter().zip(1..).map(|(term, index)| data(*term, index));
        let term = Term(terms.last().copied().unwrap_or(0).max(1));
        let mut rig = Self::restored(HardState { term, ..HardState::default() }, &[N1, N2, N3], log);
        rig.poll();
        rig.now = rig.now + Duration::from_secs(1);
        rig
    }

    /// The leader of three in term 1; its first entry is durable and confirmed by nobody.
    pub(super) fn leader() -> Self {
        let mut rig = Self::with_voters(&[N1, N2, N3]);
        rig.elect();
        rig.group.handle_durable(rig.now, WriteId(2));
        rig.poll();
        rig
    }

    /// The leader of three in term 1; its first entry is durable, confirmed by n2, committed and applied.
    pub(super) fn settled_leader() -> Self {
        let mut rig = Self::leader();
        rig.tell(N2, 1, Body::Accepted { matched: crate::Index(1), round: Round(1) });
        rig.group.handle_applied(rig.now, crate::Index(1));
        rig.poll();
        rig
    }

    fn elect(&mut self) {
        self.time_out();
        self.tell(N2, 0, Body::PreVoteReply { asked_in: Term(0), granted: true });
        self.group.handle_durable(self.now, WriteId(1));
        self.tell(N2, 1, Body::VoteReply { granted: true });
        assert_eq!(self.group.role(), Role::Leader);
    }

    /// Goes to the next deadline and beyond.
    pub(super) fn time_out(&mut self) -> Vec<Effect> {
        self.now = self.group.next_timeout().expect("there is a deadline");
        self.group.handle_timeout(self.now);
        self.poll()
    }

    /// A message and the end of the turn.
    pub(super) fn tell(&mut self, from: NodeId, term: u64, body: Body) -> Vec<Effect> {
        let message = Message { term: Term(term), body };
        self.group.handle_message(self.now, from, message).expect("a lawful message");
        self.poll()
    }

    /// The end of a turn.
    pub(super) fn poll(&mut self) -> Vec<Effect> {
        let mut out = Vec::new();
        self.group.poll_effects(self.now, &mut out);
        self.group.validate();
        let mut again = Vec::new();
        self.group.poll_effects(self.now, &mut again);
        assert_eq!(again, [], "a turn without inputs has no effects");
        out
    }
}

pub(super) fn data(term: u64, index: u64) -> Entry {
    Entry { id: LogId::new(term, index), kind: EntryKind::Data(Bytes::from_static(b"x")) }
}

pub(super) fn noop(term: u64, index: u64) -> Entry {
    Entry { id: LogId::new(term, index), kind: EntryKind::Noop }
}

pub(super) fn send(to: NodeId, term: u64, body: Body, after: u64) -> Effect {
    Effect::Send { to, message: Message { term: Term(term), body }, after: WriteId(after) }
}

pub(super) fn persist_vote(write: u64, term: u64, vote: Option<NodeId>) -> Effect {
    let hard_state = Some(HardState { term: Term(term), vote, ..HardState::default() });
    Effect::Persist { write: WriteId(write), hard_state, log: LogWrite::Nothing }
}

pub(super) fn persist_entries(write: u64, entries: &[Entry]) -> Effect {
    Effect::Persist { write: WriteId(write), hard_state: None, log: LogWrite::Append(entries.to_vec()) }
}

pub(super) fn role(role: Role, term: u64, leader: Option<NodeId>) -> Effect {
    Effect::RoleChanged { role, term: Term(term), leader }
}
