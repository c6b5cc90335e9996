"""Log-probabilities of pairs under a reference that is not there while a stage learns: a folder that
`janus-jax data reference` makes.

    reference.json   the tokenizer, the template and the weights that they are of; of each data set its
                     content, how it is written, and its records that could not be used
    NAME.npy         float32 [records, 2] of the data set NAME: of the chosen and the rejected one, summed
                     over its tokens; NaN where the record could not be used
"""

import dataclasses
import json
import pathlib

import numpy as np

from janus_jax.common import files
from janus_jax.data.holdout import Part
from janus_jax.data.sources import SourceError
from janus_jax.model.batch import EXAMPLE_COLUMNS

FILE = "reference.json"
REMEDY = "make it anew with `janus-jax data reference`"


def facts_of(processor, weights: str) -> dict:
    """What all of a folder is of."""
    return {
        "tokenizer": processor.tokenizer.fingerprint,
        "template": dataclasses.asdict(processor.template),
        "weights": weights,
    }


class StoredReference:
    """A folder of log-probabilities.

    Raises SourceError where it is none, or of another tokenizer or template than the run's.
    """

    def __init__(self, folder: str, forms: dict[str, str], processor):
        """forms: how the run writes each of its data sets' records."""
        self.folder = pathlib.Path(folder).expanduser()
        self.forms = forms
        self.arrays = {}
        try:
            self.facts = files.read_json(self.folder / FILE)
            datasets = self.facts["datasets"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SourceError(
                f"{self.folder}: no stored reference ({type(error).__name__}: {error}); {REMEDY}"
            ) from None
        self.datasets = datasets
        ours = facts_of(processor, "")
        for name in ("tokenizer", "template"):
            if self.facts.get(name) != ours[name]:
                raise SourceError(
                    f"{self.folder / FILE}: its log-probabilities are of another {name}, "
                    f"{self.facts.get(name)}, than this run's, {ours[name]}: they are of other ids; "
                    f"{REMEDY}, of weights with this run's {name}"
                )

    @classmethod
    def of(cls, plan, processor) -> "StoredReference | None":
        """That of a stage_plan.StagePlan; None where it names none."""
        if not plan.options["reference"]:
            return None
        forms = {name: plan.stage.form(d) for name, d in plan.experiment.data.datasets.items()}
        return cls(plan.options["reference"], forms, processor)

    def require(self, sources: dict):
        """Reads what belongs to these sources, by data set. Raises SourceError."""
        for name, source in sources.items():
            whole = source.source if isinstance(source, Part) else source
            self.arrays[name] = self._read(name, whole)

    def _read(self, name: str, source) -> np.ndarray:
        stored = self.datasets.get(name)
        if stored is None:
            raise SourceError(
                f"{self.folder}: has no data set {name} (it has {', '.join(self.datasets)}); {REMEDY}"
            )
        now = {"content": source.fingerprint, "form": self.forms[name]}
        for fact, value in now.items():
            if stored[fact] != value:
                raise SourceError(
                    f"{self.folder / FILE}: data.datasets.{name} has the {fact} {value}, its stored "
                    f"log-probabilities are of {stored[fact]}; {REMEDY}"
                )
        path = self.folder / f"{name}.npy"
        try:
            found = np.load(path, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise SourceError(f"{path}: cannot be read ({error}); {REMEDY}") from None
        if found.shape != (len(source), 2):
            raise SourceError(
                f"{path}: has the shape {found.shape}, {len(source)} pairs need "
                f"({len(source)}, 2); {REMEDY}"
            )
        wrong = set(np.flatnonzero(~np.isfinite(found).all(1)).tolist()) - set(stored["bad"])
        if wrong:
            first = min(wrong)
            raise SourceError(
                f"{path}: {len(wrong)} log-probabilities are not finite, the first of record {first} "
                f"({source.where(first)}: {found[first].tolist()}): a reference whose weights "
                f"overflow, or a damaged file; {REMEDY}, in float32"
            )
        return found

    def rows(
        self, entries: list, examples: np.ndarray, numbers: list[int], most: int
    ) -> np.ndarray:
        """Float32 [B, P, 2] of a batch's pairs, zeros where a row has fewer than `most`.

        entries: of the mixture; examples: as in model/batch.py; numbers: of the batch's rows.
        Raises SourceError for a pair that could not be used when it was stored.
        """
        out = np.zeros((len(numbers), most, 2), np.float32)
        places = [EXAMPLE_COLUMNS.index(name) for name in ("row", "dataset", "record")]
        at = dict.fromkeys(numbers, 0)
        for row, number, record in examples[:, places].tolist():
            entry = entries[number]
            whole = entry.source.index(record) if isinstance(entry.source, Part) else record
            found = self.arrays[entry.name][whole]
            if not np.isfinite(found).all():
                raise SourceError(
                    f"{self.folder / entry.name}.npy: {entry.source.where(record)} could not be used when "
                    f"its log-probabilities were stored, and now it can; {REMEDY}"
                )
            out[row - numbers[0], at[row]] = found
            at[row] += 1
        return out


def write(folder, facts: dict, datasets: dict[str, dict], arrays: dict[str, np.ndarray]):
    """A folder of log-probabilities; datasets: name -> {"content", "form", "bad"}."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, x in arrays.items():
        files.write(folder / f"{name}.npy", lambda out, x=x: np.save(out, x.astype(np.float32)))
    text = json.dumps(facts | {"datasets": datasets}, indent=2)
    files.write(folder / FILE, text + "\n")
