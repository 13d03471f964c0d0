//! The binaries bifro-uring and bifroctl: wiring, configuration loading, plugins, admin.

pub mod config;
