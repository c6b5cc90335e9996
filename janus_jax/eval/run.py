"""What a run has learned: drawn, asked, scored and written into its work directory."""

import importlib
import io
import json
import pathlib

from janus_jax.common import outputs
from janus_jax.config.schema import Evaluation, Experiment
from janus_jax.model.guest import own_jax
from janus_jax.weights.load import load


def evaluate(
    experiment: Experiment,
    sources: dict,
    weights,
    directory: pathlib.Path,
    say,
    settings: Evaluation,
):
    """Writes results.json and pictures.png, and says the tables; earlier ones that differ are
    kept beside them.

    Args:
        experiment: the run's config.
        sources: its data sets, opened, by name.
        weights: a weights directory, or whatever else `load` knows.
        directory: where both files go.
        say: hears the progress and the tables.
        settings: how much is drawn and asked, and how.
    """
    model, processor = load(weights)
    say("drawing and answering")
    first = {experiment.data.datasets[name].kind: s for name, s in reversed(sources.items())}
    report = importlib.import_module(f"janus_jax.eval.{chosen(sources)}").report
    with own_jax(model):
        text, results, pictures = report(model, processor, settings, experiment.seed, first)
    for attribution in sorted({getattr(source, "attribution", "") for source in sources.values()}):
        text += f"\n{attribution}" if attribution else ""
    drawn = io.BytesIO()
    pictures.save(drawn, "PNG")
    made = {"results.json": json.dumps(results, indent=2), "pictures.png": drawn.getvalue()}
    kept = [outputs.replace(directory / name, content) for name, content in made.items()]
    say("\n".join(["", text, *filter(None, kept), ""]))


def chosen(sources: dict) -> str:
    """The module of this room that scores a run: the one that all its data sets name, else
    `samples`."""
    named = {getattr(source, "scored_by", "samples") for source in sources.values()}
    return named.pop() if len(named) == 1 else "samples"
