#!/usr/bin/env bash
# Compares this broker with Debian's mosquitto, side by side on this machine (bench/compare.toml). Arguments go to
# `bifro-bench compare`, for example: scripts/compare.sh --only pair-q0-w100 --json result.json
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -E "$@"; fi
}

# Debian starts the service of a package it installs. A policy that forbids it, for the time of the installation, leaves
# services that already run alone; a policy that somebody else has set stays.
install_mosquitto() {
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get update -qq
    as_root apt-get install -y -qq --no-install-recommends mosquitto
}

[ -x /usr/sbin/mosquitto ] || install_mosquitto
cargo build --release --locked --quiet -p bifro-cmd -p bifro-bench
target/release/bifro-bench compare "$@"
