#!/usr/bin/env bash
# Janus on a TPU VM slice, through gcloud.
#   launch/tpu_vm.sh [--dry_run] create|setup|run|delete [flags of janus-jax train, for run]
#   NAME=janus ZONE=us-east5-a TYPE=v5p-256 SPOT=1 launch/tpu_vm.sh run --config=configs/stage2.py:v5p:4x4x8 --workdir=/mnt/runs/stage2
# create: the slice; setup: this checkout and its packages onto every worker; run: the same command on every worker,
# started again on 75. A slice that is taken away (SPOT=1) is created anew, and the run goes on there.
# The work directory must be the same for all workers: a Filestore mount, or a bucket mounted with gcsfuse, by MOUNT.
set -uo pipefail

dry=${DRY_RUN:-0} words=()
for word in "$@"; do # --dry_run counts wherever it stands
    if [ "$word" = --dry_run ]; then dry=1; else words+=("$word"); fi
done
set -- ${words[@]+"${words[@]}"}
action=${1:?usage: launch/tpu_vm.sh [--dry_run] create|setup|run|delete [flags of janus-jax train]} && shift
name=${NAME:-janus} zone=${ZONE:?ZONE=us-east5-a, for example} type=${TYPE:-v5p-256}
case $type in # the software of the VM, by the kind of TPU
v4-*) version="tpu-ubuntu2204-base" ;;
v5litepod-*) version=v2-alpha-tpuv5-lite ;;
v5p-*) version=v2-alpha-tpuv5 ;;
v6e-*) version=v2-alpha-tpuv6e ;;
*) echo "TYPE=$type: known are v4-N, v5litepod-N, v5p-N and v6e-N; or set VERSION" >&2 && version=${VERSION:?} ;;
esac
version=${VERSION:-$version}
tpu=(gcloud compute tpus tpu-vm)

do_it() {
    if [ "$dry" = 1 ]; then printf '%q ' "$@" && echo; else "$@"; fi
}

on_all() {
    do_it "${tpu[@]}" ssh "$name" "--zone=$zone" --worker=all "--command=$1"
}

create() {
    local spot=()
    if [ "${SPOT:-0}" = 1 ]; then spot=(--spot); fi
    do_it "${tpu[@]}" create "$name" "--zone=$zone" "--accelerator-type=$type" "--version=$version" ${spot[@]+"${spot[@]}"}
}

setup() {
    # What git has, and nothing else: no runs, no weights. uv brings a Python of 3.11 or later; some images have 3.10.
    do_it git archive --format=tar.gz --prefix=janus_jax/ --output=/tmp/janus_jax.tar.gz HEAD &&
        do_it "${tpu[@]}" scp /tmp/janus_jax.tar.gz "$name:" "--zone=$zone" --worker=all &&
        on_all "${MOUNT:-true} && tar xzf janus_jax.tar.gz && cd janus_jax && python3 -m pip install -q --user uv && ~/.local/bin/uv venv -q --clear --python 3.12 ~/venv && ~/.local/bin/uv pip install -q --python ~/venv/bin/python -e . 'jax[tpu]'"
}

run() {
    local line code state
    # Each worker starts its own process again on 75 (from 128 on, but for 130, it died of a signal, and its peers end
    # with 75), so they meet again.
    line=$(printf '%q ' ../venv/bin/python -m janus_jax.main "$@" --preempted=75)
    line="cd janus_jax && while :; do ${line}; code=\$?; [ \$code = 75 ] || { [ \$code -ge 128 ] && [ \$code != 130 ]; } || exit \$code; done"
    while :; do
        on_all "$line"
        code=$?
        if [ "$dry" = 1 ] || [ "$code" = 0 ]; then return "$code"; fi
        state=$("${tpu[@]}" describe "$name" "--zone=$zone" '--format=value(state)' 2>/dev/null)
        if [ "$state" = READY ]; then return "$code"; fi # the slice is well: it was the run
        echo "launch: the slice is ${state:-gone}; creating it anew"
        do_it "${tpu[@]}" delete "$name" "--zone=$zone" --quiet
        until create && setup; do sleep 60; done
    done
}

case $action in
create | setup) "$action" ;;
run) run "$@" ;;
delete) do_it "${tpu[@]}" delete "$name" "--zone=$zone" --quiet ;;
*) echo "$action: must be create, setup, run or delete" >&2 && exit 2 ;;
esac
