//! Process-level tests against a running broker.
