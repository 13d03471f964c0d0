//! The harness of the process-level tests: real brokers as child processes, and clients that can do everything a real client
//! can, and everything it must not.

pub mod client;
pub mod cluster;
pub mod foreign;
pub mod history;
pub mod http;
pub mod load;
pub mod process;
pub mod tls;

pub use client::{Client, ConnectOptions, Received};
pub use process::Broker;

/// How long a test waits for anything that should happen at once.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
