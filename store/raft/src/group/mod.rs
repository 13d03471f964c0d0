//! One replica of one group: state, construction, and the inputs that are not somebody else's subject. The rest is in the
//! modules below, each an `impl Group` for one part of the protocol.
//!
//! ```text
//!              timeout              a quorum would              a quorum did, own vote durable
//!   Follower ───────────► PreCandidate ───────────► Candidate ───────────────────────────────► Leader
//!      ▲   ▲                 │                          │                                        │
//!      │   └─────────────────┘  leader heard, refused   │          higher term, quorum not heard,│
//!      └────────────────────────────────────────────────┴────────────── no voter any more ───────┘
//! ```

mod append;
mod candidate;
mod change;
mod durable;
mod fetch;
mod force;
mod lead;
mod leader;
mod members;
mod output;
mod progress;
mod quiet;
mod read;
mod replicate;
mod snapshot;
#[cfg(test)]
mod tests;
mod timers;
mod transfer;
mod validate;
mod vote;

use crate::config::Config;
use crate::effect::{Effect, FetchId, Role};
use crate::error::{RestoreError, Violation};
use crate::log::Log;
use crate::membership::Membership;
use crate::message::{Body, Message, Round};
use crate::types::{Entry, EntryKind, HardState, Index, LogId, ReadId, SnapshotMeta, Term, WriteId};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use bifro_core::ids::{NodeId, RangeId};
use bifro_core::rng::Prng;
use bifro_core::time::Instant;
use durable::PendingWrite;
use fetch::FetchFor;
use leader::Leader;
use members::MemberHistory;
use output::Outgoing;
use timers::{Timer, Timers};

/// Which replica of which group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// The group.
    pub range: RangeId,
    /// The replica: a node has at most one of each group.
    pub node: NodeId,
}

/// What a replica finds when it starts.
///
/// A group is born by giving every founding member the same `checkpoint`: its members, and as `last` [`LogId::ZERO`] if the
/// state machine is empty, or `1.1` if it is not, so that whoever joins later is sent a snapshot first. Whoever joins later
/// starts from the default.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Restored {
    /// Term and vote from the log, or from a tombstone of this replica.
    pub hard_state: HardState,
    /// What the state machine contains.
    pub checkpoint: SnapshotMeta,
    /// What the log's first entry follows.
    pub log_start: LogId,
}

/// One replica of one group. The crate's page says how it is driven.
#[derive(Debug)]
pub struct Group {
    identity: Identity,
    config: Config,
    rng: Prng,
    /// The latest time any input came with.
    now: Instant,
    hard_state: HardState,
    hard_state_changed: bool,
    log: Log,
    members: MemberHistory,
    state: State,
    leader: Option<NodeId>,
    /// Until when, counted from here, no other candidate is voted for: the leader was heard then, or the replica started
    /// then and cannot know what it promised.
    heard: Option<Instant>,
    /// The leader's node being alive stands for the leader being alive.
    quiet: bool,
    /// The heartbeat with which it went quiet, as a follower.
    quiet_round: Round,
    timers: Timers,
    /// Writes that are not durable.
    writes: VecDeque<PendingWrite>,
    last_write: WriteId,
    /// The last write that contained a term and vote.
    hard_state_write: WriteId,
    durable_write: WriteId,
    outgoing: Vec<Outgoing>,
    events: Vec<Effect>,
    announced: (Role, Term, Option<NodeId>),
    /// Confirmed reads waiting for the state machine.
    confirmed_reads: VecDeque<(ReadId, Index)>,
    installing: Option<SnapshotMeta>,
    fetches: Vec<(FetchId, FetchFor)>,
    last_fetch: FetchId,
    #[cfg(feature = "mutations")]
    pub(crate) mutation: Option<crate::mutation::Mutation>,
}

/// The role with what belongs to it.
#[derive(Debug)]
enum State {
    Follower,
    PreCandidate { votes: BTreeMap<NodeId, bool> },
    Candidate { votes: BTreeMap<NodeId, bool> },
    Leader(Box<Leader>),
}

impl Group {
    /// A replica as it was left. `entries` are all that stand behind `restored.log_start` in its log. A sole voter campaigns
    /// in its first turn.
    ///
    /// # Errors
    /// If the log begins behind the state machine's checkpoint or has gaps: it is damaged, and the replica must not start.
    ///
    /// # Panics
    /// If the configuration contradicts itself.
    pub fn new(
        config: Config,
        identity: Identity,
        restored: Restored,
        entries: impl IntoIterator<Item = Entry>,
        rng: Prng,
        now: Instant,
    ) -> Result<Self, RestoreError> {
        config.validate();
        let (log, members) = restore(&config, &restored, entries)?;
        if log.last().term > restored.hard_state.term {
            return Err(RestoreError::TermForgotten { last: log.last() });
        }
        let term = restored.hard_state.term;
        let mut group = Self {
            identity,
            config,
            rng,
            now,
            hard_state: restored.hard_state,
            hard_state_changed: false,
            log,
            members,
            state: State::Follower,
            leader: None,
            heard: Some(now),
            quiet: false,
            quiet_round: Round(0),
            timers: Timers::default(),
            writes: VecDeque::new(),
            last_write: WriteId::NONE,
            hard_state_write: WriteId::NONE,
            durable_write: WriteId::NONE,
            outgoing: Vec::new(),
            events: Vec::new(),
            announced: (Role::Learner, term, None),
            confirmed_reads: VecDeque::new(),
            installing: None,
            fetches: Vec::new(),
            last_fetch: FetchId(0),
            #[cfg(feature = "mutations")]
            mutation: None,
        };
        if group.members.current().is_sole_voter(identity.node) && group.may_campaign() {
            group.campaign(false);
        } else {
            group.arm_election();
        }
        Ok(group)
    }

    /// Which replica this is.
    pub const fn identity(&self) -> Identity {
        self.identity
    }

    /// What it is at the moment.
    pub fn role(&self) -> Role {
        match self.state {
            State::Follower if !self.is_voter() => Role::Learner,
            State::Follower => Role::Follower,
            State::PreCandidate { .. } => Role::PreCandidate,
            State::Candidate { .. } => Role::Candidate,
            State::Leader(_) => Role::Leader,
        }
    }

    /// Who leads, as far as is known.
    pub const fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// The newest term seen.
    pub const fn term(&self) -> Term {
        self.hard_state.term
    }

    /// The members that count: those of the newest entry that changes them, committed or not.
    pub fn membership(&self) -> &Membership {
        self.members.current()
    }

    /// The entry that [`Group::membership`] comes from, or the checkpoint or snapshot if that had them.
    pub fn members_since(&self) -> Index {
        self.members.since()
    }

    /// Up to where a peer is known to agree, durably; `None` unless this replica leads and sends it the log.
    pub fn matched(&self, peer: NodeId) -> Option<Index> {
        match &self.state {
            State::Leader(leader) => leader.peers.get(&peer).map(|peer| peer.matched),
            _ => None,
        }
    }

    /// The last entry.
    pub const fn last(&self) -> LogId {
        self.log.last()
    }

    /// What the first entry that is not compacted follows.
    pub const fn log_start(&self) -> LogId {
        self.log.start()
    }

    /// The last entry known to be durable here.
    pub const fn durable(&self) -> Index {
        self.log.durable()
    }

    /// The last entry known to be committed.
    pub const fn committed(&self) -> Index {
        self.log.committed()
    }

    /// The last entry applied.
    pub const fn applied(&self) -> Index {
        self.log.applied()
    }

    /// Bytes of entries in memory.
    pub fn tail_bytes(&self) -> usize {
        self.log.tail_bytes()
    }

    /// Whether the group is quiet: nothing is sent until there is something to do.
    pub const fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether the replica may be removed for good by what it knows itself: its log ends with its removal, and that is
    /// committed. With anything behind that it may have been added again, and have confirmed entries which count, before it has
    /// the entry that says so.
    pub fn is_removed(&self) -> bool {
        let current = self.members.current();
        let gone = !current.is_empty() && !current.is_joint() && !current.contains(self.identity.node);
        gone && self.members.since() == self.log.last().index && self.log.committed() == self.log.last().index
    }

    /// What must be kept of a replica that is removed for good, and what its successor starts from if the node ever joins
    /// again: see [`HardState`]. It takes the newest entry that this replica knows to be committed for the one that removed it; a host
    /// that was told by others which one it was puts that there, if it is later.
    pub fn tombstone(&self) -> HardState {
        let index = self.log.committed();
        let term = self.log.term_at(index).expect("what is committed is not before the start");
        let removed = self.hard_state.removed.max(LogId { term, index });
        HardState { removed, ..self.hard_state }
    }

    /// A peer said something.
    ///
    /// # Errors
    /// If it may not have. What it says is then ignored; only its term, and that its sender leads, may have been noted.
    pub fn handle_message(&mut self, now: Instant, from: NodeId, message: Message) -> Result<(), Violation> {
        self.advance(now);
        if from == self.identity.node {
            return Err(Violation::FromSelf);
        }
        message.check()?;
        let Message { term, body } = message;
        match body {
            Body::PreVote { last } => self.handle_pre_vote(from, term, last),
            Body::PreVoteReply { asked_in, granted } => self.handle_pre_vote_reply(from, term, asked_in, granted),
            Body::Vote { last, transfer } => self.handle_vote(from, term, last, transfer),
            body if term < self.term() => {
                if body.is_from_leader() {
                    self.send(from, Body::TermIsOver);
                }
            }
            body => {
                if body.is_from_leader() {
                    self.check_leader(from, term)?;
                }
                if term > self.term() {
                    self.enter_term(term);
                }
                return self.handle_current(from, body);
            }
        }
        Ok(())
    }

    /// A message of the current term.
    fn handle_current(&mut self, from: NodeId, body: Body) -> Result<(), Violation> {
        match body {
            Body::PreVote { .. } | Body::PreVoteReply { .. } | Body::Vote { .. } | Body::TermIsOver => {}
            Body::VoteReply { granted } => self.handle_vote_reply(from, granted),
            Body::Append { prev, entries, commit, round } => {
                self.follow(from);
                return self.handle_append(from, prev, entries, commit, round);
            }
            Body::Heartbeat { commit, round, quiesce } => {
                self.follow(from);
                self.handle_heartbeat(from, commit, round, quiesce);
            }
            Body::SnapshotOffer { meta, round } => {
                self.follow(from);
                self.handle_snapshot_offer(from, meta, round);
            }
            Body::TimeoutNow => {
                self.follow(from);
                self.handle_timeout_now();
            }
            Body::Accepted { matched, round } => return self.handle_accepted(from, matched, round),
            Body::Rejected { at, hint, round } => self.handle_rejected(from, at, hint, round),
            Body::HeartbeatReply { round } => self.handle_heartbeat_reply(from, round),
            Body::SnapshotPending { round } => self.note_heard(from, round),
            Body::SnapshotFailed { last } => self.handle_snapshot_refused(from, last),
        }
        Ok(())
    }

    /// A deadline has come: see [`Group::next_timeout`]. Calling it early or late does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        for timer in Timer::ALL {
            if self.timers.take_due(timer, self.now) {
                match timer {
                    Timer::Election => self.handle_election_timeout(),
                    Timer::Heartbeat => self.handle_heartbeat_timeout(),
                    Timer::CheckQuorum => self.check_quorum(),
                    Timer::Transfer => self.abort_transfer(),
                    Timer::FetchAgain => {}
                }
            }
        }
    }

    /// When [`Group::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The host has applied everything up to `index`.
    ///
    /// # Panics
    /// If that was not handed out.
    pub fn handle_applied(&mut self, now: Instant, index: Index) {
        self.advance(now);
        self.log.mark_applied(index);
    }

    /// Forgets the entries up to `to`: the state machine's durable checkpoint contains them, and the host's log may drop
    /// them. Peers that lag further behind will need a snapshot.
    ///
    /// # Panics
    /// If they are not applied.
    pub fn compact(&mut self, to: Index) {
        self.log.compact(to);
    }

    /// Time as the group knows it does not go back.
    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn is_voter(&self) -> bool {
        self.members.current().is_voter(self.identity.node)
    }

    /// Whether it may become a candidate. A replica that joins again reads the log from the beginning, and finds itself a voter of long
    /// ago, perhaps the only one: until its log is past its removal, what it says of the members is history.
    fn may_campaign(&self) -> bool {
        self.log.last() >= self.hard_state.removed && self.members.may_campaign(self.identity.node)
    }

    /// Whether silence of the leader is its business: it votes, or it is a learner.
    fn watches_leader(&self) -> bool {
        self.may_campaign() || self.members.current().contains(self.identity.node)
    }

    fn leader_state(&mut self) -> Option<&mut Leader> {
        match &mut self.state {
            State::Leader(leader) => Some(leader),
            _ => None,
        }
    }

    /// Adds an entry of this leader.
    fn append_own(&mut self, kind: EntryKind) -> LogId {
        let id = LogId { term: self.term(), index: self.log.last().index.next() };
        if let EntryKind::Membership(membership) = &kind {
            self.members.push(id.index, membership.clone());
        }
        self.log.append(Entry { id, kind });
        id
    }

    /// The leader as the sender of a message of `term` must be it.
    fn check_leader(&self, from: NodeId, term: Term) -> Result<(), Violation> {
        match self.leader {
            Some(known) if term == self.term() && known != from => Err(Violation::TwoLeaders { known }),
            _ => Ok(()),
        }
    }
}

/// The log and the members, from what the host has found.
fn restore(
    config: &Config,
    restored: &Restored,
    entries: impl IntoIterator<Item = Entry>,
) -> Result<(Log, MemberHistory), RestoreError> {
    let checkpoint = &restored.checkpoint;
    if restored.log_start.index > checkpoint.last.index {
        return Err(RestoreError::BeginsBehindCheckpoint { log_start: restored.log_start });
    }
    let mut log = Log::new(restored.log_start);
    let mut members = MemberHistory::new(checkpoint);
    for entry in entries {
        if entry.id.index != log.last().index.next() || entry.id.term < log.last().term {
            return Err(RestoreError::Gap { before: entry.id });
        }
        let index = entry.id.index;
        if let EntryKind::Membership(membership) = &entry.kind
            && index > checkpoint.last.index
        {
            members.push(index, membership.clone());
        }
        log.restore(entry);
        log.mark_restored_applied(index.min(checkpoint.last.index));
        log.evict(config.tail_bytes_max, config.pending_bytes_max);
    }
    if log.term_at(checkpoint.last.index) != Some(checkpoint.last.term) {
        // The crash came between the installation of a snapshot and the log's restart.
        log.restart(checkpoint.last);
        members = MemberHistory::new(checkpoint);
    }
    Ok((log, members))
}
