//! The machine's invariants in one place, asserted after every step by tests, by the fuzzer and by the simulator.

use super::{Session, Stage};
use bifro_core::client::Version;

impl Session {
    /// # Panics
    /// If an invariant does not hold: the machine has a fault.
    pub fn validate(&self) {
        if let Some(outbound) = self.outbound.as_deref() {
            outbound.validate(self.send_window); // [MQTT5-3.3.4-9] [MQTT5-4.9.0-2]
        }
        if let Some(inbound) = self.inbound.as_deref() {
            inbound.validate();
            let limit = usize::from(self.receive_maximum);
            assert!(
                self.version != Version::V5 || inbound.window_used() <= limit,
                "no more is taken on than Receive Maximum"
            );
        }
        if let Some(table) = self.subscriptions.as_deref() {
            table.validate();
        }
        if let Some(requests) = self.requests.as_deref() {
            requests.validate();
        }
        if let Some(aliases) = self.aliases.as_deref().and_then(|aliases| aliases.outbound.as_ref()) {
            assert!(aliases.highest() <= usize::from(aliases.limit()), "no alias above the client's maximum");
        }
        match self.stage {
            Stage::Connected(_) => assert!(self.client.is_some(), "a connected session knows its client"),
            Stage::Closed => {
                assert!(!self.flags.holds_connection, "a closed session holds no connection of its tenant");
                assert!(!self.flags.registered, "a closed session has given up its client id");
                assert!(self.will.is_none(), "a closed session has no will left");
            }
            Stage::Fresh(_) | Stage::Connecting(_) => assert!(self.inbox.is_none(), "the inbox comes with CONNACK"),
        }
    }
}
