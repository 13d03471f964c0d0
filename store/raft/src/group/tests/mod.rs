//! Exact effects: what a replica asks for, to the last effect, per situation.

mod election;
mod follower;
mod force;
mod found;
mod leader;
mod reads;
mod rig;
mod single;
mod snapshots;
