//! One owner per client id, however many connections want it.

use super::*;
use bifro_core::ports::SessionDict;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Owner,
    Kicked,
    Gone,
}

/// Connections that all use the same client id, by slot index.
struct Storm {
    sim: Sim,
    conns: Vec<(ConnRef, State)>,
    reqs: BTreeMap<ReqId, usize>,
    client: Client,
}

impl Storm {
    fn new(seed: u64) -> Self {
        Self { sim: Sim::new(seed, 4), conns: vec![], reqs: BTreeMap::new(), client: client("same") }
    }

    fn connect(&mut self, shard: ShardId) {
        let (index, req) = (self.conns.len(), self.sim.req());
        let conn = conn(shard, index as u32);
        self.conns.push((conn, State::Waiting));
        self.reqs.insert(req, index);
        let client = self.client.clone();
        self.sim.call(shard, |services, now, tenant| services.register(now, req, conn, &client, tenant));
    }

    fn leave(&mut self, index: usize) {
        let (conn, state) = &mut self.conns[index];
        *state = State::Gone;
        let (conn, client) = (*conn, self.client.clone());
        self.sim.call(conn.shard, |services, now, tenant| services.unregister(now, conn, &client, tenant));
    }

    fn listen(&mut self) {
        for (shard, completion) in self.sim.take_heard() {
            match completion {
                Completion::Registered { req } => {
                    let index = self.reqs[&req];
                    assert_eq!(self.conns[index].0.shard, shard);
                    assert_ne!(self.conns[index].1, State::Gone);
                    self.conns[index].1 = State::Owner;
                }
                Completion::Kick { conn } => {
                    assert_eq!(conn.shard, shard);
                    let state = &mut self.conns[conn.slot.index as usize].1;
                    if *state == State::Owner {
                        *state = State::Kicked;
                    }
                }
                other => panic!("nobody asked for {other:?}"),
            }
        }
        let owners = self.conns.iter().filter(|(_, state)| matches!(state, State::Owner | State::Kicked)).count();
        assert!(owners <= 1, "{owners} owners at once: {:?}", self.conns);
    }

    /// Lets kicked connections go, in random order with everything else, until nothing moves.
    fn calm(&mut self) {
        loop {
            let kicked = self.conns.iter().position(|&(_, state)| state == State::Kicked);
            match kicked {
                Some(index) if self.sim.pick(3) == 0 => self.leave(index),
                _ if self.sim.step() => {}
                Some(index) => self.leave(index),
                None => return,
            }
            self.listen();
        }
    }

    fn owners(&self) -> Vec<usize> {
        (0..self.conns.len()).filter(|&index| self.conns[index].1 == State::Owner).collect()
    }
}

/// HOSTILE 17, [MQTT-3.1.4-2] [MQTT5-3.1.4-3]
#[test]
fn a_storm_of_connections_with_one_client_id_ends_with_one_owner_and_never_has_two() {
    for seed in 0..40 {
        let mut storm = Storm::new(seed);
        while storm.conns.len() < 100 {
            let shard = storm.sim.any_shard();
            storm.connect(shard);
            for _ in 0..storm.sim.pick(4) {
                storm.sim.step();
                storm.listen();
            }
            if let Some(index) = storm.conns.iter().position(|&(_, state)| state == State::Kicked)
                && storm.sim.pick(2) == 0
            {
                storm.leave(index);
                storm.listen();
            }
        }
        storm.calm();
        assert_eq!(storm.owners().len(), 1, "seed {seed}");
        let waiting = storm.conns.iter().filter(|&&(_, state)| state == State::Waiting).count();
        assert_eq!(waiting, 0, "seed {seed}: everybody was served in turn");
    }
}

/// HOSTILE 17
#[test]
fn the_last_to_register_is_the_one_that_stays() {
    for seed in 0..20 {
        let mut storm = Storm::new(seed);
        let shard = storm.sim.any_shard();
        for _ in 0..100 {
            storm.connect(shard);
            storm.listen();
        }
        storm.calm();
        assert_eq!(storm.owners(), [99], "seed {seed}");
        storm.leave(99);
        storm.calm();
        storm.sim.assert_nothing_used();
    }
}

#[test]
fn a_connection_that_never_goes_is_succeeded_after_the_deadline() {
    let mut storm = Storm::new(1);
    storm.connect(ShardId(0));
    storm.calm();
    storm.connect(ShardId(3));
    storm.sim.settle();
    storm.sim.take_heard();
    storm.sim.advance(4);
    assert!(storm.sim.take_heard().is_empty());
    storm.sim.advance(1);
    assert!(matches!(storm.sim.take_heard()[..], [(ShardId(3), Completion::Registered { .. })]));
}

#[test]
fn connections_that_give_up_while_waiting_are_not_served() {
    let mut storm = Storm::new(2);
    for shard in [0, 1, 2] {
        storm.connect(ShardId(shard));
        storm.sim.settle();
        storm.listen();
    }
    storm.leave(1);
    storm.calm();
    assert_eq!(storm.owners(), [2]);
}
