//! What goes wrong: draws a fault of a kind that the weather has and makes it happen. Every fault ends by itself after a while.

use crate::network::Cut;
use crate::node::CrashPoint;
use crate::options::{Kind, around, pick};
use crate::queue::Moment;
use crate::simulation::Simulation;
use crate::world::Event;
use bifro_raft::Role;
use std::time::Duration;

impl Simulation {
    /// Makes the next fault happen and schedules the one after.
    pub(crate) fn fault(&mut self) {
        if !self.faulty {
            return;
        }
        let delay = around(&mut self.world.rng, self.world.weather.pace);
        self.world.queue.after(delay, Event::Fault);
        let faults = [Kind::Cuts, Kind::Clogs, Kind::Crashes, Kind::Disks, Kind::Clocks, Kind::Freezes]
            .map(|kind| (kind, self.world.weather.has(kind)));
        let possible: Vec<Kind> = faults.into_iter().filter(|(_, has)| *has).map(|(kind, _)| kind).collect();
        if possible.is_empty() {
            return;
        }
        match pick(&mut self.world.rng, &possible) {
            Kind::Cuts => self.cut(),
            Kind::Clogs => self.clog(),
            Kind::Crashes => self.bring_down(),
            Kind::Disks => self.spoil_disk(),
            Kind::Clocks => self.turn_clock(),
            _ => self.freeze(),
        }
    }

    /// Some node, leaders more often than others.
    fn victim(&mut self) -> usize {
        let leaders: Vec<usize> = (0..self.nodes.len()).filter(|node| self.leads_something(*node)).collect();
        if !leaders.is_empty() && self.world.rng.below(2) == 0 {
            return pick(&mut self.world.rng, &leaders);
        }
        self.world.rng.below(self.nodes.len() as u64) as usize
    }

    fn leads_something(&self, node: usize) -> bool {
        let Some(shard) = &self.nodes[node].shard else { return false };
        shard.multi.groups().any(|group| group.role() == Role::Leader)
    }

    fn fault_end(&mut self, choices: &[u64]) -> Moment {
        let length = Duration::from_millis(pick(&mut self.world.rng, choices));
        (self.world.queue.now() + around(&mut self.world.rng, length)).min(self.heals_at)
    }

    fn cut(&mut self) {
        self.world.report.cuts += 1;
        let until = self.fault_end(&[300, 1_500, 6_000]);
        let (node, other) = (self.victim(), self.world.rng.below(self.nodes.len() as u64) as usize);
        let cut = Cut::drawn(&mut self.world.rng, node, other);
        self.world.network.cut_all(cut, until);
    }

    fn clog(&mut self) {
        self.world.report.clogs += 1;
        let until = self.fault_end(&[300, 1_500, 6_000]);
        let (from, to) = (self.victim(), self.world.rng.below(self.nodes.len() as u64) as usize);
        self.world.network.clog(from, to, until);
        if self.world.rng.below(2) == 0 {
            self.world.network.clog(to, from, until);
        }
    }

    /// Crashes a node now, or at its next step of some kind; at times everybody.
    fn bring_down(&mut self) {
        let node = self.victim();
        match self.world.rng.below(15) {
            0 => (0..self.nodes.len()).for_each(|node| self.crash(node)),
            1..=7 => self.crash(node),
            _ => self.nodes[node].crash_at = Some(pick(&mut self.world.rng, &CrashPoint::ALL)),
        }
    }

    fn spoil_disk(&mut self) {
        self.world.report.disk_faults += 1;
        let until = self.fault_end(&[500, 2_000, 5_000]);
        let (node, full) = (self.victim(), self.world.rng.below(2) == 0);
        let disk = &mut self.nodes[node].disk;
        if full {
            disk.full_until = until;
        } else {
            disk.slow_until = until;
        }
    }

    /// A clock drifts, within the stated bound if leases rest on it; otherwise far, and may jump.
    fn turn_clock(&mut self) {
        self.world.report.clock_faults += 1;
        let (node, now) = (self.victim(), self.world.queue.now());
        let leases = self.world.settings.config.lease_reads;
        let rng = &mut self.world.rng;
        // Two clocks at the ends of the narrow band differ by 9.9 %, the bound is 10 %.
        let rate = if leases { 953_000 + rng.below(94_001) } else { 600_000 + rng.below(1_000_000) };
        let jump = (!leases && rng.below(2) == 0).then(|| Duration::from_millis(rng.below(4_000)));
        let clock = &mut self.nodes[node].clock;
        clock.set_rate(now, rate);
        if let Some(by) = jump {
            clock.jump(now, by);
        }
        if self.nodes[node].shard.is_some() {
            self.end_turn(node);
        }
    }

    fn freeze(&mut self) {
        self.world.report.freezes += 1;
        let until = self.fault_end(&[100, 1_000, 3_000]);
        let node = self.victim();
        self.nodes[node].frozen_until = until;
    }
}
