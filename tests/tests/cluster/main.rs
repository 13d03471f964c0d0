//! Nodes as real processes that find each other, lose each other and meet again.

mod certificates;
mod overlay;
mod partitions;
mod underlay;
