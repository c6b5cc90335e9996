"""Weights out of a training checkpoint: the same bits as exported, for inference, a next stage and
conversion."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import tiny
from support.mesh import on_mesh

import janus_jax
from janus_jax.checkpoint import checksums, evaluated
from janus_jax.checkpoint.manager import Checkpointer
from janus_jax.training.tasks import vq
from janus_jax.weights import convert
from janus_jax.weights.load import export, import_weights
from janus_jax.weights.source import open_source
from janus_jax.weights.table import NoWeightsError, WeightsError

FLAMES = ("understanding_adaptor", "generation_adaptor", "image_head")
TX = tiny.TX
GATE = "transformer.blocks.gate.kernel"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(a work directory with checkpoints of stage2 at 3 and 7, saved on eight devices; what 7
    holds; weights of the VQ tokenizer alone)."""
    directory = tmp_path_factory.mktemp("run")
    with on_mesh(1, 4, 2):
        state = tiny.make_state(TX, FLAMES)
        checkpointer = Checkpointer(directory / "checkpoints" / "stage2", say=lambda line: None)
        checkpointer.save(3, tiny.make_state(TX, FLAMES, seed=5))
        checkpointer.save(7, state)
        checkpointer.close()
        params = tiny.numbers(state.params)
        export(directory / "vq", {"generation_encoder": state.params["generation_encoder"]})
    tiny.processor().tokenizer.save(directory)
    write_config(directory)
    return directory, params


def write_config(directory, init=("vq",)):
    """What `identity.same_run` writes, as far as it is read."""
    values = {
        "model": dataclasses.asdict(tiny.CONFIG),
        "template": dataclasses.asdict(tiny.processor().template),
        "tokenizer": "",
        "evaluation": {"count": 0, "cfg_scale": 2.5, "temperature": 0.5},
        "stages": {"stage1": {"init": []}, "stage2": {"init": [str(directory / x) for x in init]}},
    }
    (directory / "config.json").write_text(json.dumps(values))


@pytest.fixture
def run(made, tmp_path):
    """(a copy of the work directory, what step 7 holds)."""
    return shutil.copytree(made[0], tmp_path / "run"), made[1]


@pytest.fixture
def without_vq(run):
    """A work directory whose stage trained from stored image ids."""
    directory, params = run
    with on_mesh():
        state = tiny.make_state(TX, FLAMES)
        state = state.replace(
            frozen={k: x for k, x in state.frozen.items() if k != "generation_encoder"}
        )
        shutil.rmtree(directory / "checkpoints")
        checkpointer = Checkpointer(directory / "checkpoints" / "stage2")
        checkpointer.save(7, state)
        checkpointer.close()
    write_config(directory)
    return directory, params


def flip(step):
    file = max((p for p in step.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 16
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("mesh, which", [((1, 1, 1), ""), ((2, 2, 2), "7")], ids=str)
def test_load_reads_a_checkpoint_bit_for_bit_on_any_mesh(mesh, which, made, caplog):
    directory, params = made
    with on_mesh(*mesh):
        model, processor = janus_jax.load(
            directory / "checkpoints" / "stage2" / which, unrolled=False
        )
        tiny.same_bits(nnx.to_pure_dict(nnx.state(model)), params)
        assert model.config == tiny.CONFIG
        kernel = model.transformer.blocks.gate.kernel[...]
        assert kernel.sharding.mesh == jax.sharding.get_mesh()
    assert processor.tokenizer.backend.to_str() == tiny.processor().tokenizer.backend.to_str()
    assert processor.template == tiny.processor().template
    assert (processor.cfg_scale, processor.temperature, processor.generation_tokens) == (
        2.5,
        0.5,
        16,
    )
    assert ("step 7 is read, the latest sound one" in caplog.text) == (which == "")


def test_the_unrolled_form_is_the_weights_directorys(made, tmp_path, one_device):
    directory, _ = made
    stage = directory / "checkpoints" / "stage2"
    convert.to_layout(open_source(stage), tmp_path / "out", "janus_jax")
    (got, _), (want, _) = janus_jax.load(stage), janus_jax.load(tmp_path / "out")
    tiny.same_bits(nnx.to_pure_dict(nnx.state(got)), nnx.to_pure_dict(nnx.state(want)))


def test_only_the_weights_are_read_and_one_leaf_is_held(made):
    source = open_source(made[0] / "checkpoints" / "stage2" / "7").require()
    assert all(
        name.startswith(("opt_state.", "step", "nonfinite_updates")) for name in source.ignored
    )
    assert any(name.startswith("opt_state.") for name in source.ignored)
    tensor = source.tensors[GATE]
    first = source.read(GATE, 0)
    assert tensor._whole is not None
    assert (
        np.array_equal(np.stack([first, source.read(GATE, 1)]), made[1][GATE])
        and tensor._whole is None
    )
    source.raise_if_damaged()


@pytest.mark.parametrize("layout", ["janus_jax", "deepseek"])
def test_a_checkpoint_converts(layout, made, tmp_path, one_device):
    convert.to_layout(open_source(made[0] / "checkpoints" / "stage2"), tmp_path / "out", layout)
    model, _ = janus_jax.load(tmp_path / "out", unrolled=False)
    tiny.same_bits(nnx.to_pure_dict(nnx.state(model)), made[1])


def test_a_stage_starts_from_a_checkpoint(made):
    said = []
    with on_mesh(1, 2, 4):
        fresh = tiny.make_state(TX, FLAMES, seed=9).params
        params, children = import_weights(
            made[0] / "checkpoints" / "stage2",
            fresh,
            partly=True,
            config=tiny.CONFIG,
            say=said.append,
        )
        tiny.same_bits(params, made[1])
    assert len(children) == 9 and "step 7 is read" in said[0]


# Damage


def test_a_damaged_step_is_refused_with_the_one_before(run):
    stage = run[0] / "checkpoints" / "stage2"
    file = flip(stage / "7").relative_to(stage / "7")
    with pytest.raises(WeightsError) as error:
        open_source(stage / "7")
    text = str(error.value)
    assert f"{stage / '7'}: damaged checkpoint; an earlier one is sound: {stage / '3'}" in text
    assert f"{file}: its bytes have changed" in text
    (stage / "7").rename(stage / "damaged-7")  # as a run that goes on puts it aside
    with pytest.raises(WeightsError, match=f"damaged-7: damaged.*is sound: {stage / '3'}"):
        open_source(stage / "damaged-7")


def test_a_stage_means_its_latest_sound_step(run):
    stage = run[0] / "checkpoints" / "stage2"
    flip(stage / "7")
    source = open_source(stage)
    assert source.path == stage / "3"
    damaged, chosen = source.notes
    assert (
        f"DAMAGED CHECKPOINT, passed over: {stage / '7'}" in damaged and "step 3 is read" in chosen
    )
    flip(stage / "3")
    with pytest.raises(WeightsError, match="every checkpoint is damaged") as error:
        open_source(stage)
    assert str(error.value).count("its bytes have changed") == 2
    with pytest.raises(
        WeightsError, match=r"7: damaged checkpoint; no earlier one is sound in .*stage2"
    ):
        open_source(stage / "7")


def test_best_means_the_step_with_the_best_metric(run):
    stage = run[0] / "checkpoints" / "stage2"
    with pytest.raises(NoWeightsError, match=r"keeps no best checkpoint \(checkpoints\.best"):
        open_source(stage / "best")
    config = json.loads((run[0] / "config.json").read_text())
    config["checkpoints"] = {"best": "validation_loss"}
    (run[0] / "config.json").write_text(json.dumps(config))
    with pytest.raises(NoWeightsError, match=r"none of its checkpoints has a validation_loss"):
        open_source(stage / "best")
    values = {3: 1.0, 5: 0.5, 7: 2.0}  # 5 is gone
    evaluated.keep(stage, [{"step": s, "validation_loss": x} for s, x in values.items()])
    source = open_source(stage / "best")
    assert source.path == stage / "3"
    assert "step 3 is read, the best by validation_loss" in source.notes[-1]
    flip(stage / "3")
    with pytest.raises(WeightsError, match="3: damaged checkpoint"):
        open_source(stage / "best")


def test_a_leaf_that_is_read_otherwise_than_it_was_saved_is_named(run, one_device):
    """As if memory had flipped a bit between the devices and the files, whose own sums then fit."""
    stage = run[0] / "checkpoints" / "stage2"
    manifest = checksums.read_manifest(stage / "7")
    manifest["leaves"][f"frozen.{GATE}"]["sum"] = "00000000"
    checksums.write(stage / "7", {k: x for k, x in manifest.items() if k not in ("files", "crc32")})
    with pytest.raises(
        WeightsError,
        match=rf"frozen.{GATE} cannot be read: it is not what was saved; .*sound: {stage / '3'}",
    ):
        janus_jax.load(stage / "7")


# What lies beside it


def test_where_there_is_no_checkpoint_it_says_what_to_give(run):
    directory, _ = run
    with pytest.raises(
        NoWeightsError, match=r"the work directory of a run; give .*checkpoints/stage2"
    ):
        open_source(directory)
    (directory / "checkpoints" / "stage3").mkdir()
    with pytest.raises(NoWeightsError, match=r"stage3: no step of this stage has been saved yet"):
        open_source(directory / "checkpoints" / "stage3")
    (directory / "config.json").unlink()
    with pytest.raises(
        NoWeightsError, match=r"7: the config of its run is lost; copy it to .*/config.json"
    ):
        open_source(directory / "checkpoints" / "stage2")


def test_without_the_vq_tokenizer_it_is_read_where_the_stage_had_it(
    without_vq, tmp_path, one_device
):
    directory, params = without_vq
    stage = directory / "checkpoints" / "stage2"
    model, _ = janus_jax.load(stage, unrolled=False)
    tiny.same_bits(nnx.to_pure_dict(nnx.state(model)), params)
    assert f"generation_encoder is read from {directory / 'vq'}" in " ".join(
        open_source(stage).notes
    )
    convert.to_layout(open_source(stage), tmp_path / "out", "deepseek")
    assert janus_jax.load(tmp_path / "out")[0].config == tiny.CONFIG


def test_without_the_vq_tokenizer_at_all_it_is_a_part(without_vq, one_device):
    directory, _ = without_vq
    shutil.rmtree(directory / "vq")
    stage = directory / "checkpoints" / "stage2"
    with pytest.raises(WeightsError) as error:
        janus_jax.load(stage)
    text = str(error.value)
    assert "holds no generation_encoder, since its stage read stored image ids" in text
    assert (
        f"{directory / 'vq'}: no weights" in text and "Put back the weights that init names" in text
    )
    fresh = tiny.make_state(TX, FLAMES, seed=9).params
    tree, children = import_weights(stage, fresh, partly=True, config=tiny.CONFIG)
    assert len(children) == 8 and "generation_encoder" not in children
    same = lambda box: np.array_equal(*(tiny.numbers(x[box])["fc1.kernel"] for x in (tree, fresh)))
    assert not same("image_head"), "read"
    tiny.same_bits(tree["generation_encoder"], fresh["generation_encoder"])


def test_of_another_config(made, one_device):
    other = tiny.small(transformer=dataclasses.replace(tiny.CONFIG.transformer, rope_theta=5.0))
    params = tiny.make_state(TX, FLAMES).params
    with pytest.raises(WeightsError, match=r"transformer.rope_theta is 10000.0 there, 5.0 here"):
        import_weights(made[0] / "checkpoints" / "stage2", params, partly=True, config=other)


def test_a_checkpoint_of_a_tokenizers_training_is_its_tokenizer(tmp_path):
    """Nothing is frozen there, and beside the tokenizer lies what only its task needs."""
    with on_mesh():
        state = vq.init_state(jax.random.key(0), tiny.CONFIG, TX)
        more = {"discriminator": {"kernel": jnp.ones((2, 3))}}
        state = state.replace(trainable=state.trainable | more)
        checkpointer = Checkpointer(tmp_path / "checkpoints" / "stage0")
        checkpointer.save(4, state)
        checkpointer.close()
        want = np.asarray(state.trainable["generation_encoder"]["codebook"])
    write_config(tmp_path)
    source = open_source(tmp_path / "checkpoints" / "stage0").require()
    assert source.config is None and source.unshaped == {"generation_encoder.norm_groups": 4}
    assert {name.split(".")[0] for name in source.leaves} == {"generation_encoder"}
    assert source.ignored["discriminator.kernel"] == "what its stage's task alone needs"
    assert np.array_equal(source.read("generation_encoder.codebook"), want)
