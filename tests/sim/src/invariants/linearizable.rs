//! Commands and reads of a key are linearizable (Herlihy and Wing 1990). The values only grow, one version per command, so versions
//! are the order, and it is enough that no operation comes before one that was finished when it began: a read sees at least
//! every version that was told before, a command makes a newer one.

use crate::machine::KEYS;

/// The newest version of each key that anybody was told.
#[derive(Debug, Default)]
pub(crate) struct Linearizable {
    told: [u64; KEYS],
}

impl Linearizable {
    /// An operation begins: what it must not be older than.
    pub(crate) fn floor(&self, key: usize) -> u64 {
        self.told[key]
    }

    /// A read that began when `floor` was told is answered.
    pub(crate) fn note_read(&mut self, key: usize, floor: u64, version: u64) {
        assert!(
            version >= floor,
            "linearizable: a read of key {key} saw version {version}, {floor} was told before it began"
        );
        self.told[key] = self.told[key].max(version);
    }

    /// A command that began when `floor` was told is answered.
    pub(crate) fn note_written(&mut self, key: usize, floor: u64, version: u64) {
        assert!(
            version > floor,
            "linearizable: a command made version {version} of key {key}, {floor} was told before it began"
        );
        self.told[key] = self.told[key].max(version);
    }
}
