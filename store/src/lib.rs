//! The broker's services on the shards: the volatile implementation of the ports.
