"""What a model does with its own training records: drawings beside the true pictures, answers
checked.

For pictures without an exact scorer. The records are those that were trained on, so this shows what
a small run has memorised, and says so.
"""

import dataclasses

import numpy as np

from janus_jax.common.contact_sheet import contact_sheet
from janus_jax.common.text import table
from janus_jax.data.image_files import ImageError
from janus_jax.data.images import generation_image, to_pil
from janus_jax.data.sources import RecordError
from janus_jax.model import batch as bt
from janus_jax.sample.generate import decode_ids, generate
from janus_jax.sample.understand import understand_batch

BATCH = 32


def report(model, processor, evaluation, seed: int, sources):
    """(text, results, contact sheet): `evaluation.count` records of each kind, drawn and asked."""
    rng = np.random.default_rng(seed + 1000)
    side = model.config.generation_encoder.image_size
    results = {}
    rows = []
    shown = []
    captions = []
    if "generation" in sources:
        picks = readable(sources["generation"], rng, evaluation.count)
        prompts = [sources["generation"][int(i)]["captions"][0] for i in picks]
        true = np.stack(
            [generation_image(sources["generation"].image(int(i)), side) for i in picks]
        )
        drawn = draw(model, processor, prompts, evaluation)
        near, chance = retrieval(drawn, true)
        pixels = bt.pixels(true)
        kept = to_pil(decode_ids(model, np.asarray(model.generation_encoder.encode(pixels))))
        error = float(np.mean([np.abs(np.asarray(a, int) - b).mean() for a, b in zip(kept, true)]))
        results["drawing"] = {
            "nearest_is_the_right_one": [near, chance, len(picks)],
            "tokenizer_error": error,
        }
        rows.append(["drawing nearest to its own picture", near, chance, len(picks)])
        for prompt, pair in zip(prompts[:24], zip(true, drawn)):
            shown += pair
            captions += [f"{prompt} (true)", f"{prompt} (drawn)"]
    if "understanding" in sources:
        picks = readable(sources["understanding"], rng, evaluation.count)
        right, chance = _ask(model, processor, sources["understanding"], picks)
        results["answering"] = {"exact": [right, chance, len(picks)]}
        rows.append(["answer word for word", right, chance, len(picks)])
    text = "On records it was trained on: what the run has memorised\n" + table(
        ("task", "score", "chance", "records"), rows
    )
    return text, results, contact_sheet(shown, captions, columns=8, scale=max(1, 96 // side))


def readable(source, rng, count: int) -> list[int]:
    """At most `count` records at random, those left out whose text or picture cannot be used."""
    picks = []
    for i in map(int, rng.permutation(len(source))):
        try:
            record = source[i]
            _ = source.image(i)
        except (RecordError, ImageError):
            continue
        picks += [i] if "document" not in record else []
        if len(picks) == count:
            break
    return picks


def draw(model, processor, prompts, evaluation) -> np.ndarray:
    """uint8 [n, H, W, 3]."""
    out = []
    for start in range(0, len(prompts), BATCH):
        part = prompts[start : start + BATCH]
        filled = part + [part[-1]] * (BATCH - len(part))
        options = dict(cfg_scale=evaluation.cfg_scale, temperature=evaluation.temperature)
        out += generate(
            model, processor, filled, seed=list(range(start, start + BATCH)), **options
        )[: len(part)]
    return np.stack([np.asarray(picture) for picture in out])


def retrieval(drawn: np.ndarray, true: np.ndarray) -> tuple[float, float]:
    """Share of drawings whose nearest true picture (mean absolute pixel difference) is their own;
    chance."""
    apart = np.abs(drawn[:, None].astype(np.int16) - true[None].astype(np.int16)).mean((2, 3, 4))
    return float(np.mean(apart.argmin(1) == np.arange(len(true)))), 1 / len(true)


def _ask(model, processor, source, picks) -> tuple[float, float]:
    """Share of first answers that are word for word the record's; chance is the commonest answer's
    share."""
    given = []
    truth = []
    for start in range(0, len(picks), BATCH):
        part = [int(i) for i in picks[start : start + BATCH]]
        filled = part + [part[-1]] * (BATCH - len(part))
        conversations = []
        for i in filled:
            question = source[i]["messages"][0]
            conversations.append([dataclasses.replace(question, pictures=[source.image(i)])])
        given += understand_batch(model, processor, conversations, max_new_tokens=32)[: len(part)]
        truth += [source[i]["messages"][1].content[0].strip() for i in part]
    commonest = max(truth.count(t) for t in set(truth)) / len(truth)
    return float(np.mean([a == b for a, b in zip(given, truth)])), commonest
