"""Numbers gone bad: what a toy stage does about a NaN, a spike and a damaged checkpoint, and after a kill."""

import dataclasses
import functools
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from conftest import on_mesh
from flax import nnx

from janus_jax import checksums, guard, optim, train, train_state
from janus_jax.checkpoint import Checkpointer, leaves
from janus_jax.guard import Spikes
from janus_jax.log import Log
from janus_jax.meter import Meter
from janus_jax.steps import CheckpointsDamaged

TX = optim.make(optim.Optim(learning_rate=0.01, warmup_steps=5), 60)
BAD, HUGE = float("nan"), 1e4


class Toy(nnx.Module):
    """Flame and snowflake: y = x @ (flame + snow)."""

    def __init__(self, width: int):
        self.flame = nnx.Linear(width, width, rngs=nnx.Rngs(0))
        self.snow = nnx.Linear(width, width, rngs=nnx.Rngs(1))


def toy_state(width: int = 4):
    return train_state.start(*train_state.split(Toy(width), ("flame",)), TX)


def toy_loss(model, batch):
    """batch: x [B, W], and `factor` of the loss: a NaN or a spike in it comes through to the gradient."""
    loss = jnp.mean((model.flame(batch["x"]) + model.snow(batch["x"])) ** 2) * batch["factor"]
    return loss, {"size": jnp.abs(batch["x"]).max()}


@functools.cache
def toy_step():
    return jax.jit(
        lambda state, batch: train_state.update(state, TX, lambda m: toy_loss(m, batch)), donate_argnums=0
    )


def toy_batch(index: int, factor: float = 1.0) -> dict:
    x = np.random.default_rng(index).normal(size=(8, 4)).astype(np.float32)
    return {"x": jnp.asarray(x), "factor": jnp.float32(factor)}


class Counting:
    """0, 1, 2, ... with a position that is saved, in the place of pipeline.Batches."""

    def __init__(self):
        self.at, self.ledger = 0, self

    def __next__(self):
        self.at += 1
        return self.at - 1

    def get_state(self, gather):
        return {"lanes": {"0": self.at}}

    def set_state(self, state):
        self.at = state["lanes"]["0"]
        return []

    def settle(self, gather):
        assert gather(1) == [1]

    def metrics(self, step):
        return {}


@dataclasses.dataclass(frozen=True)
class Stage:
    """What the loop reads of a stage."""

    steps: int = 30
    log_every: int = 7
    checkpoint_every: int = 10
    spikes: Spikes = dataclasses.field(default_factory=lambda: Spikes(window=8))


class Killed(Exception):
    pass


class Run:
    """One process of a stage in a directory. factors: batch index -> factor of its loss. It records the indices of
    the batches that were trained on."""

    def __init__(
        self, directory, factors=None, stage: Stage = Stage(), has_data=True, kill_at: int = 0, profile=0
    ):
        self.profile = profile
        self.log, self.seen = Log(directory), []
        self.said = []
        self.log.say = self.said.append
        self.stage, self.factors, self.kill_at, self.steps = stage, factors or {}, kill_at, 0
        self.data = Counting() if has_data else None
        self.checkpointer = Checkpointer(directory / "checkpoints", say=self.said.append)

    def next_batch(self, i: int):
        index = next(self.data) if self.data is not None else i
        assert index == i, "the data is where the guard counts it"
        if self.kill_at and len(self.seen) == self.kill_at:
            raise Killed
        self.seen.append(index)
        return toy_batch(index, self.factors.get(index, 1.0)), {}

    def __call__(self):
        try:
            with Meter("toy", self.stage.steps, self.said.append, self.log.workdir, self.profile) as meter:
                return train.loop(
                    self.log, "toy", self.stage, toy_state(), toy_state, toy_step(), self.data, self.next_batch,
                    self.checkpointer, optim.schedule(optim.Optim(learning_rate=0.01, warmup_steps=5), 60), meter,
                )  # fmt: skip
        finally:
            self.checkpointer.close()
            self.log.close()


def records(directory) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def not_finite(state) -> list[str]:
    return [name for name, x in checksums.of_leaves(leaves(state)).items() if not x["finite"]]


def schedule_count(state) -> int:
    return max(int(x) for x in jax.tree.leaves(state.opt_state) if x.dtype == jnp.int32)


# Updates that are not finite


@pytest.mark.parametrize(
    "factor", [BAD, math.inf, 1e38], ids=["nan", "inf", "finite loss, infinite gradient"]
)
def test_an_update_that_is_not_finite_changes_nothing_and_is_counted(factor, one_device):
    state, _ = toy_step()(toy_state(), toy_batch(0))
    before = tiny.numbers(jax.tree.map(np.array, leaves(state)))
    batch = toy_batch(1, factor)
    if factor == 1e38:  # the loss stays below the largest float32, its gradient does not
        batch["x"] = batch["x"] * np.sqrt(3e38 / 1e38 / float(toy_loss(state.model(), toy_batch(1))[0]))
        loss, grads = jax.value_and_grad(
            lambda t: toy_loss(nnx.merge(state.graphdef, t, state.frozen), batch)[0]
        )(state.trainable)
        assert math.isfinite(loss) and not math.isfinite(optax.tree.norm(grads))
    state, metrics = toy_step()(state, batch)
    after = tiny.numbers(leaves(state))
    assert int(after.pop("step")) == 2 and int(before.pop("step")) == 1
    assert int(after.pop("left_out")) == 1 and int(before.pop("left_out")) == 0
    tiny.same_bits(after, before)
    assert int(metrics["left_out"]) == 1
    state, _ = toy_step()(state, toy_batch(2))
    assert schedule_count(state) == 2 and int(state.step) == 3 and int(state.left_out) == 1
    moved = tiny.numbers(state.trainable)
    assert all(np.isfinite(x).all() and (x != before[f"trainable.{n}"]).any() for n, x in moved.items())


class Deep(nnx.Module):
    def __init__(self, width: int, layers: int):
        self.flame = nnx.List([nnx.Linear(width, width, rngs=nnx.Rngs(i)) for i in range(layers)])

    def __call__(self, x):
        for layer in self.flame:
            x = jnp.tanh(layer(x))
        return (x**2).mean()


def test_leaving_out_costs_no_second_copy_of_the_state(one_device):
    """Against the same step without the select. The state is three kernels a layer; what the select may add is
    the room of one layer while it is updated."""

    def plain(state, x):
        loss, grads = jax.value_and_grad(lambda t: nnx.merge(state.graphdef, t, {})(x))(state.trainable)
        updates, opt_state = TX.update(grads, state.opt_state, state.trainable)
        trainable = optax.apply_updates(state.trainable, updates)
        state = state.replace(step=state.step + 1, trainable=trainable, opt_state=opt_state)
        return state, {"loss": loss, "grad_norm": optax.tree.norm(grads)}

    ours = lambda state, x: train_state.update(state, TX, lambda model: (model(x), {}))
    layers, kernel = 6, 256 * 256 * 4
    state = train_state.start(*train_state.split(Deep(256, layers), ("flame",)), TX)
    sizes = []
    for step in (plain, ours):
        memory = jax.jit(step, donate_argnums=0).lower(state, jnp.ones((8, 256))).compile().memory_analysis()
        assert memory.alias_size_in_bytes >= 3 * layers * kernel, "the state was not donated"
        sizes.append(memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes)
    assert sizes[1] - sizes[0] < 3 * kernel, sizes


@pytest.mark.parametrize("has_data", [True, False])
def test_bad_steps_are_passed_counted_and_survive_a_resume(has_data, tmp_path, one_device):
    bad = {4: BAD, 5: BAD, 6: BAD, 13: math.inf}
    with pytest.raises(Killed):
        Run(tmp_path, bad, has_data=has_data, kill_at=17)()
    run = Run(tmp_path, bad, has_data=has_data)
    state = run()
    assert run.seen[0] == 10 and int(state.step) == 30
    assert int(state.left_out) == 4 and schedule_count(state) == 26
    (line,) = [line for line in run.said if "not finite" in line]
    assert "toy, step 14" in line and "4 so far" in line
    logged = {r["step"]: r for r in records(tmp_path)}
    assert "left_out" not in logged[1]
    assert logged[7]["left_out"] == 3 and "loss" not in logged[7] and "size" in logged[7]
    assert logged[14]["left_out"] == 4 and "loss" not in logged[14]
    assert logged[28]["left_out"] == 4 and logged[28]["loss"] > 0
    assert not any("skipped" in r for r in logged.values())


def test_a_bad_step_is_no_batch_less_for_the_good_ones(tmp_path, one_device):
    """The weights are those of a run over the good batches alone, at the schedule of the good steps."""
    state = Run(tmp_path, {4: BAD, 20: BAD})()
    want = toy_state()
    for i in sorted({*range(30)} - {4, 20}):
        want, _ = toy_step()(want, toy_batch(i))
    tiny.same_bits(state.trainable, want.trainable)
    tiny.same_bits(state.opt_state, want.opt_state)


@pytest.mark.parametrize("kill_at", [0, 24], ids=["at once", "after a resume amid the ten"])
def test_ten_in_a_row_end_the_run_with_the_last_good_step(kill_at, tmp_path, one_device):
    bad = {2: BAD} | dict.fromkeys(range(18, 40), BAD)
    if kill_at:
        with pytest.raises(Killed):
            Run(tmp_path, bad, kill_at=kill_at)()
    run = Run(tmp_path, bad)
    with pytest.raises(FloatingPointError) as error:
        run()
    text = str(error.value)
    assert "toy, steps 19 to 28" in text and "last good step is 18" in text
    assert "learning_rate" in text and "warmup_steps" in text
    last = Checkpointer(tmp_path / "checkpoints").restore(toy_state())
    assert int(last.step) == 20 and not_finite(last) == []
    assert schedule_count(last) == 17


def test_nine_in_a_row_end_nothing(tmp_path, one_device):
    state = Run(tmp_path, dict.fromkeys((*range(5, 14), *range(15, 24)), BAD))()
    assert int(state.left_out) == 18


def test_a_state_that_is_not_finite_is_never_saved(tmp_path, one_device):
    checkpointer, state = Checkpointer(tmp_path / "c"), toy_state()
    checkpointer.save(3, state)
    for part in ("trainable", "opt_state"):
        poisoned = jax.tree.map(lambda x: x.at[0].set(jnp.inf) if x.ndim else x, getattr(state, part))
        with pytest.raises(FloatingPointError, match=rf"step 4: \d+ arrays .*{part}.*flame.*kept"):
            checkpointer.save(4, state.replace(**{part: poisoned}))
    checkpointer.close()
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["3"]


def test_not_finite_names_leaves_on_any_mesh():
    with on_mesh(1, 4, 2):
        state = tiny.make_state(optim.make(tiny.OPTIM, 10), ("image_head",))
        assert not_finite(state) == []
        kernel = state.trainable["image_head"]["fc2"]["kernel"]
        worse = jax.device_put(
            np.full(kernel.shape, [[0.0, *[np.nan] * (kernel.shape[1] - 1)]], np.float32), kernel.sharding
        )
        state.trainable["image_head"]["fc2"]["kernel"] = worse
        assert not_finite(state) == ["trainable.image_head.fc2.kernel"]


# Spikes


def test_a_spike_rolls_back_and_passes_over_its_batch(tmp_path, one_device):
    run = Run(tmp_path, {24: HUGE})
    state = run()
    # To the checkpoint of 20; batches 20 to 24 are passed over. Found when step 28 is logged.
    assert run.seen == [*range(28), *range(25, 35)]
    (line,) = [line for line in run.said if "SPIKE" in line]
    for word in (
        "toy, step 25",
        "checkpoint of step 20",
        "over 5 batches",
        "rollback 1 of 3",
        "mean",
        "sigma",
    ):
        assert word in line
    assert int(state.step) == 30 and schedule_count(state) == 30 and int(state.left_out) == 0
    want = toy_state()
    for i in (*range(20), *range(25, 35)):
        want, _ = toy_step()(want, toy_batch(i))
    tiny.same_bits(state.trainable, want.trainable)
    tiny.same_bits(state.opt_state, want.opt_state)
    logged = records(tmp_path)
    assert [r["step"] for r in logged] == [1, 7, 14, 21, 28, 30]
    assert [r.get("skipped") for r in logged] == [None, None, None, 5, 5, 5]
    assert max(r["loss"] for r in logged) < 100


def test_a_spike_before_the_first_checkpoint_goes_back_to_the_start(tmp_path, one_device):
    run = Run(tmp_path, {8: HUGE}, has_data=False)
    run()
    assert run.seen == [*range(10), *range(9, 39)]
    assert "checkpoint of step 0;" in "".join(run.said)


def test_a_spike_at_the_step_of_a_checkpoint_is_not_saved(tmp_path, one_device):
    run = Run(tmp_path, {19: HUGE})
    run()
    assert run.seen == [*range(20), *range(20, 40)]
    assert "step 20: LOSS SPIKE" in "".join(run.said) and "checkpoint of step 10;" in "".join(run.said)


@pytest.mark.parametrize("spikes", [Spikes(8, 0.0), Spikes(40, 6.0)], ids=["sigma 0", "no full window"])
def test_a_spike_passes_where_nobody_looks(spikes, tmp_path, one_device):
    run = Run(tmp_path, {24: HUGE}, Stage(spikes=spikes))
    run()
    assert run.seen == [*range(30)] and not any("SPIKE" in line for line in run.said)


def test_a_low_loss_and_a_flat_one_are_no_spikes():
    watcher = guard.Guard("toy", Spikes(8, 6.0))
    for step, loss in enumerate([2.0] * 20 + [0.1] + [2.0] * 3 + [2.001], 1):
        watcher.watch(step, {"loss": np.float32(loss), "left_out": 0})
    assert watcher.judge() is None
    watcher.watch(26, {"loss": np.float32(50.0), "left_out": 0})
    assert watcher.judge().step == 26


def test_the_fourth_spike_ends_the_stage(tmp_path, one_device):
    run = Run(tmp_path, {i: HUGE for i in (12, 17, 22, 27)})
    with pytest.raises(FloatingPointError) as error:
        run()
    assert sum("SPIKE" in line for line in run.said) == 3
    text = str(error.value)
    assert "3 before it" in text and "learning_rate" in text and "spikes.sigma=0" in text
    run = Run(tmp_path / "three", {i: HUGE for i in (12, 17, 22)})
    assert int(run().step) == 30


@pytest.mark.parametrize("has_data, kills", [(True, (12, 22, 33)), (False, (19,))])
def test_wherever_a_run_is_killed_it_ends_with_the_same_bits(has_data, kills, tmp_path, one_device):
    """Spikes, twice from one checkpoint, and bad steps; killed before, between and after them, once or twice."""
    bad = {9: BAD, 14: HUGE, 17: HUGE, 26: BAD, 31: HUGE}
    whole = Run(tmp_path / "whole", bad, has_data=has_data)
    want = whole()
    assert sum("SPIKE" in line for line in whole.said) == 3
    costs = {"time", "data_wait", "step_seconds", "data_seconds", "compute_seconds", "process_memory_gb"}
    plain = lambda directory: [{k: v for k, v in r.items() if k not in costs} for r in records(directory)]
    for kill_at in kills:
        directory = tmp_path / str(kill_at)
        with pytest.raises(Killed):
            Run(directory, bad, has_data=has_data, kill_at=kill_at)()
        if kill_at == 22:
            with pytest.raises(Killed):
                Run(directory, bad, has_data=has_data, kill_at=5)()
        state = Run(directory, bad, has_data=has_data)()
        tiny.same_bits(leaves(state), leaves(want))
        assert plain(directory) == plain(tmp_path / "whole")


# Damaged checkpoints


def largest(directory):
    return max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(directory):
    file = largest(directory)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 16
    file.write_bytes(content)
    return file


def cut(directory):
    file = largest(directory)
    file.write_bytes(file.read_bytes()[:-1])
    return file


def lose(directory):
    file = largest(directory)
    file.unlink()
    return file


def unsummed(directory):
    file = directory / checksums.NAME
    file.unlink()
    return file


def scrambled(directory):
    file = directory / checksums.NAME
    file.write_text("[1, 2")
    return file


@pytest.fixture
def saved(tmp_path, one_device):
    """(directory, {step: numbers}) of a run of 20 steps with checkpoints at 10 and 20."""
    Run(tmp_path, stage=Stage(steps=20))()
    directory = tmp_path / "checkpoints"
    state, numbers = toy_state(), {}
    for step in range(1, 21):
        state, _ = toy_step()(state, toy_batch(step - 1))
        numbers[step] = tiny.numbers(jax.tree.map(np.array, leaves(state)))
    return directory, numbers


DAMAGE = {flip: "bytes have changed", cut: "bytes, ", lose: "cannot be read (No such file", unsummed: "No such file",
          scrambled: "bytes have changed"}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(damage, saved):
    directory, numbers = saved
    assert sorted(p.name for p in directory.iterdir()) == ["10", "20"]
    file = damage(directory / "20")
    said = []
    checkpointer = Checkpointer(directory, say=said.append)
    state = checkpointer.restore(toy_state())
    checkpointer.close()
    assert int(state.step) == 10
    tiny.same_bits(leaves(state), numbers[10])
    (line,) = said
    for word in ("DAMAGED", "from step 10", f"step 20: {file.relative_to(directory / '20')}", DAMAGE[damage]):
        assert word in line
    assert sorted(p.name for p in directory.iterdir()) == ["10", "damaged-20"]


def test_a_run_goes_on_from_before_the_damage_to_the_same_bits(saved):
    directory, numbers = saved
    flip(directory / "20")
    run = Run(directory.parent, stage=Stage(steps=20))
    state = run()
    assert run.seen == [*range(10, 20)]
    tiny.same_bits(leaves(state), numbers[20])
    assert [r["step"] for r in records(directory.parent)] == [1, 7, 14, 20]
    again = Checkpointer(directory).restore(toy_state())
    tiny.same_bits(leaves(again), numbers[20])


def test_a_sound_checkpoint_is_taken_without_a_word(saved):
    directory, numbers = saved
    said = []
    state = Checkpointer(directory, say=said.append).restore(toy_state())
    tiny.same_bits(leaves(state), numbers[20])
    assert said == []


def test_where_every_checkpoint_is_damaged_it_says_so_and_touches_nothing(saved):
    directory, _ = saved
    files = [flip(directory / "20"), cut(directory / "10")]
    with pytest.raises(CheckpointsDamaged) as error:
        Checkpointer(directory).restore(toy_state())
    assert all(file.name in str(error.value) for file in files) and str(directory) in str(error.value)
    assert "every checkpoint is damaged" in str(error.value)
    assert sorted(p.name for p in directory.iterdir()) == ["10", "20"]


def test_every_bit_of_every_file_is_watched(saved):
    """A flipped bit in any file that Orbax restores from is found."""
    directory, _ = saved
    files = [p for p in (directory / "20").rglob("*") if p.is_file()]
    assert len(files) > 5
    unwatched = []
    for file, where in itertools.product(files, (0, -1)):
        content = file.read_bytes()
        changed = bytearray(content)
        if not changed:
            continue
        changed[where] ^= 1
        file.write_bytes(changed)
        if not checksums.problems(directory / "20"):
            unwatched.append(file.name)
        file.write_bytes(content)
    assert checksums.problems(directory / "20") == []
    assert unwatched == []


def test_the_restored_state_takes_the_place_of_the_given_one(saved):
    given = toy_state()
    state = Checkpointer(saved[0]).restore(given)
    assert all(x.is_deleted() for x in jax.tree.leaves(leaves(given)))
    assert not any(x.is_deleted() for x in jax.tree.leaves(leaves(state)))
