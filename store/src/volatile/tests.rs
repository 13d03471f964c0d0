//! Tests of all shards together.
