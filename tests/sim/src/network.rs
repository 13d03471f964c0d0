//! The network between the nodes: every direction of every pair is a link that loses, delays, duplicates and reorders batches, and
//! can be cut or clogged for a time.

use crate::options::{Weather, within};
use crate::queue::Moment;
use bifro_core::rng::Prng;
use std::time::Duration;

/// A straggler is late by up to this: long enough to come from another reign.
const STRAGGLER_DELAY_MAX: Duration = Duration::from_secs(8);

/// All links.
#[derive(Debug)]
pub(crate) struct Network {
    nodes: usize,
    links: Vec<Link>,
    rng: Prng,
}

/// Which links a cut concerns: one direction of one pair, one pair, everything to, from or around a node, or the cluster in two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    node: usize,
    other: usize,
    sides: u64,
    shape: u64,
}

impl Cut {
    /// Draws one around a node, or between it and the other.
    pub(crate) fn drawn(rng: &mut Prng, node: usize, other: usize) -> Self {
        Self { node, other, sides: rng.next_u64(), shape: rng.below(6) }
    }

    const fn concerns(self, from: usize, to: usize) -> bool {
        let Self { node, other, sides, shape } = self;
        match shape {
            0 => from == node && to == other,
            1 => from == node && to == other || from == other && to == node,
            2 => from == node,
            3 => to == node,
            4 => from == node || to == node,
            _ => (sides >> from) & 1 != (sides >> to) & 1,
        }
    }
}

/// One direction between two nodes.
#[derive(Clone, Copy, Debug, Default)]
struct Link {
    /// Nothing gets through before this.
    cut_until: Moment,
    /// What is sent before this arrives after it.
    clogged_until: Moment,
    /// When the last of what was sent arrives.
    busy_until: Moment,
}

impl Network {
    /// Open links between so many nodes.
    pub(crate) fn new(nodes: usize, rng: Prng) -> Self {
        Self { nodes, links: vec![Link::default(); nodes * nodes], rng }
    }

    /// When copies of a batch sent now arrive: none, one or two.
    pub(crate) fn deliveries(&mut self, now: Moment, from: usize, to: usize, weather: &Weather) -> [Option<Moment>; 2] {
        let link = from * self.nodes + to;
        if self.links[link].cut_until > now || self.rng.below(1_000) < weather.loss {
            return [None, None];
        }
        let first = Some(self.arrival(now, link, weather));
        let second = (self.rng.below(1_000) < weather.duplicates).then(|| self.arrival(now, link, weather));
        [first, second]
    }

    fn arrival(&mut self, now: Moment, link: usize, weather: &Weather) -> Moment {
        let late = self.rng.below(1_000) < weather.stragglers;
        let jitter = within(&mut self.rng, if late { STRAGGLER_DELAY_MAX } else { weather.jitter });
        let link = &mut self.links[link];
        let arrival = now.max(link.clogged_until) + weather.delay + jitter;
        if late || !weather.ordered {
            return arrival;
        }
        link.busy_until = link.busy_until.max(arrival);
        link.busy_until
    }

    /// Cuts one direction for a time.
    pub(crate) fn cut(&mut self, from: usize, to: usize, until: Moment) {
        self.links[from * self.nodes + to].cut_until = until;
    }

    /// Cuts several for a time.
    pub(crate) fn cut_all(&mut self, cut: Cut, until: Moment) {
        for from in 0..self.nodes {
            for to in (0..self.nodes).filter(|&to| to != from && cut.concerns(from, to)) {
                self.cut(from, to, until);
            }
        }
    }

    /// Clogs one direction for a time.
    pub(crate) fn clog(&mut self, from: usize, to: usize, until: Moment) {
        self.links[from * self.nodes + to].clogged_until = until;
    }

    /// Whether batches get through, sooner or later.
    pub(crate) fn is_open(&self, now: Moment, from: usize, to: usize) -> bool {
        self.links[from * self.nodes + to].cut_until <= now
    }

    /// Opens every link. What is under way stays under way.
    pub(crate) fn heal(&mut self) {
        self.links.fill(Link::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> Network {
        Network::new(3, Prng::new(1))
    }

    #[test]
    fn a_cut_is_one_direction_only_and_ends() {
        let mut network = network();
        network.cut(0, 1, Moment(100));
        assert_eq!(network.deliveries(Moment(99), 0, 1, &Weather::fair()), [None, None]);
        assert!(network.deliveries(Moment(99), 1, 0, &Weather::fair())[0].is_some());
        assert!(network.deliveries(Moment(100), 0, 1, &Weather::fair())[0].is_some());
    }

    #[test]
    fn a_clogged_link_lets_go_of_everything_at_its_end() {
        let mut network = network();
        network.clog(0, 1, Moment(1_000_000));
        let arrival =
            network.deliveries(Moment(5), 0, 1, &Weather::fair())[0].expect("nothing is lost in fair weather");
        assert!(arrival > Moment(1_000_000));
    }

    #[test]
    fn loss_and_duplication_are_as_frequent_as_the_weather_says() {
        let weather = Weather { loss: 100, duplicates: 100, ..Weather::fair() };
        let mut network = network();
        let sent: Vec<_> = (0..10_000).map(|_| network.deliveries(Moment(0), 0, 1, &weather)).collect();
        let lost = sent.iter().filter(|copies| copies[0].is_none()).count();
        let doubled = sent.iter().filter(|copies| copies[1].is_some()).count();
        assert!((850..1_150).contains(&lost), "{lost}");
        assert!((750..1_050).contains(&doubled), "{doubled}");
    }
}
