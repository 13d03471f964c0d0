//! The load generator: drives any MQTT broker thread-per-core over io_uring, checks every message for loss, duplication and
//! order, and compares brokers side by side.
//!
//! One [`worker`] per core owns its connections; nothing of a connection is touched by another thread. Workers share only
//! the counters in [`progress`]. The coordinating thread ([`run`]) moves the phases and takes samples.

pub mod check;
pub mod client;
pub mod compare;
pub mod connect;
pub mod frames;
pub mod idle;
pub mod options;
pub mod page;
pub mod plan;
pub mod proc;
pub mod progress;
pub mod report;
pub mod run;
pub mod schedule;
pub mod sink;
pub mod stage;
pub mod stages;
pub mod transport;
pub mod wake;
pub mod websocket;
pub mod worker;
