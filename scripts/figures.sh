#!/bin/sh
# Measures the acceptance figures and prints them as a Markdown table:
#   scripts/figures.sh [idle] [syscalls] [isolation] [throughput] [queued] [durable] [cluster] [replicated] [forwarding] [rolling]
# About fifteen minutes, most of it idle connections; BIFRO_FIGURES_SHORT=1 takes about two.
# strace and mosquitto are used if they are installed.
set -eu
cd "$(dirname "$0")/.."
cargo build --quiet --release --locked -p bifro-cmd -p bifro-bench --bins >&2
# What is measured is built; figures would build every test of the workspace otherwise.
export BIFRO_BUILT=1
exec cargo run --quiet --release --locked -p bifro-tests --example figures -- "$@"
