"""Questions of the quick start's shapes with options, in the form that VLMEvalKit reads: `python
tests/support/vlmeval_rows.py FILE.tsv`."""

import base64
import csv
import io
import pathlib
import sys

from PIL import Image

from janus_jax.data.toy import shapes

LETTERS = "ABCDE"


def make(path, per_answer: int = 1, seed: int = 1000):
    """Writes a TSV of the columns index, image (PNG in base64), question, A to E, answer, category."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ("index", "image", "question", *LETTERS, "answer", "category")
    with open(path, "w", newline="") as file:
        rows = csv.DictWriter(file, names, restval="", delimiter="\t")
        rows.writeheader()
        for i, (kind, pixels, question, answer) in enumerate(
            shapes.evaluation_questions(per_answer, seed)
        ):
            options = dict(zip(LETTERS, shapes.ANSWERS[kind]))
            Image.fromarray(pixels).save(png := io.BytesIO(), "PNG")
            rows.writerow({
                "index": i, "image": base64.b64encode(png.getvalue()).decode(), "question": question,
                **options, "category": kind,
                "answer": next(letter for letter, one in options.items() if one == answer),
            })  # fmt: skip


if __name__ == "__main__":
    make(sys.argv[1])
