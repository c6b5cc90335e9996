"""Parts of device.py: training steps on one card, beside what `janus-jax plan` says of them and
beside transformers' LLaMA."""

import json
import os
import pathlib
import statistics
import subprocess
import sys

import device_report
import jax
import machine
import train_ours
import train_report
import train_rows

from janus_jax.model import config as sizes
from janus_jax.model import presets
from janus_jax.plan import program

HERE = pathlib.Path(__file__).resolve().parent
LENGTHS = {3: 3840, 1: 2688}  # of the configs' rows
ROWS = {3: (8, 4), 1: (16, 8)}  # on cards of more than LARGE bytes, and on others
LARGE = 100e9
TEXT_ROWS, TEXT_LENGTH = 2, 4096  # of the language model alone
REPEATS = 5
VARIANTS = ("varlen", "mask", "varlen, compiled")  # of the peer, the one to rely on first
OPTIM = {"learning_rate": 3e-4, "weight_decay": 0.1}


def model(toy: bool) -> sizes.JanusConfig:
    return presets.quickstart() if toy else presets.janus_1_3b()


def shape(here: device_report.Here, number: int) -> tuple[int, int]:
    """(rows, tokens of a row) of a stage's step on the card that there is."""
    if here.toy:
        return 2, 208
    usable = here.lines.rows("machine")["jax"]["usable_GB"]
    return ROWS[number][0 if usable > LARGE / 1e9 else 1], LENGTHS[number]


def images(number: int, config: sizes.JanusConfig, rows: int, length: int) -> dict[str, int]:
    """How many pictures of each kind a row of the stage's batch has room for."""
    data = train_ours.stage(number)
    batch = train_rows.batch(config, rows, length, data.ratio, data.supervise)
    return {k: batch[k].shape[1] for k in ("understanding_images", "generation_images")}


def plan(here: device_report.Here) -> None:
    """Each stage's step at the rows that are run first, into that stage's section."""
    jax.config.update("jax_platforms", "cpu")
    chip = here.lines.rows("machine")["jax"]["chip"]
    chip = "cpu" if here.toy else chip
    config = model(here.toy)
    for number in LENGTHS:
        rows, length = shape(here, number)
        name = f"stage{number}"
        given = {
            "mesh.data": 1, "mesh.fsdp": 1, "mesh.tensor": 1, "model.remat": config.remat,
            f"stages.{name}.accumulate": 1, f"stages.{name}.rows.count": rows,
            f"stages.{name}.rows.length": length,
        } | {f"stages.{name}.rows.{k}": n for k, n in images(number, config, rows, length).items()}  # fmt: skip
        file = "quickstart" if here.toy else name
        target = here.work / f"plan-{number}.json"
        command = [
            sys.executable, "-m", "janus_jax.plan", f"--config={HERE.parent}/configs/{file}.py",
            f"--topology={chip}:1", f"--json={target}", *(f"--config.{k}={v}" for k, v in given.items()),
        ]  # fmt: skip
        subprocess.run(command, check=False)  # 2: it does not fit, and is written all the same
        planned = json.loads(target.read_text())
        study = planned["stages"][name]
        estimate = study["speeds"].get(program.ESTIMATED, {})
        values = dict(
            rows=rows, length=length, peak_GB=study["bytes"]["total"] / 1e9, fits=study["fits"],
            mfu=estimate.get("mfu", ""), compile_s=study["compile_seconds"],
        )  # fmt: skip
        here.say(name, **values)
        here.lines.add(f"stage {number}", row=f"planned for {chip}", right=None, values=values)


def stage(here: device_report.Here) -> None:
    """The step of a stage; half the rows each time that memory is short."""
    number, config = int(here.argument), model(here.toy)
    rows, length = shape(here, number)
    while rows:
        spec = {
            "task": number, "trainable": number, "config": sizes.to_dict(config), "rows": rows,
            "length": length, "optim": OPTIM,
        }  # fmt: skip
        try:
            measured(here, f"{rows} rows of {length}", train_ours.__file__, spec)
            return
        except RuntimeError as error:  # the process has ended
            if rows == 1:
                raise
            here.say(f"{rows} rows of {length}", stopped=str(error)[-200:])
            rows //= 2


def measured(
    here: device_report.Here, row: str, script: str, spec: dict, work: dict | None = None
) -> list[float]:
    """Steps of a side as a row of the report, told again as they come; their losses.

    here: where this runs.
    row: its name.
    script: of the side.
    spec: for it.
    work: whose tokens and FLOPs count, by default its own.
    """
    child = machine.Child(pathlib.Path(script), spec)
    work = work or child.about
    losses, times, first = [], [], None
    for i in range(2 + REPEATS):
        answer = child.ask("first" if i == 0 else "go")
        losses.append(answer["loss"])
        first = first or answer["seconds"]
        if i < 2:  # the second has warmed up, too
            continue
        times.append(answer["seconds"])
        least = min(times)
        rate = work["flops"] / least
        here.say(
            row, rows=spec["rows"], length=spec["length"], step_s=least, median_s=statistics.median(times),
            tokens_per_s=work["tokens"] / least, tflops_per_s=rate / 1e12,
            mfu=rate / work["peak_flops"] if work["peak_flops"] else "",
            peak_GB=child.ask("peak")["bytes"] / 1e9, first_s=first, loss=losses[0],
        )  # fmt: skip
    child.stop()
    child.about["losses"] = losses
    (here.work / f"{here.part}.json").write_text(json.dumps(child.about))
    return losses


def language_model(here: device_report.Here) -> None:
    """Ours or the peer's step on rows of text. The peer's losses must be ours."""
    config = train_rows.llm_only(model(here.toy))
    rows, length = (2, 208) if here.toy else (TEXT_ROWS, TEXT_LENGTH)
    spec = {
        "task": "llm", "config": sizes.to_dict(config), "rows": rows, "length": length, "optim": OPTIM,
    }  # fmt: skip
    ours = here.work / "language model, ours.json"
    if here.argument == "ours":
        measured(here, "ours", train_ours.__file__, spec)
        return
    about = json.loads(ours.read_text())
    reference = here.lines.rows("language model, ours")["ours"]
    for variant in VARIANTS:
        try:
            script = str(HERE / "train_theirs.py")
            losses = measured(here, variant, script, spec | {"variant": variant}, about)
        except RuntimeError as error:  # no kernel, no compiler or no room: the others are there
            here.say(variant, stopped=str(error)[-200:])
            continue
        apart = train_report.losses_apart(about["losses"], losses)
        faster = here.lines.rows(here.part)[variant]["step_s"] / reference["step_s"]
        here.say(
            f"{variant}, beside ours", train_report.same_loss(apart), ours_is_faster=faster,
            first_losses_apart=apart[0], losses_apart_after_three=apart[1],
        )  # fmt: skip


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    device_report.child({"plan": plan, "stage": stage, "language_model": language_model})
