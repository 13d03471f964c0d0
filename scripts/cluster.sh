#!/usr/bin/env bash
# A cluster on this machine, to play with: build with `cargo build --release` first.
#
#   scripts/cluster.sh up N          start nodes 1 to N: as root each in a network namespace of its own, else on loopback ports
#   scripts/cluster.sh up N --roles  the same with independent workloads: node 1 is a seed only, 2 to 4 store, the others, 5 and 6 if N is 6,
#                                    are front ends for clients
#   scripts/cluster.sh status        what each node sees
#   scripts/cluster.sh kill I        kill -9 node I
#   scripts/cluster.sh start I       start node I again
#   scripts/cluster.sh drain I       have node I give away what it has (bifroctl node drain); `undrain I` calls it off
#   scripts/cluster.sh remove I      have others take the place of node I, which is dead or drained (bifroctl node remove)
#   scripts/cluster.sh pause I       stop node I as it is; `resume I` lets it go on
#   scripts/cluster.sh cut A B       nothing gets from A to B or back (network namespaces only)
#   scripts/cluster.sh mute A B      nothing gets from A to B (network namespaces only)
#   scripts/cluster.sh heal          everything gets everywhere again
#   scripts/cluster.sh down          end everything; the data stays until the next `up`
#
# Node I: MQTT on 10.77.0.I:1883 and admin on 10.77.0.I:9091, or on loopback MQTT on port 18830+I and admin on 19090+I.
# Everything is below target/cluster. BIFRO_URING and BIFROCTL name other binaries than those in target/release; BIFRO_CLUSTER names
# another cluster than "cluster", which needs another BIFRO_CLUSTER_NETWORK than 10.77.0. BIFRO_CLUSTER_SETTINGS are lines that every node.toml has
# besides.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly NAME=${BIFRO_CLUSTER:-cluster}
readonly STATE=$PWD/target/$NAME
readonly BROKER=${BIFRO_URING:-$PWD/target/release/bifro-uring}
readonly CTL=${BIFROCTL:-$PWD/target/release/bifroctl}
ROLES=
readonly BRIDGE=$NAME-br NETWORK=${BIFRO_CLUSTER_NETWORK:-10.77.0}

fail() { echo "cluster.sh: $*" >&2; exit 1; }
in_namespaces() { [ "$(cat "$STATE/mode")" = namespaces ]; }
address() { if in_namespaces; then echo "$NETWORK.$1"; else echo 127.0.0.1; fi; }
port() { if in_namespaces; then echo "$2"; else echo "$(($3 + $1))"; fi; } # port I NORMAL LOOPBACK
mqtt() { echo "$(address "$1"):$(port "$1" 1883 18830)"; }
admin() { echo "$(address "$1"):$(port "$1" 9091 19090)"; }
# The shards' links are on the ports that follow.
underlay() { if in_namespaces; then echo "$(address "$1"):7946"; else echo "127.0.0.1:$((17000 + 100 * $1))"; fi; }
inside() { local i=$1; shift; if in_namespaces; then ip netns exec "$NAME$i" "$@"; else "$@"; fi; }
nodes() { find "$STATE" -maxdepth 1 -name 'n[0-9]*' -printf '%f\n' 2>/dev/null | tr -d n | sort -n; }
pid() { cat "$STATE/n$1/pid" 2>/dev/null || fail "there is no node $1"; }

make_network() {
    ip link add "$BRIDGE" type bridge && ip addr add "$NETWORK.254/24" dev "$BRIDGE" && ip link set "$BRIDGE" up
    for i in $(seq "$1"); do
        ip netns add "$NAME$i"
        ip link add "$NAME$i" type veth peer name eth0 netns "$NAME$i"
        ip link set "$NAME$i" master "$BRIDGE" up
        ip -n "$NAME$i" addr add "$NETWORK.$i/24" dev eth0
        ip -n "$NAME$i" link set eth0 up
        ip -n "$NAME$i" link set lo up
    done
}

remove_network() {
    for i in $(ip netns list 2>/dev/null | sed -n "s/^$NAME\([0-9]*\).*/\1/p"); do
        # The system removes a namespace's devices some time later.
        ip link del "$NAME$i" 2>/dev/null || true
        ip netns del "$NAME$i"
    done
    ip link del "$BRIDGE" 2>/dev/null || true
}

# What node I does, if not everything.
roles() {
    case $1 in
        1) echo -e "mqtt = false\ninbox = false\nretain = false\nsession_dict = false" ;;
        2 | 3 | 4) echo "mqtt = false" ;;
        *) echo -e "inbox = false\nretain = false\nsession_dict = false" ;;
    esac
}
takes_clients() { ! grep -q "^mqtt = false" "$STATE/n$1/node.toml"; }

configure() {
    local i=$1 seeds=$2
    mkdir -p "$STATE/n$i"
    cat > "$STATE/n$i/node.toml" <<END
[node]
data_dir = "data"
memory_budget_mib = 256
[admin]
bind = "$(admin "$i")"
[cluster]
bind = "$(underlay "$i")"
seeds = [$seeds]
secret_file = "$STATE/secret"
END
    if [ -n "$ROLES" ]; then { echo "[roles]"; roles "$i"; } >> "$STATE/n$i/node.toml"; fi
    echo "${BIFRO_CLUSTER_SETTINGS:-}" >> "$STATE/n$i/node.toml"
    if ! takes_clients "$i"; then return; fi
    cat >> "$STATE/n$i/node.toml" <<END
[auth.anonymous]
loopback_only = false
[[listener]]
protocol = "tcp"
bind = "$(mqtt "$i")"
auth = ["anonymous"]
END
}

# The first node waits for a majority of them all, so nobody waits for it here.
launch() {
    local i=$1
    [ -d "$STATE/n$i" ] || fail "there is no node $i"
    local command=(setsid "$BROKER" --cores 1 --config node.toml)
    if in_namespaces; then command=(ip netns exec "$NAME$i" "${command[@]}"); fi
    # Each of these programs becomes the next one: the process id is the broker's.
    (cd "$STATE/n$i" && exec "${command[@]}" >> log 2>&1 < /dev/null) &
    echo $! > "$STATE/n$i/pid"
}

await() {
    local i=$1
    for _ in $(seq 200); do
        if inside "$i" "$CTL" cluster --admin "$(admin "$i")" > /dev/null 2>&1; then
            node_id "$i" > "$STATE/n$i/id"
            if takes_clients "$i"; then
                echo "node $i: MQTT $(mqtt "$i"), admin $(admin "$i")"
            else
                echo "node $i: no clients, admin $(admin "$i")"
            fi
            return
        fi
        kill -0 "$(pid "$i")" 2>/dev/null || fail "node $i has ended: see $STATE/n$i/log"
        sleep 0.1
    done
    fail "node $i does not answer: see $STATE/n$i/log"
}

# A publish is answered when every range has a leader and all nodes hear each other.
await_service() {
    takes_clients "$1" || return 0
    local at
    at=$(mqtt "$1")
    "$CTL" pub -H "${at%:*}" -p "${at#*:}" -t cluster/up -m "$1" -q 1 || fail "node $1 does not serve clients: see $STATE/n$1/log"
}

up() {
    local count=${1:?how many nodes?} seeds= of=$1
    case ${2:-} in
        --roles) [ "$count" -ge 5 ] || fail "--roles needs 5 nodes or more: a seed, three that store, and front ends"; ROLES=yes of=3 ;;
        "") ;;
        *) fail "$2 is no option of up" ;;
    esac
    [ -x "$BROKER" ] && [ -x "$CTL" ] || fail "build first: cargo build --release"
    down 2>/dev/null || true
    rm -rf "$STATE"
    mkdir -p "$STATE"
    head -c 32 /dev/urandom | base64 > "$STATE/secret"
    if [ "$(id -u)" -eq 0 ] && command -v ip > /dev/null && ip netns list > /dev/null 2>&1; then
        echo namespaces > "$STATE/mode"
        remove_network
        make_network "$count"
    else
        echo loopback > "$STATE/mode"
    fi
    for i in $(seq "$of"); do seeds+="${seeds:+, }\"$(underlay "$i")\""; done
    for i in $(seq "$count"); do configure "$i" "$seeds"; done
    for i in $(seq "$count"); do launch "$i"; done
    for i in $(seq "$count"); do await "$i"; done
    for i in $(seq "$count"); do await_service "$i"; done
}

node_id() { inside "$1" "$CTL" cluster --admin "$(admin "$1")" | sed -n 's/^\(n[0-9]*\)\* .*/\1/p'; }

# Asks the first other node that answers.
tell() {
    local wish=$1 i=$2 node
    node=$(cat "$STATE/n$i/id")
    for by in $(nodes); do
        if [ "$by" != "$i" ] && inside "$by" "$CTL" cluster --admin "$(admin "$by")" > /dev/null 2>&1; then
            inside "$by" "$CTL" node "$wish" "$node" --admin "$(admin "$by")"
            return
        fi
    done
    fail "no other node answers"
}

route() { in_namespaces || fail "cutting needs network namespaces: run \`up\` as root"; ip -n "$NAME$1" route "$2" blackhole "$NETWORK.$3/32"; }

heal() {
    for a in $(nodes); do
        for b in $(nodes); do route "$a" del "$b" 2>/dev/null || true; done
    done
}

down() {
    for i in $(nodes); do
        # They may have ended, or stand still.
        kill -CONT "$(pid "$i")" 2>/dev/null && kill "$(pid "$i")" 2>/dev/null || true
    done
    for i in $(nodes); do
        for _ in $(seq 100); do kill -0 "$(pid "$i")" 2>/dev/null || break; sleep 0.1; done
    done
    if in_namespaces 2>/dev/null; then remove_network; fi
}

case ${1:-} in
    up) up "${2:-3}" "${3:-}" ;;
    status) for i in $(nodes); do echo "--- node $i"; inside "$i" "$CTL" cluster --admin "$(admin "$i")" || true; done ;;
    kill) kill -KILL "$(pid "${2:?which node?}")" ;;
    start) launch "${2:?which node?}"; await "$2" ;;
    drain | undrain | remove) tell "$1" "${2:?which node?}" ;;
    pause) kill -STOP "$(pid "${2:?which node?}")" ;;
    resume) kill -CONT "$(pid "${2:?which node?}")" ;;
    cut) route "${2:?which nodes?}" add "${3:?which nodes?}"; route "$3" add "$2" ;;
    mute) route "${2:?which nodes?}" add "${3:?which nodes?}" ;;
    heal) heal ;;
    down) down ;;
    *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
