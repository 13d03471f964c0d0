//! The one generator of pseudo-random numbers: seeded, passed as an argument, replayable.

/// SplitMix64 (Steele, Lea, Flood 2014): good enough for jitter, sampling and simulation; never for secrets.
#[derive(Clone, Debug)]
pub struct Prng {
    state: u64,
}

impl Prng {
    /// A generator that yields the same numbers for the same seed.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// An independent generator for a component, told apart by `salt`.
    pub const fn derive(&self, salt: u64) -> Self {
        Self::new(mix(self.state ^ mix(salt)))
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `bound`, by multiply-shift; zero if `bound` is zero.
    pub const fn below(&mut self, bound: u64) -> u64 {
        ((self.next_u64() as u128 * bound as u128) >> 64) as u64
    }
}

/// SplitMix64's finaliser: a bijection that spreads every input bit over the whole word.
pub(crate) const fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_numbers_and_salts_differ() {
        let (mut a, mut b) = (Prng::new(7), Prng::new(7));
        assert_eq!(a.next_u64(), b.next_u64());
        assert_ne!(a.derive(1).next_u64(), a.derive(2).next_u64());
        assert!((0..1000).all(|_| a.below(10) < 10));
        assert_eq!(a.below(0), 0);
    }
}
