"""One long run with a fault every so often, started again by the harness, and what share of its
time counted."""

import itertools
import json
import signal
import statistics
import time

from faults.chaos import damage as damages
from faults.chaos.campaign import TOLD, Campaign, stop
from faults.chaos.disk import Disk
from faults.chaos.kills import LEAVE
from faults.chaos.process import Training, phase

FAULTS = ("kill", "term", "stop", "damage", "poison", "disk")
POISON = (150, 2)  # NaN in two steps of every 150, from the 150th on
SECONDS = (5, 15)  # that a process stands still, or the disk is full


def soak(
    campaign: Campaign, target: str, minutes: float, every: float, pace: float, kinds: list[str]
):
    """A run of the target until the time is over, compared at the step it had reached. Poison is
    not drawn but in the data all the time."""
    hooks = {"poison": POISON} if "poison" in kinds else {}
    campaign.steps = 10_000_000  # it ends when it is told to
    campaign.undisturbed(target, f"{target}-warm", stop_at=10, **hooks)  # compiles
    training = campaign.training(f"{target}-soak", target, pace=pace, **hooks)
    small = Disk(training.workdir / "checkpoints") if "disk" in kinds else None
    drawn = [kind for kind in kinds if kind != "poison"]
    begin = time.monotonic()
    try:
        training.start()
        for number in range(1, int(minutes * 60 / every) + 1):
            keep_running(campaign, training, begin + number * every)
            if number * every < minutes * 60:
                kind = campaign.random.choice(drawn)
                HURT[kind](campaign, training, small)
                campaign.say(line(campaign, begin))
        codes = stop(training)
        wall = time.monotonic() - begin
        step = training.last_step()[1]
        if TOLD not in training.printed():
            raise RuntimeError(
                f"{training.log()}: told to stop, it ended with {codes} and has not saved"
            )
        training.end()
        campaign.facts |= goodput(training, step, pace, wall, campaign)
        reference = campaign.undisturbed(target, f"{target}-undisturbed", stop_at=step, **hooks)
        campaign.compared(training, reference)
    finally:
        training.end()
        if small:
            small.close()


def goodput(training: Training, step: int, pace: float, wall: float, campaign: Campaign) -> dict:
    """Steps that count x the median seconds of a step / seconds in all. The median is over the
    steps that followed their predecessor in the final trace."""
    lines = (training.workdir / "metrics.jsonl").read_text().splitlines()
    times = [json.loads(line)["time"] for line in lines]
    seconds = statistics.median(b - a for a, b in itertools.pairwise(times))
    nonfinite_updates = training.last_record().get("nonfinite_updates", 0)
    return {
        "pace_seconds": pace,
        "step_seconds_median": round(seconds, 4),
        "steps": step,
        "steps_poisoned": nonfinite_updates,
        "starts": training.starts,
        "wall_seconds": round(wall, 1),
        "goodput": round(step * seconds / wall, 4),
    }


def keep_running(campaign: Campaign, training: Training, until: float):
    """Starts the run again whenever it ends, until the time has come."""
    while time.monotonic() < until:
        if not training.poll():
            codes = training.wait(1)
            if campaign.finished(training, codes):
                raise RuntimeError(f"{training.log()}: the soak came to its last step")
            training.start()
        campaign.settle(training)
        time.sleep(0.02)


def kill(campaign: Campaign, training: Training, _, kind="kill"):
    fault = campaign.fault(training, kind, "")
    victim = campaign.random.randrange(training.processes)
    training.signal(signal.SIGKILL, victim)
    codes = training.wait(LEAVE)
    fault["phase"] = phase(training)
    campaign.ended(training, fault, codes, (-signal.SIGKILL, 75))
    if kind == "kill":
        training.start()
    return fault


def term(campaign: Campaign, training: Training, _):
    fault = campaign.fault(training, "term", phase(training))
    codes = stop(training)
    expected = (0,) if TOLD in training.printed() else (-signal.SIGTERM,)
    campaign.ended(training, fault, codes, expected)
    training.start()


def freeze(campaign: Campaign, training: Training, _):
    """SIGSTOP, and SIGCONT after some seconds."""
    seconds = campaign.random.uniform(*SECONDS)
    fault = campaign.fault(training, "stop", phase(training), stopped_seconds=round(seconds, 1))
    training.signal(signal.SIGSTOP)
    time.sleep(seconds)
    training.signal(signal.SIGCONT)
    fault["ended"] = not training.running()


def damage(campaign: Campaign, training: Training, _):
    """A flipped bit, a cut or a missing file in the latest checkpoint while nobody runs."""
    fault = kill(campaign, training, None, "damage")
    path, how = damages.pick(campaign, training.workdir)
    if path is None:  # with one checkpoint alone there is nothing to go back to
        return training.start()
    damages.hurt(path, how, campaign.random)
    damages.restart(campaign, training, fault, path, how)


def full(campaign: Campaign, training: Training, small: Disk):
    """No byte left for checkpoints, for some seconds."""
    seconds = campaign.random.uniform(*SECONDS)
    fault = campaign.fault(training, "disk", phase(training), full_seconds=round(seconds, 1))
    start = training.starts
    before = len(training.printed())
    small.fill()
    keep_running(campaign, training, time.monotonic() + seconds)
    small.free()
    fault["survived"] = training.starts == start
    fault["error_lines"] = training.printed()[before:].count("ERROR")


HURT = {"kill": kill, "term": term, "stop": freeze, "damage": damage, "disk": full}


def line(campaign: Campaign, begin: float) -> str:
    fault = campaign.faults[-1]
    again = campaign.faults[-2].get("seconds_to_step") if len(campaign.faults) > 1 else None
    file = f", {fault['file']} {fault['how']}" if "file" in fault else ""
    return (
        f"{time.monotonic() - begin:7.1f} s  {fault['kind']} while {fault['phase']} "
        f"at step {fault['step'][1]}{file}; the one before took {again} s"
    )
