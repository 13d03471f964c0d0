//! What happened, as one number: equal seeds must give equal traces.

/// Everything that was noted, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Trace(u64);

impl Trace {
    /// Notes something.
    pub(crate) fn note(&mut self, words: &[u64]) {
        for word in words {
            // FNV-1a over words, with a shift so that high bits count too.
            self.0 = (self.0 ^ word ^ (self.0 >> 29)).wrapping_mul(0x0000_0100_0000_01b3).wrapping_add(1);
        }
    }

    /// The number.
    pub(crate) const fn hash(self) -> u64 {
        self.0
    }
}
