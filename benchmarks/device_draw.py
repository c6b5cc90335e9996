"""Parts of device.py: drawing and answering at the released shapes, ours and transformers', and the
quick start.

Times are those of sample.py's jobs, one side in a process.
"""

import contextlib
import dataclasses
import gc
import json
import pathlib
import shutil
import subprocess
import sys
import time

import device_report
import jax
import make_checkpoint
import numpy as np
import sample
import torch
from absl import logging

from janus_jax.model import config as sizes
from janus_jax.model import presets

HERE = pathlib.Path(__file__).resolve().parent
REPEATS = 2
COUNTS = (1, 16)  # pictures drawn at once
TOY = sample.Shape(
    prompt=24, drawn=8, asked=60, seen=36, picture=36, middle=64, side=24, codes=64, compared=8
)
NEAR = 0.05  # how far the sides' bfloat16 logits may lie apart; each is 0.016 from float32's
LOOK = 5  # seconds between two looks at the quick start
SHORT_RUN = {
    "stages.stage0.steps": 6, "stages.stage0.optim.warmup_steps": 1, "stages.stage1.steps": 4,
    "stages.stage1.optim.warmup_steps": 1, "stages.stage2.steps": 8, "stages.stage2.optim.warmup_steps": 1,
    "stages.stage3.steps": 4, "evaluation.count": 2,
}  # fmt: skip


def model(toy: bool) -> sizes.JanusConfig:
    if not toy:
        return presets.janus_1_3b()
    small = presets.quickstart()
    return dataclasses.replace(
        small,
        # transformers' Janus reads and draws pictures in one grid
        understanding_encoder=dataclasses.replace(small.understanding_encoder, patch_size=4),
        # transformers' layout has groups of 32 channels
        generation_encoder=dataclasses.replace(
            small.generation_encoder, channels=32, norm_groups=32
        ),
        transformer=dataclasses.replace(small.transformer, vocabulary=1024),
    )


def checkpoint(here: device_report.Here) -> None:
    """A random checkpoint in transformers' layout, in the work folder."""
    begin = time.perf_counter()
    target = here.work / "checkpoint"
    layout = make_checkpoint.janus_hf.KIND
    words = 900 if here.toy else 8000
    make_checkpoint.make(model(here.toy), layout, target, pro=False, vocabulary=words)
    size = sum(path.stat().st_size for path in target.iterdir())
    here.say(layout, size_GB=size / 1e9, seconds=time.perf_counter() - begin)


def draw(here: device_report.Here) -> None:
    """A side's jobs, each told as soon as it is timed, and its logits."""
    side, dtype = here.argument.split(":")
    shape = TOY if here.toy else sample.SHAPE
    path = here.work / "checkpoint"
    data = sample.inputs(json.loads((path / "config.json").read_text())["image_token_id"], shape)
    begin = time.perf_counter()
    kind = {"ours": sample.Ours.load, "theirs": sample.Theirs}[side]
    it = kind(str(path), dtype, shape)
    here.say("load", seconds=time.perf_counter() - begin)
    if side == "ours":  # stderr says why not
        here.say("a token by janus_jax/model/gpu.py", taken=it.model.transformer.kernels)
    logits(here, it, data, dtype)
    gc.collect()
    jobs = sample.jobs(*((it, None) if side == "ours" else (None, it)), data, COUNTS)
    times = {}
    # Pixels last, of one picture: what is drawn in parallel costs no more of them each.
    alone = [name for name in jobs if name.startswith("pixels")][:1]
    for name in [*(name for name in jobs if not name.startswith("pixels")), *alone]:
        job = jobs[name]
        try:
            first = sample.seconds(job)
            times[name] = min(sample.seconds(job) for _ in range(REPEATS))
        except Exception as error:  # what one version of transformers does not take: go on
            here.say(f"{name} failed", why=f"{type(error).__name__}: {str(error)[:150]}")
            continue
        print(name, times[name], f"first {first:.1f}", flush=True)
        tell(here, name, times, shape)
    held = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    held = (
        held
        if side == "ours" or not torch.cuda.is_available()
        else torch.cuda.max_memory_allocated()
    )
    here.say("peak memory of the device", GB=held / 1e9)


def tell(here: device_report.Here, name: str, times: dict, shape: sample.Shape) -> None:
    """What follows from a job that is done and the jobs before it: ms of a token of the loop (of
    all pictures at once), or of the whole job."""
    what, *rest = name.split()
    ours = here.part.startswith("draw, ours")
    less, tokens, pictures = None, 1, 1
    if what == "draw" and rest[-1] == "more":
        pictures = int(rest[0])
        row = f"pictures at once: {pictures}"
        less, tokens = f"draw {pictures} {rest[1]} less", shape.drawn if ours else 8
    elif what == "answer" and rest[-1] == "more":
        row = "text"
        less, tokens = ("answer ours less", 16) if ours else ("first theirs", 8)
    elif what == "pixels":
        row = f"pixels of pictures: {rest[0]}"
    elif what == "first":
        row = f"first token of a {shape.asked}-token question"
    else:
        return
    if less is not None and less not in times:
        return
    took = (times[name] - (times[less] if less else 0.0)) / tokens
    if took <= 0:
        here.say(row, note="too short to tell")
        return
    values = {"ms": 1e3 * took} | ({"tokens_per_s": pictures / took} if less else {})
    if what == "draw":
        values["all_pictures_s"] = shape.picture * took
    beside = {} if ours else here.lines.rows("draw, ours").get(row, {})
    if "ms" in beside:
        values["ours_is_faster"] = values["ms"] / beside["ms"]
    here.say(row if ours or what != "draw" else f"{row}, {rest[1]} cache", **values)


def logits(here: device_report.Here, it, data, dtype: str) -> None:
    """Keeps ours; theirs must lie near."""
    found, kept = it.logits(data), here.work / "logits.npz"
    if dtype != "bfloat16":
        return
    if here.part.startswith("draw, ours"):
        np.savez(kept, **found)
        return
    for head, want in np.load(kept).items() if kept.exists() else ():
        apart = float(np.linalg.norm(found[head] - want) / np.linalg.norm(want))
        same = float((found[head].argmax(-1) == want.argmax(-1)).mean())
        here.say(f"{head} logits beside ours", apart < NEAR, apart=apart, same_likeliest_id=same)


def newest(path: pathlib.Path) -> dict | None:
    """The last whole line of a file of JSON lines, if there is one."""
    lines = path.read_text().splitlines(True) if path.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    return json.loads(whole[-1]) if whole else None


def quick_start(here: device_report.Here) -> None:
    """Trains and scores, and says how far it is while it does."""
    workdir = here.work / "quickstart"
    changes = SHORT_RUN if here.toy else {}
    command = [
        sys.executable, "-m", "janus_jax.main", f"--config={HERE.parent}/configs/quickstart.py",
        f"--workdir={workdir}", *(f"--config.{k}={v}" for k, v in changes.items()),
    ]  # fmt: skip
    begin = time.perf_counter()
    process, code = subprocess.Popen(command), None
    while code is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(LOOK)
        if now := newest(workdir / "metrics.jsonl"):
            took = time.perf_counter() - begin
            here.say(now["stage"], step=now["step"], loss=now.get("loss", ""), seconds=took)
    if code:
        raise RuntimeError(f"janus_jax.main ended with {code}; what it said stands above")
    for task, scores in json.loads((workdir / "results.json").read_text()).items():
        if task in ("drawing", "answering"):
            score, chance, count = scores["overall"]
            here.say(task, score=score, chance=chance, count=count)
    shutil.copy(workdir / "pictures.png", here.lines.path.parent / "device-quickstart.png")


if __name__ == "__main__":
    logging.set_verbosity("error")
    device_report.child({"checkpoint": checkpoint, "draw": draw, "quick_start": quick_start})
