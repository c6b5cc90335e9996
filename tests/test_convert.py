"""Every released Janus in, every trained Janus out: tables that balance, bytes that come back, equal answers."""

import dataclasses
import functools
import gzip
import importlib
import json
import pathlib

import foreign
import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import tiny
import torch
import transformers
from conftest import on_mesh
from flax import nnx

import janus_jax
from janus_jax import sharding as sh
from janus_jax.convert import janus_hf, janus_torch, sidecars, target
from janus_jax.convert import table as tb
from janus_jax.convert.source import open_source
from janus_jax.data.processor import SYSTEM, Processor, Template
from janus_jax.model import config as sizes
from janus_jax.model.janus import abstract
from janus_jax.weights import export, import_weights

DATA = pathlib.Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def hf(tmp_path_factory):
    return foreign.save_transformers(tmp_path_factory.mktemp("weights") / "hf")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return foreign.save_original(tmp_path_factory.mktemp("weights") / "original", "bfloat16")


def convert(source, directory, layout, dtype=None):
    target.convert(open_source(source), directory, layout, dtype)
    return directory


# Tables


@pytest.mark.parametrize("name, config", [
    ("janus_1b_class", sizes.janus_1_3b()), ("janus_pro_7b", sizes.janus_pro_7b()),
])  # fmt: skip
def test_the_table_covers_every_key_of_the_released_files(name, config):
    lines = gzip.decompress((DATA / f"{name}.tsv.gz").read_bytes()).decode().split("\n")
    released = dict(line.split("\t") for line in lines if line)
    written = {key: rows[0][0].stored for key, rows in tb.by_their_key(janus_torch.rows(config)).items()}
    ignored = {k for k in released if "attn_pool" in k or k.endswith("codebook_used")}
    assert len(ignored) == 14 and len(released) == {"janus_1b_class": 882, "janus_pro_7b": 936}[name]
    assert {k: "x".join(map(str, shape)) for k, shape in written.items()} == {
        k: shape for k, shape in released.items() if k not in ignored
    }


@pytest.mark.parametrize(
    "config", [foreign.config(), tiny.CONFIG, sizes.janus_pro_7b()], ids=["a", "b", "7B"]
)
def test_every_table_fills_every_leaf(config, one_device):
    ours = {name: x.shape for name, x in leaves(nnx.state(abstract(config))).items()}
    for module in (janus_torch, janus_hf):
        rows = module.rows(config)
        assert {row.ours: row.our_shape for row in rows} == ours and len(rows) == len(ours), module.KIND


def leaves(tree) -> dict:
    return {".".join(map(str, path)): leaf for path, leaf in nnx.to_flat_state(tree)}


# In


def test_transformers_weights_come_in_as_they_are(hf, one_device):
    model, processor = janus_jax.load(hf, unrolled=False)
    ours = sh.concrete(abstract(foreign.config()))
    oracle.copy_into(ours, foreign.model().state_dict())
    assert model.config == dataclasses.replace(foreign.config(), remat="dots")
    tiny.same_bits(nnx.to_pure_dict(nnx.state(model)), nnx.to_pure_dict(nnx.state(ours)))
    assert processor.template == Template(*foreign.ROLES, SYSTEM)
    assert (processor.understanding_tokens, processor.generation_tokens) == (16, 16)


@functools.partial(jax.jit, static_argnums=4)
def logits(model, tokens, positions, segments, head):
    side, none = model.config.understanding_encoder.image_size, np.zeros((1, 0), np.int32)
    slots = jnp.zeros_like(tokens)
    pictures = np.zeros((1, 0, side, side, 3), np.float32)
    return getattr(model, head)(model(tokens, pictures, none, slots, slots, positions, segments))


def test_loaded_weights_answer_as_transformers_does(original, hf, one_device):
    """Both layouts, float32: logits within 1e-4, and the greedy ids of its own generate()."""
    prompt = np.random.default_rng(0).integers(6, 300, (1, 12))
    with torch.no_grad():
        ids = foreign.model().generate(
            torch.from_numpy(prompt), max_new_tokens=6, do_sample=False, eos_token_id=-1
        )
        want = foreign.model()(input_ids=ids).logits.numpy()
    ids = ids.numpy().astype(np.int32)
    where = np.arange(ids.shape[1], dtype=np.int32)[None], np.ones_like(ids)
    model, _ = janus_jax.load(hf)
    got = np.asarray(logits(model, ids, *where, "text_head"))
    assert np.abs(got - want).max() < 1e-4 * np.abs(want).max()
    assert got[0, 11:-1].argmax(-1).tolist() == ids[0, 12:].tolist()


def test_the_original_layout_comes_in(original, one_device):
    source = open_source(original)
    assert source.kind == "deepseek" and source.check() == []
    assert source.config == dataclasses.replace(foreign.config(), dtype="bfloat16", remat="dots")
    assert len(source.ignored) == 4 and sorted(source.kept) == sorted(source.ignored)
    ours = sh.concrete(abstract(foreign.config()))
    oracle.copy_into(ours, foreign.model("bfloat16").state_dict())
    want = leaves(nnx.state(ours))
    assert want.keys() == source.leaves.keys()
    for name, leaf in want.items():
        got = source.read(name)
        assert got.dtype == "bfloat16" and (got.shape, got.dtype) == source.leaves[name]
        assert np.array_equal(got.astype(np.float32), leaf.get_value()), name
        if tb.stacked(name):
            assert np.array_equal(source.read(name, 1), got[1]), name
    source.settle()
    model, _ = janus_jax.load(original)
    dtypes = {name: str(x.get_value().dtype) for name, x in leaves(nnx.state(model)).items()}
    assert {dtypes.pop(n) for n in list(dtypes) if n.startswith("generation_encoder.")} == {"float32"}
    assert set(dtypes.values()) == {"bfloat16"} and model.config.dtype == "bfloat16"
    assert janus_jax.load(original, dtype="float32")[0].text_head.linear.kernel.dtype == np.float32


def test_float16_is_not_a_compute_type(original):
    with pytest.raises(ValueError, match=r"float16.*65504"):
        janus_jax.load(original, dtype="float16")


@pytest.mark.parametrize("select_layer, depth", [(-1, 24), (-2, 23), (0, 24), (5, 5), (30, 24)])
def test_the_selected_layer_sets_the_towers_depth(select_layer, depth):
    """The original builds no more blocks than it uses."""
    values = foreign.original_config() | {"vision_config": {"params": {"select_layer": select_layer}}}
    assert janus_torch.plan(values, {}).config.understanding_encoder.layers == depth


def test_what_a_config_leaves_out_is_llamas_default():
    values = {
        "model_type": "multi_modality",
        "language_config": {"num_hidden_layers": 30, "vocab_size": 102400},
    }
    values["gen_head_config"] = {"params": {"image_token_embed": 4096}}
    plan = janus_torch.plan(values | {"torch_dtype": "bfloat16"}, {})
    assert plan.config == sizes.janus_pro_7b() and plan.problems == ()


def test_a_config_that_our_model_cannot_be_is_refused_in_words():
    llm = {"num_attention_heads": 8, "num_key_value_heads": 2, "attention_bias": True, "hidden_act": "gelu",
           "rope_scaling": {"type": "linear", "factor": 2}, "head_dim": 64, "hidden_size": 64}  # fmt: skip
    values = {"language_config": llm, "aligner_config": {"params": {"projector_type": "linear"}},
              "vision_config": {"params": {"select_feature": "patch", "model_name": "other",
              "pixel_mean": [0.5] * 3, "select_layer": -30}}}  # fmt: skip
    text = "\n".join(janus_torch.plan(values, {}).problems)
    for word in (
        "num_key_value_heads is 2", "attention_bias is True", "hidden_act is 'gelu'", "rope_scaling is 'linear'",
        "head_dim is 64", "projector_type is 'linear'", "select_feature is 'patch'", "model_name is 'other'",
        "pixel_mean and pixel_std are set", "select_layer is -30, of a tower of 24 layers",
    ):  # fmt: skip
        assert word in text
    text = "\n".join(
        janus_hf.plan(
            {"vision_config": {"use_qk_norm": True}, "vq_config": {"double_latent": True}}, {}
        ).problems
    )
    assert "use_qk_norm is True" in text and "double_latent is True" in text


def test_tied_embeddings_are_untied(hf, tmp_path, one_device):
    tensors = foreign.tensors_of(hf)
    del tensors["lm_head.weight"]
    values = json.loads((hf / "config.json").read_text()) | {"tie_word_embeddings": True}
    foreign.save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(values))
    source = open_source(tmp_path).require()
    assert np.array_equal(source.read("text_head.linear.kernel"), source.read("text_embedding.table").T)


def test_a_mesh_splits_what_is_loaded(original):
    with on_mesh(1, 4, 2):
        model, _ = janus_jax.load(original, unrolled=False)
        kernel = model.transformer.blocks.gate.kernel[...]
        assert not kernel.is_fully_replicated
        assert np.array_equal(kernel, open_source(original).read("transformer.blocks.gate.kernel"))


def test_roles_go_by_the_vocabulary(tmp_path):
    foreign.save_original(tmp_path, pro=False)
    assert open_source(tmp_path).processor().template == Template("User", "Assistant")


# Out


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_original_layout_comes_back_byte_for_byte(dtype, tmp_path):
    source = foreign.save_original(tmp_path / "theirs", dtype)
    ours = convert(source, tmp_path / "ours", "janus_jax")
    back = convert(ours, tmp_path / "back", "deepseek")
    foreign.same_tensors(source, back)
    foreign.same_tensors(source, convert(source, tmp_path / "straight", "deepseek"))
    assert open_source(ours).config == open_source(source).config
    assert dataclasses.replace(open_source(back).config, dtype="bfloat16") == open_source(ours).config
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_transformers_layout_comes_back_byte_for_byte(dtype, tmp_path):
    source = foreign.save_transformers(tmp_path / "theirs", dtype)
    ours = convert(source, tmp_path / "ours", "janus_jax")
    foreign.same_tensors(source, convert(ours, tmp_path / "back", "transformers"))
    through = convert(convert(source, tmp_path / "a", "deepseek"), tmp_path / "b", "transformers")
    foreign.same_tensors(source, through)


def test_shards_are_read_and_written(hf, tmp_path, monkeypatch):
    foreign.model().save_pretrained(tmp_path / "theirs", max_shard_size="300KB")
    foreign.tokenizer().save(tmp_path / "theirs")
    assert len(list((tmp_path / "theirs").glob("*.safetensors"))) > 2
    monkeypatch.setattr(target, "SHARD_BYTES", 300_000)
    back = convert(tmp_path / "theirs", tmp_path / "back", "transformers")
    assert len(list(back.glob("*.safetensors"))) > 2
    foreign.same_tensors(hf, back)
    assert transformers.JanusForConditionalGeneration.from_pretrained(back) is not None


def test_a_dtype_that_was_asked_for(hf, tmp_path):
    source = open_source(convert(hf, tmp_path / "ours", "janus_jax", "bfloat16"))
    vq = {str(d) for n, (_, d) in source.leaves.items() if n.startswith("generation_encoder.")}
    rest = {str(d) for n, (_, d) in source.leaves.items() if not n.startswith("generation_encoder.")}
    assert (vq, rest, source.config.dtype) == ({"float32"}, {"bfloat16"}, "bfloat16")
    want = open_source(hf).read("transformer.blocks.gate.kernel").astype("bfloat16")
    assert np.array_equal(source.read("transformer.blocks.gate.kernel"), want)


@pytest.fixture(scope="module")
def written(hf, tmp_path_factory):
    """A model of ours, exported as training does, in transformers' layout."""
    directory = tmp_path_factory.mktemp("out")
    with on_mesh():
        model, processor = janus_jax.load(hf, unrolled=False)
        export(directory / "ours", nnx.to_pure_dict(nnx.state(model)), model.config, processor)
    return convert(directory / "ours", directory / "hf", "transformers")


def test_transformers_loads_what_we_write(written):
    theirs, info = transformers.JanusForConditionalGeneration.from_pretrained(
        written, output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert theirs.lm_head.weight is not theirs.get_input_embeddings().weight
    ids = torch.arange(6, 30)[None]
    with torch.no_grad():
        assert torch.equal(theirs(input_ids=ids).logits, foreign.model()(input_ids=ids).logits)
        t = foreign.tokenizer()
        prompt = torch.tensor([[t.bos, 70, 71, t.begin_of_image]])
        images = theirs.generate(prompt, generation_mode="image", attention_mask=torch.ones_like(prompt))
    assert images.shape == (1, 16)


MESSAGES = [
    [{"role": "user", "content": "what is this?"}],
    [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a red circle"},
     {"role": "user", "content": " and now? "}],
    [{"role": "system", "content": "Be brief."},
     {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is this?"}]}],
    [{"role": "user", "content": [{"type": "text", "text": "two:"}, {"type": "image"}, {"type": "image"}]}],
]  # fmt: skip


@pytest.fixture(scope="module")
def talkers(tmp_path_factory):
    """(transformers' processor as we write it, ours); the roles are words, as in Janus-1.3B."""
    directory = tmp_path_factory.mktemp("talk")
    ours = Processor(foreign.tokenizer(pro=False), Template(), 16, 16)
    sidecars.write_transformers(directory, ours, foreign.config())
    (directory / "config.json").write_text('{"model_type": "janus"}')
    return transformers.JanusProcessor.from_pretrained(directory), ours


@pytest.mark.parametrize("messages", MESSAGES)
def test_the_processor_of_transformers_gives_our_ids(talkers, messages, monkeypatch):
    theirs, ours = talkers
    system = "" if messages[0]["role"] == "user" else None
    spans = ours.conversation([*messages, {"role": "assistant", "content": ""}], system=system)
    text = theirs.apply_chat_template(messages, add_generation_prompt=True)
    pictures = [np.zeros((40, 30, 3), np.uint8)] * sum(
        p["type"] == "image" for m in messages if isinstance(m["content"], list) for p in m["content"]
    )
    monkeypatch.setattr(theirs, "use_default_system_prompt", False)
    got = theirs(text=text, images=pictures or None)
    assert got["input_ids"][0].tolist() == [i for ids, *_ in spans for i in ids]
    if pictures:
        assert got["pixel_values"].shape[-2:] == (32, 32)
        assert float(got["pixel_values"].max()) <= -0.0039, "grey borders and black, by mean and std 0.5"


def test_the_default_system_text_and_drawing(talkers):
    theirs, ours = talkers
    messages = [{"role": "user", "content": "a red circle"}]
    text = theirs.apply_chat_template(messages, add_generation_prompt=True)
    spans = ours.conversation([*messages, {"role": "assistant", "content": ""}])
    assert theirs(text=text)["input_ids"][0].tolist() == [i for ids, *_ in spans for i in ids]
    drawn = theirs(text=text, generation_mode="image")["input_ids"][0].tolist()
    assert drawn == [i for ids, *_ in ours.drawing("a red circle") for i in ids]


def test_roles_that_are_tokens_stay_whole(written):
    theirs = transformers.JanusProcessor.from_pretrained(written)
    text = theirs.apply_chat_template(MESSAGES[0], add_generation_prompt=True)
    assert text == "<|User|>: what is this?\n\n<|Assistant|>:"
    ids = theirs(text=text, generation_mode="image")["input_ids"][0].tolist()
    backend, t = foreign.tokenizer().backend, foreign.tokenizer()
    assert [ids.count(backend.token_to_id(role)) for role in foreign.ROLES] == [1, 1]
    assert (ids[0], ids[-1]) == (t.bos, t.begin_of_image)


def test_a_model_that_transformers_cannot_be_is_refused(tmp_path, one_device):
    config = tiny.small(image_head_width=64)
    params = nnx.to_pure_dict(nnx.state(tiny.make_model(config)))
    export(tmp_path / "ours", params, config, tiny.processor())
    with pytest.raises(ValueError, match=r"norm_groups is 4; theirs is always 32\n.*image_head_width is 64"):
        convert(tmp_path / "ours", tmp_path / "hf", "transformers")
    back = convert(convert(tmp_path / "ours", tmp_path / "o", "deepseek"), tmp_path / "back", "janus_jax")
    foreign.same_tensors(tmp_path / "ours", back)
    assert open_source(back).config == config and not (tmp_path / "hf").exists()


def test_the_originals_small_files(original, tmp_path):
    back = convert(original, tmp_path / "back", "deepseek")
    read = lambda name: json.loads((back / name).read_text())
    assert read("processor_config.json")["sft_format"] == "deepseek"
    assert read("preprocessor_config.json")["image_size"] == 32
    assert read("config.json")["language_config"]["bos_token_id"] == foreign.tokenizer().bos
    released = janus_torch.config_values(sizes.janus_pro_7b(), "bfloat16", {})
    assert released["vision_config"]["params"] == {
        "image_size": 384, "model_name": "siglip_large_patch16_384", "select_feature": "same", "select_layer": -1
    }  # fmt: skip
    assert released["gen_vision_config"]["params"] == {"image_token_size": 16384, "n_embed": 8}
    assert janus_torch.plan(released, {}).config == sizes.janus_pro_7b()


def test_generation_defaults_travel(tmp_path):
    template = Template(*foreign.ROLES, system="")
    processor = Processor(foreign.tokenizer(), template, 16, 16, cfg_scale=3.0, temperature=0.5)
    sidecars.write_transformers(tmp_path, processor, foreign.config())
    again = sidecars.read_processor(tmp_path, foreign.config())
    assert (again.cfg_scale, again.temperature, again.template) == (3.0, 0.5, template)
    processor.template = Template(system="You paint.")
    with pytest.raises(ValueError, match=r"system is 'You paint.'; the other layouts have one fixed text"):
        sidecars.write_transformers(tmp_path, processor, foreign.config())


@pytest.mark.parametrize("layout", ["deepseek", "transformers"])
def test_the_benchmarks_checkpoints_balance(tmp_path, layout, monkeypatch):
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parents[1] / "benchmarks"))
    make_checkpoint = importlib.import_module("make_checkpoint")
    monkeypatch.setattr(make_checkpoint, "POOL", 9973)
    monkeypatch.setattr(make_checkpoint, "PIECE", 5000)
    make_checkpoint.make(foreign.config(), layout, tmp_path / "random", pro=True, vocabulary=300)
    source = open_source(tmp_path / "random").require()
    assert source.kind == layout and len(source.kept) == (14 if layout == "deepseek" else 0)
    assert {str(dtype) for _, dtype in source.leaves.values()} == {"bfloat16"}
    back = convert(convert(tmp_path / "random", tmp_path / "ours", "janus_jax"), tmp_path / "back", layout)
    foreign.same_tensors(tmp_path / "random", back)


# Stages


def test_a_stage_starts_from_any_source(original, hf, one_device):
    shapes = sh.concrete(nnx.to_pure_dict(nnx.state(abstract(foreign.config()))))
    got, children = import_weights(original, shapes, partly=True)
    assert children == sorted(sizes.CHILDREN)
    assert got["text_head"]["linear"]["kernel"].dtype == np.float32


@pytest.mark.parametrize("write", [sidecars.write_deepseek, sidecars.write_transformers])
def test_template_and_sampling_numbers_come_back(tmp_path, write):
    ours = Processor(foreign.tokenizer(), Template(*foreign.ROLES, ""), 16, 16, 1.5, 0.0)
    write(tmp_path, ours, foreign.config())
    back = sidecars.read_processor(tmp_path, foreign.config())
    assert (back.template, back.cfg_scale, back.temperature) == (ours.template, 1.5, 0.0)
    for template, said in (
        (Template(*foreign.ROLES, "Be brief."), "system is 'Be brief.'"),
        (Template("Q", "A"), "roles are 'Q' and 'A'"),
    ):
        with pytest.raises(ValueError, match=said):
            write(tmp_path, Processor(foreign.tokenizer(), template, 16, 16), foreign.config())


def test_a_dtype_by_another_name_is_refused_with_the_choices(hf, one_device):
    with pytest.raises(ValueError, match=r"dtype 'bf16': must be one of float32, bfloat16, int8"):
        janus_jax.load(hf, dtype="bf16")
