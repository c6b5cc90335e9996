"""A short turn of the harness: a few kills, damages and poison, and the control that it must see
through. The long ones are commands (run.py)."""

import signal

import numpy as np
import pytest
from faults.chaos import compare, damage, kills, naive
from faults.chaos.campaign import LIMIT, Campaign, good
from faults.chaos.disk import until

pytestmark = pytest.mark.processes

POISON = (7, 2)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """Makes campaigns that share one cache of compiled programs; ends what a failed one left
    running."""
    made = []

    def make(name: str, **how) -> Campaign:
        made.append(Campaign(tmp_path_factory.getbasetemp() / "chaos" / name, steps=24, **how))
        return made[-1]

    yield make
    for one in made:
        if one.latest:
            one.latest.end()


@pytest.fixture(scope="module")
def reference(campaign):
    """The run that nothing happens to but NaN losses, which are in the data."""
    return campaign("reference").undisturbed("text", poison=POISON)


@pytest.mark.slow
def test_a_run_that_is_killed_and_poisoned_ends_with_the_same_bits(campaign, reference):
    one = campaign("kills", seed=0)
    kills.kills(one, "text", 1, POISON, reference)
    report = one.report("kills")
    assert good(report), report
    assert report["totals"]["faults"] == 1 and report["totals"]["runs_compared"] >= 1
    assert compare.trace(one.latest.workdir)[-1]["nonfinite_updates"] == 6


@pytest.mark.slow
def test_damage_is_named_put_aside_and_survived(campaign, reference):
    one = campaign("damage")
    damage.damage(one, "text", 1, reference, poison=POISON)
    report = one.report("damage")
    assert good(report), report
    (fault,) = [fault for fault in one.faults if "how" in fault]
    assert fault["named"] and fault["aside"] and fault["went_back"]


@pytest.mark.slow
def test_the_control_is_seen_through(campaign, reference):
    """Its data begins anew after a kill, so that it learns something else."""
    one = campaign("control", saver="naive")
    training = one.training("text-0", "text", poison=POISON)
    training.start()
    assert until(training, lambda: training.last_step()[1] > 5), training.printed()
    fault = one.fault(training, "KILL", "stepping")
    training.signal(signal.SIGKILL)
    one.ended(training, fault, training.wait(LIMIT), (-signal.SIGKILL,))
    training.start()
    assert one.finished(training, training.wait(LIMIT)), training.printed()
    one.compared(training, reference)
    report = one.report("kills")
    assert not good(report) and report["totals"]["runs_with_other_bits"] == 1, report


def test_a_torn_file_of_the_control_is_broken(tmp_path):
    checkpoint = tmp_path / "checkpoints" / "only" / "8"
    checkpoint.mkdir(parents=True)
    np.savez(checkpoint / naive.FILE, **{"0": np.arange(1000)})
    assert compare.broken(tmp_path, "naive") == []
    content = (checkpoint / naive.FILE).read_bytes()
    (checkpoint / naive.FILE).write_bytes(content[: len(content) // 2])
    (line,) = compare.broken(tmp_path, "naive")
    assert line.startswith("checkpoints/only/8: state.npz")
