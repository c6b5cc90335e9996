"""Our side of data.py: a process that makes batches, or times the parts of making them. Takes a
spec as JSON.

part "batches": on each "go", batches until `records` examples are in them. part "sections": one
thread, CPU seconds a record of reading, decoding, resizing and tokenizing, called one after the
other.
"""

import io

# ruff: noqa: E402
import json
import os
import pathlib
import sys
import time

SPEC = json.loads(sys.argv[1])
if SPEC["core"] is not None:
    os.sched_setaffinity(0, {SPEC["core"]})  # before threads and workers: they inherit it

import machine
import numpy as np

from janus_jax.config.schema import KINDS, Dataset, Rows, Template
from janus_jax.data import image_files, images, resize
from janus_jax.data.catalog import open_dataset
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.mixture import Entry, Mixture
from janus_jax.data.pipeline import Batches
from janus_jax.data.processor import Processor
from janus_jax.data.tokenizer import Tokenizer
from janus_jax.model import presets

if SPEC["exact"]:  # as inference does; in workers too, which import this file
    resize._resizer = None
QUESTION = ("What do you see in this picture?",)


def datasets(corpus: pathlib.Path, name: str) -> dict[str, Dataset]:
    """kind -> a line of a config. In one file, as a format to compare, captions are answers too; as
    a stage ("stages"), each kind has its own."""
    pictures = str(corpus / "pictures")
    if name == "stages":
        return {
            "understanding": Dataset(
                "understanding", str(corpus / "understanding.json"), images=pictures
            ),
            "text": Dataset("text", str(corpus / "text.jsonl"), "json"),
            "generation": Dataset("generation", str(corpus / "generation.jsonl"), images=pictures),
        }
    path = {
        "folder": "generation.jsonl", "tar": "shards", "parquet": "parquet", "array_record": "array_record",
    }[name]  # fmt: skip
    options = {"images": pictures} if name == "folder" else {}
    return {
        "understanding": Dataset("understanding", str(corpus / path), prompt=QUESTION, **options),
        "generation": Dataset("generation", str(corpus / path), **options),
    }


def setting() -> tuple[dict, ExampleEncoder]:
    """(kind -> source, the encoder) of the spec, at the sizes of Janus-1.3B."""
    corpus, model = pathlib.Path(SPEC["corpus"]), presets.janus_1_3b()
    side = model.understanding_encoder.image_size
    lines = datasets(corpus, SPEC["format"])
    resized = 0 if SPEC["exact"] else side
    sources = {kind: open_dataset(line, side, 0, resized) for kind, line in lines.items()}
    tokens = model.understanding_encoder.tokens, model.generation_encoder.tokens
    processor = Processor(Tokenizer.load(corpus), Template(), *tokens)
    rows = Rows(**SPEC["rows"])
    return sources, ExampleEncoder(processor, model, rows, SPEC["supervise"], dropout=0.1)


def batches() -> dict:
    sources, encoder = setting()
    ratio = dict.fromkeys(KINDS, 0.0) | SPEC["ratio"]
    entries = [Entry(kind, kind, source) for kind, source in sources.items()]
    mixture = Mixture(entries, ratio, seed=0, streams=encoder.rows.count)
    stream = Batches(mixture, encoder, workers=SPEC["workers"])
    next(stream)

    def go(word: str) -> dict:
        records = made = tokens = 0
        me, before, begin = os.getpid(), machine.used_by_family(os.getpid()), time.perf_counter()
        while records < SPEC["records"]:
            batch, examples = next(stream)
            records += len(examples)
            made += len(batch["tokens"])
            tokens += int((batch["segment_ids"] > 0).sum())
        seconds = time.perf_counter() - begin
        cpu = machine.used_by_family(me) - before
        held = [machine.resident(pid) for pid in machine.family(me)[1:]] or [machine.resident(me)]
        return {
            "records": records,
            "rows": made,
            "tokens": tokens,
            "seconds": seconds,
            "cpu": cpu,
            "held": max(held),
        }

    machine.serve({"records": {kind: len(source) for kind, source in sources.items()}}, go)
    stream.close()


def sections() -> None:
    """CPU seconds a record by part, over the same random records of each kind that has pictures."""
    sources, encoder = setting()
    side = encoder.model.understanding_encoder.image_size
    prepare = {"understanding": images.understanding_image, "generation": images.generation_image}
    sides = {"understanding": "longest", "generation": "shortest"}

    def go(word: str) -> dict:
        spent, count, rng = (
            dict.fromkeys(("read", "decode", "resize", "tokenize"), 0.0),
            0,
            np.random.default_rng(0),
        )
        for kind in prepare:
            source = sources[kind]
            for i in rng.integers(len(source), size=SPEC["records"] // 2):
                marks = [time.thread_time()]
                record, file = source[i], source.picture_file(i)
                if isinstance(file, str):
                    file = pathlib.Path(file).read_bytes()
                marks.append(time.thread_time())
                scaled = {sides[kind]: 0 if SPEC["exact"] else side}
                picture = image_files.read_image(io.BytesIO(file), **scaled)
                marks.append(time.thread_time())
                prepare[kind](picture, side, fast=True)
                marks.append(time.thread_time())
                encoder(kind, record, rng)
                marks.append(time.thread_time())
                for name, a, b in zip(spent, marks, marks[1:]):
                    spent[name] += b - a
                count += 1
        return {name: seconds / count for name, seconds in spent.items()}

    machine.serve({}, go)


if __name__ == "__main__":
    {"batches": batches, "sections": sections}[SPEC["part"]]()
