#!/usr/bin/env bash
# Janus on Kubernetes with the JobSet controller: fills in kubernetes/gpu.yaml or tpu.yaml and applies it.
#   IMAGE=registry/janus_jax:1 CLAIM=runs NODES=8 launch/kubernetes.sh [--dry_run] gpu --config=... --workdir=/runs/...
#   IMAGE=... CLAIM=runs NODES=32 ACCELERATOR=tpu-v5p-slice TOPOLOGY=4x4x8 launch/kubernetes.sh tpu --config=...
# CLAIM: a volume claim that all pods may write (ReadWriteMany); it is mounted at /runs. --dry_run prints the manifest.
set -euo pipefail

dry=${DRY_RUN:-0} words=()
for word in "$@"; do # --dry_run counts wherever it stands
    if [ "$word" = --dry_run ]; then dry=1; else words+=("$word"); fi
done
set -- ${words[@]+"${words[@]}"}
kind=${1:?usage: launch/kubernetes.sh [--dry_run] gpu|tpu --config=... --workdir=/runs/...} && shift
file=$(dirname "$0")/kubernetes/$kind.yaml
[ -f "$file" ] || { echo "$kind: must be gpu or tpu" >&2 && exit 2; }

# The command as a JSON list, which YAML reads too.
command='["python", "-m", "janus_jax.main"'
for word in "$@"; do
    word=${word//\\/\\\\}
    command+=", \"${word//\"/\\\"}\""
done
command+=', "--preempted=75"]'

text=$(<"$file")
shopt -u patsub_replacement 2>/dev/null || true # an & in a value is an &
fill() {
    text=${text//"\${$1}"/$2}
}
fill COMMAND "$command"
fill NAME "${NAME:-janus}"
fill IMAGE "${IMAGE:?IMAGE=an image with this package and jax[cuda12] or jax[tpu]}"
fill NODES "${NODES:?NODES=how many nodes (GPU) or hosts of the slice (TPU)}"
fill CLAIM "${CLAIM:?CLAIM=a ReadWriteMany volume claim for the runs}"
if [ "$kind" = tpu ]; then
    fill ACCELERATOR "${ACCELERATOR:?ACCELERATOR=tpu-v5p-slice, for example}"
    fill TOPOLOGY "${TOPOLOGY:?TOPOLOGY=4x4x8, for example}"
fi
if [ "$dry" = 1 ]; then
    printf '%s\n' "$text"
else
    kubectl apply -f - <<<"$text"
fi
