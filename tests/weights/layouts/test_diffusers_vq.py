"""diffusers' VQModel, MoVQ's above all: its numbers, and what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from safetensors.torch import load_file, save_file
from support import foreign, vqmodel
from support.outputs import error, long, nchw, nhwc, pictures, run

from janus_jax.model import sharding as sh
from janus_jax.model.config import GenerationEncoderConfig
from janus_jax.model.generation_encoder import GenerationEncoder
from janus_jax.model.keys import Keys
from janus_jax.training.vq_encoder import TokenizerEncoder
from janus_jax.weights import convert
from janus_jax.weights.load import export, import_weights, placed
from janus_jax.weights.source import open_source
from janus_jax.weights.table import unshaped
from janus_jax.weights.vq_parts import vq_sizes

MOVQ = GenerationEncoderConfig(
    image_size=16, channels=32, multipliers=(1, 2, 2), res_blocks=1, z_channels=4, norm_groups=32,
    codebook_size=64, code_dim=4, decoder_norm="spatial", codebook_l2_norm=False,
)  # fmt: skip
# A decoder with group norms may have codes of another width than its latents, and other groups.
VQGAN = dataclasses.replace(MOVQ, decoder_norm="group", z_channels=6, norm_groups=16)
TOLERANCE = 2e-5  # largest difference of float32 pixels and latents, in standard deviations


def sizes(source) -> GenerationEncoderConfig:
    return vq_sizes({name: shape for name, (shape, _) in source.leaves.items()}, source.unshaped)


def tokenizer(source, config) -> GenerationEncoder:
    module = jax.eval_shape(lambda: GenerationEncoder(config, Keys(jax.random.key(0))))
    graphdef, state = nnx.split(module)
    shapes = sh.concrete(nnx.to_pure_dict(state))
    return nnx.merge(graphdef, placed(source, shapes, "generation_encoder."))


@pytest.mark.parametrize("config", [MOVQ, VQGAN], ids=["spatial", "group"])
def test_ids_and_pixels_are_diffusers(tmp_path, config, one_device):
    theirs = vqmodel.build(config)
    source = open_source(vqmodel.save(tmp_path / "movq", config, theirs)).require()
    assert source.kind == "diffusers_vq" and source.config is None
    assert dataclasses.replace(sizes(source), image_size=16) == config
    ours = tokenizer(source, config)
    images = pictures(6, 4, 16, 24)
    z = theirs.encode(nchw(images))
    assert error(run(lambda m, x: m.latents(x), ours, images), nhwc(z)) < TOLERANCE
    ids = theirs.nearest(z).reshape(4, -1).numpy()
    assert len(np.unique(ids)) > 5, "pictures that use few codes show nothing"
    np.testing.assert_array_equal(run(lambda m, x: m.encode(x), ours, images), ids)
    drawn = np.random.default_rng(1).integers(0, 64, (3, 4, 6)).astype(np.int32)
    got = run(lambda m, ids: m.decode(ids, (4, 6)), ours, drawn.reshape(3, -1))
    assert error(got, nhwc(theirs.decode(long(drawn)))) < TOLERANCE


def test_a_code_counts_with_its_length(tmp_path, one_device):
    """A lookup by direction would give other ids, so the test above can see the difference."""
    theirs = vqmodel.build(MOVQ)
    source = open_source(vqmodel.save(tmp_path / "movq", MOVQ, theirs))
    images = pictures(6, 4, 16, 24)
    want = theirs.nearest(theirs.encode(nchw(images))).reshape(4, -1).numpy()
    by_direction = tokenizer(source, dataclasses.replace(MOVQ, codebook_l2_norm=True))
    assert (run(lambda m, x: m.encode(x), by_direction, images) != want).mean() > 0.1


def test_each_position_is_normed_by_its_own_code(tmp_path, one_device):
    """Two codes that are exchanged change more than two positions: gamma and beta follow them."""
    theirs = vqmodel.build(MOVQ)
    ours = tokenizer(open_source(vqmodel.save(tmp_path / "movq", MOVQ, theirs)), MOVQ)
    norm = ours.decoder.norm_out
    x, codes = pictures(1, 1, 8, 8)[..., :1] * np.ones(32, np.float32), np.zeros((1, 2, 2, 4))
    codes[0, 0, 1] = 1
    got = run(lambda m, x, codes: m(x, codes), norm, x, codes.astype(np.float32))
    changed = got != run(lambda m, x, codes: m(x, codes), norm, x, 0 * codes.astype(np.float32))
    assert changed[0, :4, 4:].all() and changed.sum() == changed[0, :4, 4:].size


def test_as_our_own_weights_they_stay_what_they_are(tmp_path, one_device):
    """The manifest says how codes are looked up; one of LlamaGen's says nothing, as ever."""
    theirs = vqmodel.save(tmp_path / "movq", MOVQ)
    convert.to_layout(open_source(theirs), tmp_path / "ours", "janus_jax")
    ours = open_source(tmp_path / "ours").require()
    assert sizes(ours) == sizes(open_source(theirs))
    manifest = json.loads((tmp_path / "ours" / "manifest.json").read_text())
    assert manifest["unshaped"] == {
        "generation_encoder.norm_groups": 32, "generation_encoder.codebook_l2_norm": False,
    }  # fmt: skip
    images = pictures(6, 4, 16, 16)
    ids = [
        run(lambda m, x: m.encode(x), tokenizer(open_source(path), MOVQ), images)
        for path in (theirs, tmp_path / "ours")
    ]
    np.testing.assert_array_equal(*ids)
    assert unshaped(foreign.config(), ("generation_encoder",)) == {
        "generation_encoder.norm_groups": 32
    }


def test_ids_of_stored_pictures_are_those_of_the_model(tmp_path, one_device):
    theirs = vqmodel.build(MOVQ)
    path = vqmodel.save(tmp_path / "movq", MOVQ, theirs)
    seen = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    got = np.asarray(TokenizerEncoder(path, MOVQ)(seen))
    z = theirs.encode(nchw((seen / 127.5 - 1).astype(np.float32)))
    np.testing.assert_array_equal(got, theirs.nearest(z).reshape(8, -1))


@pytest.mark.parametrize("layout", ["llamagen_vq", "deepseek", "transformers"])
def test_movq_is_not_written_as_a_layout_that_has_no_place_for_it(tmp_path, layout):
    source = open_source(vqmodel.save(tmp_path / "movq", MOVQ))
    says = r"decoder_norm is 'spatial'.*'group' alone" if layout == "llamagen_vq" else "a part"
    with pytest.raises(ValueError, match=says):
        convert.to_layout(source, tmp_path / "out", layout)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"_class_name": "AutoencoderKL"}, r"_class_name is 'AutoencoderKL'.*only be 'VQModel'"),
        ({"norm_type": "layer"}, r"norm_type is 'layer': must be 'group' or 'spatial'"),
        ({"norm_num_groups": 16}, r"norm_num_groups is 16; with norm_type 'spatial'.*only be 32"),
        ({"norm_num_groups": 5}, r"norm_num_groups, 5, does not divide 32"),
        ({"block_out_channels": [32, 48, 64]}, r"block_out_channels is \[32, 48, 64\].*a multiple of"),
        ({"block_out_channels": "many"}, r"block_out_channels is 'many': must be whole numbers"),
        ({"down_block_types": ["DownEncoderBlock2D"] * 3}, r"down_block_types .*AttnDownEncoderBlock2D"),
        ({"up_block_types": None}, r"up_block_types is None: must be AttnUpDecoderBlock2D"),
        ({"act_fn": "gelu"}, r"act_fn is 'gelu'.*only be 'silu'"),
        ({"latent_channels": 8}, r"vq_embed_dim is 4; .*only be 8"),
        ({"mid_block_add_attention": False}, r"mid_block_add_attention is False"),
        ({"dropout_everywhere": 3}, r"dropout_everywhere is 3: a field that is not honoured"),
    ],
)  # fmt: skip
def test_another_network_is_refused_by_its_config(tmp_path, values, says):
    path = vqmodel.save(tmp_path / "movq", MOVQ, **values)
    with pytest.raises(ValueError, match=f"movq/config.json: .*{says}"):
        open_source(path)


def test_sizes_that_are_not_the_tensors_and_a_lost_config_are_told(tmp_path):
    path = vqmodel.save(tmp_path / "movq", MOVQ, num_vq_embeddings=128)
    with pytest.raises(ValueError, match=r"quantize.embedding.weight is \(64, 4\).*\(128, 4\)"):
        open_source(path).require()
    (path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"movq: no config.json beside the weights"):
        open_source(path)


def test_norms_of_another_kind_than_the_config_says_are_told_by_their_keys(tmp_path):
    path = vqmodel.save(tmp_path / "movq", MOVQ, norm_type="group")
    with pytest.raises(
        ValueError, match=r"norm_type is 'group': .*'spatial', as its tensors decoder"
    ):
        open_source(path)


@pytest.mark.parametrize("given", ["movq", "llamagen"])
def test_another_tokenizer_than_the_configs_is_told_by_its_fields_and_keys(
    tmp_path, given, one_device
):
    llamagen = dataclasses.replace(MOVQ, decoder_norm="group", codebook_l2_norm=True)
    kinds = {"movq": MOVQ, "llamagen": llamagen}
    boxes = {name: {"generation_encoder": drawn(vq)} for name, vq in kinds.items()}
    model = lambda name: dataclasses.replace(foreign.config(), generation_encoder=kinds[name])
    export(tmp_path / "part", boxes[given], part_of=model(given))
    assert import_weights(tmp_path / "part", boxes[given], partly=True, config=model(given))
    (asked,) = kinds.keys() - {given}
    with pytest.raises(ValueError) as raised:
        import_weights(tmp_path / "part", boxes[asked], partly=True, config=model(asked))
    spatial, free = ("spatial", "False") if given == "movq" else ("group", "True")
    key = "generation_encoder.decoder.levels.0.attn.0.norm.beta.bias"
    for said in (
        f"{tmp_path / 'part'} does not fit this model (another config?)",
        f"generation_encoder.decoder_norm is {spatial} there",
        f"generation_encoder.codebook_l2_norm is {free} there",
        f"unknown: {key}" if given == "movq" else f"missing: {key}",
    ):
        assert said in str(raised.value)
    with pytest.raises(ValueError, match=f"codebook_l2_norm is {free} there"):
        TokenizerEncoder(tmp_path / "part", kinds[asked])


def drawn(config) -> dict:
    return nnx.to_pure_dict(nnx.state(GenerationEncoder(config, Keys(jax.random.key(0)))))


def test_bfloat16_weights_keep_their_numbers(tmp_path):
    path = vqmodel.save(tmp_path / "movq", MOVQ)
    file = path / "diffusion_pytorch_model.safetensors"
    save_file({name: x.to(torch.bfloat16) for name, x in load_file(file).items()}, file)
    source = open_source(path).require()
    got = source.read("generation_encoder.decoder.mid.1.q.kernel")
    want = load_file(file)["decoder.mid_block.attentions.0.to_q.weight"]
    np.testing.assert_array_equal(got[0, 0].astype(np.float32), want.float().numpy().T)
