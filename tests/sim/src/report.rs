//! What a simulation has been through: shows that the faults happened and that work was done in spite of them.

/// Counts by name, each with its label.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident: $label:literal),+ $(,)?) => {
        /// Counts over one simulation, or several.
        #[derive(Clone, Debug, PartialEq, Eq, Default)]
        pub struct Report {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Report {
            /// Adds another simulation's counts.
            pub fn add(&mut self, other: &Self) {
                $(self.$name = self.$name.wrapping_add(other.$name);)+
            }

            /// Every count with its label.
            pub fn counts(&self) -> Vec<(&'static str, u64)> {
                vec![$(($label, self.$name)),+]
            }
        }

        impl std::fmt::Display for Report {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                for (label, count) in self.counts() {
                    writeln!(f, "{count:>12} {label}")?;
                }
                Ok(())
            }
        }
    };
}
pub(crate) use counters;

counters! {
    /// Events handled.
    events: "events",
    /// Commands answered.
    writes: "commands answered",
    /// Reads answered.
    reads: "reads answered",
    /// Answers that came from a proposal or read that was tried again.
    retries: "attempts given up",
    /// Leaders elected.
    elections: "leaders elected",
    /// Crashes at any time.
    crashes: "crashes",
    /// Crashes at a chosen step of persisting.
    aimed_crashes: "crashes at a step of persisting",
    /// Nodes that stayed down while the others healed.
    absences: "nodes away while the others healed",
    /// Cuts of links, in any direction.
    cuts: "links cut",
    /// Clogs of links.
    clogs: "links clogged",
    /// Disks slow or full.
    disk_faults: "disks slow or full",
    /// Clocks that changed their rate or jumped.
    clock_faults: "clocks changed",
    /// Nodes that stood still.
    freezes: "freezes",
    /// Membership changes begun.
    changes: "membership changes",
    /// Of them, those with a joint phase.
    joint_changes: "joint changes",
    /// Transfers of leadership begun.
    transfers: "transfers",
    /// Checkpoints made durable.
    checkpoints: "checkpoints",
    /// Snapshots installed.
    snapshots: "snapshots installed",
    /// Old entries read back.
    fetches: "fetches of old entries",
    /// Groups that went quiet.
    quiet: "times a group went quiet",
    /// Replicas removed from their node.
    burials: "replicas removed",
    /// Batches sent.
    batches: "batches sent",
    /// Messages in them.
    messages: "messages in them",
    /// Episodes after whose healing everything was well.
    episodes: "episodes",
}
