#!/bin/sh
# Counts the broker's instructions per message with callgrind and compares with bench/instructions.toml; about a minute.
#   scripts/instructions.sh             fails if a path is worse by over 10 %
#   scripts/instructions.sh --update    records what is
set -eu
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}
cargo build --quiet --release --locked -p bifro-cmd --bins >&2
# Whoever counts need not be fast, and is there after `cargo test --workspace`.
cargo build --quiet --locked --workspace --example instructions >&2
export BIFRO_BINARIES="$target/release"
exec "$target/debug/examples/instructions" "$@"
