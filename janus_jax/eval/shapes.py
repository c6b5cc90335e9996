"""What a model of the shapes world learned: a GenEval-style table and the accuracy of its answers.

Drawings are read back exactly (data/shapes.py); every number stands beside its chance level.
"""

import collections

import numpy as np
from PIL import Image

from janus_jax.common.contact_sheet import contact_sheet
from janus_jax.common.text import table
from janus_jax.data.toy import shapes, shapes_sources
from janus_jax.model import batch as bt
from janus_jax.sample.generate import decode_ids, generate
from janus_jax.sample.understand import understand_batch

BATCH = 64


def drawings(model, processor, count: int, cfg_scale: float, temperature: float, seed: int):
    """(rows of the table, [(prompt text, picture, right?)]): `count` prompts of each of the six
    tasks."""
    prompts = shapes.evaluation_prompts(count, seed)
    pictures = []
    for start in range(0, len(prompts), BATCH):
        part = prompts[start : start + BATCH]
        filled = part + [part[-1]] * (BATCH - len(part))  # one compiled shape
        seeds = [seed * 100_003 + start + k for k in range(BATCH)]
        drawn = generate(
            model,
            processor,
            [p.text for p in filled],
            cfg_scale=cfg_scale,
            temperature=temperature,
            seed=seeds,
        )
        pictures += drawn[: len(part)]
    right = [p.fits(shapes.read(np.asarray(picture))) for p, picture in zip(prompts, pictures)]
    by_task = collections.defaultdict(list)
    for prompt, ok in zip(prompts, right):
        by_task[prompt.task].append(ok)
    rows = [
        [t, float(np.mean(v)), shapes.drawing_chance(t, seed), len(v)] for t, v in by_task.items()
    ]
    rows.append(
        ["overall", *(float(np.mean([row[i] for row in rows])) for i in (1, 2)), len(prompts)]
    )
    return rows, [(p.text, picture, ok) for p, picture, ok in zip(prompts, pictures, right)]


def answers(model, processor, per_answer: int, seed: int):
    """(rows of the table, [(kind, picture, question, answer, right answer)]): every answer equally
    often."""
    asked = shapes.evaluation_questions(per_answer, seed)
    given = []
    for start in range(0, len(asked), BATCH):
        part = asked[start : start + BATCH]
        filled = part + [part[-1]] * (BATCH - len(part))
        conversations = [[user(picture, question)] for _, picture, question, _ in filled]
        given += understand_batch(model, processor, conversations, max_new_tokens=8)[: len(part)]
    by_kind = collections.defaultdict(list)
    for (kind, _, _, truth), answer in zip(asked, given):
        by_kind[kind].append(answer == truth)
    rows = [[k, float(np.mean(v)), 1 / len(shapes.ANSWERS[k]), len(v)] for k, v in by_kind.items()]
    rows.append(
        ["overall", *(float(np.mean([row[i] for row in rows])) for i in (1, 2)), len(asked)]
    )
    return rows, [(k, p, q, a, truth) for (k, p, q, truth), a in zip(asked, given)]


def user(picture: np.ndarray, question: str) -> dict:
    image = {"type": "image", "image": Image.fromarray(picture)}
    return {"role": "user", "content": [image, {"type": "text", "text": question}]}


def ceiling(model, seed: int, count: int = 256) -> float:
    """Share of true pictures that still read the same after the tokenizer's encode and decode."""
    source = shapes_sources.ShapesGeneration(seed=seed + 7)
    true = np.stack([source.image(i) for i in range(count)])
    ids = np.asarray(model.generation_encoder.encode(bt.pixels(true)))
    back = np.clip((decode_ids(model, ids) + 1) / 2 * 255, 0, 255).astype(np.uint8)
    return float(np.mean([shapes.read(a) == shapes.read(b) for a, b in zip(true, back)]))


def report(model, processor, evaluation, seed: int, sources=None):
    """(both tables as text, the results as a dict, the contact sheet). Prompts and questions are
    drawn from the grammar of the shapes, not from `sources`."""
    count = evaluation.count
    scale = evaluation.cfg_scale
    temperature = evaluation.temperature
    seed += 1000
    drawn, pictures = drawings(model, processor, count, scale, temperature, seed)
    told, _ = answers(model, processor, max(count // 2, 1), seed)
    top = ceiling(model, seed)
    text = (
        f"Drawing, GenEval's six tasks (guidance {scale:g}, temperature {temperature:g}; "
        f"the tokenizer alone keeps {top:.2f} of true pictures readable)\n"
        + table(("task", "score", "chance", "pictures"), drawn)
        + "\n\nAnswering, every answer equally often\n"
        + table(("question", "accuracy", "chance", "questions"), told)
    )
    results = {
        "drawing": {r[0]: r[1:] for r in drawn},
        "answering": {r[0]: r[1:] for r in told},
        "tokenizer": top,
    }
    shown = [
        p for task in range(len(shapes.TASKS)) for p in pictures[task * count : task * count + 6]
    ]
    captions = [f"{text}: {'right' if ok else 'wrong'}" for text, _, ok in shown]
    return (
        text,
        results,
        contact_sheet([picture for _, picture, _ in shown], captions, columns=6, scale=4),
    )
