"""Reduced and foreign forms are told in one line, with what to take instead."""

import pytest

from janus_jax.weights import foreign

GATE = "language_model.model.layers.1.mlp.gate_proj"


@pytest.mark.parametrize(
    "names, form",
    [
        ([f"{GATE}.weight.absmax"], "bitsandbytes 4-bit"),
        ([f"{GATE}.weight.quant_state.bitsandbytes__nf4"], "bitsandbytes 4-bit"),
        ([f"{GATE}.SCB"], "bitsandbytes 8-bit"),
        ([f"{GATE}.qweight", f"{GATE}.scales"], "GPTQ or AWQ"),
        ([f"{GATE}.weight_scale_inv"], "fp8 with scales"),
        ([f"{GATE}.weight_packed"], "compressed-tensors"),
        ([f"{GATE}.scales", f"{GATE}.biases"], "MLX"),
        ([f"{GATE}._weight_qdata", f"{GATE}._weight_scale"], "torchao"),
        ([f"{GATE}.weight:_data:qdata"], "torchao"),
        ([f"{GATE}.codes", f"{GATE}.scales"], "AQLM"),
        ([f"{GATE}.q_weight", f"{GATE}.q_perm"], "EXL2"),
        ([f"{GATE}.trellis", f"{GATE}.suh"], "EXL3"),
        ([f"{GATE}.indices", f"{GATE}.centroids.weight"], "VPTQ"),
        ([f"{GATE}.B", f"{GATE}.s"], "Marlin"),
        ([f"{GATE}.weight_scales"], "int8 with scales"),
        ([f"{GATE}.scale"], "int8 with scales"),
        ([f"{GATE}.lora_A.default.weight"], "merge_and_unload"),
    ],
)
def test_a_reduced_form_is_known_by_its_tensors(names, form):
    told = foreign.reduced({}, [f"{GATE}.weight", *names])
    assert form in told and "take" in told and "\n" not in told


@pytest.mark.parametrize(
    "values, form",
    [
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "bitsandbytes 4-bit"),
        ({"quantization_config": {"load_in_8bit": True}}, "bitsandbytes 8-bit"),
        ({"text_config": {"quantization_config": {"quant_method": "awq", "bits": 4}}}, "awq 4-bit"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "MLX 4-bit"),
    ],
)  # fmt: skip
def test_a_reduced_form_is_known_by_its_config(values, form):
    assert f"quantised: {form} " in foreign.reduced(values, ["a"])


def test_plain_weights_are_no_reduced_form():
    assert foreign.reduced({"text_config": {}}, [f"{GATE}.weight", "a.bias", "b.scale"]) == ""


@pytest.mark.parametrize(
    "name, form",
    [
        ("a-Q4_K_M.gguf", "GGUF"),
        ("onnx/model.onnx", "ONNX"),
        ("model_index.json", "diffusers"),
        ("adapter_config.json", "an adapter"),
        ("flax_model.msgpack", "Flax"),
        ("last.ckpt", "Lightning"),
        ("model.safetensors.incomplete", "did not end"),
        ("snapshots/abc/model.safetensors", "give that folder"),
    ],
)
def test_a_folder_of_a_foreign_form_is_named(tmp_path, name, form):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    assert form in foreign.instead(tmp_path)


@pytest.mark.parametrize(
    "values, names, says",
    [
        ({}, ["module.aligner.a", "module.aligner.b"], "DistributedDataParallel"),
        ({}, ["vision_gen_enc_model.a"], "JanusFlow"),
        ({"model_type": "gpt2"}, ["h.0.a"], "'gpt2'"),
    ],
)
def test_tensors_of_no_known_layout_are_told_by_what_is_known(values, names, says):
    assert says in foreign.unknown(values, names)
