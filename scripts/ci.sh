#!/usr/bin/env bash
# Everything a change must pass, on a bare Debian with rustup's toolchain. Installs what it needs: packages by apt-get (root or
# sudo, only those that are missing), Python and JavaScript clients into the checkout (.venv, tests/js/node_modules).
#
#   scripts/ci.sh             everything
#   scripts/ci.sh STEP...     only these steps: see the list at the end; tools are installed first
#
# BIFRO_FUZZ_SECONDS (default 60) is how long each fuzzer runs.
#
# Every step runs even if one before it failed; the exit code says whether all passed.
set -uo pipefail
cd "$(dirname "$0")/.."

export CARGO_TARGET_DIR="$PWD/target"
export CARGO_TERM_COLOR=never
export RUST_BACKTRACE=1

readonly PAHO_VERSION=2.2.0

failed=()
summary=()

# step NAME COMMAND...: runs a command under a heading and takes its time.
step() {
    local name=$1 begin=$SECONDS outcome=ok
    shift
    printf '\n=== %s: %s\n' "$name" "$*"
    if ! "$@"; then
        outcome=FAILED
        failed+=("$name")
    fi
    summary+=("$(printf '%-12s %-7s %4d s' "$name" "$outcome" $((SECONDS - begin)))")
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo -E "$@"
    else
        echo "neither root nor sudo: cannot run $*" >&2
        return 1
    fi
}

# Packages for the commands that are missing, in one go.
install_packages() {
    local missing=()
    { command -v cc && command -v make; } >/dev/null || missing+=(build-essential)
    command -v mosquitto_pub >/dev/null || missing+=(mosquitto-clients)
    command -v openssl >/dev/null || missing+=(openssl)
    command -v strace >/dev/null || missing+=(strace)
    command -v valgrind >/dev/null || missing+=(valgrind)
    command -v npm >/dev/null || missing+=(nodejs npm)
    command -v mkfs.ext4 >/dev/null || missing+=(e2fsprogs)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
    [ ${#missing[@]} -eq 0 ] && return 0
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get update -qq && as_root apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

install_python_client() {
    [ -x .venv/bin/python ] || python3 -m venv .venv || return 1
    .venv/bin/python -c "
import importlib.metadata as m, sys
sys.exit(m.version('paho-mqtt') != '$PAHO_VERSION')" 2>/dev/null && return 0
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "paho-mqtt==$PAHO_VERSION"
}

install_js_client() {
    [ -f tests/js/package-lock.json ] || return 0
    [ -d tests/js/node_modules/mqtt ] && return 0
    npm ci --prefix tests/js --no-audit --no-fund --loglevel=error
}

install_tools() {
    install_packages && install_python_client && install_js_client
}

document() {
    RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --workspace --no-deps --document-private-items --locked --quiet
}

# cargo-deny takes minutes to build, so it is used where it is installed; licences.py is always there.
licences() {
    python3 scripts/licences.py || return 1
    if command -v cargo-deny >/dev/null; then
        cargo deny --all-features --locked check bans licenses sources
    fi
}

# The tests run for a second or so within `cargo test`; here the fuzzers take their time, two at once: most are one thread. The whole workspace, or
# dependencies would be built anew with the features that one crate needs.
fuzz() {
    local targets=() target name running=() outcome=0
    # A fuzzer is tests/fuzz_NAME.rs or tests/fuzz_NAME/main.rs of some crate.
    while IFS= read -r target; do
        targets+=("${target%/main.rs}")
    done < <(find . -path ./target -prune -o \( -path '*/tests/fuzz_*.rs' -o -path '*/tests/fuzz_*/main.rs' \) -print | sort |
        grep -E '/tests/fuzz_[^/]+(\.rs|/main\.rs)$')
    if [ ${#targets[@]} -eq 0 ]; then
        echo "no fuzzer found" >&2
        return 1
    fi
    for target in "${targets[@]}"; do
        name="$(basename "$target" .rs)"
        BIFRO_FUZZ_SECONDS="${BIFRO_FUZZ_SECONDS:-60}" cargo test --workspace --locked --quiet --test "$name" &
        running+=($!)
        if [ ${#running[@]} -eq 2 ]; then
            wait "${running[0]}" || outcome=1
            running=("${running[1]}")
        fi
    done
    for target in "${running[@]}"; do
        wait "$target" || outcome=1
    done
    return $outcome
}

# `cargo test` runs a few seeds; here it is a hundred of ten virtual minutes of Raft, and a few dozen episodes of the services over it; and every
# planted mistake must be found.
simulate() {
    local sim=target/release/bifro-sim three
    cargo build --release --locked --quiet -p bifro-sim || return 1
    # Each is one thread.
    "$sim" services --seeds 12 --nodes 3 &
    three=$!
    "$sim" --seeds 100 --minutes 10 --nodes 3 && "$sim" services --seeds 4 --nodes 5
    local others=$?
    wait "$three" && [ $others -eq 0 ] &&
        cargo test --release --locked --quiet -p bifro-sim --features mutations --test mutations &&
        cargo clippy -p bifro-raft -p bifro-sim --all-targets --features bifro-raft/mutations,bifro-sim/mutations --locked --quiet -- -D warnings
}

# README's test command. Tests of running brokers depend on time, and a CI machine may stand still for seconds: what failed there gets
# one more attempt, in plain sight; a defect fails twice.
run_tests() {
    cargo test --workspace --locked --no-fail-fast && return 0
    printf '\n=== test: FAILED at the first attempt, see above; once more\n'
    cargo test --workspace --locked --no-fail-fast
}

run_step() {
    case $1 in
        test) step test run_tests ;;
        format) step format cargo fmt --all --check ;;
        clippy) step clippy cargo clippy --workspace --all-targets --locked --quiet -- -D warnings ;;
        doc) step doc document ;;
        licences) step licences licences ;;
        simulate) step simulate simulate ;;
        fuzz) step fuzz fuzz ;;
        instructions) step instructions scripts/instructions.sh ;;
        *)
            echo "no such step: $1" >&2
            exit 2
            ;;
    esac
}

steps=("$@")
# What is quick and often wrong comes first.
[ ${#steps[@]} -eq 0 ] && steps=(format licences clippy doc test simulate instructions fuzz)

step tools install_tools
for name in "${steps[@]}"; do
    run_step "$name"
done

printf '\n=== summary, %d s\n' "$SECONDS"
printf '%s\n' "${summary[@]}"
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}"
    exit 1
fi
echo "all passed"
