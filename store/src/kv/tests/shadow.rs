//! Random operations on a space beside a plain map; the process dies at any moment, and the log is replayed from the index the base
//! says.

use super::*;
use bifro_core::rng::Prng;
use std::collections::BTreeMap;

const SPACE: SpaceId = SpaceId(3);

/// One entry of the log.
#[derive(Clone, Debug)]
enum Entry {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
}

struct Run {
    rng: Prng,
    base: MemoryBase,
    engine: KvEngine,
    shard: KvShard,
    space: KvSpace,
    log: Vec<Entry>,
    /// What the space must contain.
    shadow: BTreeMap<Vec<u8>, Vec<u8>>,
    next_request: u64,
    answered: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let base = MemoryBase::default();
        let (engine, shard) = stepped(Arc::new(base.clone()));
        let space = shard.open(SPACE).expect("opened");
        let (log, shadow) = Default::default();
        Self { rng: Prng::new(seed), base, engine, shard, space, log, shadow, next_request: 0, answered: 0 }
    }

    fn key(&mut self) -> Vec<u8> {
        format!("k{}", self.rng.below(40)).into_bytes()
    }

    fn write(&mut self) {
        let key = self.key();
        let entry = if self.rng.below(3) == 0 {
            Entry::Delete(key)
        } else {
            Entry::Put(key, vec![b'v'; self.rng.below(200) as usize])
        };
        self.log.push(entry.clone());
        match &entry {
            Entry::Put(key, value) => drop(self.shadow.insert(key.clone(), value.clone())),
            Entry::Delete(key) => drop(self.shadow.remove(key)),
        }
        apply(&mut self.space, &entry, self.log.len() as u64);
    }

    fn ask(&mut self) {
        self.next_request += 1;
        let from = self.key();
        if self.rng.below(2) == 0 {
            self.space.get(self.next_request, from);
        } else {
            let to = (self.rng.below(2) == 0).then(|| self.key());
            self.space
                .scan(self.next_request, Scan { from, to, limit: 1 + self.rng.below(9) as usize, bytes_max: 500 });
        }
    }

    /// Runs one job, if there is one, and takes in what is done.
    fn step(&mut self) {
        self.engine.runner().step();
        let mut done = Vec::new();
        self.shard.poll(&mut done);
        for done in done {
            match self.space.complete(done) {
                Outcome::Got { .. } => self.answered += 1,
                Outcome::Scanned { page, .. } => {
                    self.answered += 1;
                    for (key, value) in &page.pairs {
                        assert_eq!(self.shadow.get(&**key).map(Vec::as_slice), Some(&**value));
                    }
                }
                Outcome::Checkpointed { applied, .. } => assert_eq!(self.space.checkpointed(), applied),
                Outcome::Again => {}
                Outcome::Failed { error, .. } => panic!("{error}"),
            }
        }
    }

    /// The process dies and the next one goes on from the disk as it was.
    fn crash(&mut self) {
        self.base = self.base.copy();
        (self.engine, self.shard) = stepped(Arc::new(self.base.clone()));
        self.space = self.shard.open(SPACE).expect("opened");
        let from = usize::try_from(self.space.applied()).expect("small");
        for (index, entry) in self.log.iter().enumerate().skip(from) {
            apply(&mut self.space, entry, index as u64 + 1);
        }
    }

    /// Everything the space has, read through its own scans.
    fn contents(&mut self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut all = BTreeMap::new();
        let mut from = Vec::new();
        loop {
            self.next_request += 1;
            let request = self.next_request;
            while !self.space.scan(request, Scan { from: from.clone(), to: None, limit: 7, bytes_max: 1000 }) {
                self.step();
            }
            let page = loop {
                self.engine.runner().step();
                let mut done = Vec::new();
                self.shard.poll(&mut done);
                let outcomes: Vec<_> = done.into_iter().map(|done| self.space.complete(done)).collect();
                let page = outcomes.into_iter().find_map(|outcome| match outcome {
                    Outcome::Scanned { request: answered, page } if answered == request => Some(page),
                    _ => None,
                });
                if let Some(page) = page {
                    break page;
                }
            };
            all.extend(page.pairs.into_iter().map(|(key, value)| (key.into_vec(), value.into_vec())));
            match page.next {
                Some(next) => from = next,
                None => return all,
            }
        }
    }
}

fn apply(space: &mut KvSpace, entry: &Entry, index: u64) {
    match entry {
        Entry::Put(key, value) => space.put(key, value),
        Entry::Delete(key) => space.delete(key),
    }
    space.set_applied(index);
}

#[test]
fn whatever_happens_the_space_is_what_the_log_makes_of_it() {
    for seed in 0..200 {
        let mut run = Run::new(seed);
        for _ in 0..300 {
            match run.rng.below(20) {
                0..=9 => run.write(),
                10..=12 => run.ask(),
                13..=17 => run.step(),
                18 => drop(run.space.checkpoint(b"")),
                _ if run.rng.below(8) == 0 => run.crash(),
                _ => {}
            }
        }
        assert_eq!(run.contents(), run.shadow, "seed {seed}");
        assert!(run.answered > 0, "seed {seed}: reads were answered");
    }
}
