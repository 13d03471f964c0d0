//! Topic names and filters.

/// Placeholder of the module's parts: name and filter checks, shared filters, and the match index.
pub mod index {}
