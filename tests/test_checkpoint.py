"""Checkpoints: going on as if never stopped, on any mesh; weights directories that are whole or refused."""

import copy
import functools
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from conftest import on_mesh
from flax import nnx
from safetensors.numpy import load_file, save_file

import janus_jax
from janus_jax import optim
from janus_jax.checkpoint import Checkpointer, leaves
from janus_jax.convert import target
from janus_jax.convert.source import open_source
from janus_jax.data.pipeline import Rows, count_examples
from janus_jax.model.janus import serving
from janus_jax.model.transformer import Unrolled
from janus_jax.weights import FILE, export, import_weights

FLAMES = ("understanding_adaptor", "generation_adaptor", "image_head")
RATIO = {"understanding": 1, "text": 1, "generation": 2}
TX = optim.make(tiny.OPTIM, 10)


@functools.cache
def step_fn():
    return tiny.make_step(TX)


def data():
    return tiny.batches(
        tiny.sources(), tiny.processor(), tiny.CONFIG, Rows(2, 128, 2, 2), RATIO, first=0.5, seed=3
    )


def train(state, iterator, steps: int, checkpointer=None):
    """(the state, the batches seen); saves after each step when there is a checkpointer."""
    seen = []
    for _ in range(steps):
        batch = next(iterator)
        count_examples(batch)
        seen.append(batch)
        state, _ = step_fn()(state, tiny.put(batch))
        if checkpointer:
            checkpointer.save(int(state.step), state, iterator)
    return state, seen


def test_a_run_in_two_parts_is_the_run_in_one(tmp_path, one_device):
    whole, batches_whole = train(tiny.make_state(TX, FLAMES), data(), 4)

    checkpointer = Checkpointer(tmp_path / "c")
    train(tiny.make_state(TX, FLAMES), data(), 2, checkpointer)
    checkpointer.close()

    again, iterator = Checkpointer(tmp_path / "c"), data()
    state = again.restore(tiny.make_state(TX, FLAMES, seed=9), iterator)
    again.close()
    assert int(state.step) == 2
    state, batches_after = train(state, iterator, 2)
    for got, want in zip(batches_after, batches_whole[2:]):
        tiny.same_bits(got, want)
    tiny.same_bits(leaves(state), leaves(whole))
    assert tiny.numbers(batches_whole[0])["tokens"].tobytes() != batches_whole[2]["tokens"].tobytes()


def test_an_iterator_under_way_goes_back_to_the_checkpoint(tmp_path, one_device):
    checkpointer, iterator = Checkpointer(tmp_path / "c"), data()
    state, _ = train(tiny.make_state(TX, FLAMES), iterator, 1)
    checkpointer.save(1, state, iterator)
    state, first = train(state, iterator, 3)
    state = checkpointer.restore(state, iterator)
    assert int(state.step) == 1
    state, second = train(state, iterator, 3)
    tiny.same_bits(second, first)
    checkpointer.close()


def test_a_step_of_a_poisoned_weight_leaves_all_others_as_they_are(one_device):
    state = tiny.make_state(TX, FLAMES)
    state.trainable["image_head"]["fc1"]["bias"] = (
        state.trainable["image_head"]["fc1"]["bias"].at[0].set(jnp.nan)
    )
    before = tiny.numbers(jax.tree.map(np.array, leaves(state)))
    state, metrics = step_fn()(state, tiny.put(next_batch()))
    after = tiny.numbers(leaves(state))
    assert not np.isfinite(metrics["loss"]) and (int(after["step"]), int(after["left_out"])) == (1, 1)
    same = before.keys() - {"step", "left_out"}
    tiny.same_bits({n: after[n] for n in same}, {n: before[n] for n in same})


def next_batch() -> dict:
    batch = next(data())
    count_examples(batch)
    return batch


def test_an_empty_directory_leaves_the_state_as_it_is(tmp_path, one_device):
    state = tiny.make_state(TX, FLAMES)
    assert Checkpointer(tmp_path / "c").restore(state, None) is state


def test_saving_does_not_wait_and_still_saves_what_was_there(tmp_path, one_device):
    """The saved arrays are donated to the next step while the files are written."""
    checkpointer, iterator = Checkpointer(tmp_path / "c"), data()
    state, _ = train(tiny.make_state(TX, FLAMES), iterator, 1)
    want = tiny.numbers(jax.tree.map(np.array, leaves(state)))
    checkpointer.save(1, state, iterator)
    train(state, iterator, 5)
    checkpointer.close()
    restored = Checkpointer(tmp_path / "c").restore(tiny.make_state(TX, FLAMES, seed=9))
    tiny.same_bits(leaves(restored), want)


def test_a_checkpoint_is_restored_on_another_mesh(tmp_path):
    with on_mesh(1, 4, 2):
        state = tiny.make_state(TX, FLAMES)
        noise = lambda x: x + jnp.float32(0.1) if x.ndim else x
        state = state.replace(opt_state=jax.tree.map(noise, state.opt_state), step=state.step + 7)
        checkpointer = Checkpointer(tmp_path / "c")
        checkpointer.save(7, state)
        checkpointer.close()
        want = tiny.numbers(leaves(state))
    with on_mesh(1, 8, 1):
        fresh = tiny.make_state(TX, FLAMES, seed=9)
        shardings = jax.tree.map(lambda x: x.sharding, leaves(fresh))
        restored = Checkpointer(tmp_path / "c").restore(fresh)
        tiny.same_bits(leaves(restored), want)
        assert jax.tree.map(lambda x: x.sharding, leaves(restored)) == shardings
        kernel = restored.params["transformer"]["blocks"]["gate"]["kernel"]
        assert kernel.sharding.mesh == jax.sharding.get_mesh() and not kernel.is_fully_replicated


# Weights directories


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """(a weights directory, the parameters in it)."""
    directory = tmp_path_factory.mktemp("run") / "stage3"
    with on_mesh():
        params = tiny.make_state(TX, FLAMES).params
        processor = copy.copy(tiny.processor())
        processor.cfg_scale, processor.temperature = 2.5, 0.5
        export(directory, params, tiny.CONFIG, processor)
    return directory, tiny.numbers(params)


def test_load_gives_back_what_was_exported(weights, one_device):
    directory, params = weights
    model, processor = janus_jax.load(directory, unrolled=False)
    assert model.config == tiny.CONFIG
    tiny.same_bits(nnx.to_pure_dict(nnx.state(model)), params)
    ours = tiny.processor()
    assert processor.template == ours.template
    assert processor.tokenizer.backend.to_str() == ours.tokenizer.backend.to_str()
    assert (processor.understanding_tokens, processor.generation_tokens) == (16, 16)
    assert (processor.cfg_scale, processor.temperature) == (2.5, 0.5), "as the fixture said so"
    assert not directory.with_name("stage3.partial").exists()


def test_load_on_a_mesh_splits_the_weights(weights):
    with on_mesh(1, 4, 2):
        model, _ = janus_jax.load(weights[0], unrolled=False)
        tiny.same_bits(nnx.to_pure_dict(nnx.state(model)), weights[1])
        assert not model.text_head.linear.kernel[...].is_fully_replicated


@pytest.mark.parametrize("mesh", [(1, 1, 1), (1, 4, 2)], ids=str)
@pytest.mark.parametrize("dtype", [None, "bfloat16", "int8"])
def test_load_unrolls_layer_by_layer_what_serving_unrolls_whole(weights, mesh, dtype):
    with on_mesh(*mesh):
        model, _ = janus_jax.load(weights[0], dtype)
        stacked, _ = janus_jax.load(weights[0], "bfloat16" if dtype == "int8" else dtype, unrolled=False)
        want = serving(stacked, int8=dtype == "int8")
        assert type(model.transformer) is Unrolled and serving(model) is model
        tiny.same_bits(nnx.to_pure_dict(nnx.state(model)), nnx.to_pure_dict(nnx.state(want)))
        kernel = model.transformer.layers[1].gate_up.kernel[...]
        assert kernel.dtype == (dtype or "float32")
        assert kernel.shape == ((128, 32) if dtype == "int8" else (32, 128))
        assert kernel.is_fully_replicated == (mesh == (1, 1, 1))


def test_the_unrolled_form_is_not_exported(weights, tmp_path, one_device):
    model, processor = janus_jax.load(weights[0])
    params = nnx.to_pure_dict(nnx.state(model))
    with pytest.raises(ValueError, match=r"unrolled=False"):
        export(tmp_path / "out", params, model.config, processor)
    assert not list(tmp_path.iterdir())


def test_load_in_bfloat16_leaves_the_tokenizer_in_float32(weights, one_device):
    model, _ = janus_jax.load(weights[0], dtype="bfloat16")
    dtypes = {}
    for name, x in tiny.numbers(nnx.to_pure_dict(nnx.state(model))).items():
        dtypes.setdefault(name.split(".")[0], set()).add(str(x.dtype))
    assert dtypes.pop("generation_encoder") == {"float32"}
    assert set(map(frozenset, dtypes.values())) == {frozenset({"bfloat16"})} and len(dtypes) == 8
    assert model.config.dtype == "bfloat16" and model.transformer.dtype == jnp.bfloat16


def test_load_works_where_nobody_set_a_mesh(weights):
    code = (
        "import sys, janus_jax; m, p = janus_jax.load(sys.argv[1]);"
        "print(m.text_head.linear.kernel.shape, p.generation_tokens)"
    )
    root = pathlib.Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code, str(weights[0])], cwd=root, capture_output=True, text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["(32,", "384)", "16"]


def test_load_elsewhere_says_what_is_wrong(tmp_path, one_device):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*no weights directory"):
        janus_jax.load(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises((ValueError, FileNotFoundError), match=str(tmp_path)):
        janus_jax.load(tmp_path)


def test_a_bit_that_flips_after_the_export_is_noticed(weights, tmp_path, one_device):
    shutil.copytree(weights[0], tmp_path / "copy")
    with open(tmp_path / "copy" / FILE, "r+b") as file:
        file.seek(-3, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-3, os.SEEK_END)
        file.write(bytes([byte ^ 4]))
    with pytest.raises(
        ValueError, match=r"checksum: understanding_encoder.positions is not what was written"
    ):
        janus_jax.load(tmp_path / "copy")


def test_weights_stored_in_bfloat16_stay_so(weights, tmp_path, one_device):
    target.convert(open_source(weights[0]), tmp_path / "half", "janus_jax", "bfloat16")
    model, _ = janus_jax.load(tmp_path / "half", unrolled=False)
    assert model.config.dtype == "bfloat16" and model.image_head.fc1.kernel.dtype == jnp.bfloat16
    assert model.generation_encoder.codebook.dtype == jnp.float32
    params, _ = import_weights(tmp_path / "half", tiny.make_state(TX, FLAMES).params)
    kernel = params["image_head"]["fc1"]["kernel"]
    assert kernel.dtype == jnp.float32, "a stage trains float32 weights, whatever they were stored in"
    assert np.array_equal(kernel, model.image_head.fc1.kernel[...].astype(jnp.float32))


def test_every_tensor_that_does_not_fit_is_named(weights, tmp_path, one_device):
    tensors = load_file(weights[0] / FILE)
    del tensors["text_head.linear.kernel"]
    tensors["transformer.norm.bias"] = np.zeros(3, np.float32)
    tensors["transformer.norm.scale"] = np.zeros(31, np.float32)
    save_file(tensors, tmp_path / FILE)
    params = tiny.make_state(TX, FLAMES).params
    with pytest.raises(ValueError) as error:
        import_weights(tmp_path, params)
    text = str(error.value)
    assert "missing: text_head.linear.kernel (32, 384)" in text
    assert "unknown: transformer.norm.bias (3,)" in text
    assert "shape: transformer.norm.scale is (31,) in the file, (32,) in the model" in text
    assert text.count("\n") == 3, "problems beside the three"
    with pytest.raises(FileNotFoundError, match=FILE):
        import_weights(tmp_path / "nowhere", params)


def test_partly_reads_the_children_of_the_file_only(weights, tmp_path, one_device):
    tensors = load_file(weights[0] / FILE)
    some = {n: x + 1 for n, x in tensors.items() if n.startswith(("image_head.", "text_embedding."))}
    save_file(some, tmp_path / FILE)
    params = tiny.make_state(TX, FLAMES).params
    with pytest.raises(ValueError, match="missing"):
        import_weights(tmp_path, params)
    got, children = import_weights(tmp_path, params, partly=True)
    assert children == ["image_head", "text_embedding"]
    tiny.same_bits(got, weights[1] | some)
    del some["image_head.fc1.bias"]
    save_file(some, tmp_path / FILE)
    with pytest.raises(ValueError, match=r"missing: image_head\.fc1\.bias"):
        import_weights(tmp_path, params, partly=True)
