"""How well a picture and its words belong together, as a model sees it: `janus-jax data score`.

Of a caption of the tokens c_1 to c_n, its end mark the last of them, and q, what stands around picture
and caption (the template and a question), the score is

    1/n * sum over t of [ log p(c_t | q, picture, c_1 ... c_t-1) - log p(c_t | q, c_1 ... c_t-1) ]

the mean log-likelihood of a token with the picture minus that without: how many nats a token the
picture tells of the caption. Above 0 the picture makes the caption likelier. Words that are likely or
unlikely by themselves, and the caption's length, cancel out. Both sequences have the same ids, written
as training writes them, but for the picture's own tokens, which the second is without. In a
conversation the c_t are the tokens of all answers.
"""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np

from janus_jax.data.fields import described
from janus_jax.data.images import understanding_image
from janus_jax.data.kinds import REQUEST
from janus_jax.data.packing import assemble
from janus_jax.data.sources import RecordError
from janus_jax.data.understanding import images
from janus_jax.distributed import arrays
from janus_jax.model import batch as bt
from janus_jax.model import sharding as sh
from janus_jax.model.guest import own_jax

TOKENS = 10_240  # of all rows of a batch, padding too
ROWS = (1, 4, 16)  # of a batch; more are run slice by slice
TOGETHER = 64  # tokens of each row whose logits are there at once


def examples_of(record: dict, processor, form: str, questions: tuple[str, ...], i: int) -> list:
    """A record (see sources.Source) as spans to score, one list of them for each of its captions,
    or one for its conversation. questions: asked about a caption, in turn by the record's number;
    none: training's. Raises RecordError."""
    if "document" in record:
        raise RecordError(
            "a document", "is an interleaved document, whose words are of no one picture"
        )
    if "sources" in record:
        raise RecordError("an edit", "is an edit, whose words are of no one picture")
    if any(turn.role == "assistant" and turn.count_pictures for turn in record.get("messages", ())):
        raise RecordError("a drawing", "its answer draws, and answers of words alone are scored")
    if "senses" in record:
        raise RecordError(
            "another sense",
            f"has {', '.join(record['senses'])}, and pictures alone are scored; leave such records out",
        )
    told = [record]
    if "captions" in record:
        asked = questions or REQUEST
        told = [
            {"messages": described(asked[i % len(asked)], caption, 1)}
            | ({} if questions else {"unasked": True})
            | {name: record[name] for name in ("tiles",) if name in record}
            for caption in record["captions"]
        ]
    rows = [processor.learned(one, "answers", form) for one in told]
    for spans in rows:
        length = sum(len(ids) for ids, _, _ in spans)
        if length > processor.context:
            raise RecordError(
                "too long", f"is {length:,} tokens long, the model reads {processor.context:,}"
            )
        if not any(flag == 1 for _, _, flag in spans):
            raise RecordError("no answer", "has no words to score")
    return rows


def without_pictures(spans: list[tuple]) -> list[tuple]:
    """The spans but for those of pictures: slots, and the marks before and after them."""
    slots = [k for k, (_, role, _) in enumerate(spans) if role == bt.UNDERSTANDING_SLOT]
    gone = {at for k in slots for at in (k - 1, k, k + 1)}
    return [span for k, span in enumerate(spans) if k not in gone]


def reader(source, processor, tower, form: str, questions: tuple[str, ...]):
    """What `label.label_share` reads: number of a record -> (its examples, its pictures or their
    tiles, uint8 [M, side, side, 3]). tower: the UnderstandingEncoderConfig."""

    def read(i: int):
        try:
            record = source[i]
            if tower.tiles > 1:  # its file is loaded where it is used
                tiles = importlib.import_module("janus_jax.data.tiles")
                record = record | {"tiles": tiles.Tiles.of(source, i, record, tower)}
            rows = examples_of(record, processor, form, questions, i)
        except RecordError as error:
            where = source.where(i)
            said = str(error)
            raise RecordError(error.cause, said if where in said else f"{where}: {said}") from None
        count = range(images(rows[0]))
        if "tiles" in record:
            return rows, np.concatenate(
                [record["tiles"].cut(k, processor.background) for k in count]
            )
        shown = [
            understanding_image(source.image(i, k), tower.image_size, processor.background)
            for k in count
        ]
        return rows, np.stack(shown)

    return read


def scores(model, processor, things: list[tuple]) -> list[float]:
    """The score of each record, in nats a token, its captions' mean where it has several; six
    decimals. things: what `reader` reads."""
    rows = [(spans, pictures) for own, pictures in things for spans in own]
    seen = log_likelihoods(model, processor, rows)
    blind = log_likelihoods(model, processor, [(without_pictures(spans), ()) for spans, _ in rows])
    each = iter([float((a - b).mean(dtype=np.float64)) for a, b in zip(seen, blind, strict=True)])
    return [round(sum(next(each) for _ in own) / len(own), 6) for own, _ in things]


def log_likelihoods(model, processor, rows: list[tuple]) -> list[np.ndarray]:
    """log p of each token that is to be predicted, given those before it: float32 [n] of each row.

    rows: (spans, pictures uint8 [M, S, S, 3]). Padded to a few lengths, which alone, with the
        numbers of rows and pictures, decide what is compiled; a row's numbers do not depend on the
        others. Raises ValueError where the model's logits are not finite.
    """
    length = _length(max(sum(len(ids) for ids, _, _ in spans) for spans, _ in rows), 64)
    most = max(len(pictures) for _, pictures in rows)
    side = model.config.understanding_encoder.image_size
    leaves, tree = jax.tree.flatten(model)
    out = []
    with own_jax(model):
        split = jax.NamedSharding(jax.sharding.get_mesh(), sh.BATCH)
        most_rows = next((n for n in ROWS if n >= len(rows)), ROWS[-1])
        size = max(1, min(most_rows, TOKENS // length))
        size += -size % sh.batch_shards()
        for first in range(0, len(rows), size):
            some = rows[first : first + size]
            filled = [*some, *some[-1:] * (size - len(some))]
            batch = _assembled([spans for spans, _ in filled], length)
            shown = np.zeros((size, most, side, side, 3), np.float32)
            for row, (_, pictures) in zip(shown, filled):
                for k, picture in enumerate(pictures):
                    row[k] = bt.pixels(picture, processor.image_mean, processor.image_std)
            places, targets = _targets(batch.pop("text_targets"))
            parts = batch, shown, places, targets
            given = [jax.tree.map(lambda x: arrays.put(x, split), part) for part in parts]
            found = np.asarray(_picked(leaves, *given, tree=tree))
            pairs = zip(found[: len(some)], targets)
            out += [row[wanted != bt.IGNORE] for row, wanted in pairs]
    if not all(np.isfinite(row).all() for row in out):
        raise ValueError(
            "the model's logits are not finite: its weights hold NaN or overflow (a run that "
            "diverged?); take an earlier checkpoint"
        )
    return out


def _length(count: int, least: int) -> int:
    """The next of a few lengths; 640 holds a picture of a released model and a short caption."""
    steps = (32, 64, 128, 256, 640, 768, *(1024 << i for i in range(32)))
    return next(n for n in steps if n >= max(count, least))


def _assembled(rows: list[list[tuple]], length: int) -> dict:
    """A batch, int32 [B, length] each, of spans, a row an example."""
    names = "tokens", "text_targets", "understanding_slots", "positions", "segment_ids"
    sequences = [bt.sequence(spans, "understanding", range(images(spans))) for spans in rows]
    assembled = [assemble([one], length) for one in sequences]
    return {name: np.stack([row[name] for row in assembled]) for name in names}


def _targets(wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of text_targets, int32 [B, T], those that are there: their places and ids, int32 [B, L],
    padded by IGNORE."""
    count = _length((wanted != bt.IGNORE).sum(1).max(), 32)
    places = np.zeros((len(wanted), count), np.int32)
    targets = np.full((len(wanted), count), bt.IGNORE, np.int32)
    for row, at, ids in zip(wanted, places, targets):
        there = np.flatnonzero(row != bt.IGNORE)
        at[: len(there)] = there
        ids[: len(there)] = row[there]
    return places, targets


@functools.partial(jax.jit, static_argnames="tree")
def _picked(leaves, batch, pixels, places, targets, *, tree):
    """log p of the targets [B, L], read at their places: float32 [B, L]; 0 for IGNORE.

    batch: as in model.batch, a row an example; pixels: [B, M, S, S, 3].
    """
    model = jax.tree.unflatten(tree, leaves)
    rows = len(targets)
    none = jnp.zeros((rows, 0), jnp.int32, out_sharding=sh.BATCH)
    hidden = model(batch | {"understanding_images": pixels}, none)
    hidden = jnp.take_along_axis(hidden, places[..., None], axis=1)  # [B, L, D]
    out = []
    for first in range(0, targets.shape[1], TOGETHER):
        some = slice(first, first + TOGETHER)
        # Whole vocabularies: what is picked of them may lie anywhere.
        logits = jax.sharding.reshard(model.text_head(hidden[:, some]), sh.BATCH)
        wanted = targets[:, some, None]
        picked = jnp.take_along_axis(logits, jnp.maximum(wanted, 0), axis=2)
        found = picked[..., 0] - jax.nn.logsumexp(logits, axis=2)
        out.append(jnp.where(wanted[..., 0] == bt.IGNORE, 0, found))
    return jnp.concatenate(out, axis=1)
