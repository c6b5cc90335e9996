"""Bits that flip, files that are cut or gone: in each file of a checkpoint in turn, between two
starts."""

import os
import pathlib
import random
import re
import shutil
import signal

from faults.chaos.campaign import LIMIT, Campaign
from faults.chaos.disk import until
from faults.chaos.process import Training, visible

HOW = ("flip", "cut", "remove")
DAMAGED = "DAMAGED"
UNREADABLE = 74  # the exit code where no checkpoint is sound


def damage(campaign: Campaign, target: str, count: int, reference: Training | None = None, **hooks):
    """`count` times a file of the latest checkpoint, the next one and in the next way, while nobody
    runs; then, in a copy, a file of every checkpoint. hooks: see child.py; reference: of a run with
    the same."""
    reference = reference or campaign.undisturbed(target, **hooks)
    number = 0
    while number < count:
        training = campaign.training(f"{target}-{len(campaign.rounds)}", target, **hooks)
        training.start()
        while number < count and until(training, lambda: fresh(training)):  # noqa: B023
            fault = campaign.fault(training, "damage", "between two starts")
            training.signal(signal.SIGKILL)
            codes = training.wait(LIMIT)
            campaign.ended(training, fault, codes, (-signal.SIGKILL,))
            path, how = pick(campaign, training.workdir, number)
            if path is None:  # the kill met the move of one
                training.start()
                continue
            if not number:
                everything_damaged(campaign, training, target)
            hurt(path, how, campaign.random)
            restart(campaign, training, fault, path, how)
            number += 1
            campaign.say(
                f"{fault['time']:7.1f} s  {number}/{count}  {fault['file']} {how}: "
                f"{'noticed' if fault['noticed'] else 'NOT NOTICED'}, "
                f"{fault.get('steps_lost')} steps lost"
            )
        while not campaign.finished(training, training.wait(LIMIT)):
            training.start()
        campaign.compared(training, reference)


def fresh(training: Training) -> bool:
    """Whether this start has stepped and there are two checkpoints, one to be hurt and one to go
    back to."""
    return training.stepped_at is not None and len(visible(training.workdir)) > 1


def pick(campaign: Campaign, workdir: pathlib.Path, number: int | None = None) -> tuple:
    """(a file of the latest checkpoint, what is to become of it), the `number`-th or one drawn;
    (None, "") where there is no checkpoint before it in its stage."""
    last = newest(workdir)
    if last is None or sum(p.parent == last.parent for p in visible(workdir)) < 2:
        return None, ""
    files = hurtable(last)
    number = campaign.random.randrange(len(files) * len(HOW)) if number is None else number
    return files[number % len(files)], HOW[(number + number // len(files)) % len(HOW)]


def newest(workdir: pathlib.Path) -> pathlib.Path | None:
    """The latest checkpoint of the stage that was saved last."""
    return max(
        visible(workdir), key=lambda path: (path.stat().st_mtime_ns, int(path.name)), default=None
    )


def hurtable(checkpoint: pathlib.Path) -> list[pathlib.Path]:
    """Its files that hold anything."""
    return sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.stat().st_size)


def hurt(path: pathlib.Path, how: str, draw: random.Random):
    """flip: one bit; cut: the end is missing; remove: the file is."""
    if how == "remove":
        path.unlink()
    elif how == "cut":
        os.truncate(path, draw.randrange(path.stat().st_size))
    else:
        data = bytearray(path.read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)


def restart(campaign: Campaign, training: Training, fault: dict, path: pathlib.Path, how: str):
    """Starts the run on a checkpoint with a damaged file, and enters whether it named it, put the
    checkpoint aside and went on from the one before. fault: the kill before it."""
    checkpoint = next(p for p in path.parents if p.name.isdigit())
    steps = [int(p.name) for p in visible(training.workdir) if p.parent == checkpoint.parent]
    before = max(step for step in steps if step < int(checkpoint.name))
    inside = path.relative_to(checkpoint).as_posix()
    training.start()
    until(training, lambda: training.stepped_at is not None)
    campaign.settle(training)
    printed = training.printed()
    aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
    fault["file"] = re.sub(r"[0-9a-f]{32}", "*", inside)
    fault["how"] = how
    fault["named"] = DAMAGED in printed and f"{inside}: " in printed
    fault["aside"] = aside.is_dir()
    fault["went_back"] = training.stepped() == (checkpoint.parent.name, before + 1)
    fault["noticed"] = fault["named"] and fault["aside"] and fault["went_back"]
    shutil.rmtree(aside, ignore_errors=True)


def everything_damaged(campaign: Campaign, training: Training, target: str):
    """In a copy of a run: with no sound checkpoint left it must end, name them all and change
    nothing."""
    copy = campaign.training(f"{target}-none-sound", target)
    shutil.copytree(training.workdir, copy.workdir)
    paths = [campaign.random.choice(hurtable(checkpoint)) for checkpoint in visible(copy.workdir)]
    for path in paths:
        hurt(path, "flip", campaign.random)
    fault = campaign.fault(copy, "all damaged", "between two starts")
    there = visible(copy.workdir)
    copy.start()
    fault["codes"] = copy.wait(LIMIT)
    copy.end()
    fault["codes_as_agreed"] = fault["codes"] == [UNREADABLE] * copy.processes
    fault["noticed"] = (
        all(p.name in copy.printed() for p in paths) and visible(copy.workdir) == there
    )
