"""The commands about data sets: `python -m janus_jax.data check|convert|tokenize|caption|score|reference|show`."""

import sys

from janus_jax.common.cli import Entry, dispatch

# By name: only the command that is asked for is imported. And `tokenize`, `caption`, `score` and
# `reference` compute, so that they stand in rooms above this one, which no module of data may import.
COMMANDS = {
    "check": Entry(
        "janus_jax.data.tools.check:main", "What is in data sets, and what is wrong with them.",
        "python -m janus_jax.data check --kind=generation --path=captions.jsonl --images=pictures",
    ),
    "convert": Entry(
        "janus_jax.data.tools.to_array_record:main", "Any data set as ArrayRecord shards.",
        "python -m janus_jax.data convert --kind=generation --path=captions.jsonl "
        "--images=pictures --out=converted",
    ),
    "tokenize": Entry(
        "janus_jax.training.tokenize_images:main", "The VQ ids of pictures to draw, computed once.",
        "python -m janus_jax.data tokenize --config=configs/stage1.py --dataset=NAME "
        "--weights=WEIGHTS --out=data/ids",
    ),
    "caption": Entry(
        "janus_jax.sample.label_commands:main", "Captions by a model, as records.",
        "python -m janus_jax.data caption --path=captions.jsonl --images=pictures "
        "--model=deepseek-ai/Janus-Pro-1B --out=captioned",
        ("caption",),
    ),
    "score": Entry(
        "janus_jax.sample.label_commands:main", "A score by a model, for min_score, as records.",
        "python -m janus_jax.data score --path=captions.jsonl --images=pictures "
        "--model=deepseek-ai/Janus-Pro-1B --out=scored",
        ("score",),
    ),
    "reference": Entry(
        "janus_jax.training.reference_commands:main", "Log-probabilities of pairs, for task dpo.",
        "python -m janus_jax.data reference --config=configs/dpo.py --out=data/reference",
    ),
    "show": Entry(
        "janus_jax.data.tools.show:main", "What training makes of the first records.",
        "python -m janus_jax.data show --kind=generation --path=captions.jsonl --images=pictures "
        "--out=shown.html",
    ),
}  # fmt: skip


def main(argv: list[str]) -> int:
    """argv: the words of the command line after `python -m janus_jax.data`."""
    return dispatch("python -m janus_jax.data", "Data sets.", COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
