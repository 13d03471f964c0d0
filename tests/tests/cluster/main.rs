//! Nodes as real processes that find each other, lose each other and meet again.

mod partitions;
mod underlay;
