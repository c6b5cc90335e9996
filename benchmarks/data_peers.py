"""The alternatives of data.py: PyTorch's DataLoader over a JPEG folder, WebDataset shards and
Hugging Face datasets.

Each decodes with Pillow, resizes to the same two forms as ours (every other picture: the longest
side to 384 and padded; the shortest to 384 and cropped) and tokenizes the same captions. None
mixes, packs, masks or keeps a position: work that ours does besides. Takes a spec as JSON; on each
"go", batches until `records` are in them.
"""

import json
import os
import pathlib
import sys
import time

SPEC = json.loads(sys.argv[1])
if SPEC["core"] is not None:
    os.sched_setaffinity(0, {SPEC["core"]})
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

import machine  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

SIDE, BATCH, ENDLESS = 384, 16, 10**7
CORPUS = pathlib.Path(SPEC["corpus"])
BACKEND = Tokenizer.from_file(str(CORPUS / "tokenizer.json"))


def prepare(picture: Image.Image, caption: str, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An RGB picture -> (uint8 [384, 384, 3], ids): even numbers to understand, odd ones to
    draw."""
    width, height = picture.size
    if number % 2 == 0:
        longest = max(picture.size)
        picture = picture.resize(
            (max(width * SIDE // longest, 14), max(height * SIDE // longest, 14)),
            Image.Resampling.BICUBIC,
        )
        square = Image.new("RGB", (SIDE, SIDE), (127, 127, 127))
        square.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    else:
        scale = SIDE / min(picture.size)
        picture = picture.resize(
            (round(width * scale), round(height * scale)), Image.Resampling.BICUBIC
        )
        left, top = (picture.width - SIDE) // 2, (picture.height - SIDE) // 2
        square = picture.crop((left, top, left + SIDE, top + SIDE))
    ids = BACKEND.encode(caption, add_special_tokens=False).ids
    return torch.from_numpy(np.array(square)), torch.tensor(ids)


class Folder(torch.utils.data.Dataset):
    def __init__(self):
        with open(CORPUS / "generation.jsonl", encoding="utf-8") as file:
            self.records = [json.loads(line) for line in file]

    def __len__(self):
        return len(self.records)

    def __getitem__(self, i):
        record = self.records[i]
        with Image.open(CORPUS / "pictures" / record["image"]) as picture:
            return prepare(picture.convert("RGB"), record["caption"], i)


def shards():
    import webdataset

    urls = sorted(map(str, (CORPUS / "shards").glob("*.tar")))
    data = (
        webdataset.WebDataset(urls, shardshuffle=len(urls), seed=0)
        .repeat()
        .shuffle(100)
        .decode("pilrgb")
    )
    return data.to_tuple("__key__", "jpg", "txt").map(lambda x: prepare(x[1], x[2], int(x[0])))


def rows():
    import datasets

    files = sorted(map(str, (CORPUS / "parquet").glob("*.parquet")))
    data = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(CORPUS / "hf")
    )
    data = data.cast_column("image", datasets.Image()).add_column("number", list(range(len(data))))

    def transform(batch):
        found = zip(batch["image"], batch["caption"], batch["number"])
        return {
            "example": [
                prepare(picture.convert("RGB"), caption, n) for picture, caption, n in found
            ]
        }

    return data.with_transform(transform)


def collate(examples: list):
    pairs = [x["example"] if isinstance(x, dict) else x for x in examples]
    ids = torch.nn.utils.rnn.pad_sequence([ids for _, ids in pairs], batch_first=True)
    return torch.stack([picture for picture, _ in pairs]), ids


def main():
    torch.set_num_threads(1)
    data = {"folder": Folder, "tar": shards, "parquet": rows}[SPEC["format"]]()
    options = {"batch_size": BATCH, "collate_fn": collate, "num_workers": SPEC["workers"]}
    if SPEC["format"] != "tar":
        options["sampler"] = torch.utils.data.RandomSampler(data, num_samples=ENDLESS)
    stream = iter(torch.utils.data.DataLoader(data, **options))
    next(stream)

    def go(word: str) -> dict:
        records, me = 0, os.getpid()
        before, begin = machine.used_by_family(me), time.perf_counter()
        while records < SPEC["records"]:
            records += len(next(stream)[0])
        seconds = time.perf_counter() - begin
        cpu = machine.used_by_family(me) - before
        held = [machine.resident(pid) for pid in machine.family(me)[1:]] or [machine.resident(me)]
        return {"records": records, "seconds": seconds, "cpu": cpu, "held": max(held)}

    machine.serve({}, go)


if __name__ == "__main__":
    main()
