#!/bin/sh
# Runs the micro-benchmarks (criterion), each for a second or so; an argument, a regular expression, picks them by name, as in `scripts/micro.sh index/`.
set -eu
cd "$(dirname "$0")/.."
exec cargo bench --locked -p bifro-mqtt -p bifro-range -p bifro-net -p bifro-raft --bench '*' -- \
    --warm-up-time 0.3 --measurement-time 0.7 --sample-size 20 "$@"
