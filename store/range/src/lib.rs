//! The state machines of dist, inbox, retain and session dict, without I/O.
