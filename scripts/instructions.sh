#!/bin/sh
# Counts the broker's instructions per message with callgrind and compares with bench/instructions.toml; about a minute.
#   scripts/instructions.sh             fails if a path is worse by over 10 %
#   scripts/instructions.sh --update    records what is
set -eu
cd "$(dirname "$0")/.."
cargo build --quiet --release --locked -p bifro-cmd --bins >&2
# What is measured is built.
export BIFRO_BUILT=1
exec cargo run --quiet --release --locked -p bifro-tests --example instructions -- "$@"
