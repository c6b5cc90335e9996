"""What the evaluations of a stage found, by step: DIR/evaluation.jsonl beside its checkpoints.

Which checkpoint is the best, and whether a stage ends early, follow from these lines alone. A step
is evaluated before it is saved, so a run that goes on from a checkpoint has all lines up to it.
"""

import json
import pathlib

from janus_jax.common import files

FILE = "evaluation.jsonl"


class EvaluationsError(ValueError):
    """The file is no list of evaluations."""

    exit_code = "usage"


def records(directory: pathlib.Path) -> list[dict]:
    """{"step": int, metric: float, ...} of each evaluation, in order of the steps; none where there
    is no file. Raises EvaluationsError for a file that is no such list."""
    path = directory / FILE
    if not path.is_file():
        return []
    try:
        found = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return sorted(found, key=lambda record: record["step"])
    except (ValueError, TypeError, KeyError) as error:
        raise EvaluationsError(
            f"{path}: not what evaluations left ({type(error).__name__}: {error}); put back the "
            "file, or delete it: then the checkpoint that was best so far is not known"
        ) from None


def keep(directory: pathlib.Path, found: list[dict]):
    """Writes them, in place of what the file held."""
    text = "".join(json.dumps(record) + "\n" for record in found)
    files.write(directory / FILE, text)


def best_step(found: list[dict], metric: str, among=None) -> int | None:
    """The step whose metric is the best, the first of several; None where none has it.

    Args:
        found: as `records` gives them.
        metric: a loss, which begins with "validation_", is the better the lower it is; others,
            which are scores, and an "_accuracy" of validation, the higher.
        among: the steps that count; None: all.
    """
    loss = metric.startswith("validation_") and not metric.endswith("_accuracy")
    sign = 1 if loss else -1
    values = {
        record["step"]: sign * record[metric]
        for record in found
        if metric in record and (among is None or record["step"] in among)
    }
    return min(values, key=values.get, default=None)


def since_best(found: list[dict], metric: str) -> int:
    """How many evaluations that have the metric there were after the best one."""
    best = best_step(found, metric)
    if best is None:
        return 0
    return sum(metric in record and record["step"] > best for record in found)
