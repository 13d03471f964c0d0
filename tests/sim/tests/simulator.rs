//! The simulator on an ordinary day: few seeds, so that it is part of every test run. `scripts/ci.sh` runs more.

use bifro_sim::{Kind, Options, Report, scripts, simulate};

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
fn three_nodes_stay_right_and_everything_that_can_happen_does() {
    let report = run(0..30, &Options::new(3, 3));
    let never: Vec<_> = report.counts().into_iter().filter(|(_, count)| *count == 0).collect();
    assert_eq!(never, [], "the faults and the work that were meant to happen");
    assert_eq!(report.episodes, 90);
}

#[test]
fn five_nodes_stay_right() {
    assert_eq!(run(0..10, &Options::new(5, 3)).episodes, 30);
}

#[test]
fn one_and_two_nodes_stay_right() {
    assert_eq!(run(0..5, &Options::new(1, 2)).episodes, 10);
    assert_eq!(run(0..5, &Options::new(2, 2)).episodes, 10);
}

#[test]
fn equal_seeds_give_equal_traces_and_others_give_others() {
    let run = |seed| simulate(seed, &Options::new(3, 2)).expect("it passes");
    let (first, again, other) = (run(7), run(7), run(8));
    assert_eq!(first, again);
    assert_ne!(first.trace, other.trace);
}

#[test]
fn a_kind_of_fault_that_is_left_out_does_not_happen() {
    let without = vec![Kind::Crashes, Kind::Changes];
    let report = run(0..5, &Options { without, ..Options::new(3, 2) });
    assert_eq!((report.crashes, report.changes, report.burials), (0, 0, 0));
    assert!(report.cuts > 0);
}

#[test]
fn a_follower_that_comes_back_deposes_nobody() {
    for seed in 0..10 {
        assert_eq!(scripts::a_follower_comes_back(seed, &Options::new(3, 1)), Ok(()));
    }
}

#[test]
fn leaders_that_are_cut_off_answer_nothing_stale() {
    for seed in 0..4 {
        assert_eq!(scripts::leaders_are_cut_off(seed, &Options::new(3, 1)), Ok(()));
    }
}
