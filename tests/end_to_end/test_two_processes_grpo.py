"""Task grpo in two real processes, four devices each, against one with eight: each draws and scores its
share, and what is learned is the same."""

import collections
import json
import signal
import subprocess

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.mesh import on_mesh
from support.paths import ROOT
from support.processes import environment
from support.two_processes_grpo import DRAWN, STEPS

from janus_jax import main
from janus_jax.training.grpo_report import SHEET

pytestmark = pytest.mark.processes
CONFIG = ROOT / "tests" / "support" / "two_processes_grpo.py"
SLOWEST = 1500  # seconds
SAME = ("loss", "reward", "entropy", "kl", "distinct", "useful", "grad", "groups", "clipped")


def counts(folder) -> dict[str, int]:
    """Process -> how many pictures it has scored."""
    found = collections.Counter()
    for path in folder.iterdir():
        found[path.name.partition("-")[0]] += int(path.read_text())
    return found


def records(workdir) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_share_the_rollouts_and_learn_what_one_does(directory, monkeypatch):
    folders = {name: directory / f"{name}-counts" for name in ("alone", "together")}
    for folder in folders.values():
        folder.mkdir()
    monkeypatch.setenv("WEIGHTS", str(directory / "weights"))
    monkeypatch.setenv("COUNTS", str(folders["alone"]))
    before = signal.getsignal(signal.SIGTERM)
    try:
        with on_mesh(1, 8, 1):
            main.run(str(CONFIG), {}, str(directory / "alone"))
    finally:
        signal.signal(signal.SIGTERM, before)
    printed = directory / "together.log"
    command = [ROOT / "launch" / "local.sh", "2", f"--config={CONFIG}"]
    env = environment(directory) | {"COUNTS": str(folders["together"])}
    with open(printed, "w") as out:
        done = subprocess.run(
            [*command, f"--workdir={directory / 'together'}"],
            cwd=ROOT, env=env, stdout=out, stderr=out, timeout=SLOWEST, check=False,
        )  # fmt: skip
    assert done.returncode == 0, printed.read_text()[-4000:]
    ours, theirs = records(directory / "together"), records(directory / "alone")
    assert [record["step"] for record in ours] == [1, 2]
    names = [name for name in theirs[0] if name.split("_")[0].split("/")[0] in SAME]
    assert {"loss", "reward_drawing", "entropy_drawing", "clipped_drawing", "grad_norm"} <= {*names}
    assert theirs[1]["kl_drawing"] > 1e-6  # drawn with what step 1 has learned
    for one, other in zip(ours, theirs, strict=True):
        for name in names:
            assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-5), name
        assert one["decoder_difference_most"] < 1e-3
    # Every output is scored once: half by each, but for those of the sheet, which the first shows.
    of_sheet = 4 * SHEET
    (alone,) = counts(folders["alone"]).values()
    assert alone == STEPS * DRAWN + of_sheet
    each = sorted(counts(folders["together"]).values())
    assert each == [STEPS * DRAWN // 2, STEPS * DRAWN // 2 + of_sheet]
    ours, theirs = (load_file(directory / n / "only" / "model.safetensors") for n in folders)
    assert ours.keys() == theirs.keys()
    begun = load_file(directory / "weights" / "model.safetensors")
    assert any(np.abs(x - begun[name]).max() > 1e-3 for name, x in theirs.items())
    for name, x in theirs.items():
        np.testing.assert_allclose(ours[name], x, rtol=1e-4, atol=1e-5, err_msg=name)
    assert len(list((directory / "together" / "sheets" / "only-rewards").iterdir())) == 1
