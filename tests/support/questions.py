"""Small files of questions in the forms of the benchmarks, with one small picture for each row."""

import base64
import csv
import json
import pathlib

import numpy as np
from PIL import Image
from support.pictures import encoded


def picture(number: int) -> bytes:
    """A PNG; each number has its own."""
    return encoded(Image.fromarray(np.full((4, 6, 3), number % 256, np.uint8)))


def text(*numbers: int) -> str:
    """A cell of a TSV file with these pictures."""
    found = [base64.b64encode(picture(number)).decode() for number in numbers]
    return found[0] if len(found) == 1 else repr(found)


def tsv(path: pathlib.Path, rows: list[dict]) -> str:
    """A TSV file as pandas writes it; returns its path."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, "w", newline="") as opened:
        writer = csv.DictWriter(opened, names, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def parquet(path: pathlib.Path, rows: list[dict]) -> str:
    """A parquet file; pictures of a row are {"bytes", "path"}. Returns its path."""
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def struct(number: int) -> dict:
    return {"bytes": picture(number), "path": f"{number}.png"}


def lines(path: pathlib.Path, rows: list[dict]) -> str:
    """One JSON object a line. Returns the path."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def folder(path: pathlib.Path, names) -> str:
    """A folder of pictures. Returns its path."""
    for number, name in enumerate(names):
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(number))
    return str(path)


def score(module, records, answers: list[str], protocol: str) -> dict[str, float]:
    """The scores of these answers, by the road of the interface."""
    marks = [module.mark(r, a, protocol) for r, a in zip(records, answers, strict=True)]
    sums = {}
    for unit in module.tally(records, marks, protocol):
        for name, count in unit.items():
            sums[name] = sums.get(name, 0) + count
    return module.scores(sums, protocol)
