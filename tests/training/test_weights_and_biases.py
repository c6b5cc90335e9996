"""Weights & Biases hears what the log writes."""

import sys
import types

import pytest
from PIL import Image

from janus_jax.training.log import Log


class FakeWandb(types.ModuleType):
    """What of Weights & Biases a log calls: it notes the calls, and gives every new run another
    id."""

    def __init__(self):
        super().__init__("wandb")
        self.inits, self.logged, self.axes, self.finished, self.error = [], [], {}, 0, None
        self.Image = lambda picture: ("picture", picture)
        self.Error = type("Error", (Exception,), {})

    def init(self, **options):
        if self.error:
            raise self.Error(self.error)
        self.inits.append(options)
        self.id = options["id"] or f"id{len(self.inits)}"
        return self

    def define_metric(self, name, step_metric):
        self.axes[name] = step_metric

    def log(self, values):
        self.logged.append(values)

    def finish(self):
        self.finished += 1


def test_weights_and_biases_hears_the_same_and_knows_a_resumed_run(tmp_path, monkeypatch):
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for step in (10, 20):
        log = Log(tmp_path / "run", wandb="my-project", config={"seed": 3})
        log.stage("stage2", 100, step - 10)
        log.write(step, {"loss": 1.0 / step, "grad_norm/transformer": 2.0})
        log.sheet(step, Image.new("RGB", (1, step)), "words")
        log.stage("stage3", 100)
        assert wandb.finished == step / 10 - 1, "a new stage is the same run"
        log.close()
    first, second = wandb.inits
    assert (
        first["project"] == "my-project" and first["config"] == {"seed": 3} and first["id"] is None
    )
    assert first["dir"] == str(tmp_path / "run") and first["name"] == "run"
    assert second["id"] == "id1" and second["resume"] == "allow"
    want = {"stage2/loss": 0.05, "stage2/grad_norm/transformer": 2.0, "stage2/step": 20}
    assert wandb.logged[2] == want and wandb.finished == 2
    shown = ("picture", Image.new("RGB", (1, 20)))
    assert wandb.logged[3] == {"stage2/sheet": shown, "stage2/step": 20}
    assert wandb.axes == {"stage2/*": "stage2/step", "stage3/*": "stage3/step"}
    Log(tmp_path / "other", active=False, wandb="my-project")
    Log(tmp_path / "none").close()
    assert len(wandb.inits) == 2


def test_weights_and_biases_missing_or_out_of_reach_says_what_to_do(tmp_path, monkeypatch):
    wandb = FakeWandb()
    wandb.error = "No API key configured. Use `wandb login` to log in."
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with pytest.raises(ConnectionError, match=r"wandb is 'mine'.*wandb login.*WANDB_MODE=offline"):
        Log(tmp_path, wandb="mine")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(
        ImportError, match=r"wandb is 'mine'.*pip install janus_jax\[wandb\].*--config\.wandb"
    ):
        Log(tmp_path, wandb="mine")
