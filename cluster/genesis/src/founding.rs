//! One node's part in the genesis: acceptor, proposer and learner in one. See the crate's page.
//!
//! Invariants:
//! - what is decided never changes, and once it is known every question is answered with it;
//! - whatever is said follows from a ledger that an earlier effect had kept;
//! - a node proposes only what it may accept itself: when it promises another to wait, its own proposal is over.

use crate::config::Config;
use crate::ledger::{Ballot, ClusterGenesis, Ledger, Vote};
use crate::message::{Answer, Question, Reply};
use crate::seats::{Seat, Seats, Tally, Waiting};
use alloc::collections::VecDeque;
use bifro_core::ids::{ClusterId, NodeId};
use bifro_core::rng::Prng;
use bifro_core::time::Instant;
use core::time::Duration;

/// How often the patience with a proposal is doubled at most.
const DOUBLINGS: u32 = 4;

/// What a node would have the cluster be. Its numbers are the host's to draw: nobody outside may guess them.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Not zero.
    pub cluster: ClusterId,
    /// See [`ClusterGenesis::seed`].
    pub seed: u64,
    /// At least one.
    pub ranges: u16,
}

/// One thing for the host to do, after all before it are done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write this to the disk. Nothing after it may be done before it is durable.
    Keep(Ledger),
    /// Ask the seed at this place. Question and reply may be lost, late, and come more than once.
    Ask {
        /// Its place in the seed list.
        seat: usize,
        /// What.
        question: Question,
    },
    /// Reply to whoever has asked.
    Reply {
        /// As given with the question.
        asker: u64,
        /// What.
        reply: Reply,
    },
    /// The cluster is known: the node can go on. Once.
    Settled(ClusterGenesis),
    /// This node knows its cluster, and another node one that is not the same.
    Conflict {
        /// At which place.
        seat: usize,
        /// Who.
        node: NodeId,
        /// Its cluster.
        theirs: ClusterGenesis,
    },
}

/// See the crate's page.
#[derive(Clone, Debug)]
enum Phase {
    Confirming {
        until: Instant,
    },
    Settled,
    Asking {
        /// No proposal before this.
        not_before: Instant,
        /// When to propose, since a majority is there.
        propose_at: Option<Instant>,
    },
    Preparing {
        ballot: Ballot,
        begun: Instant,
        until: Instant,
        promises: Tally,
        /// What was accepted under the highest number so far, if anything: it may be decided.
        highest: Option<Vote>,
    },
    Accepting {
        vote: Vote,
        until: Instant,
        accepted: Tally,
    },
}

/// See the module's page.
#[derive(Clone, Debug)]
pub struct Founding {
    config: Config,
    me: NodeId,
    draft: Draft,
    ledger: Ledger,
    seats: Seats,
    phase: Phase,
    /// When the seeds are to be asked again what they were asked last.
    ask_at: Instant,
    /// The highest round anybody has told of.
    round: u64,
    /// Proposals in a row that failed.
    failures: u32,
    rng: Prng,
    effects: VecDeque<Effect>,
}

impl Founding {
    /// A node with what its disk holds, and so many seeds, none of which it knows the place of yet. Places first, then
    /// [`Self::handle_timeout`].
    ///
    /// # Panics
    /// If the draft is none.
    pub fn new(
        config: Config,
        me: NodeId,
        ledger: Ledger,
        seeds: usize,
        draft: Draft,
        rng: Prng,
        now: Instant,
    ) -> Self {
        assert!(draft.cluster.0 != 0, "zero is no cluster");
        assert!(draft.ranges > 0, "a cluster has a range");
        let phase = match ledger.decided {
            Some(_) => Phase::Confirming { until: now + config.confirm },
            None => Phase::Asking { not_before: now, propose_at: None },
        };
        let round = ledger.promised.round;
        let (seats, effects) = (Seats::new(seeds), VecDeque::new());
        Self { config, me, draft, ledger, seats, phase, ask_at: now, round, failures: 0, rng, effects }
    }

    /// What to do next, if anything is to be done.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// What is decided, as far as this node knows.
    pub const fn decided(&self) -> Option<&ClusterGenesis> {
        self.ledger.decided.as_ref()
    }

    /// Whom this node waits for. Of no meaning once something is decided.
    pub fn waiting(&self, now: Instant) -> Waiting {
        self.seats.waiting(self.me, now, self.config.freshness)
    }

    /// When [`Self::handle_timeout`] is due; never again once settled.
    pub fn next_timeout(&self) -> Option<Instant> {
        let due = match &self.phase {
            Phase::Settled => return None,
            Phase::Confirming { until } | Phase::Accepting { until, .. } => *until,
            Phase::Asking { propose_at, not_before } => propose_at.map_or(self.ask_at, |at| at.max(*not_before)),
            Phase::Preparing { begun, until, promises, .. } => {
                let gathered = *begun + self.config.gather;
                if promises.is_majority() { gathered.min(*until) } else { *until }
            }
        };
        Some(due.min(self.ask_at))
    }

    /// A seed's place is known, or another than before.
    ///
    /// # Panics
    /// If there are not so many seeds.
    pub fn set_seat(&mut self, seat: usize, to: Seat, now: Instant) {
        self.seats.set(seat, to);
        // Whoever is there is asked at once.
        self.ask_at = now;
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.ask_at <= now && !matches!(self.phase, Phase::Settled) {
            self.ask_again(now);
        }
        match &self.phase {
            Phase::Preparing { until, .. } | Phase::Accepting { until, .. } if *until <= now => {
                self.back_off(now, Duration::ZERO);
            }
            Phase::Confirming { until } if *until <= now || Tally::new(&self.seats, self.me).is_complete() => {
                self.settle()
            }
            _ => {}
        }
        self.progress(now);
    }

    /// Another node asks. The reply carries `asker`.
    pub fn handle_question(&mut self, asker: u64, question: Question, now: Instant) {
        let answer = match (&self.ledger.decided, question) {
            (Some(value), _) => Answer::Decided(value.clone()),
            (None, Question::Ask) => Answer::Undecided,
            (None, Question::Prepare { ballot }) => {
                self.round = self.round.max(ballot.round);
                if ballot < self.ledger.promised {
                    Answer::Refused { promised: self.ledger.promised }
                } else {
                    self.promise(ballot, now);
                    Answer::Promise { ballot, accepted: self.ledger.accepted.clone() }
                }
            }
            (None, Question::Accept { vote }) => {
                self.round = self.round.max(vote.ballot.round);
                if vote.ballot < self.ledger.promised {
                    Answer::Refused { promised: self.ledger.promised }
                } else {
                    let ballot = vote.ballot;
                    self.promise(ballot, now);
                    if self.ledger.accepted.as_ref() != Some(&vote) {
                        self.ledger.accepted = Some(vote);
                        self.keep();
                    }
                    Answer::Accepted { ballot }
                }
            }
        };
        let reply = Reply { from: self.me, answer };
        self.effects.push_back(Effect::Reply { asker, reply });
        self.progress(now);
    }

    /// The seed at this place has replied to a question of this process.
    ///
    /// # Panics
    /// If there are not so many seeds.
    pub fn handle_reply(&mut self, seat: usize, reply: Reply, now: Instant) {
        let Reply { from, answer } = reply;
        if from == self.me {
            // The seed is this node, by another address than it knows of itself.
            if self.seats.at(seat) == Seat::Elsewhere {
                self.set_seat(seat, Seat::Mine, now);
            }
            return self.progress(now);
        }
        self.seats.hear(seat, from, answer != Answer::NoVote, now);
        let may_vote = self.seats.at(seat) == Seat::Elsewhere;
        match (answer, &mut self.phase) {
            (Answer::Decided(value), _) => self.learn(seat, from, value),
            (Answer::Promise { ballot: of, accepted }, Phase::Preparing { ballot, promises, highest, .. })
                if of == *ballot && may_vote && !promises.has(seat) =>
            {
                promises.add(seat, from);
                if let Some(vote) = accepted
                    && highest.as_ref().is_none_or(|highest| highest.ballot < vote.ballot)
                {
                    *highest = Some(vote);
                }
            }
            (Answer::Accepted { ballot }, Phase::Accepting { vote, accepted, .. })
                if ballot == vote.ballot && may_vote =>
            {
                accepted.add(seat, from);
            }
            (Answer::Refused { promised }, Phase::Preparing { ballot, .. }) if promised > *ballot => {
                self.lose_to(promised, now);
            }
            (Answer::Refused { promised }, Phase::Accepting { vote, .. }) if promised > vote.ballot => {
                self.lose_to(promised, now);
            }
            _ => {}
        }
        self.progress(now);
    }

    fn keep(&mut self) {
        self.effects.push_back(Effect::Keep(self.ledger.clone()));
    }

    /// Accepts nothing of a lower number any more. Another's proposal ends this node's own, and gets time.
    fn promise(&mut self, ballot: Ballot, now: Instant) {
        if ballot == self.ledger.promised {
            return;
        }
        debug_assert!(ballot > self.ledger.promised, "a promise is for ever");
        self.ledger.promised = ballot;
        self.keep();
        if ballot.node != self.me.0 && !matches!(self.phase, Phase::Confirming { .. } | Phase::Settled) {
            self.back_off(now, self.config.courtesy);
        }
    }

    fn lose_to(&mut self, promised: Ballot, now: Instant) {
        self.round = self.round.max(promised.round);
        self.back_off(now, self.config.courtesy);
    }

    /// Gives the own proposal up, if there is one, and makes none for some time.
    fn back_off(&mut self, now: Instant, courtesy: Duration) {
        if !matches!(self.phase, Phase::Asking { .. }) {
            self.failures += 1;
            self.ask_at = now;
        }
        let spread = self.config.spread * (1 << self.failures.min(DOUBLINGS));
        let not_before = now + courtesy + self.random(spread);
        self.phase = Phase::Asking { not_before, propose_at: None };
    }

    fn random(&mut self, below: Duration) -> Duration {
        Duration::from_micros(self.rng.below(u64::try_from(below.as_micros()).unwrap_or(u64::MAX)))
    }

    /// Asks those who have not answered what this phase is about.
    fn ask_again(&mut self, now: Instant) {
        self.ask_at = now + self.config.ask_interval;
        for seat in self.seats.others() {
            let question = match &self.phase {
                Phase::Preparing { promises, .. } if promises.has(seat) => continue,
                Phase::Accepting { accepted, .. } if accepted.has(seat) => continue,
                Phase::Preparing { ballot, .. } => Question::Prepare { ballot: *ballot },
                Phase::Accepting { vote, .. } => Question::Accept { vote: vote.clone() },
                Phase::Confirming { .. } | Phase::Asking { .. } => Question::Ask,
                Phase::Settled => return,
            };
            self.effects.push_back(Effect::Ask { seat, question });
        }
    }

    /// Takes the next steps that are possible.
    fn progress(&mut self, now: Instant) {
        self.consider(now);
        if let Phase::Preparing { ballot, begun, promises, highest, .. } = &self.phase
            && promises.is_majority()
            && (promises.is_complete() || now >= *begun + self.config.gather)
        {
            let value = match highest {
                // It may be decided already, so nothing else may be (Paxos, P2c).
                Some(vote) => vote.value.clone(),
                None => ClusterGenesis {
                    cluster: self.draft.cluster,
                    seed: self.draft.seed,
                    ranges: self.draft.ranges,
                    founders: promises.nodes().into_iter().collect(),
                },
            };
            self.propose(Vote { ballot: *ballot, value }, now);
        }
        if let Phase::Accepting { vote, accepted, .. } = &self.phase
            && accepted.is_majority()
        {
            let value = vote.value.clone();
            self.decide(value);
        }
    }

    /// Begins a proposal when a majority is there to hear it.
    fn consider(&mut self, now: Instant) {
        let Phase::Asking { not_before, propose_at } = self.phase else { return };
        let present = self.seats.present(self.me, now, self.config.freshness);
        if !self.seats.contains_me() || !present.is_majority() {
            self.phase = Phase::Asking { not_before, propose_at: None };
            return;
        }
        // Nobody else can propose if there is one seed.
        let spread =
            if present.is_complete() && present.nodes().len() == 1 { Duration::ZERO } else { self.config.spread };
        let at = propose_at.unwrap_or_else(|| now + self.random(spread));
        self.phase = Phase::Asking { not_before, propose_at: Some(at) };
        if at.max(not_before) <= now {
            self.prepare(now);
        }
    }

    fn patience(&self) -> Duration {
        self.config.patience * (1 << self.failures.min(DOUBLINGS))
    }

    fn prepare(&mut self, now: Instant) {
        self.round = self.round.max(self.ledger.promised.round) + 1;
        let ballot = Ballot { round: self.round, node: self.me.0 };
        self.promise(ballot, now);
        self.phase = Phase::Preparing {
            ballot,
            begun: now,
            until: now + self.config.gather + self.patience(),
            promises: Tally::new(&self.seats, self.me),
            highest: self.ledger.accepted.clone(),
        };
        self.ask_again(now);
    }

    fn propose(&mut self, vote: Vote, now: Instant) {
        assert_eq!(self.ledger.promised, vote.ballot, "a promise to another ends the own proposal");
        self.ledger.accepted = Some(vote.clone());
        self.keep();
        let accepted = Tally::new(&self.seats, self.me);
        self.phase = Phase::Accepting { vote, until: now + self.patience(), accepted };
        self.ask_again(now);
    }

    /// A majority has accepted this: it is decided.
    fn decide(&mut self, value: ClusterGenesis) {
        self.ledger.decided = Some(value);
        self.keep();
        self.settle();
    }

    /// Somebody knows what is decided.
    fn learn(&mut self, seat: usize, node: NodeId, value: ClusterGenesis) {
        match &self.ledger.decided {
            None => self.decide(value),
            Some(ours) if *ours == value => self.settle(),
            Some(_) => self.effects.push_back(Effect::Conflict { seat, node, theirs: value }),
        }
    }

    fn settle(&mut self) {
        if let (false, Some(value)) = (matches!(self.phase, Phase::Settled), &self.ledger.decided) {
            self.effects.push_back(Effect::Settled(value.clone()));
            self.phase = Phase::Settled;
        }
    }
}
