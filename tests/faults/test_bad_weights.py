"""Weights that are wrong, incomplete, damaged or dangerous: refused in words that say how to mend
it."""

import collections
import functools
import json
import os
import pickle
import re
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.numpy import load_file as load_numpy
from safetensors.numpy import save_file as save_numpy
from support import foreign, tiny
from tokenizers import Tokenizer as Backend

import janus_jax
from janus_jax.common import exit_codes
from janus_jax.data.messages import SPECIALS
from janus_jax.data.tokenizer import Tokenizer
from janus_jax.distributed import platform
from janus_jax.model import sharding as sh
from janus_jax.model.config import to_dict
from janus_jax.model.janus import abstract
from janus_jax.weights import __main__ as weights_command
from janus_jax.weights import convert, pickles, target, verify
from janus_jax.weights.load import import_weights
from janus_jax.weights.own import sizes
from janus_jax.weights.source import open_source

GATE = "language_model.model.layers.1.mlp.gate_proj.weight"


def broken(directory, **changes):
    """The original layout with tensors replaced (by a tensor, or None for none)."""
    tensors = foreign.original_tensors() | changes
    return foreign.save_original(
        directory, tensors={k: x for k, x in tensors.items() if x is not None}
    )


@pytest.fixture
def ours(tmp_path):
    convert.to_layout(
        open_source(foreign.save_original(tmp_path / "theirs")), tmp_path / "ours", "janus_jax"
    )
    return tmp_path / "ours"


# Another tokenizer


def test_the_wrong_tokenizer_is_named_with_both_ids(ours):
    text = (ours / "tokenizer.json").read_text()
    other = json.loads(text)
    for entry in other["added_tokens"]:
        entry["id"] = {2: 3, 3: 2}.get(
            entry["id"], entry["id"]
        )  # pad and begin_of_image change places
    vocab = other["model"]["vocab"]
    vocab[SPECIALS["pad"]], vocab[SPECIALS["begin_of_image"]] = 3, 2
    (ours / "tokenizer.json").write_text(json.dumps(other))
    with pytest.raises(
        ValueError,
        match=r"wrong tokenizer: pad .* is 3 in tokenizer.json, 2 for these weights; beg",
    ):
        janus_jax.load(ours)


def test_a_tokenizer_of_other_merges_is_noticed(ours):
    other = json.loads((ours / "tokenizer.json").read_text())
    other["model"]["merges"].pop()
    (ours / "tokenizer.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match="not the file that was saved with these weights"):
        janus_jax.load(ours)


@pytest.mark.parametrize(
    "field, value, says",
    [
        (
            "crc32",
            {"text_head.linear.bias": 5},
            r"crc32\.text_head\.linear\.bias is 5: must be a list",
        ),
        ("crc32", [1], r"crc32 is \[1\]: must be a section"),
        ("tokenizer", {"ids": [1, 2]}, r"tokenizer\.ids is \[1, 2\]: must be a section"),
        (
            "tokenizer",
            {"ids": {"cls": 1}},
            r"tokenizer\.ids\.cls is 1: must be the id of one of bos",
        ),
        ("tokenizer", {"ids": {"bos": "0"}}, r"tokenizer\.ids\.bos is '0': must be the id"),
    ],
)
def test_a_manifest_of_other_types_is_refused_by_its_field(tmp_path, field, value, says):
    save_numpy({"text_head.linear.bias": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "manifest.json").write_text(json.dumps({field: value}))
    with pytest.raises(ValueError, match=rf"manifest\.json: {says}.*; copy the file again"):
        open_source(tmp_path)


def test_a_manifest_with_empty_fields_says_nothing(tmp_path):
    save_numpy({"text_head.linear.bias": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "manifest.json").write_text('{"crc32": null, "tokenizer": {"ids": null}}')
    source = open_source(tmp_path)
    assert len(source.read("text_head.linear.bias")) == 3
    source.raise_if_damaged()


def test_the_placeholder_of_transformers_config_is_compared(tmp_path):
    foreign.save_transformers(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text()) | {"image_token_id": 100581}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(
        ValueError, match=r"placeholder \(<image_placeholder>\) is 5 in tokenizer.json, 100581 for"
    ):
        janus_jax.load(tmp_path)


def test_ids_beyond_the_vocabulary_are_refused(tmp_path):
    foreign.save_original(tmp_path)
    text = (tmp_path / "tokenizer.json").read_text().replace(SPECIALS["placeholder"], "<was here>")
    (tmp_path / "tokenizer.json").write_text(text)
    backend = Backend.from_file(str(tmp_path / "tokenizer.json"))
    backend.add_tokens([f"<filler {i}>" for i in range(100)])
    backend.add_special_tokens([SPECIALS["placeholder"]])
    backend.save(str(tmp_path / "tokenizer.json"))
    i = Tokenizer.load(tmp_path).placeholder
    assert i >= 384
    with pytest.raises(ValueError, match=rf"is {i}, beyond the model's vocabulary of 384"):
        janus_jax.load(tmp_path)


# Numbers that are not finite


@pytest.mark.parametrize(
    "dtype, value", [("float32", np.nan), ("bfloat16", np.inf), ("float16", -np.inf)]
)
def test_weights_that_are_not_finite_are_named(tmp_path, dtype, value, one_device):
    tensors = foreign.original_tensors()
    for name in (GATE, "gen_embed.weight"):
        tensors[name] = tensors[name].to(getattr(torch, dtype)).clone()
        tensors[name][3, 4] = value
    source = foreign.save_original(tmp_path / "theirs", tensors=tensors)
    with pytest.raises(ValueError, match="damaged weights") as error:
        janus_jax.load(source, "float32")
    assert "gen_embed.weight holds 1 infinite" in str(error.value)
    assert f"{GATE} holds 1 infinite" in str(error.value)
    with pytest.raises(ValueError, match="holds 1 infinite"):
        convert.to_layout(open_source(source), tmp_path / "ours", "janus_jax")
    assert not (tmp_path / "ours").exists()


# Another config


def test_a_checkpoint_of_another_config_names_the_fields(ours, tmp_path, one_device):
    params = sh.concrete(nnx.to_pure_dict(nnx.state(abstract(tiny.CONFIG))))
    with pytest.raises(ValueError) as error:
        import_weights(ours, params)
    text = str(error.value)
    assert (
        "transformer.width is 64 there, 32 here" in text
        and "understanding_encoder.patch_size is 8" in text
    )
    assert text.index("transformer.width") < text.index("unknown: ") and "more" in text
    values = json.loads((ours / "config.json").read_text())
    values["transformer"]["width"] = 128
    (ours / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"transformer.width is 64 there, 128 here"):
        janus_jax.load(ours)


# Keys, types, shapes


def test_missing_keys_are_listed(tmp_path):
    names = [
        name for name in foreign.original_tensors() if name.startswith("gen_vision_model.encoder")
    ]
    source = broken(tmp_path, **dict.fromkeys(names))
    with pytest.raises(ValueError) as error:
        janus_jax.load(source)
    text = str(error.value)
    assert (
        text.count("missing: gen_vision_model.encoder") == 20
        and f"and {len(names) - 20} more" in text
    )


def test_extra_keys_are_listed_or_skipped_when_allowed(tmp_path, one_device):
    source = broken(tmp_path, **{"language_model.lora.A": torch.zeros(2)})
    with pytest.raises(
        ValueError, match=r"unknown: language_model.lora.A \(2,\) \(--allow_extra skips such"
    ):
        janus_jax.load(source)
    assert "lora" in " ".join(open_source(source, allow_extra=True).require().ignored)


def test_a_wrong_type_is_refused(tmp_path):
    source = broken(tmp_path, **{GATE: foreign.original_tensors()[GATE].to(torch.int32)})
    with pytest.raises(ValueError, match=rf"type: {GATE} is \w+; a float type is due"):
        janus_jax.load(source)


def test_float64_and_float16_are_cast_where_a_dtype_is_asked_for(tmp_path, one_device):
    tensors = foreign.original_tensors()
    code = "gen_vision_model.quantize.embedding.weight"
    changed = {GATE: tensors[GATE].double(), "gen_embed.weight": tensors["gen_embed.weight"].half()}
    source = broken(tmp_path / "theirs", **changed, **{code: tensors[code].half()})
    with pytest.raises(ValueError) as error:
        janus_jax.load(source)
    due = "; float32 or bfloat16 is due (dtype=float32 casts it"
    assert f"type: {GATE} is float64{due}" in str(error.value)
    assert re.search(rf"type: \S+ is float16 \(and 1 more\){re.escape(due)}", str(error.value))
    convert.to_layout(open_source(source), tmp_path / "once", "janus_jax", "float32")
    for path, dtype in ((source, "float32"), (tmp_path / "once", None)):
        model, _ = janus_jax.load(path, dtype, unrolled=False)
        assert {str(x.get_value().dtype) for _, x in nnx.to_flat_state(nnx.state(model))} == {
            "float32"
        }
        assert np.array_equal(model.transformer.blocks.gate.kernel[1], tensors[GATE].numpy().T)


def test_fp8_is_cast_where_a_dtype_is_asked_for(tmp_path):
    gate = foreign.original_tensors()[GATE].to(torch.float8_e4m3fn)
    source = open_source(broken(tmp_path / "theirs", **{GATE: gate}))
    assert f"type: {GATE} is float8_e4m3fn; float32 or bfloat16 is due" in source.problems()[0]
    assert source.problems(cast=True) == []
    read = source.read("transformer.blocks.gate.kernel", 1)
    assert np.array_equal(read.astype(np.float32), gate.float().numpy().T)
    gate = torch.full_like(foreign.original_tensors()[GATE], torch.nan).to(torch.float8_e5m2)
    source = open_source(broken(tmp_path / "nan", **{GATE: gate}))
    source.read("transformer.blocks.gate.kernel")
    with pytest.raises(ValueError, match=f"{GATE} holds 6144 infinite or undefined"):
        source.raise_if_damaged()


def test_a_config_of_nothing_and_of_another_model_are_refused(tmp_path):
    foreign.save_original(tmp_path)
    for content, says in (
        ("{}", "config.json: an empty object"),
        ('{"model_type": "qwen2_vl"}', "model_type is 'qwen2_vl'"),
        ('{"quantization_config": {"quant_method": "gptq", "bits": 4}}', "quantised: gptq 4-bit"),
    ):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(ValueError, match=says):
            open_source(tmp_path)


@pytest.mark.parametrize(
    "change, says",
    [
        ({"transformer": {"heads": 3}}, r"transformer.width is 64: 2 \* heads = 6 must divide it"),
        ({"transformer": {"width": "64"}}, "transformer.width is '64': must be a whole number"),
        (
            {"transformer": {"rope_theta": 1e39}},
            r"rope_theta is 1e\+39: must be a finite number in float32",
        ),
        (
            {"transformer": {"mlp_width": 2**62}},
            "transformer.mlp_width is .*: must be at most 1,048,576",
        ),
        (
            {"generation_encoder": {"res_blocks": 10**6}},
            "res_blocks is 1000000: must be at most 1,000",
        ),
        ({"transformer": {"heads": None}}, "transformer.heads"),
        ({"transformer": {"gate": 1}}, "transformer.gate: unknown field"),
        ({"generation_encoder": {"norm_groups": 5}}, "norm_groups 5 must divide it"),
        ({"dtype": "float16"}, "dtype is 'float16': unknown"),
        ({"transformer": ...}, "transformer: missing"),
    ],
)
def test_our_own_config_is_read_as_strictly(change, says):
    values = to_dict(foreign.config())
    for name, x in change.items():
        values[name] = values[name] | x if isinstance(x, dict) else x
    values = {name: x for name, x in values.items() if x is not ...}
    with pytest.raises(ValueError, match=f"config.json: .*{says}"):
        sizes(values, "config.json")


def test_a_wrong_shape_is_named(tmp_path):
    source = broken(tmp_path, **{GATE: torch.zeros(96, 65)})
    with pytest.raises(
        ValueError, match=rf"shape: {GATE} is \(96, 65\) in the file, \(96, 64\) by the config"
    ):
        janus_jax.load(source)


def test_a_wrong_size_of_pictures_is_told_of_the_file_that_has_it(tmp_path):
    values = foreign.original_config()
    values["vision_config"]["params"]["image_size"] = 40
    foreign.save_original(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(values))
    (tmp_path / "preprocessor_config.json").write_text('{"image_size": 32}')
    with pytest.raises(ValueError, match=r"pos_embed is \(1, 16, 32\) in the file.* by the config"):
        open_source(tmp_path).processor()


# A transposed matrix


def test_a_transposed_square_matrix_is_found_by_what_it_computes(ours, tmp_path, one_device):
    differences = verify.verify(tmp_path / "theirs", ours)
    assert max(differences.values()) == 0.0 and {"text_head", "image_head"} <= differences.keys()
    tensors = load_numpy(ours / "model.safetensors")
    name = "transformer.blocks.attention.o.kernel"
    tensors[name] = np.ascontiguousarray(tensors[name].transpose(0, 2, 1))
    save_numpy(tensors, ours / "model.safetensors")
    (ours / "manifest.json").unlink()
    with pytest.raises(
        ValueError, match=r"image_head differs by [\d.]+ where it reaches [\d.]+; text_head differs"
    ):
        verify.verify(tmp_path / "theirs", ours)


# A flipped bit


def test_a_flipped_bit_is_found_and_named(ours, one_device):
    tensor = open_source(ours).tensors["transformer.blocks.gate.kernel"]
    with open(ours / "model.safetensors", "r+b") as file:
        file.seek(tensor.offset + 4 * 64 * 96 + 5)  # in the second layer
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    pattern = r"checksum: transformer.blocks.gate.kernel, layer 1 is not what was written; the file is damaged"
    with pytest.raises(ValueError, match=pattern):
        janus_jax.load(ours)
    with pytest.raises(ValueError, match=pattern):
        convert.to_layout(open_source(ours), ours.with_name("back"), "transformers")
    assert not ours.with_name("back").exists()


# Files that are not what they should be


@pytest.mark.parametrize(
    "content, says",
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n",
            "git-lfs pointer.*git lfs pull",
        ),
        (b"<!DOCTYPE html><html><body>Not found", "web page.*download the file itself"),
        (b"\x00" * 6, "no whole safetensors file"),
        (b"\x02" + b"\x00" * 7 + b"[]", "no safetensors header"),
        (b"\x08" + b"\x00" * 7 + b'{"a":{}}', "no safetensors header"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{not json at all", "header is no JSON"),
    ],
)
def test_a_pointer_a_web_page_or_a_stub_in_the_files_place(tmp_path, content, says):
    foreign.save_original(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=f"model.safetensors: .*{says}"):
        janus_jax.load(tmp_path)


def test_a_file_cut_short(tmp_path):
    foreign.save_original(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(
        ValueError, match=r"header announces .*: cut short or damaged; download or copy it again"
    ):
        janus_jax.load(tmp_path)


# Pickles


def as_pickles(directory, shards: int = 1):
    foreign.save_original(directory)
    (directory / "model.safetensors").unlink()
    tensors = foreign.original_tensors()
    if shards == 1:
        torch.save(tensors, directory / "pytorch_model.bin")
        return directory
    where = {
        name: f"pytorch_model-{i % shards + 1:05d}-of-{shards:05d}.bin"
        for i, name in enumerate(tensors)
    }
    for file in set(where.values()):
        torch.save(
            {name: x for name, x in tensors.items() if where[name] == file}, directory / file
        )
    (directory / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": where}))
    return directory


@pytest.mark.parametrize("shards", [1, 3])
def test_pickles_are_read_only_when_allowed(tmp_path, shards):
    source = as_pickles(tmp_path / "theirs", shards)
    with pytest.raises(ValueError, match=r"pytorch_model.*is a Python pickle.*--allow_pickle"):
        janus_jax.load(source)
    convert.to_layout(open_source(source, allow_pickle=True), tmp_path / "back", "deepseek")
    foreign.same_tensors(foreign.original_tensors(), tmp_path / "back")


FP8 = ("float8_e4m3fn", "float8_e5m2")


def test_fp8_in_a_pickle_is_read_as_in_safetensors(tmp_path):
    want = {name: torch.arange(6.0).reshape(2, 3).to(getattr(torch, name)) for name in FP8}
    want["turned"] = want[FP8[0]].T
    torch.save(want, tmp_path / "a.pt")
    found = pickles.state_dict(tmp_path / "a.pt", pickles.read_pickle(tmp_path / "a.pt"))[0]
    for name, x in want.items():
        assert str(found[name].dtype) == str(x.dtype).removeprefix("torch.")
        assert np.array_equal(found[name].read().astype(np.float32), x.float().numpy())


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_malicious_pickle_is_refused_and_not_run(tmp_path):
    torch.save(
        {"model": {"quantize.embedding.weight": torch.zeros(2)}, "x": Evil(tmp_path / "ran")},
        tmp_path / "a.pt",
    )
    with pytest.raises(
        ValueError, match=r"asks for posix.mkdir, which could run code; refused, nothing was run"
    ):
        open_source(tmp_path / "a.pt", allow_pickle=True)
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "a.pt", weights_only=False)
    assert (tmp_path / "ran").exists(), "the pickle would have run"


def test_a_damaged_legacy_pickle_and_other_files_are_refused(tmp_path):
    legacy = functools.partial(torch.save, _use_new_zipfile_serialization=False)
    legacy({"a": torch.zeros(2), "b": torch.zeros(3)}, tmp_path / "old.pt")
    whole = (tmp_path / "old.pt").read_bytes()
    for end in (10, 60, 200, len(whole) - 1):
        (tmp_path / "old.pt").write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"old.pt: not a whole file of torch.save"):
            open_source(tmp_path / "old.pt", allow_pickle=True)
    legacy({"a": torch.zeros(2), "x": Evil(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match=r"asks for posix.mkdir.*refused, nothing was run"):
        open_source(tmp_path / "evil.pt", allow_pickle=True)
    assert not (tmp_path / "ran").exists()
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds a list, not a dictionary of tensors"):
        open_source(tmp_path / "list.pt", allow_pickle=True)
    (tmp_path / "raw.pt").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match=r"raw.pt"):
        open_source(tmp_path / "raw.pt", allow_pickle=True)


@pytest.mark.parametrize("legacy", [False, True])
def test_views_of_a_storage_come_out_as_torch_sees_them(tmp_path, legacy):
    base = torch.arange(60.0).reshape(5, 12)
    views = {"t": base.T, "part": base[1:4, 2:9:3], "row": base[2], "p": torch.nn.Parameter(base), "one": base[0, 0],
             "none": base[:0], "wide": base[:1].expand(3, 12), "b": torch.tensor([True, False]),
             "h": base.to(torch.bfloat16)}  # fmt: skip
    torch.save(views, tmp_path / "views.pt", _use_new_zipfile_serialization=not legacy)
    found, _ = pickles.state_dict(tmp_path / "views.pt", pickles.read_pickle(tmp_path / "views.pt"))
    assert found.keys() == views.keys()
    for name, x in views.items():
        got = found[name].read()
        assert got.shape == tuple(x.shape) and np.array_equal(
            got.astype(np.float32), x.detach().float().numpy()
        ), name


def test_a_torchscript_archive_gives_its_tensors_by_name_and_no_code(tmp_path):
    block = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, (1, 7), padding=(0, 3)), torch.nn.BatchNorm2d(4)
    )
    module = torch.nn.Sequential(collections.OrderedDict(layers=block, pool=torch.nn.MaxPool2d(3)))
    traced = torch.jit.trace(module.eval(), torch.zeros(1, 3, 8, 8))
    traced.save(str(tmp_path / "a.pt"))
    found = pickles.script_tensors(pickles.read_pickle(tmp_path / "a.pt"))
    assert found.keys() == module.state_dict().keys()
    for name, x in module.state_dict().items():
        assert np.array_equal(found[name].read(), x.numpy()), name


# Code, and the hub


def test_python_files_of_a_repository_are_never_run_nor_fetched(tmp_path, monkeypatch, one_device):
    foreign.save_original(tmp_path)
    for name in ("modeling_janus.py", "config.py", "sitecustomize.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    values = json.loads((tmp_path / "config.json").read_text())
    values["auto_map"] = {"AutoModel": "modeling_janus.MultiModalityCausalLM"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    janus_jax.load(tmp_path)
    assert not (tmp_path / "ran").exists()

    import huggingface_hub

    asked = []
    fetch = lambda repo, revision, allow_patterns: asked.append(allow_patterns) or tmp_path
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert open_source("owner/janus", revision="main").kind == "deepseek"
    open_source("owner/janus", allow_pickle=True)
    assert "*.safetensors" in asked[0] and "*.bin" not in asked[0] and "*.bin" in asked[1]
    assert not any("py" in pattern for patterns in asked for pattern in patterns)


def test_the_hub_out_of_reach_is_one_sentence(tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub import errors

    def offline(*args, **kwargs):
        raise errors.LocalEntryNotFoundError("nothing cached")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(
        FileNotFoundError,
        match=r"deepseek-ai/Janus-1.3B: no such path here, not in the hub's cache",
    ):
        janus_jax.load("deepseek-ai/Janus-1.3B")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(FileNotFoundError, match=r'pip install "janus_jax\[hub\]"'):
        janus_jax.load("deepseek-ai/Janus-1.3B")
    with pytest.raises(ValueError, match="revision 'main' is for hub ids"):
        open_source(tmp_path, revision="main")


# Missing shards


@pytest.mark.parametrize("index", [True, False])
def test_missing_shards_are_named(tmp_path, index):
    foreign.save_transformers(tmp_path, max_shard_size="300KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 3
    for shard in shards[1:3]:
        shard.unlink()
    if not index:
        (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(
        ValueError, match=rf"2 of {len(shards)} shards missing: {shards[1].name}, {shards[2].name};"
    ):
        janus_jax.load(tmp_path)


def test_tensors_that_the_index_promises_and_no_shard_holds(tmp_path):
    foreign.save_transformers(tmp_path, max_shard_size="300KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    name, file = next(iter(index["weight_map"].items()))
    tensors = load_numpy(tmp_path / file)
    del tensors[name]
    save_numpy(tensors, tmp_path / file)
    with pytest.raises(ValueError, match=f"missing: {name}, which the index promises in {file}"):
        janus_jax.load(tmp_path)


def test_a_part_in_the_place_of_the_whole_file_names_the_shards_that_it_hides(tmp_path):
    foreign.save_transformers(tmp_path, max_shard_size="300KB")
    (tmp_path / "model.safetensors.index.json").unlink()
    first = min(tmp_path.glob("model-*.safetensors"))
    vq = {n: x for n, x in foreign.tensors_of(tmp_path).items() if n.startswith("model.vqmodel.")}
    foreign.save_file(vq, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=f"missing: (?s:.)*note: .*{first.name} and the rest"):
        open_source(tmp_path).require()


# The command


def command(*flags):
    from support.paths import ROOT as root

    return subprocess.run(
        [sys.executable, "-m", "janus_jax.weights", *flags], cwd=root, capture_output=True, text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(root)}, check=False,
    )  # fmt: skip


@pytest.mark.processes
def test_the_command_converts_and_verifies(tmp_path):
    source = foreign.save_original(tmp_path / "theirs")
    done = command(
        f"--source={source}", f"--target={tmp_path / 'hf'}", "--format=transformers", "--verify"
    )
    assert done.returncode == 0, done.stderr
    for words in (
        "deepseek", "transformer.width=64", "ignored: 3 tensors (vision_model.vision_tower.attn_pool",
        "left behind: 4 tensors", "text_head: differs by 0", "of memory at most",
    ):  # fmt: skip
        assert words in done.stdout, done.stdout
    assert open_source(tmp_path / "hf").kind == "transformers"


@pytest.mark.processes
def test_the_command_says_what_is_wrong_in_one_line(tmp_path):
    done = command(
        f"--source={tmp_path / 'no'}", f"--target={tmp_path / 'out'}", "--format=janus_jax"
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"NoWeightsError: {tmp_path / 'no'}: no weights directory or file there" in done.stderr


def test_what_verifying_needs_is_asked_before_anything_is_written(tmp_path, monkeypatch, capsys):
    def none():
        raise exit_codes.UsageError("JAX has no such device here")

    monkeypatch.setattr(platform, "require_devices", none)
    flags = ["--source=no/such", f"--target={tmp_path / 'out'}", "--format=janus_jax", "--verify"]
    assert weights_command.main(flags) == 2 and list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == "UsageError: JAX has no such device here\n"


def test_no_address_becomes_a_folder(ours, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="an address, and files are written on this machine"):
        convert.to_layout(open_source(ours), "gs://bucket/out", "janus_jax")
    assert not (tmp_path / "gs:").exists()


def test_no_room_on_the_disk_is_said_before_writing(ours, tmp_path, monkeypatch):
    monkeypatch.setattr(target.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10**8))
    with pytest.raises(OSError, match=r"GB are to be written and 0.1 GB free") as error:
        convert.to_layout(open_source(ours), tmp_path / "out", "deepseek")
    assert exit_codes.of_error(error.value) == 74
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()
