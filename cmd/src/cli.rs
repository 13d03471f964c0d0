//! The command line of `bifro-uring`.

use clap::Parser;
use std::path::PathBuf;

/// A multi-tenant MQTT broker, thread-per-core on io_uring. Without arguments it serves this machine's clients on 127.0.0.1:1883
/// (TCP) and 127.0.0.1:8083 (WebSocket, path /mqtt).
#[derive(Debug, Parser)]
#[command(name = "bifro-uring", version)]
pub struct Arguments {
    /// Cores to use; 0 = every usable one. Wins over `node.cores`.
    #[arg(long, value_name = "N")]
    pub cores: Option<u16>,
    /// Configuration file; see `--print-config` for every key.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Keep nothing on disk: sessions and retained messages end with the process. Wins over `store.durability`.
    #[arg(long)]
    pub volatile: bool,
    /// Check the configuration and everything it names, then exit.
    #[arg(long)]
    pub check_config: bool,
    /// Print the configuration in force as TOML, then exit.
    #[arg(long)]
    pub print_config: bool,
}
