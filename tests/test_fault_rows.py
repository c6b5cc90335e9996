"""Rows of numbers and weights gone wrong, each by what is printed; what other tests hold stands in the comments.

44, token ids beyond a vocabulary: test_bad_records.py (text), test_pipeline.py and test_bad_records.py (stored ids).
45, labels that do not count: test_train.py (the fused loss is the plain one). 51: test_bad_weights.py.
54, a transposed square matrix: test_bad_weights.py. 56, 57, 58: test_bad_weights.py.
"""

import json
import re

import foreign
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_guard
import tiny
from conftest import on_mesh
from safetensors.numpy import load_file, save_file

import janus_jax
from janus_jax import checksums, main
from janus_jax.checks import check
from janus_jax.convert import target
from janus_jax.convert.source import open_source
from janus_jax.convert.table import NoWeightsError, WeightsError
from janus_jax.data.tokenizer import Tokenizer, train
from janus_jax.experiment import ConfigError, read
from janus_jax.guard import Guard, Spike, Spikes
from janus_jax.weights import export, import_weights

KERNEL = "transformer.blocks.gate.kernel"


@pytest.fixture(scope="module")
def params():
    with on_mesh():
        return tiny.make_state(test_guard.TX).params


@pytest.fixture
def weights(params, tmp_path, one_device):
    """A weights directory."""
    export(tmp_path / "stage2", params, tiny.CONFIG, tiny.processor())
    return tmp_path / "stage2"


def edited(weights, change):
    """The directory with `change(tensors)` made in its file, as by another program: without checksums."""
    tensors = load_file(weights / "model.safetensors")
    change(tensors)
    save_file(tensors, weights / "model.safetensors")
    (weights / "manifest.json").unlink()
    return weights


def refused(weights, params, **how) -> str:
    """What a stage that begins with these weights says; the run ends with 2."""
    with pytest.raises(WeightsError) as error:
        import_weights(weights, params, partly=True, config=tiny.CONFIG, **how)
    assert main.exit_code(error.value) == 2
    return str(error.value)


# 46


def test_row_46_a_stage_that_goes_on_with_another_tokenizer_names_what_differs(weights, params):
    ours = tiny.processor().tokenizer
    import_weights(weights, params, config=tiny.CONFIG, tokenizer=ours)
    other = train(["entirely other words"], tiny.CONFIG.transformer.vocabulary)
    text = refused(weights, params, tokenizer=other)
    assert re.search(
        rf"{weights} was trained with another tokenizer than this run's: \d+ tokens have other ids or none \('",
        text,
    )
    assert "Give the run theirs (the config's `tokenizer`" in text
    values = json.loads(ours.backend.to_str())
    values["model"]["merges"].reverse()
    merges = Tokenizer(type(ours.backend).from_str(json.dumps(values)))
    assert "words fall into other tokens (other merges)" in refused(weights, params, tokenizer=merges)


def test_row_46_without_a_tokenizer_beside_the_weights_it_is_said(weights, params):
    (weights / "processor.json").unlink()
    (weights / "tokenizer.json").unlink()
    said = []
    import_weights(weights, params, config=tiny.CONFIG, tokenizer=tiny.processor().tokenizer, say=said.append)
    assert len(said) == 1 and f"{weights}: its tokenizer is not compared with this run's" in said[0]


# 47, 50, 52, 53, 56, 59: at a stage's start


def test_row_47_numbers_that_are_not_finite_are_named_at_a_stages_start(weights, params):
    def poison(tensors):
        tensors[KERNEL][1, 2, 3] = np.nan
        tensors["image_head.fc1.bias"][:2] = np.inf

    text = refused(edited(weights, poison), params)
    assert f"{weights}: damaged weights:" in text
    assert f"not finite: {KERNEL}, layer 1 holds 1 infinite or undefined numbers" in text
    assert "not finite: image_head.fc1.bias holds 2 infinite" in text


def test_row_50_weights_of_another_model_name_the_fields(weights, params):
    other = tiny.small(image_head_width=16)
    small = {"image_head": jax.tree.map(lambda x: x, params["image_head"])}
    small["image_head"]["fc1"] = {
        "kernel": params["image_head"]["fc1"]["kernel"][:, :16],
        "bias": np.zeros(16),
    }
    with pytest.raises(
        WeightsError, match=r"does not fit this model \(another config\?\):\n  image_head_width is 32 "
    ):
        import_weights(weights, params | small, config=other)


def test_row_52_unknown_tensors_say_how_to_skip_them(tmp_path, params):
    source = foreign.save_original(
        tmp_path, tensors=foreign.original_tensors() | {"lora.A": foreign.torch.zeros(2)}
    )
    assert "unknown: lora.A (2,) (--allow_extra skips such tensors)" in " ".join(open_source(source).check())


@pytest.mark.parametrize("dtype, says", [
    ("float16", "is float16; float32 or bfloat16 is due (dtype=float32 casts it; for a stage's init do so once, by"),
    ("float64", "is float64; float32 or bfloat16 is due"),
    ("int8", "is int8; a float type is due"),
])  # fmt: skip
def test_row_53_no_type_is_cast_in_silence(dtype, says, weights, params, tmp_path):
    def cast(tensors):
        tensors[KERNEL] = tensors[KERNEL].astype(dtype)

    edited(weights, cast)
    assert f"type: {KERNEL} {says}" in refused(weights, params)
    if dtype == "int8":  # whoever asks: integers are no weights
        with pytest.raises(WeightsError, match="a float type is due"):
            janus_jax.load(weights, "float32")
        return
    target.convert(open_source(weights), tmp_path / "once", "janus_jax", "float32")
    tree, _ = import_weights(tmp_path / "once", params, config=tiny.CONFIG)
    assert tree["transformer"]["blocks"]["gate"]["kernel"].dtype == np.float32


def test_row_53_bfloat16_widens_to_the_same_numbers(weights, params, tmp_path):
    target.convert(open_source(weights), tmp_path / "half", "janus_jax", "bfloat16")
    tree, _ = import_weights(tmp_path / "half", params, config=tiny.CONFIG)
    got, want = (tiny.numbers(x)[KERNEL] for x in (tree, params))
    assert got.dtype == np.float32 and np.array_equal(got, want.astype(jnp.bfloat16).astype(np.float32))


@pytest.mark.parametrize("content, says", [
    (b"version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer, not the file: run `git lfs pull`"),
    (b"<!DOCTYPE html><html>", "a web page, not weights; download the file itself"),
    (None, "no weights directory"),
])  # fmt: skip
def test_rows_56_and_59_a_stages_init_is_looked_at_before_anything_compiles(weights, content, says):
    file = weights / "model.safetensors"
    file.unlink() if content is None else file.write_bytes(content)
    experiment, _ = read("configs/quickstart.py", {"stages.stage2.init": f"['{weights}']"})
    with pytest.raises(ConfigError) as error:
        check(experiment, 1)
    assert main.exit_code(error.value) == 2
    assert f"stages.stage2.init: {weights}" in str(error.value) and says in str(error.value)


def test_what_is_wrong_with_weights_ends_a_run_with_2(weights):
    assert [main.exit_code(kind("x")) for kind in (WeightsError, NoWeightsError)] == [2, 2]
    with pytest.raises(FileNotFoundError):
        open_source(weights / "nowhere")


# 48, 49


def test_row_48_the_last_good_step_is_named_after_ten_in_a_row():
    watcher = Guard("toy", Spikes())
    for step in range(1, 16):
        watcher.watch(step, {"loss": np.float32(1 if step < 6 else np.nan), "left_out": max(0, step - 5)})
    with pytest.raises(FloatingPointError, match=r"steps 6 to 15: .* the last good step is 5") as error:
        watcher.judge()
    assert main.exit_code(error.value) == 4


def test_row_49_from_a_spike_back_past_a_damaged_checkpoint(tmp_path, one_device):
    run = test_guard.Run(tmp_path, {24: test_guard.HUGE})
    next_batch = run.next_batch

    def damage(i):
        if i == 24 and not (tmp_path / "checkpoints" / "damaged-20").exists():
            run.checkpointer.wait()
            test_guard.flip(tmp_path / "checkpoints" / "20")
        return next_batch(i)

    run.next_batch = damage
    state = run()
    assert int(state.step) == 30 and run.seen == [*range(28), *range(25, 45)]
    said = "\n".join(run.said)
    assert "DAMAGED CHECKPOINT" in said and "going on from step 10" in said
    assert "Back to the checkpoint of step 10; passing over 15 batches" in said and "rollback 1 of 3" in said


def test_row_49_a_spike_where_nothing_could_be_saved_is_said_and_stays(tmp_path, one_device, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    run = test_guard.Run(tmp_path, {12: test_guard.HUGE}, test_guard.Stage(steps=21))
    monkeypatch.setattr(run.checkpointer._orbax, "save", full)
    monkeypatch.setattr(run.checkpointer, "settle", lambda save: None)
    state = run()
    assert int(state.step) == 21 and run.seen == [*range(21)], "no batch is lost or drawn twice"
    (line,) = [line for line in run.said if "SPIKE" in line]
    assert (
        "toy, step 13" in line
        and "There is no checkpoint to go back to, so its updates stay (1 of 3)" in line
    )


def test_row_49_processes_judge_alike():
    """Judging takes what is the same on all: the losses, summed over all devices, and where the run stands."""
    losses = [2.0] * 20 + [50.0] + [2.0] * 3
    watchers = [Guard("toy", Spikes(8, 6.0), say=lambda line: None) for _ in range(2)]
    for watcher in watchers:
        for step, loss in enumerate(losses, 1):
            watcher.watch(step, {"loss": np.float32(loss), "left_out": 0})
    first, second = (watcher.judge() for watcher in watchers)
    assert first == second == Spike(21, 50.0, 2.0, 0.0, 21, 1)
    assert [watcher.roll_back(first, 20) for watcher in watchers] == [1, 1]
    assert watchers[0].get_state() == watchers[1].get_state()


# 55


def test_row_55_a_leafs_sum_is_the_same_on_devices_and_on_the_host():
    rng = np.random.default_rng(0)
    arrays = {
        "f": rng.normal(size=(8, 6, 4)).astype(np.float32), "b": rng.normal(size=(16, 3)).astype(jnp.bfloat16),
        "i": np.int32(7), "n": np.arange(24, dtype=np.int32),
    }  # fmt: skip
    want = {name: checksums.of_array(x) for name, x in arrays.items()}
    with on_mesh(2, 2, 2):
        split = lambda x: jax.P(("data", "fsdp")) if x.ndim else jax.P()
        put = {
            n: jax.device_put(x, jax.NamedSharding(jax.sharding.get_mesh(), split(x)))
            for n, x in arrays.items()
        }
        assert {name: x["sum"] for name, x in checksums.of_leaves(put).items()} == want
    arrays["f"][3, 2, 1] = -arrays["f"][3, 2, 1]
    assert checksums.of_array(arrays["f"]) != want["f"]
