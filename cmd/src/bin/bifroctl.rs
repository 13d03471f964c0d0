//! The operator's tool.

use std::process::ExitCode;

fn main() -> ExitCode {
    bifro_cmd::ctl::main()
}
