//! The binaries bifro-uring and bifroctl: wiring, configuration loading, plugins, admin.

pub mod acl;
pub mod auth;
pub mod ctl;
