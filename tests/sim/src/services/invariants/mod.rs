//! What must always be true, one invariant per file, and what must be true again when all faults are over.

pub(crate) mod delivery;
pub(crate) mod groups;
pub(crate) mod liveness;
pub(crate) mod owners;

/// Those that remember something.
#[derive(Debug)]
pub(crate) struct Checks {
    pub(crate) delivery: delivery::Delivery,
    pub(crate) owners: owners::Owners,
}

impl Checks {
    pub(crate) fn new(subscribers: usize) -> Self {
        Self { delivery: delivery::Delivery::new(subscribers), owners: owners::Owners::default() }
    }
}
