//! Tests of names, filters and indexes: clauses one by one, then everything small exhaustively, then at random.

mod index;
mod relation;
mod syntax;
mod tree;

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

/// Levels that lie next to `/` and `$` in byte order, where an ordered walk can go wrong.
const LEVELS: &[&str] = &["a", "", "$", "a!", "a0"];

/// All topics of one to `levels_max` of the levels, without the empty string.
fn topics(levels: &[&str], levels_max: usize) -> Vec<String> {
    let mut all = Vec::new();
    let mut longest = vec![String::new()];
    for depth in 0..levels_max {
        longest = longest
            .iter()
            .flat_map(|stem| {
                levels.iter().map(move |level| if depth == 0 { (*level).into() } else { [stem, *level].join("/") })
            })
            .collect();
        all.extend(longest.iter().filter(|topic| !topic.is_empty()).cloned());
    }
    all
}

/// All filters of one to `levels_max` of the levels and `+`, each also with `/#`, and `#`.
fn filters(levels: &[&str], levels_max: usize) -> Vec<String> {
    let with_plus: Vec<&str> = levels.iter().copied().chain(["+"]).collect();
    let mut all = topics(&with_plus, levels_max);
    all.extend(topics(&with_plus, levels_max).iter().map(|filter| [filter, "#"].join("/")));
    all.extend(["#".into(), "/#".into()]);
    all
}

/// A topic of up to four levels.
fn any_topic() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(LEVELS), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic has a character", |topic| !topic.is_empty())
}

/// A filter of up to four levels, sometimes malformed, because the indexes are total.
fn any_filter() -> impl Strategy<Value = String> {
    let level = prop::sample::select(&["+", "+", "+", "a", "a", "", "$", "a!", "a0", "#", "a+"][..]);
    (prop::collection::vec(level, 1..5), any::<bool>())
        .prop_map(|(levels, multi)| if multi { levels.join("/") + "/#" } else { levels.join("/") })
        .prop_filter("a filter has a character", |filter| !filter.is_empty())
}

/// Runs `work` on a stack too small for recursion over levels.
fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(128 << 10).spawn(work).expect("a thread can be started");
    thread.join().expect("the work ends without a panic");
}
