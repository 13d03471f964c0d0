//! No acknowledged command is lost: when all is well again, every replica has it, exactly once.

use crate::machine::{CLIENTS, Machine};
use bifro_raft::LogId;

/// Each client's last acknowledged command.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    /// Its number and the version it made.
    last: [(u64, u64); CLIENTS],
    /// The furthest place in the log that was acknowledged.
    furthest: LogId,
}

impl Acknowledged {
    /// A client's command was acknowledged.
    pub(crate) fn note(&mut self, client: usize, number: u64, version: u64, id: LogId) {
        self.last[client] = (number, version);
        self.furthest = self.furthest.max(id);
    }

    /// Looks for every acknowledged command in a state.
    pub(crate) fn check(&self, machine: &Machine) {
        let (applied, furthest) = (machine.applied, self.furthest);
        assert!(applied.index >= furthest.index, "acknowledged: {furthest} is lost, states end at {applied}");
        for (client, (acknowledged, session)) in self.last.iter().zip(&machine.sessions).enumerate() {
            let (number, version) = *acknowledged;
            assert!(session.0 >= number, "acknowledged: command {number} of client {client} is lost");
            let same = session.0 > number || session.1 == version;
            assert!(
                same,
                "acknowledged: command {number} of client {client} made version {version}, now {}",
                session.1
            );
        }
    }
}
