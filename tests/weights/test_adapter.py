"""Adapters of this project: read like the weights that they and their base make together."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import adapters, foreign, tiny
from support.foreign import convert, leaves_of
from support.mesh import on_mesh

import janus_jax
from janus_jax.checkpoint.manager import Checkpointer
from janus_jax.common import provenance
from janus_jax.model.low_rank import scaling, whole_kernel
from janus_jax.training import lora_options
from janus_jax.training.state import TrainState
from janus_jax.weights import __main__ as command
from janus_jax.weights import adapter, own
from janus_jax.weights import table as tb
from janus_jax.weights.adapter_export import bases_of, begun_with, export_adapter, remember_bases
from janus_jax.weights.adapter_facts import BEGUN_FILE, Base, Begun
from janus_jax.weights.load import export, import_weights
from janus_jax.weights.reader import flatten
from janus_jax.weights.source import open_source
from janus_jax.weights.table import WeightsError


@pytest.fixture(scope="module")
def run(hf, tmp_path_factory):
    """(a run's folder, its tensors): `base` in this project's layout, and `lora`, an adapter of it."""
    directory = tmp_path_factory.mktemp("run")
    convert(hf, directory / "base", "janus_jax")
    tensors = adapters.planted(directory / "base")
    adapters.save(directory / "lora", directory / "base", tensors)
    return directory, tensors


def close(found: dict, want: dict):
    assert found.keys() == want.keys()
    for name, x in want.items():
        np.testing.assert_allclose(found[name], x, rtol=1e-6, atol=1e-6, err_msg=name)


def test_an_adapter_is_read_as_its_base_with_the_products_added(run):
    directory, tensors = run
    source = open_source(directory / "lora").require()
    base = leaves_of(open_source(directory / "base"))
    found = leaves_of(source)
    close(found, adapters.merged(base, tensors))
    touched = {f"{path}.kernel" for path in adapters.TARGETS}
    touched |= {name for name in tensors if not name.startswith("lora.")}
    for name in base.keys() - touched:
        assert found[name].tobytes() == base[name].tobytes(), name
    for layer in range(2):
        name = "transformer.blocks.attention.q.kernel"
        assert np.array_equal(source.read(name, layer), found[name][layer])
    assert sum(p.stat().st_size for p in (directory / "lora").glob("*.safetensors")) < 60_000


def test_an_adapter_loads_and_begins_a_stage_like_any_weights(run):
    directory, tensors = run
    want = adapters.merged(leaves_of(open_source(directory / "base")), tensors)
    with on_mesh():
        model, processor = janus_jax.load(directory / "lora", unrolled=False)
        params = nnx.to_pure_dict(nnx.state(model))
        blank = jax.tree.map(jnp.zeros_like, params)
        tree, held = import_weights(
            directory / "lora", blank, config=model.config, tokenizer=processor.tokenizer
        )
    close(flatten(params), want)
    close(flatten(tree), want)
    assert held == sorted(foreign.config().children)
    assert processor.tokenizer.fingerprint == foreign.tokenizer().fingerprint


def test_a_bfloat16_base_is_merged_in_float32_and_rounded_once(hf, tmp_path):
    base = convert(hf, tmp_path / "base", "janus_jax", "bfloat16")
    tensors = adapters.planted(base)
    source = open_source(adapters.save(tmp_path / "lora", base, tensors))
    want = adapters.merged(leaves_of(open_source(base)), tensors)
    name = "transformer.blocks.down.kernel"
    np.testing.assert_allclose(source.read(name, 1), want[name][1], rtol=1e-6, atol=1e-6)
    kept = open_source(convert(tmp_path / "lora", tmp_path / "merged", "janus_jax"))
    assert kept.leaves[name][1] == "bfloat16"
    assert np.array_equal(kept.read(name)[1], source.read(name, 1).astype("bfloat16"))


def test_rslora_multiplies_by_alpha_over_the_root_of_the_rank(run, tmp_path):
    directory, tensors = run
    adapters.save(tmp_path / "lora", directory / "base", tensors, rslora=1)
    base = leaves_of(open_source(directory / "base"))
    want = adapters.merged(base, tensors, 6 / 3**0.5)
    close(leaves_of(open_source(tmp_path / "lora")), want)
    assert scaling(3, 6.0, True) == 6 / 3**0.5


@pytest.mark.parametrize("layout", ["janus_jax", "deepseek", "transformers"])
def test_an_adapter_is_converted_merged(run, tmp_path, layout):
    directory, tensors = run
    want = adapters.merged(leaves_of(open_source(directory / "base")), tensors)
    out = convert(directory / "lora", tmp_path / "out", layout)
    close(leaves_of(open_source(out).require()), want)


def test_a_moved_run_finds_the_base_beside_and_a_moved_adapter_by_base(run, tmp_path):
    directory, _ = run
    shutil.copytree(directory, tmp_path / "moved")
    values = json.loads((directory / "lora/adapter.json").read_text())
    values["base"][0]["path"] = str(tmp_path / "gone/base")
    (tmp_path / "moved/lora/adapter.json").write_text(json.dumps(values))
    assert open_source(tmp_path / "moved/lora").require()
    alone = shutil.move(tmp_path / "moved/lora", tmp_path / "alone")
    with pytest.raises(WeightsError, match="gone/base, beside it, or") as told:
        open_source(alone)
    assert "an adapter whose base is not found" in str(told.value)
    assert open_source(alone, base=directory / "base").require()
    arguments = [f"--source={alone}", f"--target={tmp_path / 'out'}", "--format=janus_jax"]
    assert command.main(arguments) == 2
    assert command.main([*arguments, f"--base={directory / 'base'}"]) == 0


def test_a_base_of_other_weights_is_refused(run, tmp_path):
    directory, _ = run
    convert(directory / "lora", tmp_path / "base", "janus_jax")
    shutil.copytree(directory / "lora", tmp_path / "lora")
    with pytest.raises(
        WeightsError, match=r"holds other weights .* than the adapter was trained on"
    ):
        open_source(tmp_path / "lora", base=tmp_path / "base")
    with pytest.raises(WeightsError, match="whole weights, and base is for an adapter"):
        open_source(tmp_path / "base", base=directory / "base")


def test_other_weights_that_lie_in_the_bases_place_by_the_end_are_not_taken_for_it(run, tmp_path):
    """What a stage began with is known from its beginning."""
    directory, tensors = run
    base = shutil.copytree(directory / "base", tmp_path / "base")
    folder = tmp_path / "checkpoints" / "lora"
    assert remember_bases(folder, [base], anew=True) == [str(base)]
    shutil.rmtree(base)
    convert(directory / "lora", base, "janus_jax")
    remember_bases(folder, [base], anew=False)  # as the stage goes on
    adapters.save(tmp_path / "lora", directory / "base", tensors, begun=begun_with(folder))
    with pytest.raises(WeightsError, match=rf"{base} holds other weights"):
        open_source(tmp_path / "lora")
    assert open_source(tmp_path / "lora", base=directory / "base").require()


def test_an_adapter_that_lies_where_its_base_was_is_not_its_own_base(run, tmp_path):
    directory, tensors = run
    base = shutil.copytree(directory / "base", tmp_path / "one" / "finetune")
    adapter = adapters.save(tmp_path / "two" / "finetune", base, tensors)
    shutil.move(base, tmp_path / "moved")
    with pytest.raises(WeightsError, match="two/finetune is this adapter itself"):
        open_source(adapter)
    with pytest.raises(WeightsError, match="two/finetune is this adapter itself"):
        open_source(adapter, base=adapter)
    assert open_source(adapter, base=tmp_path / "moved").require()


def test_a_base_that_was_put_into_the_adapters_own_folder_is_not_read_in_its_place(run, tmp_path):
    directory, _ = run
    shutil.copytree(directory / "lora", tmp_path / "lora")
    for name in ("model.safetensors", "config.json"):
        shutil.copy(directory / "base" / name, tmp_path / "lora")
    with pytest.raises(WeightsError, match="an adapter and whole weights, and which is meant"):
        open_source(tmp_path / "lora")


def test_an_adapter_may_be_the_base_of_another(run, tmp_path):
    directory, tensors = run
    again = adapters.planted(directory / "lora", seed=1)
    adapters.save(tmp_path / "again", directory / "lora", again)
    first = adapters.merged(leaves_of(open_source(directory / "base")), tensors)
    close(leaves_of(open_source(tmp_path / "again").require()), adapters.merged(first, again))


def test_bases_may_be_parts_and_children_that_none_holds_are_kept_whole(run, tmp_path):
    directory, tensors = run
    source = open_source(directory / "base")
    there = leaves_of(source)
    part = {name: x for name, x in there.items() if not name.startswith("image_head.")}
    export(tmp_path / "part", adapters.nested(part), part_of=source.config)
    head = {name: x for name, x in there.items() if name.startswith("image_head.")}
    params = adapters.nested(tensors | head)
    params["transformer"] = {"norm": {"scale": params["lora"]["text_head"]["linear"]["a"]}}
    export_adapter(
        tmp_path / "lora", params, trainable=adapters.WHOLE, begun=bases_of([tmp_path / "part"]),
        options=adapters.OPTIONS | {"base": "int8"}, config=source.config, processor=source.processor(),
    )  # fmt: skip
    close(leaves_of(open_source(tmp_path / "lora").require()), adapters.merged(there, tensors))
    assert json.loads((tmp_path / "lora/adapter.json").read_text())["base_kept_as"] == "int8"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("rank", 5, r"shape: lora\.\S+ is \(.*3\) in the file, \(.*5\) by the config"),
        ("rank", None, "rank: missing"),
        ("alpha", "two", "alpha is 'two': must be a finite number"),
        ("base", [], "missing: generation_adaptor, .* which neither it nor its base holds"),
        ("base", None, "base: missing"),
        ("base", [{"path": 3}], r"base\[0\] is .* must have a path"),
        ("base", "weights/base", "base is 'weights/base': must be a list of the weights"),
        ("model", {}, "transformer: missing"),
    ],
)
def test_facts_that_cannot_be_are_refused_by_their_field(run, tmp_path, field, value, says):
    directory, _ = run
    shutil.copytree(directory / "lora", tmp_path / "lora")
    values = json.loads((tmp_path / "lora/adapter.json").read_text()) | {field: value}
    (tmp_path / "lora/adapter.json").write_text(json.dumps(values))
    with pytest.raises(WeightsError, match=says):
        open_source(tmp_path / "lora").require()


def test_a_pair_that_is_cut_or_damaged_is_told_by_name(run, tmp_path):
    directory, tensors = run
    shutil.copytree(directory / "lora", tmp_path / "damaged")
    file = tmp_path / "damaged/adapter.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    source = open_source(tmp_path / "damaged")
    leaves_of(source)
    with pytest.raises(WeightsError, match=r"checksum: .* is not what was written"):
        source.raise_if_damaged()
    whole = {name: x for name, x in tensors.items() if name != "lora.text_head.linear.b"}
    adapters.save(tmp_path / "cut", directory / "base", whole)
    with pytest.raises(WeightsError, match=r"missing: lora.text_head.linear.b \(3, 384\)"):
        open_source(tmp_path / "cut").require()
    none = {name: x for name, x in tensors.items() if not name.startswith("lora.")}
    adapters.save(tmp_path / "none", directory / "base", none)
    with pytest.raises(WeightsError, match="missing: the pairs, of which its file holds none"):
        open_source(tmp_path / "none").require()
    extra = tensors | {"lora.transformer.blocks.norm1.a": np.zeros((2, 64, 3), np.float32)}
    adapters.save(tmp_path / "extra", directory / "base", extra)
    with pytest.raises(
        WeightsError, match=r"transformer.blocks.norm1.kernel has a pair, and no such"
    ):
        open_source(tmp_path / "extra").require()


def test_results_of_an_adapter_are_known_by_it_and_its_base(run, tmp_path):
    directory, tensors = run
    mark = lambda path: provenance.weights_hash(*open_source(path).paths)
    assert mark(directory / "base") == provenance.weights_hash(directory / "base")
    adapters.save(tmp_path / "lora", directory / "base", tensors, alpha=7.0)
    assert len({mark(directory / "lora"), mark(tmp_path / "lora"), mark(directory / "base")}) == 3


def test_a_checkpoint_of_pairs_is_read_merged_with_an_int8_base_too(one_device, tmp_path):
    """What its config leaves out is as task lora has it."""
    rng = np.random.default_rng(0)
    draw = lambda shape: (0.2 * rng.standard_normal(shape)).astype(np.float32)
    base = {name: draw(shape) for name, shape in own.our_shapes(tiny.CONFIG).items()}
    gate = "transformer.blocks.gate"
    stored = base | {f"{gate}.kernel": rng.integers(-127, 128, (2, 32, 64)).astype(np.int8)}
    stored |= {f"{gate}.scale": np.abs(draw((2, 64))) / 127}
    linear = {"kernel": stored[f"{gate}.kernel"], "scale": stored[f"{gate}.scale"]}
    base[f"{gate}.kernel"] = whole_kernel(linear)
    pairs = {f"lora.{gate}.a": draw((2, 32, 3)), f"lora.{gate}.b": draw((2, 3, 64))}
    params = adapters.nested(stored)
    learns = {**adapters.nested(pairs), "image_head": params.pop("image_head")}
    step = jnp.int32(7)
    state = TrainState(step, jnp.int32(0), None, learns, params, {})
    checkpointer = Checkpointer(tmp_path / "checkpoints/one", say=lambda line: None)
    checkpointer.save(7, state)
    checkpointer.close()
    tiny.processor().tokenizer.save(tmp_path)
    stage = {"init": ["gone"], "trainable": ["image_head"], "options": {"targets": "mlp"}}
    values = {
        "model": dataclasses.asdict(tiny.CONFIG), "stages": {"one": stage}, "tokenizer": "",
        "template": dataclasses.asdict(tiny.processor().template),
        "evaluation": {"count": 0, "cfg_scale": 2.5, "temperature": 0.5},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(values))
    source = open_source(tmp_path / "checkpoints/one").require()
    close(leaves_of(source), adapters.merged(base, pairs, 32 / 3))
    assert source.processor().cfg_scale == 2.5
    step = tmp_path / "checkpoints/one/7"  # what the stage goes on to save later is not its base
    assert remember_bases(tmp_path / "next", [step.parent], anew=True) == [str(step)]
    assert {tb.child(name) for name in source.trained} == {"image_head"}
    held = [child for child in tiny.CONFIG.children if child != "generation_adaptor"]
    begun = Begun((Base("weights/base", "a" * 64),), tuple(held))
    file = tmp_path / "checkpoints/one" / BEGUN_FILE
    file.write_text(json.dumps(dataclasses.asdict(begun)))
    source = open_source(tmp_path / "checkpoints/one")
    assert source.facts.bases == begun.bases
    assert {tb.child(name) for name in source.trained} == {"image_head", "generation_adaptor"}
    shutil.copytree(tmp_path / "checkpoints/one/7", tmp_path / "checkpoints/copy/7")
    with pytest.raises(WeightsError, match="copy is no stage of its run's config, which says by"):
        open_source(tmp_path / "checkpoints/copy/7")
    assert {name: lora_options.OPTIONS[name] for name in adapter.DEFAULTS} == adapter.DEFAULTS
