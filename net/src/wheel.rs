//! A hierarchical timing wheel: one per shard carries every timeout of its connections and sessions.
//!
//! Time is cut into ticks. Level `l` has 64 slots of `64^l` ticks; an entry lives on the level of the highest 6-bit digit
//! in which its tick differs from the current one, and moves down as that digit is reached. Eleven levels cover all 64
//! bits, so there is no horizon. Scheduling is O(1), an entry moves at most ten times, finding the next event reads one
//! bitmap per level.
//!
//! There is no cancelling: keys are cheap, and whoever gets a key back that no longer means anything ignores it.
//!
//! Invariant: on level `l` every occupied slot lies strictly after digit `l` of the current tick, and all higher digits
//! of its entries equal the current tick's.

use bifro_core::time::Instant;
use std::time::Duration;

/// Bits of a digit.
const DIGIT_BITS: u32 = 6;
/// Slots of a level.
const SLOTS: usize = 1 << DIGIT_BITS;
/// Digits of a 64-bit tick.
const LEVELS: usize = 11;
/// End of a list.
const NIL: u32 = u32::MAX;

/// A scheduled key, or a free place in the table; lists are threaded through `next`.
#[derive(Clone, Copy, Debug)]
struct Entry<K> {
    /// Tick at which it fires.
    tick: u64,
    key: K,
    next: u32,
}

// 24 bytes with a slot as the key.
const _: () = assert!(size_of::<Entry<bifro_core::ids::Slot>>() <= 24);

/// One level: the heads of its lists and which are not empty.
#[derive(Clone, Copy, Debug)]
struct Level {
    occupied: u64,
    heads: [u32; SLOTS],
}

/// The wheel. Memory grows with the most entries ever scheduled at once and is kept.
#[derive(Debug)]
pub struct Wheel<K> {
    origin: Instant,
    tick_micros: u64,
    /// Ticks since `origin`, as of the last advance.
    now: u64,
    levels: Box<[Level; LEVELS]>,
    /// Entries that were due when scheduled.
    due: u32,
    entries: Vec<Entry<K>>,
    free: u32,
    len: usize,
}

impl<K: Copy> Wheel<K> {
    /// An empty wheel. Keys fire up to one `tick` late, never early.
    ///
    /// # Panics
    /// If `tick` is shorter than a microsecond.
    pub fn new(now: Instant, tick: Duration) -> Self {
        let tick_micros = u64::try_from(tick.as_micros()).expect("a tick is short");
        assert!(tick_micros > 0, "a tick is at least a microsecond");
        let level = Level { occupied: 0, heads: [NIL; SLOTS] };
        Self {
            origin: now,
            tick_micros,
            now: 0,
            levels: Box::new([level; LEVELS]),
            due: NIL,
            entries: Vec::new(),
            free: NIL,
            len: 0,
        }
    }

    /// Scheduled keys that have not fired.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Nothing is scheduled.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Lets `key` fire at the first advance that is not before `at`. Each schedule fires once; the same key may be
    /// scheduled several times.
    ///
    /// # Panics
    /// At 2^32 - 1 entries.
    pub fn schedule(&mut self, key: K, at: Instant) {
        let micros = at.as_micros().saturating_sub(self.origin.as_micros());
        let entry = Entry { tick: micros.div_ceil(self.tick_micros), key, next: NIL };
        let index = if self.free == NIL {
            let index = u32::try_from(self.entries.len()).expect("fewer than 2^32 timers");
            assert!(index != NIL);
            self.entries.push(entry);
            index
        } else {
            let index = self.free;
            self.free = std::mem::replace(&mut self.entries[index as usize], entry).next;
            index
        };
        self.len += 1;
        self.link(index);
    }

    /// Appends every key that is due at `now` to `fired`, by tick; within a tick in no particular order. A `now` before
    /// the last one counts as the last one.
    pub fn advance(&mut self, now: Instant, fired: &mut Vec<K>) {
        let due = std::mem::replace(&mut self.due, NIL);
        self.release_list(due, fired);
        let target = now.as_micros().saturating_sub(self.origin.as_micros()) / self.tick_micros;
        while let Some((level, slot, tick)) = self.next_slot() {
            if tick > target {
                break;
            }
            self.now = tick;
            let level = &mut self.levels[level];
            level.occupied &= !(1 << slot);
            let list = std::mem::replace(&mut level.heads[slot], NIL);
            self.release_list(list, fired);
        }
        self.now = self.now.max(target);
    }

    /// When to advance next: not after the first key is due (rounded up to a tick), possibly before, when entries have to
    /// move closer. None if nothing is scheduled.
    pub fn next(&self) -> Option<Instant> {
        let tick = if self.due == NIL { self.next_slot()?.2 } else { self.now };
        let micros = tick.saturating_mul(self.tick_micros);
        Some(Instant::from_micros(self.origin.as_micros().saturating_add(micros)))
    }

    /// The first slot to be reached: its level, its place, its tick. Lower levels come first by the invariant.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.levels.iter().position(|level| level.occupied != 0)?;
        let slot = self.levels[level].occupied.trailing_zeros();
        let shift = DIGIT_BITS * level as u32;
        let below = 1_u64.checked_shl(shift + DIGIT_BITS).map_or(u64::MAX, |bit| bit - 1);
        Some((level, slot as usize, (self.now & !below) | (u64::from(slot) << shift)))
    }

    /// Puts an entry where its tick belongs.
    fn link(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        if entry.tick <= self.now {
            entry.next = std::mem::replace(&mut self.due, index);
            return;
        }
        let level = (u64::BITS - 1 - (entry.tick ^ self.now).leading_zeros()) / DIGIT_BITS;
        let slot = (entry.tick >> (DIGIT_BITS * level)) as usize % SLOTS;
        let level = &mut self.levels[level as usize];
        level.occupied |= 1 << slot;
        entry.next = std::mem::replace(&mut level.heads[slot], index);
    }

    /// Fires what is due in a list and links the rest anew.
    fn release_list(&mut self, mut list: u32, fired: &mut Vec<K>) {
        while list != NIL {
            let index = list;
            let entry = &mut self.entries[index as usize];
            list = entry.next;
            if entry.tick > self.now {
                self.link(index);
                continue;
            }
            fired.push(entry.key);
            entry.next = self.free;
            self.free = index;
            self.len -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    const START: Instant = Instant::from_micros(1_700_000_000_000_000);

    fn after(millis: u64) -> Instant {
        START + Duration::from_millis(millis)
    }

    fn wheel() -> Wheel<u32> {
        Wheel::new(START, Duration::from_millis(10))
    }

    fn advance(wheel: &mut Wheel<u32>, now: Instant) -> Vec<u32> {
        let mut fired = Vec::new();
        wheel.advance(now, &mut fired);
        fired
    }

    #[test]
    fn a_key_fires_once_and_never_early() {
        let mut wheel = wheel();
        wheel.schedule(7, after(15));
        assert_eq!(advance(&mut wheel, after(15)), [0_u32; 0]);
        assert_eq!(wheel.next(), Some(after(20)));
        assert_eq!(advance(&mut wheel, after(20)), [7]);
        assert_eq!(advance(&mut wheel, after(100_000)), [0_u32; 0]);
        assert!(wheel.is_empty() && wheel.next().is_none());
    }

    #[test]
    fn a_key_already_due_fires_at_the_next_advance_even_at_the_same_time() {
        let mut wheel = wheel();
        assert_eq!(advance(&mut wheel, after(1000)), [0_u32; 0]);
        wheel.schedule(1, after(3));
        wheel.schedule(2, after(1000));
        assert_eq!(wheel.next(), Some(after(1000)));
        let mut fired = advance(&mut wheel, after(1000));
        fired.sort_unstable();
        assert_eq!(fired, [1, 2]);
    }

    #[test]
    fn a_clock_that_steps_back_fires_nothing_and_loses_nothing() {
        let mut wheel = wheel();
        assert_eq!(advance(&mut wheel, after(1000)), [0_u32; 0]);
        wheel.schedule(1, after(1010));
        assert_eq!(advance(&mut wheel, after(10)), [0_u32; 0]);
        assert_eq!(advance(&mut wheel, after(1010)), [1]);
    }

    #[test]
    fn the_end_of_time_is_a_valid_deadline() {
        let mut wheel: Wheel<u32> = Wheel::new(Instant::from_micros(0), Duration::from_micros(1));
        wheel.schedule(1, Instant::from_micros(u64::MAX));
        assert_eq!(advance(&mut wheel, Instant::from_micros(u64::MAX - 1)), [0_u32; 0]);
        assert_eq!(advance(&mut wheel, Instant::from_micros(u64::MAX)), [1]);
    }

    #[test]
    fn a_million_keys_fire_in_the_order_of_their_ticks() {
        let mut wheel = wheel();
        let at = |key: u32| after(u64::from(key.wrapping_mul(2_654_435_761) % 90_000_000));
        for key in 0..1_000_000 {
            wheel.schedule(key, at(key));
        }
        assert_eq!(wheel.len(), 1_000_000);
        let fired = advance(&mut wheel, after(90_000_000));
        assert_eq!(fired.len(), 1_000_000);
        let tick = |key: &u32| at(*key).since(START).as_millis().div_ceil(10);
        assert!(fired.is_sorted_by_key(tick));
        // The places are reused, not grown.
        for key in 0..1_000_000 {
            wheel.schedule(key, after(100_000_000));
        }
        assert_eq!(wheel.entries.len(), 1_000_000);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Schedule { ahead_micros: u64 },
        Advance { micros: u64 },
        AdvanceToNext,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let span = prop_oneof![0_u64..2_000, 0_u64..1_000_000, 0_u64..100_000_000, 0_u64..1 << 45];
        let step = prop_oneof![
            4 => span.clone().prop_map(|ahead_micros| Step::Schedule { ahead_micros }),
            1 => span.prop_map(|micros| Step::Advance { micros }),
            2 => Just(Step::AdvanceToNext),
        ];
        proptest::collection::vec(step, 1..200)
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_heap_of_ticks(steps in steps(), tick in 1_u64..5_000) {
            let mut wheel = Wheel::new(START, Duration::from_micros(tick));
            let mut heap = BinaryHeap::new();
            let mut now = START;
            for (key, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Schedule { ahead_micros } => {
                        let at = now + Duration::from_micros(ahead_micros);
                        wheel.schedule(key, at);
                        let micros = at.since(START).as_micros() as u64;
                        heap.push(Reverse((micros.div_ceil(tick), key)));
                        continue;
                    }
                    Step::Advance { micros } => now = now + Duration::from_micros(micros),
                    Step::AdvanceToNext => now = wheel.next().map_or(now, |next| next.max(now)),
                }
                let mut fired = Vec::new();
                wheel.advance(now, &mut fired);
                let reached = now.since(START).as_micros() as u64 / tick;
                let mut expected = Vec::new();
                while heap.peek().is_some_and(|Reverse((at, _))| *at <= reached) {
                    expected.extend(heap.pop().map(|Reverse((_, key))| key));
                }
                fired.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(fired, expected);
                prop_assert_eq!(wheel.len(), heap.len());
                let first = heap.peek().map(|Reverse((at, _))| START + Duration::from_micros(at * tick));
                prop_assert_eq!(wheel.next().is_some(), first.is_some());
                prop_assert!(wheel.next() <= first);
                prop_assert!(wheel.next().is_none_or(|next| next > now || now < START));
            }
        }
    }
}
