//! Every mistake that can be planted in bifro-raft is found, within a stated number of seeds: the simulator's own test.
#![cfg(feature = "mutations")]

use bifro_raft::Mutation;
use bifro_sim::{Failure, Options, simulate};

const SEEDS: u64 = 200;

fn found(mutation: Mutation) -> Option<(u64, Box<Failure>)> {
    (0..SEEDS).find_map(|seed| {
        let options = Options { mutation: Some(mutation), ..Options::new(3 + 2 * (seed as usize % 2), 5) };
        simulate(seed, &options).err().map(|failure| (seed, failure))
    })
}

#[test]
fn hunt() {
    std::panic::set_hook(Box::new(|_| {}));
    for mutation in Mutation::ALL {
        match found(mutation) {
            None => eprintln!("{mutation:?}: MISSED"),
            Some((seed, failure)) => eprintln!("{mutation:?}: seed {seed}: {}", failure.violation),
        }
    }
}
