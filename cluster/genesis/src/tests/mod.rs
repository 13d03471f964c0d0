//! Clusters are founded in virtual time, from one seed, with every fault the network and the disks may have.

mod effects;
mod faults;
mod starts;
mod world;
