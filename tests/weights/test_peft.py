"""PEFT's adapters over transformers' Janus: written, read back, and computed by both."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from support import adapters, foreign
from support.foreign import convert, leaves_of

from janus_jax.weights import __main__ as command
from janus_jax.weights import peft_export as ours
from janus_jax.weights.source import open_source
from janus_jax.weights.table import WeightsError


@pytest.fixture(scope="module")
def base(hf, tmp_path_factory):
    """A base in transformers' layout, with the small files that its processor reads."""
    directory = tmp_path_factory.mktemp("peft")
    convert(hf, directory / "own", "janus_jax")
    return convert(directory / "own", directory / "base", "transformers")


@pytest.fixture(scope="module")
def written(base):
    """(PEFT's directory, the tensors planted in the adapter that it was written from)."""
    tensors = adapters.planted(base)
    adapters.save(base.with_name("lora"), base, tensors, rslora=1)
    return convert(base.with_name("lora"), base.with_name("peft"), "peft"), tensors


def theirs(base, adapter=None):
    peft = pytest.importorskip("peft", reason="peft is not installed (CONTRIBUTING.md)")
    model = transformers.JanusForConditionalGeneration.from_pretrained(base)
    return peft.PeftModel.from_pretrained(model, adapter) if adapter else model


def logits(model) -> dict[str, np.ndarray]:
    """Of text around a picture to understand, and of drawn ids."""
    c = foreign.config()
    tower = c.understanding_encoder
    noise = torch.Generator().manual_seed(0)
    picture = torch.rand((1, 3, tower.image_size, tower.image_size), generator=noise) * 2 - 1
    text = torch.randint(0, 200, (1, 6), generator=noise)
    slots = torch.full((1, tower.tokens), foreign.tokenizer().placeholder)
    janus = getattr(model, "base_model", model)
    janus = getattr(janus, "model", janus) if hasattr(model, "peft_config") else model
    with torch.no_grad():
        seen = model(input_ids=torch.cat([text, slots, text], 1), pixel_values=picture).logits
        embedded = janus.prepare_embeddings_for_image_generation(text % 16)
        drawn = janus.model.generation_head(janus.model.language_model(inputs_embeds=embedded)[0])
    return {"text": seen.numpy(), "image": drawn.numpy()}


def close(found: dict, want: dict, atol: float = 1e-6):
    assert found.keys() == want.keys()
    for name, x in want.items():
        np.testing.assert_allclose(found[name], x, rtol=1e-5, atol=atol, err_msg=name)


def test_what_is_written_for_peft_is_read_back_as_the_same_weights(written):
    directory, _ = written
    want = leaves_of(open_source(directory.with_name("lora")))
    source = open_source(directory).require()
    found = leaves_of(source)
    for name, x in want.items():
        assert found[name].tobytes() == x.tobytes(), name
    words = lambda source: source.processor().tokenizer.backend.get_vocab()
    assert words(source) == words(open_source(directory.with_name("lora")))
    values = json.loads((directory / "adapter_config.json").read_text())
    assert values["modules_to_save"] == ["model.aligner.fc1", "model.aligner.hidden_layers.0"]


def test_peft_computes_with_it_what_transformers_computes_with_the_merged_weights(base, written):
    directory, _ = written
    merged = convert(directory.with_name("lora"), directory.with_name("merged"), "transformers")
    model = theirs(base, directory)
    found = logits(model)
    close(found, logits(theirs(merged)), 2e-5)
    assert np.abs(found["text"] - logits(theirs(base))["text"]).max() > 0.05
    close(logits(model.merge_and_unload()), found, 2e-5)


def test_what_peft_saves_is_read_as_what_it_merges(base, tmp_path):
    peft = pytest.importorskip("peft", reason="peft is not installed (CONTRIBUTING.md)")
    layer = r"model\.language_model\.layers\.1\.(self_attn\.[qv]_proj|mlp\.down_proj)"
    asked = peft.LoraConfig(
        r=4, lora_alpha=6, target_modules=layer + r"|model\.vision_model\.encoder\.layers\.\d\.mlp\.fc1|lm_head",
        rank_pattern={"q_proj": 2}, alpha_pattern={r"mlp\.fc1": 9}, modules_to_save=["generation_aligner"],
        bias="lora_only", init_lora_weights=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = peft.get_peft_model(theirs(base), asked)
    for x in model.parameters():
        if x.requires_grad:
            x.data += 0.1 * torch.randn_like(x)
    model.save_pretrained(tmp_path / "adapter")
    source = open_source(tmp_path / "adapter").require()
    assert source.facts.rank == 4 and len(source.pairs) == 6
    found = leaves_of(source)
    out = tmp_path / "merged"
    model.merge_and_unload().save_pretrained(out)
    foreign.tokenizer().save(out)
    close(found, leaves_of(open_source(out)))
    mark = lambda source: source.processor().tokenizer.fingerprint
    assert mark(source) == mark(open_source(base))
    assert (
        command.main(
            [f"--source={tmp_path / 'adapter'}", f"--target={tmp_path / 'no'}", "--format=peft"]
        )
        == 2
    )


def test_an_adapter_over_deepseeks_names_is_read_with_its_fused_maps_taken_apart(
    original, tmp_path
):
    rng = np.random.default_rng(0)
    draw = lambda *shape: torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
    width = foreign.config().understanding_encoder.width
    qkv = "base_model.model.vision_model.vision_tower.blocks.1.attn.qkv"
    a, b = draw(2, width), draw(3 * width, 2)
    tensors = {f"{qkv}.lora_A.weight": a, f"{qkv}.lora_B.weight": b}
    adapter = plant(tmp_path / "adapter", original, tensors)
    source = open_source(adapter).require()
    base = leaves_of(open_source(original))
    delta = (b @ a).T.numpy().reshape(width, 3, width)
    for i, letter in enumerate("qkv"):
        name = f"understanding_encoder.blocks.attention.{letter}.kernel"
        want = base[name].astype(np.float32)
        np.testing.assert_allclose(
            source.read(name, 1), want[1] + 2 * delta[:, i], rtol=1e-5, atol=1e-5
        )
        assert np.array_equal(source.read(name, 0), base[name][0])
    alone = {
        "base_model.model.model.layers.0.mlp.up_proj." + x: y
        for x, y in (("lora_A.weight", draw(2, 64)), ("lora_B.weight", draw(96, 2)))
    }
    source = open_source(plant(tmp_path / "alone", original, alone)).require()
    assert list(source.pairs) == [("transformer.blocks.up.kernel", 0)]


def plant(directory, base, tensors: dict, **config):
    from safetensors.torch import save_file

    directory.mkdir()
    save_file(tensors, directory / "adapter_model.safetensors")
    values = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": str(base)}
    (directory / "adapter_config.json").write_text(json.dumps(values | config))
    return directory


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("peft_type", "LOHA", "peft_type is 'LOHA'; an adapter that is read can only be 'LORA'"),
        ("use_dora", True, "use_dora is True: a field that is not honoured here"),
        ("init_lora_weights", "pissa", "init_lora_weights is 'pissa'"),
        ("layer_replication", [[0, 2]], "layer_replication is"),
        ("alpha_pattern", {"q_proj": "x"}, "alpha_pattern.q_proj is 'x'"),
        ("base_model_name_or_path", None, "base_model_name_or_path is missing"),
        ("r", 8, r"shape: \S+lora_A.weight is \(3, 64\) in the file, \(8, 64\) by the config"),
    ],
)
def test_what_of_an_adapter_is_not_honoured_is_refused_by_its_field(
    written, tmp_path, field, value, says
):
    directory = shutil.copytree(written[0], tmp_path / "adapter")
    (directory / "adapter.json").unlink()
    path = directory / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with pytest.raises(WeightsError, match=says):
        open_source(directory).require()


def test_a_pair_that_lacks_a_half_and_names_of_another_model_are_told(base, tmp_path):
    key = f"{ours.PREFIX}model.language_model.layers.0.self_attn.q_proj.lora_A.weight"
    half = plant(tmp_path / "half", base, {key: torch.zeros(2, 64)})
    with pytest.raises(WeightsError, match=r"missing: \S+q_proj.lora_B.weight \(64, 2\)"):
        open_source(half).require()
    other = {key.replace("q_proj", "c_attn"): torch.zeros(2, 64), key: torch.zeros(2, 64)}
    with pytest.raises(WeightsError, match=r"unknown: \S+c_attn.lora_A.weight"):
        open_source(plant(tmp_path / "other", base, other)).require()
    with pytest.raises(WeightsError, match="an adapter whose base is not found; give the weights"):
        open_source(plant(tmp_path / "gone", tmp_path / "nowhere", other))
