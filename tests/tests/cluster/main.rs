//! Nodes as real processes that find each other, lose each other and meet again.

mod certificates;
mod departures;
mod exactly_once;
mod faults;
mod foreign;
mod genesis;
mod overlay;
mod partitions;
mod ranges;
mod recovery;
mod replication;
mod roles;
mod standstill;
mod storm;
mod underlay;
