//! The binaries bifro-uring and bifroctl: wiring, configuration loading, plugins, admin.

pub mod acl;
pub mod admin;
pub mod auth;
pub mod cli;
pub mod config;
pub mod ctl;
pub mod logging;
pub mod node;
pub mod selfcheck;
pub mod signals;
