//! What goes wrong: draws a fault of a kind that the weather has and makes it happen. Every fault ends by itself, at the latest when the episode heals.

use super::cluster::{Event, Simulation};
use super::options::Kind;
use crate::network::Cut;
use crate::options::{around, pick, within};
use crate::queue::Moment;
use std::time::Duration;

impl Simulation {
    /// Makes the next fault happen and schedules the one after.
    pub(super) fn fault(&mut self) {
        if !self.faulty {
            return;
        }
        let delay = around(&mut self.world.rng, self.world.weather.pace);
        self.world.queue.after(delay, Event::Fault);
        let faults = [Kind::Crashes, Kind::Cuts, Kind::Flaps, Kind::Freezes, Kind::Stalls, Kind::Disks];
        let possible: Vec<Kind> = faults.into_iter().filter(|kind| self.world.weather.has(*kind)).collect();
        if possible.is_empty() {
            return;
        }
        match pick(&mut self.world.rng, &possible) {
            Kind::Crashes => self.bring_down(),
            Kind::Cuts => self.cut(&[800, 3_000, 9_000, 25_000]),
            Kind::Flaps => self.flap(),
            Kind::Freezes => self.freeze(),
            Kind::Stalls => self.stall(),
            _ => self.slow_disk(),
        }
    }

    fn victim(&mut self) -> usize {
        self.world.rng.below(self.nodes.len() as u64) as usize
    }

    fn fault_end(&mut self, choices: &[u64]) -> Moment {
        let length = Duration::from_millis(pick(&mut self.world.rng, choices));
        (self.world.queue.now() + around(&mut self.world.rng, length)).min(self.heals_at)
    }

    fn cut(&mut self, lengths: &[u64]) {
        self.world.report.cuts += 1;
        let until = self.fault_end(lengths);
        let (node, other) = (self.victim(), self.victim());
        let cut = Cut::drawn(&mut self.world.rng, node, other);
        self.world.tell(|| format!("{cut:?} until {until}"));
        self.world.network.cut_all(cut, until);
    }

    /// A cut for a second or so, and again after as long.
    fn flap(&mut self) {
        self.world.report.flaps += 1;
        for round in 0..1 + self.world.rng.below(6) {
            let at = Duration::from_millis(round * 2_500) + within(&mut self.world.rng, Duration::from_secs(1));
            self.world.queue.after(at, Event::Flap);
        }
    }

    /// One cut of several.
    pub(super) fn flap_once(&mut self) {
        if self.faulty {
            self.cut(&[600, 1_500]);
        }
    }

    fn bring_down(&mut self) {
        let node = self.victim();
        match self.world.rng.below(12) {
            0 => (0..self.nodes.len()).for_each(|node| self.crash(node)),
            _ => self.crash(node),
        }
    }

    fn freeze(&mut self) {
        self.world.report.freezes += 1;
        let (until, node) = (self.fault_end(&[1_000, 3_000, 10_000]), self.victim());
        self.world.tell(|| format!("n{node} stands still until {until}"));
        self.nodes[node].frozen_until = until;
    }

    fn stall(&mut self) {
        self.world.report.stalls += 1;
        let (until, node) = (self.fault_end(&[1_000, 3_000, 9_000]), self.victim());
        let shard = self.world.rng.below(self.nodes[node].shards.into()) as usize;
        self.world.tell(|| format!("shard {shard} of n{node} stands still until {until}"));
        self.nodes[node].stalled_until[shard] = until;
    }

    fn slow_disk(&mut self) {
        self.world.report.disk_faults += 1;
        let (until, node) = (self.fault_end(&[1_000, 4_000, 10_000]), self.victim());
        self.nodes[node].slow_until = until;
    }
}
