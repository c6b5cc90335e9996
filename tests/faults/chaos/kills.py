"""Signals at seeded moments: anywhere, and in the midst of a save, of the move that ends it, and of
a deletion."""

import signal
import time

from faults.chaos.campaign import LIMIT, TOLD, Campaign
from faults.chaos.process import Training, crowded, phase, summed, unfinished, visible

AIMS = {"anywhere": 4, "saving": 2, "finalising": 2, "deleting": 2}  # weights of the draw
HOW = {"KILL": 6, "TERM": 2, "STOP+CONT": 1, "STOP+KILL": 1}
LEAVE = 120  # seconds after which a process whose peer has died counts as hung


def kills(
    campaign: Campaign, target: str, count: int, poison=None, reference: Training | None = None
):
    """`count` signals into runs of the target, begun anew where one is done; each is compared with
    its reference, which is made where none is given."""
    hooks = {"poison": poison} if poison else {}
    reference = reference or campaign.undisturbed(target, **hooks)
    done = 0
    while done < count:
        training = campaign.training(f"{target}-{len(campaign.rounds)}", target, **hooks)
        training.start()
        while True:
            if done < count and hunt(campaign, training, reference.seconds):
                done += 1
                strike(campaign, training)
                campaign.say(line(campaign, done, count))
                if not training.running():
                    training.start()
                continue
            codes = training.wait(LIMIT)
            if campaign.finished(training, codes):
                break
            training.start()
        campaign.compared(training, reference)


def hunt(campaign: Campaign, training: Training, seconds: float) -> bool:
    """Waits for a moment drawn by the seed; False where the run ends before it comes. seconds: a
    whole run's."""
    draw = campaign.random
    aim = draw.choices(list(AIMS), AIMS.values())[0]
    until = time.monotonic() + draw.uniform(0, 0.5 * seconds)
    saves = draw.choice((1, 1, 2))
    delay = draw.uniform(0, {"saving": 0.3, "finalising": 0.01, "deleting": 0.005}.get(aim, 0))
    known = set(visible(training.workdir))
    while training.poll():
        campaign.settle(training)
        if aim == "anywhere" and time.monotonic() >= until:
            return True
        seen = set(visible(training.workdir)) - known
        started = unfinished(training.workdir, training.seen)
        now = {
            "anywhere": False,
            "saving": bool(started) or (campaign.saver == "naive" and len(seen) >= saves),
            "finalising": any(map(summed, started)),
            "deleting": bool(seen) and crowded(training.workdir),
        }[aim]
        if now and (aim == "deleting" or len(seen) >= saves - 1):
            time.sleep(delay)
            return training.running()
    campaign.settle(training)
    return False


def strike(campaign: Campaign, training: Training):
    """One signal (to one process, drawn, where there are several) and what came of it."""
    draw = campaign.random
    how = draw.choices(list(HOW), HOW.values())[0]
    victim = draw.randrange(training.processes)
    seconds = draw.uniform(0.2, 2)
    fault = campaign.fault(training, how, phase(training), victim=victim)
    if how.startswith("STOP"):
        training.signal(signal.SIGSTOP, victim)
        time.sleep(seconds)
        fault["stopped_seconds"] = round(seconds, 2)
    if how == "STOP+CONT":
        training.signal(signal.SIGCONT, victim)
        return
    at = time.monotonic()
    training.signal(signal.SIGTERM if how == "TERM" else signal.SIGKILL, victim)
    codes = training.wait(LEAVE)
    fault["seconds_to_end"] = round(time.monotonic() - at, 2)
    if how != "TERM":
        fault["phase"] = phase(training)  # by what it left
        expected = (-signal.SIGKILL, 75)
    else:
        # Before it listens SIGTERM kills at once, and after the last save it ends at once.
        fault["told"] = TOLD in training.printed()
        expected = (0,) if fault["told"] else (0, -signal.SIGTERM)
    fault["hung"] = sum(code is None for code in codes)
    campaign.ended(training, fault, codes, expected)


def line(campaign: Campaign, done: int, count: int) -> str:
    fault = campaign.faults[-1]
    return (
        f"{time.monotonic() - campaign.begun:7.1f} s  {done}/{count}  "
        f"{fault['run']} start {fault['start']}  "
        f"{fault['kind']} while {fault['phase']} at step {fault['step'][1]}, "
        f"ended with {fault.get('codes', 'nothing')}, "
        f"{len(fault.get('broken_visible', ()))} broken checkpoints visible"
    )
