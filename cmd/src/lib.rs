//! The binaries bifro-uring and bifroctl: wiring, configuration loading, plugins, admin.

pub mod admin;
pub mod config;
pub mod logging;
pub mod selfcheck;
pub mod signals;
