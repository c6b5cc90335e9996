"""Tasks of lmms-eval over the quick start's shapes, without a network: `python
tests/support/lmms_tasks.py FOLDER [QUESTIONS_PER_ANSWER]`, then

    lmms-eval --model janus_jax --model_args model=runs/quickstart/stage3 --batch_size 32 \\
        --include_path FOLDER --tasks shapes_pope,shapes_answers

shapes_pope is POPE's form with POPE's own scores, shapes_answers an exact match over all kinds of
questions; shapes_draw asks for drawings and reads them back (mode=generate,out=DIR).
"""

import io
import pathlib
import sys

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from janus_jax.data.toy import shapes

TASK = """
dataset_path: parquet
dataset_kwargs:
  data_files: {{test: {file}}}
task: {task}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.{visual}
doc_to_text: {question}
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 8, temperature: 0, top_p: 0, num_beams: 1, do_sample: false}}
{scores}
metadata:
  - version: 0.0
"""
SCORES = {
    "shapes_pope": "process_results: !function utils.pope_process_results\nmetric_list:"
    + "".join(
        f"\n  - {{metric: pope_{name}, aggregation: !function utils.pope_aggregate_{name}, "
        "higher_is_better: true}"
        for name in ("accuracy", "precision", "recall", "f1_score")
    ),
    "shapes_answers": "metric_list:\n  - {metric: exact_match, aggregation: mean, "
    "higher_is_better: true}",
    "shapes_draw": "process_results: !function utils.drawn_right\nmetric_list:\n"
    "  - {metric: drawn_right, aggregation: mean, higher_is_better: true}",
}
UTILS = """
import io
import json

import numpy as np
from lmms_eval.tasks.pope.utils import *
from PIL import Image

from janus_jax.data.toy import shapes


def picture(doc):
    return [Image.open(io.BytesIO(doc["image"])).convert("RGB")]


def none(doc):
    return []


def drawn_right(doc, results):
    (path,) = json.loads(results[0])["images"]
    prompts = {p.text: p for p in shapes.evaluation_prompts(doc["per_task"], doc["seed"])}
    picture = Image.open(path).resize((shapes.SIDE, shapes.SIDE))  # a tiny model's are smaller
    scene = shapes.read(np.asarray(picture))
    return {"drawn_right": float(prompts[doc["question"]].fits(scene))}
"""


def png(pixels) -> bytes:
    Image.fromarray(pixels).save(out := io.BytesIO(), "PNG")
    return out.getvalue()


def make(folder, per_answer: int = 20, per_task: int = 4, seed: int = 1000):
    """Writes the three tasks: YAML, parquet and the functions that they name."""
    folder = pathlib.Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    asked = [
        {"question_id": str(i), "kind": kind, "image": png(pixels), "question": q, "answer": a}
        for i, (kind, pixels, q, a) in enumerate(shapes.evaluation_questions(per_answer, seed))
    ]
    drawn = [
        {"question": p.text, "answer": "", "per_task": per_task, "seed": seed}
        for p in shapes.evaluation_prompts(per_task, seed)
    ]
    rows = {
        "shapes_pope": [row for row in asked if row["kind"] == "exists"],
        "shapes_answers": asked,
        "shapes_draw": drawn,
    }
    (folder / "utils.py").write_text(UTILS)
    for task, records in rows.items():
        file = folder / f"{task}.parquet"
        pq.write_table(pa.Table.from_pylist(records), file)
        visual = "none" if task == "shapes_draw" else "picture"
        text = TASK.format(
            file=file, task=task, visual=visual, question="question", scores=SCORES[task]
        )
        (folder / f"{task}.yaml").write_text(text)


if __name__ == "__main__":
    make(sys.argv[1], *map(int, sys.argv[2:3]))
