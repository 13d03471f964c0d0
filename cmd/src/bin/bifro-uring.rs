//! The broker.

use bifro_cmd::cli::Arguments;
use bifro_cmd::config::{Loaded, Source};
use bifro_cmd::node;
use clap::Parser;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

/// A shard's heap is millions of small things, sessions' messages among them, that come and go in any order. glibc's allocator, which searches its lists of free
/// pieces and joins them again, took half of a shard's time while ten million messages were queued.
#[global_allocator]
static HEAP: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be gone; then there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "bifro-uring: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let mut loaded = Loaded::load(arguments.config.map_or(Source::Defaults, Source::File))?;
    if let Some(cores) = arguments.cores {
        loaded = loaded.with_cores(cores)?;
    }
    if arguments.volatile {
        loaded = loaded.volatile();
    }
    if arguments.print_config {
        write!(std::io::stdout(), "{}", loaded.to_toml())?;
        return Ok(());
    }
    if arguments.check_config {
        node::check(&loaded)?;
        writeln!(std::io::stdout(), "{}: the configuration is good", loaded.source)?;
        return Ok(());
    }
    Ok(node::run(loaded)?)
}
