#!/usr/bin/env bash
# N processes of one run on this machine, over loopback: to try a pod's code without a pod.
#   launch/local.sh [--dry_run] N --config=... --workdir=... [flags of janus-jax train]
# On CPU give each process its devices: JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=4 launch/local.sh 2 ...
# Starts all again when they end with 75 or a signal (a process died or hung; one was told to stop, and all saved), at most
# RESTARTS times (100). TERM or INT to this script is passed on, and ends it when all have saved; a second one kills.
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
    address=127.0.0.1:$(free_port) || exit $((${stopping:-0} == 0))
    for ((i = 0; i < count; i++)); do
        [ -z "$stopping" ] || break
        local command=("$python" -m janus_jax.main "$@" --preempted=75
            "--coordinator=$address" "--processes=$count" "--process=$i")
        if [ "$dry" = 1 ]; then
            printf '%q ' "${command[@]}" && echo
        else
            "${command[@]}" &
            pids+=($!)
        fi
    done
}

# Waits for all; one that is still there WAIT seconds after another failed (stopped, or stuck in C) is killed: later than
# the others would find the failed one missing (30 s).
# The run's code: of what a restart does not mend (2, 3, 4, 69, 74, 130), else 75 if any has it or died of a signal
# (128 and more), else the first failure.
collect() {
    local code result=0 again=0 final=0 pid failed='' killed='' left=(${pids[@]+"${pids[@]}"}) still
    while [ "${#left[@]}" -gt 0 ]; do
        still=()
        for pid in "${left[@]}"; do
            if kill -0 "$pid" 2>/dev/null; then
                still+=("$pid")
                continue
            fi
            wait "$pid"
            code=$?
            case $code in
            0) continue ;;
            75) again=1 ;;
            2 | 3 | 4 | 69 | 74 | 130) [ "$final" != 0 ] || final=$code ;;
            *) # from 128 on it died of a signal: of this script's own KILL, after another's failure, which counts
                if [ "$code" -lt 128 ]; then
                    [ "$result" != 0 ] || result=$code
                elif [ -z "$killed" ]; then
                    again=1
                fi
                ;;
            esac
            failed=${failed:-$SECONDS}
        done
        left=(${still[@]+"${still[@]}"})
        [ "${#left[@]}" = 0 ] && break
        if [ -n "$failed" ] && ((SECONDS - failed > ${WAIT:-120})); then
            killed=1
            kill -KILL "${left[@]}" 2>/dev/null
        fi
        sleep 0.3
    done
    [ "$final" = 0 ] || return "$final"
    [ "$again" = 0 ] || return 75
    return "$result"
}

stopping=
pass_on() {
    if [ -n "$stopping" ]; then
        kill -KILL ${pids[@]+"${pids[@]}"} 2>/dev/null
        exit 130
    fi
    stopping=1
    kill -TERM ${pids[@]+"${pids[@]}"} 2>/dev/null
}
trap pass_on INT TERM
for ((left = ${RESTARTS:-100}; left >= 0; left--)); do
    [ -z "$stopping" ] || exit 0
    pids=()
    start "$@"
    [ "$dry" = 1 ] && exit 0
    # While they were started the signal went to those that were there already; a second one changes nothing there.
    [ -z "$stopping" ] || kill -TERM ${pids[@]+"${pids[@]}"} 2>/dev/null
    collect
    code=$?
    if [ -n "$stopping" ] && [ "$code" = 75 ]; then exit 0; fi
    [ "$code" = 75 ] || exit "$code"
    echo "launch: ended with 75; starting again ($left restarts left)"
done
exit 75
