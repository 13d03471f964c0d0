//! What is between the ends of links: parcels arrive in the order in which they were sent, late where the network is cut, as long as both ends are
//! there; notes arrive or are lost.

use super::cluster::{Event, Simulation};
use super::talk::{LinkId, LinkInput, LinkOutput, Note, Parcel};
use crate::options::within;
use crate::queue::Moment;
use std::collections::VecDeque;
use std::time::Duration;

/// From one attempt to get something through to the next.
const AGAIN: Duration = Duration::from_millis(120);

/// A shard of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) node: usize,
    pub(crate) boot: u64,
    pub(crate) shard: u16,
}

/// A link: who has called, and who was called if the call has arrived.
#[derive(Debug)]
pub(crate) struct Link {
    ends: [Option<Place>; 2],
    /// To the other end.
    pipes: [Pipe; 2],
}

/// One direction.
#[derive(Debug, Default)]
struct Pipe {
    parcels: VecDeque<Parcel>,
    busy_until: Moment,
}

impl Simulation {
    /// Carries out what a shard wants of links.
    pub(super) fn carry(&mut self, from: Place, outputs: Vec<LinkOutput>) {
        for output in outputs {
            if let LinkOutput::Dial { .. } | LinkOutput::Over(_) | LinkOutput::Note(_, Note::Close) = output {
                self.world.tell(|| format!("shard {} of n{}: {output:?}", from.shard, from.node));
            }
            match output {
                LinkOutput::Dial { link, node, shard } => {
                    let to = (node.0 - 100) as usize;
                    self.links.insert(link, Link { ends: [Some(from), None], pipes: <[Pipe; 2]>::default() });
                    let at = self.arrival();
                    self.world.queue.at(at, Event::Call { link, from, to, shard });
                }
                LinkOutput::Parcel(link, parcel) => self.send_parcel(from, link, parcel),
                LinkOutput::Note(link, note) => self.send_note(from, link, note),
                LinkOutput::Over(link) => {
                    if let Some((way, found)) = self.end_of(from, link) {
                        found.pipes[way].parcels.clear();
                    }
                }
            }
        }
    }

    fn end_of(&mut self, place: Place, link: LinkId) -> Option<(usize, &mut Link)> {
        let found = self.links.get_mut(&link)?;
        let way = found.ends.iter().position(|end| *end == Some(place))?;
        Some((way, found))
    }

    /// When something sent now arrives.
    fn arrival(&mut self) -> Moment {
        let weather = &self.world.weather.network;
        self.world.queue.now() + weather.delay + within(&mut self.world.rng, weather.jitter)
    }

    fn is_open(&self, from: usize, to: usize) -> bool {
        self.world.network.is_open(self.world.queue.now(), from, to)
    }

    fn send_parcel(&mut self, from: Place, link: LinkId, parcel: Parcel) {
        let arrival = self.arrival();
        let Some((way, found)) = self.end_of(from, link) else { return };
        let pipe = &mut found.pipes[way];
        pipe.parcels.push_back(parcel);
        pipe.busy_until = pipe.busy_until.max(arrival);
        let at = pipe.busy_until;
        self.world.queue.at(at, Event::Parcel { link, way });
    }

    fn send_note(&mut self, from: Place, link: LinkId, note: Note) {
        let Some((way, found)) = self.end_of(from, link) else { return };
        let Some(to) = found.ends[1 - way] else { return };
        if self.is_open(from.node, to.node) {
            let at = self.arrival();
            self.world.queue.at(at, Event::Note { link, way, note });
        }
    }

    /// A call arrives, or is repeated until somebody answers or nobody waits for it.
    pub(super) fn call_arrives(&mut self, link: LinkId, from: Place, to: usize, shard: u16) {
        let waits = self.shard(from).is_some_and(|shard| shard.uplinks.knows(link));
        if !waits {
            return;
        }
        let stands = self.nodes[from.node].stands_until(Some(from.shard));
        let boot = self.nodes[to].process.as_ref().map(|process| process.boot);
        match boot {
            Some(boot) if self.is_open(from.node, to) => {
                let place = Place { node: to, boot, shard };
                if let Some(found) = self.links.get_mut(&link) {
                    found.ends[1] = Some(place);
                }
                self.bring(place, LinkInput::Called(link));
            }
            _ => {
                let at = (self.world.queue.now() + AGAIN).max(stands);
                self.world.queue.at(at, Event::Call { link, from, to, shard });
            }
        }
    }

    /// The first parcel of a direction arrives, unless it is held up.
    pub(super) fn parcel_arrives(&mut self, link: LinkId, way: usize) {
        let Some(found) = self.links.get(&link) else { return };
        let (Some(from), Some(to), false) = (found.ends[way], found.ends[1 - way], found.pipes[way].parcels.is_empty())
        else {
            return;
        };
        if !self.is_open(from.node, to.node) {
            let stands = self.nodes[from.node].stands_until(Some(from.shard));
            let at = (self.world.queue.now() + AGAIN).max(stands);
            return self.world.queue.at(at, Event::Parcel { link, way });
        }
        let pipe = self.links.get_mut(&link).map(|found| &mut found.pipes[way]);
        if let Some(parcel) = pipe.and_then(|pipe| pipe.parcels.pop_front()) {
            self.bring(to, LinkInput::Parcel(link, parcel));
        }
    }

    /// Something that is sent once arrives.
    pub(super) fn note_arrives(&mut self, link: LinkId, way: usize, note: Note) {
        let Some(found) = self.links.get(&link) else { return };
        if let Some(to) = found.ends[1 - way] {
            self.bring(to, LinkInput::Note(link, note));
        }
    }

    fn bring(&mut self, to: Place, input: LinkInput) {
        if let LinkInput::Called(_)
        | LinkInput::Parcel(_, Parcel::Answer | Parcel::Greet(_))
        | LinkInput::Note(_, Note::Close) = input
        {
            self.world.tell(|| format!("to shard {} of n{}: {input:?}", to.shard, to.node));
        }
        if let Some(shard) = self.shard_mut(to) {
            shard.inputs.links.push_back(input);
            self.wake(to.node, to.shard);
        }
    }
}
