#!/usr/bin/env bash
# N processes of one run on this machine, over loopback: to try a pod's code without a pod.
#   launch/local.sh [--dry_run] N --config=... --workdir=... [main's flags]
# On CPU give each process its devices: JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=4 launch/local.sh 2 ...
# Starts all again when they end with 75 (told to stop; saved), at most RESTARTS times (100).
set -uo pipefail

dry=${DRY_RUN:-0} words=()
for word in "$@"; do # --dry_run counts wherever it stands
    if [ "$word" = --dry_run ]; then dry=1; else words+=("$word"); fi
done
set -- ${words[@]+"${words[@]}"}
count=${1:?usage: launch/local.sh [--dry_run] N --config=... --workdir=...} && shift
python=${PYTHON:-python}
pids=()
# On CPU each collective holds a thread of XLA's pool while it waits: with one a core they can wait for each other.
export NPROC=${NPROC:-32}

# A port that is free now; the kernel names it.
free_port() {
    "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start() {
    local address i
    address=127.0.0.1:$(free_port) || exit 1
    for ((i = 0; i < count; i++)); do
        local command=("$python" -m janus_jax.main "$@"
            "--coordinator=$address" "--processes=$count" "--process=$i")
        if [ "$dry" = 1 ]; then
            printf '%q ' "${command[@]}" && echo
        else
            "${command[@]}" &
            pids+=($!)
        fi
    done
}

# The exit code of the run: the first process's that is neither 0 nor 75; else 75 if any has it.
collect() {
    local code result=0 pid
    for pid in "${pids[@]}"; do
        wait "$pid"
        code=$?
        if [ "$code" != 0 ] && { [ "$result" = 0 ] || [ "$result" = 75 ]; }; then result=$code; fi
    done
    return "$result"
}

trap 'kill -INT "${pids[@]}" 2>/dev/null; exit 130' INT
for ((left = ${RESTARTS:-100}; left >= 0; left--)); do
    pids=()
    start "$@"
    [ "$dry" = 1 ] && exit 0
    collect
    code=$?
    [ "$code" = 75 ] || exit "$code"
    echo "launch: told to stop and saved; starting again ($left restarts left)"
done
exit 75
