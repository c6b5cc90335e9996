"""Conversion at full size, on a random checkpoint: seconds, peak memory, byte-equality of the way
there and back, and whether transformers reads the result and answers as we do.

    python benchmarks/convert.py --model=janus_1_3b --dir=/tmp/convert-1.3b        (needs 25 GB of
    disk) python benchmarks/convert.py --model=janus_pro_7b --dir=/tmp/convert-7b        (needs 45
    GB; no answers)
"""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import time

import machine
import numpy as np
from absl import app, flags

from janus_jax.weights import tensors

HERE = pathlib.Path(__file__).parent
QUESTION = "What do you see?"
PICTURE_TOKENS = 16  # compared of a drawing


def timed(name: str, command: list[str]):
    """Runs a command and prints its seconds and peak resident memory; raises where it fails."""
    begin = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    error = child.stderr.read().decode()
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} failed:\n{error[-2000:]}")
    seconds = time.perf_counter() - begin
    print(f"{name:34} {seconds:7.1f} s {used.ru_maxrss * 1024 / 1e9:7.2f} GB peak", flush=True)


def stored(directory: pathlib.Path) -> dict:
    """Every tensor of a directory's safetensors files."""
    return {
        k: t
        for f in sorted(directory.glob("*.safetensors"))
        for k, t in tensors.read_safetensors(f).items()
    }


def same(a: pathlib.Path, b: pathlib.Path):
    """Prints whether two directories hold the same tensors, byte for byte."""
    x, y = stored(a), stored(b)
    equal = [
        name
        for name in x.keys() & y.keys()
        if x[name].dtype == y[name].dtype and x[name].shape == y[name].shape
        and x[name].read().tobytes() == y[name].read().tobytes()
    ]  # fmt: skip
    print(
        f"{a.name} and {b.name}: {len(equal)} of {len(x.keys() | y.keys())} tensors byte-equal",
        flush=True,
    )
    if len(equal) != len(x.keys() | y.keys()):
        raise SystemExit("not equal")


def our_ids(directory: str) -> dict:
    import janus_jax
    from janus_jax.sample.decode import text_ids
    from janus_jax.sample.generate import generate_ids
    from janus_jax.sample.reading import Prompt

    model, processor = janus_jax.load(directory, dtype="float32")
    spans, _ = processor.question([{"role": "user", "content": QUESTION}])
    prompt = np.concatenate([ids for ids, _, _ in spans]).astype(np.int32)
    answer = text_ids(model, [Prompt(prompt)], [0], -1, 0.0, 1.0, 16)
    processor.generation_tokens = PICTURE_TOKENS
    drawn = generate_ids(model, processor, QUESTION, cfg_scale=5.0, temperature=0.0)
    return {"prompt": prompt.tolist(), "answer": answer[0].tolist(), "drawing": drawn[0].tolist()}


def their_ids(directory: str) -> dict:
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    model = transformers.JanusForConditionalGeneration.from_pretrained(
        directory, dtype=torch.float32
    ).eval()
    processor = transformers.JanusProcessor.from_pretrained(directory)
    talk = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
    prompt = processor.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
    asked = processor(text=prompt, return_tensors="pt")
    long = asked["input_ids"].shape[1]
    with torch.inference_mode():
        answer = model.generate(
            input_ids=asked["input_ids"], attention_mask=asked["attention_mask"], generation_mode="text",
            do_sample=False, max_new_tokens=16, min_new_tokens=16,
        )  # fmt: skip
        model.model.vision_model.config.num_image_tokens = PICTURE_TOKENS
        words = processor(text=prompt, generation_mode="image", return_tensors="pt")
        drawn = model.generate(
            **words, generation_mode="image", do_sample=False, guidance_scale=5.0, max_length=64
        )
    return {
        "prompt": asked["input_ids"][0].tolist(),
        "answer": answer[0, long:].tolist(),
        "drawing": drawn[0].tolist(),
    }


def ids_of(side: str, directory: pathlib.Path) -> dict:
    command = [sys.executable, __file__, f"--dir={directory}", f"--part={side}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{side} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


FLAGS = flags.FLAGS


def main(_):
    if FLAGS.part:
        print(json.dumps({"ours": our_ids, "theirs": their_ids}[FLAGS.part](FLAGS.dir)))
        return
    versions = {name: importlib.metadata.version(name) for name in ("jax", "torch", "transformers")}
    print(f"{machine.name()}; {versions}; {FLAGS.model}", flush=True)
    root = pathlib.Path(FLAGS.dir)
    root.mkdir(parents=True, exist_ok=True)
    convert = lambda a, b, layout: timed(
        f"{a} -> {b}",
        [
            "-m",
            "janus_jax.weights",
            f"--source={root / a}",
            f"--target={root / b}",
            f"--format={layout}",
        ],
    )
    timed("making a random checkpoint", [
        str(HERE / "make_checkpoint.py"), f"--model={FLAGS.model}", "--layout=deepseek", f"--out={root / 'deepseek'}"
    ])  # fmt: skip
    convert("deepseek", "ours", "janus_jax")
    convert("ours", "deepseek-back", "deepseek")
    same(root / "deepseek", root / "deepseek-back")
    if "7b" in FLAGS.model:
        return
    convert("ours", "transformers", "transformers")
    convert("transformers", "ours-from-transformers", "janus_jax")
    convert("ours-from-transformers", "transformers-back", "transformers")
    same(root / "transformers", root / "transformers-back")
    ours, theirs = ids_of("ours", root / "deepseek"), ids_of("theirs", root / "transformers")
    for name, ids in ours.items():
        print(
            f"{name} ids, ours from deepseek, theirs from transformers: "
            f"{'equal' if ids == theirs[name] else 'UNEQUAL'}"
        )
        print(f"  {ids}")
    if ours != theirs:
        raise SystemExit(f"theirs: {theirs}")


if __name__ == "__main__":
    flags.DEFINE_enum(
        "model", "janus_1_3b", ("janus_1_3b", "janus_pro_1b", "janus_pro_7b"), "The sizes."
    )
    flags.DEFINE_string(
        "dir", None, "Where the checkpoints go; remove it afterwards.", required=True
    )
    flags.DEFINE_string("part", None, "For the script itself: ours or theirs.")
    app.run(main)
