//! The replicated state machine: append-only values under a few keys. Small enough to be copied for every checkpoint, and
//! still a witness of everything that was applied: each value is the hash of all commands that made it, in order.
//!
//! A client's command carries the client's own number, and the machine remembers each client's last one, so that a command
//! proposed again after a lost answer is applied once.

use bifro_core::ids::keyed_hash;
use bifro_raft::LogId;
use bytes::Bytes;

/// Clients of a simulation.
pub(crate) const CLIENTS: usize = 6;

/// Keys of each group.
pub(crate) const KEYS: usize = 3;

/// "Append yourself to the key."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    pub(crate) client: usize,
    /// Grows with each command of the client.
    pub(crate) number: u64,
    pub(crate) key: usize,
}

impl Command {
    const BYTES: usize = 10;

    /// The entry's data, made longer by `filler` bytes.
    pub(crate) fn encode(self, filler: usize) -> Bytes {
        let mut bytes = Vec::with_capacity(Self::BYTES + filler);
        bytes.extend([self.client as u8, self.key as u8]);
        bytes.extend(self.number.to_le_bytes());
        bytes.resize(Self::BYTES + filler, 0);
        Bytes::from(bytes)
    }

    /// The command again.
    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let (&[client, key], rest) = bytes.split_first_chunk().expect("only commands are proposed");
        let number = u64::from_le_bytes(*rest.first_chunk().expect("only commands are proposed"));
        Self { client: client.into(), number, key: key.into() }
    }
}

/// A key's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Value {
    /// Commands that were appended.
    pub(crate) version: u64,
    /// Their hash.
    pub(crate) chain: u64,
}

/// The state.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Machine {
    /// The last entry applied.
    pub(crate) applied: LogId,
    pub(crate) values: [Value; KEYS],
    /// Each client's last command, and the version it made.
    pub(crate) sessions: [(u64, u64); CLIENTS],
}

impl Machine {
    /// Applies a command. Returns the version it made, now or when it was applied first; `None` if it is older than what its
    /// client did since.
    pub(crate) fn apply(&mut self, command: Command) -> Option<u64> {
        let session = &mut self.sessions[command.client];
        if command.number < session.0 {
            return None;
        }
        if command.number > session.0 {
            let value = &mut self.values[command.key];
            value.version += 1;
            value.chain = keyed_hash(value.chain, &[&command.client.to_le_bytes(), &command.number.to_le_bytes()]);
            *session = (command.number, value.version);
        }
        Some(session.1)
    }

    /// What replicas compare.
    pub(crate) fn checksum(&self) -> u64 {
        let words = self.values.iter().flat_map(|value| [value.version, value.chain]);
        let words = words.chain(self.sessions.iter().flat_map(|session| [session.0, session.1]));
        words.fold(0, |sum, word| keyed_hash(sum, &[&word.to_le_bytes()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_survives_its_encoding() {
        let command = Command { client: 3, number: u64::MAX - 1, key: 2 };
        assert_eq!(Command::decode(&command.encode(17)), command);
    }

    #[test]
    fn a_repeated_command_counts_once_and_an_overtaken_one_not_at_all() {
        let mut machine = Machine::default();
        let command = |number| Command { client: 1, number, key: 0 };
        assert_eq!(machine.apply(command(5)), Some(1));
        let once = machine.clone();
        assert_eq!(machine.apply(command(5)), Some(1));
        assert_eq!(machine.apply(command(4)), None);
        assert_eq!(machine, once);
        assert_eq!(machine.apply(command(6)), Some(2));
        assert_ne!(machine.checksum(), once.checksum());
    }
}
