//! Random packets, completions, deliveries and timeouts against the session machine, over a model driver that answers late,
//! out of order or not at all. After every step the machine's invariants hold, and so do the model's: the client's Receive
//! Maximum is never exceeded, acknowledgements keep their order, there is exactly one `Close` and it comes last, and in
//! the end every quota is back where it was. `BIFRO_FUZZ_SECONDS` (default 1) is how long it runs, `BIFRO_FUZZ_SEED`
//! (default 1) what it begins with.

mod model;

use model::conversation;
use std::str::FromStr;
use std::time::Duration;

fn from_env<T: FromStr>(key: &str, default: T) -> T {
    std::env::var(key).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

struct SeedOnPanic(u64);

impl Drop for SeedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with BIFRO_FUZZ_SEED={}", self.0);
        }
    }
}

#[test]
fn no_sequence_of_events_breaks_a_session() {
    let end = std::time::Instant::now() + Duration::from_secs(from_env("BIFRO_FUZZ_SECONDS", 1));
    let mut seed = from_env("BIFRO_FUZZ_SEED", 1_u64);
    while std::time::Instant::now() < end {
        let named = SeedOnPanic(seed);
        conversation(seed);
        drop(named);
        seed += 1;
    }
}

#[test]
fn equal_seeds_give_equal_conversations() {
    for seed in 1..20 {
        assert_eq!(conversation(seed), conversation(seed), "seed {seed}");
    }
}
