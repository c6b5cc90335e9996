"""One long run with a fault every so often, started again by the harness, and what share of its time counted."""

import json
import shutil
import signal
import statistics
import subprocess
import time

from chaos.campaign import LIMIT, TOLD, Campaign, stop
from chaos.kills import LEAVE
from chaos.process import Training, phase, visible

FAULTS = ("kill", "term", "stop", "damage", "poison", "disk")
POISON = (150, 2)  # NaN in two steps of every 150, from the 150th on
DISK = 256  # MB of the small disk
SECONDS = (5, 15)  # that a process stands still, or the disk is full


def soak(campaign: Campaign, target: str, minutes: float, every: float, pace: float, kinds: list[str]):
    """A run of the target until the time is over, compared at the step it had reached. Poison is not drawn but in
    the data all the time."""
    hooks = {"poison": POISON} if "poison" in kinds else {}
    campaign.steps = 10_000_000  # it ends when it is told to
    campaign.undisturbed(target, f"{target}-warm", stop_at=10, curves=False, **hooks)  # compiles
    training = campaign.training(f"{target}-soak", target, pace=pace, curves=False, **hooks)
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
        if any(codes) or TOLD not in training.printed():
            campaign.finished(training, codes)
        training.end()
        campaign.facts |= goodput(training, step, pace, wall, campaign)
        reference = campaign.undisturbed(target, f"{target}-undisturbed", stop_at=step, curves=False, **hooks)
        campaign.compared(training, reference)
    finally:
        training.end()
        if small:
            small.close()


def goodput(training: Training, step: int, pace: float, wall: float, campaign: Campaign) -> dict:
    """Steps that count x the median seconds of a step / seconds in all. The median is over the steps that followed
    their predecessor in the final trace."""
    times = [json.loads(line)["time"] for line in open(training.workdir / "metrics.jsonl")]
    seconds = statistics.median(b - a for a, b in zip(times, times[1:]))
    left_out = training.last_record().get("left_out", 0)
    return {
        "pace_seconds": pace, "step_seconds_median": round(seconds, 4), "steps": step, "steps_poisoned": left_out,
        "starts": training.starts, "wall_seconds": round(wall, 1), "goodput": round(step * seconds / wall, 4),
    }  # fmt: skip


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
    from chaos.damage import hurt, hurtable

    fault = kill(campaign, training, None, "damage")
    steps = sorted(visible(training.workdir), key=lambda path: int(path.name))
    if len(steps) > 1:  # with one alone there is nothing to go back to
        path = campaign.random.choice(hurtable(steps[-1]))
        how = campaign.random.choice(("flip", "cut", "remove"))
        hurt(path, how, campaign.random)
        fault |= {"file": path.relative_to(training.workdir).as_posix(), "how": how}
    training.start()
    watch = time.monotonic() + LIMIT
    while training.poll() and training.stepped_at is None and time.monotonic() < watch:
        time.sleep(0.02)
    campaign.settle(training)
    if "file" in fault:
        fault["noticed"] = path.name in training.printed() and "DAMAGED" in training.printed()
        shutil.rmtree(steps[-1].with_name(f"damaged-{steps[-1].name}"), ignore_errors=True)


def full(campaign: Campaign, training: Training, small: "Disk"):
    """No byte left for checkpoints, for some seconds."""
    seconds = campaign.random.uniform(*SECONDS)
    fault = campaign.fault(training, "disk", phase(training), full_seconds=round(seconds, 1))
    start, before = training.starts, len(training.printed())
    small.fill()
    keep_running(campaign, training, time.monotonic() + seconds)
    small.free()
    fault["survived"] = training.starts == start
    fault["error_lines"] = training.printed()[before:].count("ERROR")


HURT = {"kill": kill, "term": term, "stop": freeze, "damage": damage, "disk": full}


class Disk:
    """A small file system in memory, mounted on a directory (which takes root); `fill` leaves no byte of it free."""

    def __init__(self, directory, megabytes: int = DISK):
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.ballast = directory, directory / "ballast"
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(directory)], check=True
        )

    def fill(self):
        with open(self.ballast, "ab", buffering=0) as file:
            for chunk in (1 << 20, 1 << 12):
                try:
                    while file.write(bytes(chunk)):
                        pass
                except OSError:
                    continue

    def free(self):
        self.ballast.unlink(missing_ok=True)

    def close(self):
        subprocess.run(["umount", "-l", str(self.directory)], check=True)


def line(campaign: Campaign, begin: float) -> str:
    fault = campaign.faults[-1]
    again = campaign.faults[-2].get("seconds_to_step") if len(campaign.faults) > 1 else None
    return (
        f"{time.monotonic() - begin:7.1f} s  {fault['kind']} while {fault['phase']} at step {fault['step'][1]}"
        f"{', ' + fault['file'] + ' ' + fault['how'] if 'file' in fault else ''}; the one before took {again} s"
    )
