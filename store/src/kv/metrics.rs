//! Figures of the key-value engine, per shard: written by the shard that owns the spaces.

bifro_core::metric_cells! {
    /// The cells of one shard's spaces.
    KvMetrics {
        kv_writes: Counter, "Keys put or deleted.";
        kv_annihilated: Counter, "Keys deleted before a checkpoint had seen them.";
        kv_cold_reads: Counter, "Reads that had to ask the base.";
        kv_cold_reads_again: Counter, "Reads asked again because a checkpoint finished meanwhile.";
        kv_corruptions: Counter, "Reads that found a damaged record.";
        kv_checkpoints: Counter, "Checkpoints finished.";
        kv_checkpoint_failures: Counter, "Checkpoints that failed; each is tried again.";
        kv_checkpoint_keys: Counter, "Keys written by checkpoints.";
        kv_checkpoint_bytes: Counter, "Overlay bytes written by checkpoints.";
        kv_checkpoint_micros: Counter, "Microseconds that checkpoints took on the committer.";
    }
}
