"""What rotten records cost: CPU seconds an example with one in a hundred of them rotten, against
none, in one process.

    python benchmarks/rotten.py --pictures=500 --turns=20

Pictures of data_corpus.py, read for Janus-1.3B's generation; rotten in six ways. Turns alternate,
so that what else the machine does falls on both. Prints the ratio of the sums and, from the turns,
its standard error.
"""

import argparse
import json
import pathlib
import random
import tempfile
import time

import data_corpus
import numpy as np

from janus_jax.config.schema import Dataset, Rows, Template
from janus_jax.data.catalog import open_dataset
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.mixture import Entry, Mixture
from janus_jax.data.processor import Processor
from janus_jax.data.row_stream import RowStream
from janus_jax.data.tokenizer import Tokenizer
from janus_jax.model import presets

ROWS = Rows(count=4, length=4096, understanding_images=1, generation_images=6)


def plant(corpus: pathlib.Path, folder: pathlib.Path, records: int, bad: int) -> Dataset:
    """`records` lines over the corpus' pictures, `bad` of them of a rotten one of its own."""
    whole = sorted((corpus / "pictures").iterdir())
    rng, lines = random.Random(0), []
    ways = (
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"<!DOCTYPE html><html>404</html>",
        lambda data: b"version https://git-lfs.github.com/spec/v1\n",
        lambda data: None,
        lambda data: b"<?xml version='1.0'?><svg></svg>",
    )
    folder.mkdir(parents=True)
    rotten = set(rng.sample(range(records), bad))
    for i in range(records):
        path = whole[i % len(whole)]
        name = f"pictures/{path.name}"
        if i in rotten:
            name = f"{folder.name}/{i}.jpg"
            if (data := ways[len(lines) % len(ways)](path.read_bytes())) is not None:
                (corpus / name).write_bytes(data)
        lines.append(
            json.dumps({"image": name, "caption": f"{path.stem}, a picture among {records}"})
        )
    (folder / "records.jsonl").write_text("\n".join(lines))
    return Dataset("generation", str(folder / "records.jsonl"), images=str(corpus))


def streams(line: Dataset, tokenizer: Tokenizer) -> list[RowStream]:
    model = presets.janus_1_3b()
    side = model.generation_encoder.image_size
    source = open_dataset(line, side, 0, resized=side)
    counts = model.understanding_encoder.tokens, model.generation_encoder.tokens
    encoder = ExampleEncoder(Processor(tokenizer, Template(), *counts), model, ROWS, "all", 0.1)
    ratio = {"understanding": 0, "text": 0, "generation": 1}
    mixture = Mixture([Entry("mine", "generation", source)], ratio, 0, ROWS.count)
    return [RowStream(mixture, encoder, n) for n in range(ROWS.count)]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=20, help="of either side, 250 examples each")
    f = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        corpus = pathlib.Path(place)
        data_corpus.make(corpus, f.pictures)
        tokenizer = Tokenizer.load(corpus)
        sides = {
            bad: streams(plant(corpus, corpus / f"bad{bad}", f.records, bad), tokenizer)
            for bad in (0, f.records // 100)
        }
        steps, spent, made = (
            dict.fromkeys(sides, 0),
            {bad: [] for bad in sides},
            dict.fromkeys(sides, 0),
        )
        for turn in range(f.turns + 1):
            for bad, own in sides.items() if turn % 2 else reversed(sides.items()):
                begin, examples = time.process_time(), 0
                while examples < 250:
                    examples += sum(len(stream.row(steps[bad])["drawn"]) for stream in own)
                    steps[bad] += 1
                if turn:  # the first fills what waits
                    spent[bad].append((time.process_time() - begin) / examples)
                    made[bad] += examples
        clean, rotten = (np.array(spent[bad]) for bad in sides)
        met = sum(len(stream.bad) for stream in sides[f.records // 100])
        apart = (rotten - clean) / clean.mean()
        error = apart.std(ddof=1) / len(apart) ** 0.5
        print(
            f"{clean.mean() * 1e3:.3f} ms an example without, {rotten.mean() * 1e3:.3f} ms with "
            f"{met} rotten met among {made[f.records // 100]} examples: {apart.mean():+.2%} "
            f"(standard error {error:.2%})"
        )


if __name__ == "__main__":
    main()
