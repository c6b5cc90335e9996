#!/usr/bin/env bash
# Janus on Kubernetes: fills in kubernetes/gpu.yaml or tpu.yaml (training, with the JobSet controller) or serve.yaml (the
# server) and applies it.
#   IMAGE=registry/janus_jax:1 CLAIM=runs NODES=8 launch/kubernetes.sh [--dry_run] gpu --config=... --workdir=/runs/...
#   IMAGE=... CLAIM=runs NODES=32 ACCELERATOR=tpu-v5p-slice TOPOLOGY=4x4x8 launch/kubernetes.sh tpu --config=...
#   IMAGE=... CLAIM=runs NODES=2 MOST=8 launch/kubernetes.sh serve --model=/runs/.../weights
# CLAIM: a volume claim that all pods may write (ReadWriteMany; `serve` only reads it); it is mounted at /runs. NODES,
# MOST: of `serve` the fewest and most replicas. --dry_run prints the manifest.
set -euo pipefail
shopt -s extglob

dry=${DRY_RUN:-0} words=()
for word in "$@"; do # --dry_run counts wherever it stands
    if [ "$word" = --dry_run ]; then dry=1; else words+=("$word"); fi
done
set -- ${words[@]+"${words[@]}"}
usage='usage: launch/kubernetes.sh [--dry_run] gpu|tpu --config=... --workdir=/runs/..., or serve --model=/runs/...'
kind=${1:?$usage} && shift
file=$(dirname "$0")/kubernetes/$kind.yaml
[ -f "$file" ] || { echo "$kind: must be gpu, tpu or serve" >&2 && exit 2; }
module=janus_jax.main
if [ "$kind" = serve ]; then
    module=janus_jax.serve model=
    for word in "$@"; do
        [[ $word == -* ]] && word=-${word##*(-)} # -port as --port
        case ${word%%=*} in
            -model) model=1 ;;
            -host | -port | -drain | -api_key_file)
                echo "-$word: $file gives it; change it there, with the probes and times that follow it" >&2 && exit 2 ;;
        esac
    done
    [ "$model" ] || { echo "--model is missing; $usage" >&2 && exit 2; }
else
    set -- "$@" --preempted=75
fi

# The command as a JSON list, which YAML reads too.
command="[\"python\", \"-m\", \"$module\""
for word in "$@"; do
    word=${word//\\/\\\\}
    command+=", \"${word//\"/\\\"}\""
done
command+=']'

text=$(<"$file")
shopt -u patsub_replacement 2>/dev/null || true # an & in a value is an &
fill() {
    text=${text//"\${$1}"/$2}
}
fill COMMAND "$command"
fill NAME "${NAME:-janus}"
fill IMAGE "${IMAGE:?IMAGE=an image with this package and jax[cuda12] or jax[tpu]}"
fill NODES "${NODES:?NODES=how many nodes (GPU), hosts of the slice (TPU) or replicas (serve)}"
fill CLAIM "${CLAIM:?CLAIM=a ReadWriteMany volume claim for the runs}"
if [ "$kind" = tpu ]; then
    fill ACCELERATOR "${ACCELERATOR:?ACCELERATOR=tpu-v5p-slice, for example}"
    fill TOPOLOGY "${TOPOLOGY:?TOPOLOGY=4x4x8, for example}"
elif [ "$kind" = serve ]; then
    fill MOST "${MOST:-$NODES}"
fi
if [ "$dry" = 1 ]; then
    printf '%s\n' "$text"
else
    kubectl apply -f - <<<"$text"
fi
