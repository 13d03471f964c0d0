//! MQTT 3.1, 3.1.1 and 5.0 without I/O: the codec, one connection's session machine, topic names and filters, and the
//! index that matches them.
//!
//! Clauses are cited where they are obeyed: `[MQTT-3.1.2-1]` is a statement of MQTT 3.1.1, `[MQTT5-3.1.2-1]` one of MQTT 5.0.
#![no_std]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod codec;
pub mod packet;
pub mod property;
pub mod reason;
pub mod session;
pub mod topic;
pub mod wire;
