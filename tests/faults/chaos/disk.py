"""A disk without a byte left: for a while, and to the end."""

import subprocess
import time

from faults.chaos.campaign import LIMIT, Campaign
from faults.chaos.process import Training, phase, visible

SIZE = 256  # MB
STEPS, PACE = 100, 0.4  # long enough for the retries of a failed save
FULL = 15  # seconds: the first retry, after 10, fails too
UNSAVED = 74  # the exit code of a run whose last save has failed


class Disk:
    """A small file system in memory, mounted on a directory (which takes root); `fill` leaves no
    byte of it free."""

    def __init__(self, directory, megabytes: int = SIZE):
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.ballast = directory / "ballast"
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(directory)],
            check=True,
        )

    def fill(self):
        with open(self.ballast, "ab", buffering=0) as file:
            for chunk in (1 << 20, 1 << 12, 1):
                try:
                    while file.write(bytes(chunk)):
                        pass
                except OSError:
                    continue

    def free(self):
        self.ballast.unlink(missing_ok=True)

    def close(self):
        subprocess.run(["umount", "-l", str(self.directory)], check=True)


def disk(campaign: Campaign, target: str):
    """The disk of the checkpoints, and that of the whole work directory, full for a while and until
    the end."""
    campaign.steps = campaign.steps or STEPS
    reference = campaign.undisturbed(target)
    for part in ("checkpoints", ""):
        for freed in (True, False):
            name = f"{target}-full-{part or 'workdir'}-{'freed' if freed else 'stays'}"
            training = campaign.training(name, target, pace=PACE)
            small = Disk(training.workdir / part)
            try:
                full_while(campaign, training, small) if freed else full_to_the_end(
                    campaign, training, small
                )
                while not campaign.finished(training, training.wait(LIMIT)):
                    training.start()
                campaign.compared(training, reference)
            finally:
                training.end()
                small.close()


def until(training: Training, condition, seconds: float = LIMIT) -> bool:
    """Whether it came to be so in time, while the run was running."""
    end = time.monotonic() + seconds
    while training.poll() and time.monotonic() < end:
        time.sleep(0.02)
        if condition():
            return True
    return False


def begin(campaign: Campaign, training: Training, small: Disk) -> tuple[dict, set]:
    """Fills the disk once there is a checkpoint behind the first; the fault, and the checkpoints
    there are."""
    training.start()
    until(training, lambda: len(visible(training.workdir)) > 1)
    fault = campaign.fault(training, "disk full", phase(training))
    small.fill()
    return fault, set(visible(training.workdir))


def full_while(campaign: Campaign, training: Training, small: Disk):
    fault, before = begin(campaign, training, small)
    fault["noticed"] = until(training, lambda: "ERROR" in training.printed(), 60)
    step = training.stepped() and latest_printed(training)
    time.sleep(FULL)
    fault["survived"] = training.running() and latest_printed(training) > step
    small.free()
    freed = time.monotonic()
    fault["saved_again"] = until(training, lambda: bool(set(visible(training.workdir)) - before))
    fault["seconds_to_save"] = round(time.monotonic() - freed, 1)
    fault["error_lines"] = training.printed().count("ERROR")
    fault["noticed"] = fault["noticed"] and fault["survived"] and fault["saved_again"]


def full_to_the_end(campaign: Campaign, training: Training, small: Disk):
    fault, _ = begin(campaign, training, small)
    codes = training.wait(LIMIT)
    fault["last_step"] = latest_printed(training)
    fault["error_lines"] = training.printed().count("ERROR")
    campaign.ended(training, fault, codes, (UNSAVED,))
    fault["noticed"] = fault["error_lines"] > 0 and fault["last_step"] == campaign.steps
    small.free()
    training.start()


def latest_printed(training: Training) -> int:
    """The last step on the progress lines; metrics.jsonl may be what does not fit on the disk."""
    return max(training.steps_printed(), default=0)
