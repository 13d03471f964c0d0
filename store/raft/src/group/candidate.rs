//! Elections, from the candidate's side (Raft section 5.2; PreVote: dissertation, 9.6).

use super::{Group, State};
use crate::membership::Poll;
use crate::message::Body;
use crate::mutation::Mutation;
use crate::types::Term;
use alloc::collections::BTreeMap;
use bifro_core::ids::NodeId;
use core::time::Duration;

use super::timers::Timer;

impl Group {
    /// Sets a new election deadline, at random between once and twice the election timeout.
    pub(super) fn arm_election(&mut self) {
        let timeout = self.config.election_timeout;
        let jitter = Duration::from_micros(self.rng.below(timeout.as_micros() as u64));
        self.arm_election_in(timeout + jitter);
    }

    /// Sets the election deadline; none for who has nothing to do with elections.
    pub(super) fn arm_election_in(&mut self, delay: Duration) {
        if self.watches_leader() && !self.quiet && !matches!(self.state, State::Leader(_)) {
            self.timers.set(Timer::Election, self.now + delay);
        } else {
            self.timers.clear(Timer::Election);
        }
    }

    pub(super) fn handle_election_timeout(&mut self) {
        if !self.watches_leader() || matches!(self.state, State::Leader(_)) {
            return;
        }
        self.leader = None;
        if !self.may_campaign() {
            // A learner cannot win an election, but the question wakes a group that went quiet while the learner was away.
            self.ask_voters(&Body::PreVote { last: self.log.last() });
            return self.arm_election();
        }
        let alone = self.members.current().is_sole_voter(self.identity.node);
        if alone || self.is_planted(Mutation::SkipPreVote) {
            self.campaign(false);
        } else {
            self.ask_for_chances();
        }
    }

    /// The leader hands over: campaign at once, without PreVote and in spite of the lease (dissertation, 3.10).
    pub(super) fn handle_timeout_now(&mut self) {
        if self.may_campaign() {
            self.campaign(true);
        }
    }

    fn ask_for_chances(&mut self) {
        self.state = State::PreCandidate { votes: BTreeMap::from([(self.identity.node, true)]) };
        self.arm_election();
        self.ask_voters(&Body::PreVote { last: self.log.last() });
        self.count_votes();
    }

    /// Asks for votes in a new term. The own one counts when it is durable.
    pub(super) fn campaign(&mut self, transfer: bool) {
        self.enter_term(self.term().next());
        self.hard_state.vote = Some(self.identity.node);
        self.state = State::Candidate { votes: BTreeMap::new() };
        self.arm_election();
        self.ask_voters(&Body::Vote { last: self.log.last(), transfer });
    }

    fn ask_voters(&mut self, question: &Body) {
        for node in self.members.current().members() {
            if node != self.identity.node && self.members.current().is_voter(node) {
                self.send(node, question.clone());
            }
        }
    }

    pub(super) fn handle_pre_vote_reply(&mut self, from: NodeId, term: Term, asked_in: Term, granted: bool) {
        if term > self.term() {
            self.enter_term(term);
        } else if let State::PreCandidate { votes } = &mut self.state
            && asked_in == self.hard_state.term
        {
            votes.insert(from, granted);
            self.count_votes();
        }
    }

    pub(super) fn handle_vote_reply(&mut self, from: NodeId, granted: bool) {
        if let State::Candidate { votes } = &mut self.state {
            votes.insert(from, granted);
            self.count_votes();
        }
    }

    /// The own vote, once it is durable.
    pub(super) fn count_own_vote(&mut self) {
        let durable = !self.hard_state_changed && self.durable_write >= self.hard_state_write;
        let node = self.identity.node;
        if let State::Candidate { votes } = &mut self.state
            && durable
            && !votes.contains_key(&node)
        {
            votes.insert(node, true);
            self.count_votes();
        }
    }

    fn count_votes(&mut self) {
        let (State::PreCandidate { votes } | State::Candidate { votes }) = &self.state else { return };
        let poll = self.counted_members().poll(|node| votes.get(&node).copied());
        match (poll, &self.state) {
            (Poll::Open, _) => {}
            (Poll::Won, State::PreCandidate { .. }) => self.campaign(false),
            (Poll::Won, _) => self.become_leader(),
            (Poll::Lost, _) => self.state = State::Follower,
        }
    }

    /// Moves to a later term, as a follower of nobody.
    pub(super) fn enter_term(&mut self, term: Term) {
        assert!(term > self.term(), "terms only grow");
        self.hard_state.term = term;
        self.hard_state.vote = None;
        self.hard_state_changed |= !self.is_planted(Mutation::ForgetTerm);
        // What was about to be said in the old term is of no use to anybody.
        self.outgoing.clear();
        self.step_down();
    }

    /// Becomes a follower of nobody in the same term.
    pub(super) fn step_down(&mut self) {
        let was_leader = matches!(self.state, State::Leader(_));
        if was_leader {
            self.fail_reads();
            [Timer::Heartbeat, Timer::CheckQuorum, Timer::Transfer]
                .into_iter()
                .for_each(|timer| self.timers.clear(timer));
            self.fetches.retain(|(_, purpose)| *purpose == super::fetch::FetchFor::Apply);
        }
        self.state = State::Follower;
        self.leader = None;
        self.quiet = false;
        if was_leader || !self.timers.is_set(Timer::Election) {
            self.arm_election();
        }
    }
}
