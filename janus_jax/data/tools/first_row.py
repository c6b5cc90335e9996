"""The first packed row of a stage: which examples are in it, and where."""

import dataclasses

import numpy as np

from janus_jax.common.text import short, table
from janus_jax.config.epochs import endless
from janus_jax.config.schema import Experiment
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.holdout import stage_entries, stage_mixture_of
from janus_jax.data.kept import kinds_kept, only
from janus_jax.data.mixture import Entry, Mixture
from janus_jax.data.processor import Processor
from janus_jax.data.row_stream import RowStream
from janus_jax.data.sources import SourceError
from janus_jax.data.tools.view import PackedRow, Segment, pieces_of, visible
from janus_jax.model import batch as bt


def packed_row(title: str, mixture: Mixture, encoder: ExampleEncoder, keep: str = "") -> PackedRow:
    """The first row of a mixture's first step, packed as training packs it. Raises SourceError.

    title: whose it is.
    mixture: what is drawn.
    encoder: what makes examples of records.
    keep: the option of that name, see kept.py.
    """
    row = RowStream(mixture, encoder, 0).row(0)
    examples = np.array([(0, *x) for x in row.pop("drawn")], np.int64)
    batch, examples = only(kinds_kept(keep), {n: x[None] for n, x in row.items()}, examples)
    row = {name: x[0] for name, x in batch.items()}
    segments = [
        _segment(k + 1, row, mixture.entries[x[1]], int(x[3]), encoder.processor)
        for k, x in enumerate(examples)
    ]
    return PackedRow(title, len(row["tokens"]), segments)


def first_rows(
    experiment: Experiment, stages: list[str], sources: dict, processor: Processor
) -> tuple[list[PackedRow], list[str]]:
    """(the first row of each stage, packed of those of its data sets that are given; why a stage
    has none).

    experiment: the config.
    stages: the names of those that pack rows.
    sources: data sets by name.
    processor: the tokenizer and template.
    """
    rows = []
    told = []
    experiment = endless(experiment)  # epochs are not counted here, and the first row is the same
    for name in stages:
        s = experiment.stages[name]
        chances = s.condition_dropout, s.first_sentence
        encoder = ExampleEncoder(processor, experiment.model, s.rows, s.supervise, *chances)
        try:
            # Pictures come as they are here, though the stage may read their stored ids.
            entries = [
                dataclasses.replace(e, ids=False) for e in stage_entries(experiment, name, sources)
            ]
            if any(e.weight > 0 and vars(s.ratio)[e.kind] > 0 for e in entries):
                mixture = stage_mixture_of(experiment, name, entries, partly=True)
                title = f"row 1 of step 1 of {name}"
                rows.append(packed_row(title, mixture, encoder, s.options.get("keep", "")))
        except SourceError as error:
            told.append(f"{name}: no packed row: {error}")
    return rows, told


def row_lines(row: PackedRow) -> list[str]:
    """A packed row for the terminal."""
    headers = ("segment", "places", "positions", "predicted", "kind", "data set", "record")
    cells = [
        (
            s.number,
            f"{s.begin}-{s.end - 1}",
            f"{s.positions[0]}-{s.positions[1]}",
            s.predicted,
            s.kind,
            s.name,
            short(visible(s.where), 60),
        )
        for s in row.segments
    ]
    told = (
        f"{row.title}: {row.length} tokens, {len(row.segments)} examples, {row.padding} of padding"
    )
    return [told, table(headers, cells)]


def _segment(number: int, row: dict, entry: Entry, index: int, processor) -> Segment:
    """Of a row's arrays, as the step gets them: what is predicted is told from the targets."""
    (at,) = np.nonzero(row["segment_ids"] == number)
    following = row["text_targets"] != bt.IGNORE
    own = row["image_targets"] > 0
    if "ahead" not in row:  # else ids are predicted at their own places
        following, own = following | own, np.zeros_like(own)
    supervised = (np.append(False, following[:-1]) | own)[at]
    row = row | {"generation_slots": bt.image_slots(row)}
    kinds = [name for name in row if name.endswith("_slots")]  # in the order of their roles
    role = np.select([row[name][at] > 0 for name in kinds], range(1, 1 + len(kinds)), bt.TEXT)
    positions = row["positions"][at]
    pieces = pieces_of(row["tokens"][at], role, supervised, processor.tokenizer, int(positions[0]))
    return Segment(
        number,
        int(at[0]),
        int(at[-1]) + 1,
        (int(positions[0]), int(positions[-1])),
        bt.TASKS[int(row["tasks"][at[0]]) - 1],
        entry.name,
        entry.source.where(index),
        int(supervised.sum()),
        pieces,
    )
