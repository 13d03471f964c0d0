//! The services' simulation on an ordinary day: few seeds, so that it is part of every test run. `scripts/ci.sh` runs more.

use bifro_sim::services::{Kind, Options, Report, simulate};

/// Runs these seeds; all must pass.
fn run(seeds: std::ops::Range<u64>, options: &Options) -> Report {
    let mut total = Report::default();
    for seed in seeds {
        match simulate(seed, options) {
            Ok(passed) => total.add(&passed.report),
            Err(failure) => panic!("{failure}"),
        }
    }
    total
}

#[test]
fn three_nodes_keep_their_promises_and_everything_that_can_happen_does() {
    let report = run(0..6, &Options::new(3, 1));
    let never: Vec<_> = report.counts().into_iter().filter(|(_, count)| *count == 0).collect();
    assert_eq!(never, [], "the faults and the work that were meant to happen");
    assert_eq!(report.episodes, 6);
}

#[test]
fn five_nodes_keep_their_promises() {
    assert_eq!(run(0..1, &Options::new(5, 1)).episodes, 1);
}

#[test]
fn one_node_keeps_its_promises() {
    assert_eq!(run(0..1, &Options::new(1, 1)).episodes, 1);
}

#[test]
fn equal_seeds_give_equal_traces_and_others_give_others() {
    let run = |seed| simulate(seed, &Options::new(3, 1)).expect("it passes");
    let (first, again, other) = (run(7), run(7), run(8));
    assert_eq!(first, again);
    assert_ne!(first.trace, other.trace);
}

#[test]
fn without_faults_everything_is_acknowledged_and_nothing_overtakes() {
    let without = Kind::ALL.map(|(kind, _)| kind).to_vec();
    let report = run(0..1, &Options { without, ..Options::new(3, 1) });
    assert_eq!((report.crashes, report.cuts, report.freezes, report.refused), (0, 0, 0, 0));
    assert!(report.acknowledged > 0 && report.received > report.acknowledged);
}
