"""Records to Sequences that fit a row, and their pictures to arrays: what `row_stream` packs."""

import dataclasses
import importlib

import numpy as np

from janus_jax.data import generation, text, understanding
from janus_jax.data.images import generation_image, understanding_image
from janus_jax.data.sources import RecordError
from janus_jax.model import batch as bt

# Loaded where a model asks for it.
MASKED, SIZES, TILES = (f"janus_jax.data.{name}" for name in ("masked", "sizes", "tiles"))
senses = lambda: importlib.import_module("janus_jax.data.senses")  # for models that have any


@dataclasses.dataclass(frozen=True)
class ExampleEncoder:
    """Records of one form, of any kind, to Sequences that fit a row, and their pictures to arrays.

    processor: tokenizer and chat template.
    model: the JanusConfig.
    rows: length, understanding_images and generation_images of a row.
    supervise: "all" text is predicted, or the "answers" of conversations only.
    dropout: probability that a prompt to draw is blanked.
    first: probability that only a caption's first sentence is the prompt.
    form: the "chat" template, or "plain", pictures and words alone.
    """

    processor: object
    model: object
    rows: object
    supervise: str
    dropout: float = 0.0
    first: float = 0.0
    form: str = "chat"

    def read(self, source, index: int) -> dict:
        """A record of a source, and what must be known of its pictures before they are opened: "tiles"
        where those to understand are cut, "size" and "drawn" where those to draw have several sizes.
        Raises RecordError, ImageError."""
        model = self.model
        cut = model.understanding_encoder.tiles > 1
        tiles = importlib.import_module(TILES) if cut else None
        record = tiles.record_of(source, index, model) if cut else source[index]
        if model.generation_encoder.sizes and "captions" in record:
            how = self.processor, model.generation_encoder
            return importlib.import_module(SIZES).sized(record, source, index, *how)
        return record

    def __call__(
        self, kind: str, record: dict, rng: np.random.Generator, at: int | None = None
    ) -> dict:
        """at: see text.encode. Raises RecordError for a record that does not fit its kind or a
        row."""
        most = self.rows.understanding_images
        how = self.processor, self.supervise, self.rows.length, self.form
        if "senses" in record:
            record = senses().located(record, self.model, most)
        if kind == "generation" and record.keys() & {"sources", "messages"}:
            way = "editing" if "sources" in record else "interleaved"
            example = importlib.import_module(f"janus_jax.data.{way}").encode(record, self, rng)
        elif kind == "generation":
            chances = self.dropout, self.first, self.rows.length, self.form
            example = generation.encode(record, self.processor, rng, *chances)
        elif kind == "text":
            example = text.encode(record, *how, at)
        else:
            example = understanding.encode(record, *how, most)
        if kind == "generation" and self.model.drawing == "masked":
            example = importlib.import_module(MASKED).mask(example, rng)
        if self.model.senses:
            example["senses"] = senses().counts(example, self.model)
        slots = int((example["role"] == bt.UNDERSTANDING_SLOT).sum())
        count = slots // self.processor.understanding_tokens
        if count > most:
            raise RecordError(
                "too many pictures",
                f"has {count} pictures{', tiles counted' * ('tiles' in record)}, a row takes {most}; "
                f"raise the stage's rows.understanding_images",
            )
        shown = count or record.keys() & {"document", "senses"}
        shown = shown or example["example"][0] >= bt.TRUNCATED
        if kind == "understanding" and not shown:
            raise RecordError(
                "no picture", "has no image part, and a conversation of understanding needs one"
            )
        if count and kind == "text":
            raise RecordError(
                "a picture too many", f"has {count} image parts, and a record of text needs none"
            )
        if not example["supervised"].any():
            raise RecordError("no answer", "nothing in it is to be predicted; answer it or drop it")
        return example

    def pixels(
        self, kind: str, source, index: int, record: dict, example: dict
    ) -> dict[str, list[np.ndarray]]:
        """What fills an example's slots, by the batch's arrays: pictures uint8 [S, S, 3], or ids
        int32 [N]. Raises ImageError, RecordError."""
        if kind == "generation" and "image_ids" in record:
            ids = generation.stored_ids(record["image_ids"], self.model.generation_encoder)
            return {"image_ids": [ids]}
        if "size" in record:
            vq = self.model.generation_encoder
            return importlib.import_module(SIZES).sized_pixels(source, index, record["size"], vq)
        more = senses().arrays(record, example, self.model) if self.model.senses else {}
        if "tiles" in record:
            return record["tiles"].pixels(example) | more
        ways = {
            "understanding_images": (understanding_image, self.model.understanding_encoder),
            "generation_images": (generation_image, self.model.generation_encoder),
        }
        return more | {
            name: [
                open_image(source.image(index, int(k)), box.image_size, fast=True)
                for k in example[name]
            ]
            for name, (open_image, box) in ways.items()
        }
