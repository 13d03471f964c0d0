//! What an operator, or a balance planner, does all the time: moves members and leaderships, takes checkpoints.

use crate::options::{Kind, around, pick};
use crate::simulation::Simulation;
use crate::world::Event;
use bifro_core::ids::{NodeId, RangeId};
use bifro_core::rng::Prng;
use bifro_raft::{Membership, Role};

impl Simulation {
    /// Does something, if the weather has it, and schedules the next.
    pub(crate) fn operate(&mut self) {
        if !self.faulty {
            return;
        }
        let delay = around(&mut self.world.rng, self.world.weather.operations);
        self.world.queue.after(delay, Event::Operate);
        let range = RangeId(self.world.rng.below(self.world.settings.groups));
        let kind = pick(&mut self.world.rng, &[Kind::Changes, Kind::Transfers, Kind::Compaction]);
        if !self.world.weather.has(kind) {
            return;
        }
        match kind {
            Kind::Changes if self.world.rng.below(4) == 0 => self.bury_forgotten(range),
            Kind::Changes => self.change_members(range),
            Kind::Transfers => self.transfer(range),
            _ => {
                let node = self.world.rng.below(self.nodes.len() as u64) as usize;
                self.nodes[node].begin_checkpoint(&mut self.world, range);
            }
        }
    }

    /// A node that leads the group, or believes so.
    fn some_leader(&mut self, range: RangeId) -> Option<usize> {
        let leads =
            |node: &usize| self.nodes[*node].replica(range).is_some_and(|(group, _)| group.role() == Role::Leader);
        let leaders: Vec<usize> = (0..self.nodes.len()).filter(leads).collect();
        (!leaders.is_empty()).then(|| pick(&mut self.world.rng, &leaders))
    }

    fn change_members(&mut self, range: RangeId) {
        let Some(at) = self.some_leader(range) else { return };
        let now = self.nodes[at].clock.read(self.world.queue.now());
        let nodes = self.nodes.len() as u64;
        let group = self.nodes[at].running().multi.input(range).expect("it leads");
        let (voters, learners) = proposed_members(&mut self.world.rng, nodes, group.membership());
        let joint = voters != group.membership().voters;
        if group.change_membership(now, voters, learners).is_ok() {
            self.world.report.changes += 1;
            self.world.report.joint_changes += u64::from(joint);
        }
        self.end_turn(at);
    }

    /// Tells replicas that do not know that they were removed. Not one that may have been added again since: its newest
    /// members are from a later entry then.
    fn bury_forgotten(&mut self, range: RangeId) {
        let Some(at) = self.some_leader(range) else { return };
        let (group, replica) = self.nodes[at].replica(range).expect("it leads");
        let (members, since) = (group.membership().clone(), replica.seen.since);
        if members.is_joint() || since > group.committed() {
            return;
        }
        let removed = group.tombstone().removed;
        for node in &mut self.nodes {
            let forgotten = node.replica(range).is_some_and(|(_, replica)| replica.seen.since < since);
            if forgotten && !members.contains(node.id()) {
                node.bury(&mut self.world, range, removed);
            }
        }
    }

    fn transfer(&mut self, range: RangeId) {
        let Some(at) = self.some_leader(range) else { return };
        let now = self.nodes[at].clock.read(self.world.queue.now());
        let group = self.nodes[at].running().multi.input(range).expect("it leads");
        let to = pick(&mut self.world.rng, &group.membership().voters);
        if group.transfer_leadership(now, to).is_ok() {
            self.world.report.transfers += 1;
        }
        self.end_turn(at);
    }
}

/// The members with one or two nodes in other roles. More often than not there are three voters or more.
fn proposed_members(rng: &mut Prng, nodes: u64, current: &Membership) -> (Vec<NodeId>, Vec<NodeId>) {
    let (mut voters, mut learners) = (current.voters.clone(), current.learners.clone());
    for _ in 0..1 + rng.below(2) {
        let node = NodeId(rng.below(nodes));
        let votes = voters.contains(&node);
        voters.retain(|voter| *voter != node);
        learners.retain(|learner| *learner != node);
        let few = voters.len() < 3;
        match (votes, rng.below(4)) {
            // A voter becomes a learner, or leaves, more rarely if there are few.
            (true, 0) if !few || rng.below(2) == 0 => learners.push(node),
            (true, 1) if !few || rng.below(2) == 0 => {}
            (true, _) | (false, 0 | 1) => voters.push(node),
            (false, 2) => learners.push(node),
            (false, _) => {}
        }
    }
    if voters.is_empty() {
        voters.clone_from(&current.voters);
        learners.retain(|learner| !voters.contains(learner));
    }
    (voters, learners)
}
