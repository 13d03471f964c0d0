//! A violation, and what shows it again with the least: the same whatever is simulated.

use std::any::Any;
use std::fmt;

/// What a simulation is asked to do.
pub trait Asked: Clone {
    /// Nodes of the cluster.
    fn nodes(&self) -> usize;

    /// The command that does it with this seed.
    fn command(&self, seed: u64) -> String;
}

/// A violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure<O> {
    /// The run's seed.
    pub seed: u64,
    /// What it was asked to do, with no more than is needed to see it, as far as that is known.
    pub options: O,
    /// When, in virtual time.
    pub at: String,
    /// What is not true.
    pub violation: String,
}

impl<O: Asked> Failure<O> {
    /// The command that shows it again.
    pub fn command(&self) -> String {
        self.options.command(self.seed)
    }

    /// Leaves out as many of these as the failure does not need to happen.
    pub(crate) fn without<K, P>(
        &self,
        kinds: impl IntoIterator<Item = K>,
        leave_out: impl Fn(&mut O, K),
        simulate: impl Fn(u64, &O) -> Result<P, Box<Self>>,
    ) -> Self {
        let mut least = self.clone();
        for kind in kinds {
            let mut options = least.options.clone();
            leave_out(&mut options, kind);
            if let Err(failure) = simulate(least.seed, &options) {
                least = *failure;
            }
        }
        least
    }
}

impl<O: Asked> fmt::Display for Failure<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, options, at, violation } = self;
        write!(f, "seed {seed}, {} nodes, at {at}: {violation}\n  {}", options.nodes(), self.command())
    }
}

/// What a panic says.
pub(crate) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

/// An argument that leaves kinds of fault out; nothing if there are none.
pub(crate) fn without(names: impl Iterator<Item = &'static str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { String::new() } else { format!(" --without {}", names.join(",")) }
}
