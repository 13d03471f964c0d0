//! Inputs that broke other brokers, against a real process: one test or more for each row of the list, named for its number.
//!
//! Every test runs in an [`arena::Arena`]: the node has to stay up and its memory in bounds, the offender gets the error its
//! protocol defines, and a bystander whose messages go round all the while must not notice. Rows 18, 23 and 25 need a cluster
//! or hours and live elsewhere.

mod access;
mod admin;
mod arena;
mod configuration;
mod flood;
mod framing;
mod packets;
mod properties;
mod proxy;
mod raw;
mod revocation;
mod sharing;
mod slow;
mod strings;
mod takeover;
mod tls;
mod topics;
mod websocket;
mod ws_client;
