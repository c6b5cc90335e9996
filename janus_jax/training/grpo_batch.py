"""Rollouts as a batch (model/batch.py): a drawing or an answer in each row, in numpy."""

import dataclasses

import numpy as np

from janus_jax.model import batch as bt
from janus_jax.training.grpo_loss import advantages, token_weights
from janus_jax.training.log_probabilities import twin_places
from janus_jax.training.rewards import Asked

FLOATS = ("told", "advantages", "weights", "shares")  # float32 [B, T]


@dataclasses.dataclass
class Group:
    """The outputs of one prompt.

    asked: what the reward sees. draws: pictures, else answers.
    ids: the prompt's, int32 [n]; slots: of a question, int32 [n], which of its picture's features a
        place reads; picture: of a question, uint8 [1, S, S, 3].
    outputs: (ids int32 [m], log-probabilities as the decoder tells them, float32 [m]) of each.
    rewards: float32 [G], the weighted sum; by_name: those of each reward. NaN: it has failed.
    seed: of the outputs.
    """

    asked: Asked
    draws: bool
    ids: np.ndarray
    outputs: list
    slots: np.ndarray | None = None
    picture: np.ndarray | None = None
    rewards: np.ndarray | None = None
    by_name: dict = dataclasses.field(default_factory=dict)
    seed: int = 0

    @property
    def failed(self) -> bool:
        return not np.isfinite(self.rewards).all()


def batch_arrays(rows, model, guided: bool) -> dict:
    """name -> (shape, dtype) of a step's batch. rows: the stage's."""
    images = rows.understanding_images, rows.generation_images
    found = bt.shapes(rows.count, rows.length, *images, model, precomputed=True)
    more = FLOATS[1:] + ("old", "reference")
    found |= dict.fromkeys(more, ((rows.count, rows.length), np.float32))
    if guided:
        found["twins"] = (rows.count, rows.length), np.int32
    return found


def longest(rows, tokens: int, guided: bool) -> int:
    """How many ids a prompt to draw may have, so that it fits a row with its `tokens` ids."""
    return rows.length // (2 if guided else 1) - tokens


def assembled(groups: list[Group], rows, model, most: int, unconditional, how: dict) -> dict:
    """The batch of a step, without "old" and "reference" and with "told", the decoder's
    log-probabilities.

    groups: of the step, drawings and answers, rows.count outputs in all.
    most: tokens of an answer. unconditional: ids -> those of the prompt without its words; None:
        nothing is guided. how: options `average` and `scale`.
    """
    guided = unconditional is not None
    batch = {n: np.zeros(s, d) for n, (s, d) in batch_arrays(rows, model, guided).items()}
    del batch["old"], batch["reference"]
    batch["told"] = np.zeros_like(batch["weights"])
    batch["text_targets"][:] = bt.IGNORE
    examples = [(group, k) for group in groups for k in range(len(group.outputs))]
    tokens = model.generation_encoder.tokens
    kept = np.array([not group.failed for group, _ in examples])
    lengths = np.array([len(group.outputs[k][0]) for group, k in examples])
    counted = np.where(kept, lengths, 0)
    limits = np.array([tokens if group.draws else most for group, _ in examples])
    each = token_weights(counted, limits, how["average"])
    draws = np.array([group.draws for group, _ in examples])
    totals = {kind: max(int(counted[draws == kind].sum()), 1) for kind in (True, False)}
    values = [
        np.zeros(len(group.outputs))
        if group.failed
        else advantages(group.rewards[None], how["scale"])[0]
        for group in groups
    ]
    for row, ((group, k), value) in enumerate(zip(examples, np.concatenate(values), strict=True)):
        place = _drawing if group.draws else _answer
        at = place(batch, row, group, k, unconditional)
        batch["told"][row, at] = group.outputs[k][1]
        if kept[row]:
            batch["advantages"][row, at] = value
            batch["weights"][row, at] = each[row]
            batch["shares"][row, at] = 1 / totals[group.draws]
    return batch


def _segment(batch: dict, row: int, at: int, ids: np.ndarray, number: int, task: int):
    end = at + len(ids)
    batch["tokens"][row, at:end] = ids
    batch["positions"][row, at:end] = np.arange(len(ids))
    batch["segment_ids"][row, at:end] = number
    batch["tasks"][row, at:end] = task


def _drawing(batch: dict, row: int, group: Group, k: int, unconditional) -> slice:
    """Lays out a drawing, and its unconditional twin where it is guided; the places that predict its
    ids."""
    drawn = group.outputs[k][0]
    tokens = len(drawn)
    batch["image_ids"][row, 0] = drawn
    prompts = [group.ids] + ([unconditional(group.ids)] if unconditional else [])
    at = 0
    for number, prompt in enumerate(prompts, 1):
        ids = np.concatenate([prompt, np.full(tokens, prompt[-1])])
        _segment(batch, row, at, ids, number, 1 + bt.TASKS.index("generation"))
        first = at + len(prompt)
        batch["generation_slots"][row, first : first + tokens] = 1 + np.arange(tokens)
        at += len(ids)
    begin = len(group.ids) - 1
    batch["image_targets"][row, begin : begin + tokens] = 1 + np.arange(tokens)
    if unconditional:
        how = batch["segment_ids"][row], batch["image_targets"][row]
        batch["twins"][row] = twin_places(*how, [(1, 2)])
    return slice(begin, begin + tokens)


def _answer(batch: dict, row: int, group: Group, k: int, _) -> slice:
    """Lays out a question and its answer; the places that predict the answer's ids."""
    ids = group.outputs[k][0]
    n = len(group.ids)
    _segment(
        batch, row, 0, np.concatenate([group.ids, ids]), 1, 1 + bt.TASKS.index("understanding")
    )
    batch["understanding_slots"][row, :n] = group.slots
    batch["understanding_images"][row] = group.picture
    batch["text_targets"][row, n - 1 : n - 1 + len(ids)] = ids
    return slice(n - 1, n - 1 + len(ids))
