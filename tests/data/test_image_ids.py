"""Whose ids a directory holds, and whether it is whole."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from support import tiny
from support.ids import Pictures, encoder, make, tokenizers
from support.mesh import on_mesh

from janus_jax.common.exit_codes import UsageError
from janus_jax.config.schema import Dataset
from janus_jax.data import image_ids
from janus_jax.data.catalog import open_dataset
from janus_jax.data.sources import SourceError
from janus_jax.weights.reader import flatten


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Directory of a VQ tokenizer's weights, by seed."""
    return tokenizers(tmp_path_factory.mktemp("weights"))


def test_another_prompt_needs_no_other_ids_but_other_pictures_do(tmp_path):
    records = [{"image": f"{i}.png", "caption": f"picture {i}"} for i in range(3)]
    for i in range(3):
        Image.new("RGB", (40 * (i + 1), 40), (40 * i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "all.json").write_text(json.dumps(records))
    line = Dataset("generation", str(tmp_path / "all.json"), images=str(tmp_path))
    of = lambda **changes: open_dataset(dataclasses.replace(line, **changes), 16, 0)
    prompted = of(prompt=("a photo of {caption}",))
    assert prompted.fingerprint != of().fingerprint
    assert image_ids.pictures_of(prompted) == image_ids.pictures_of(of())
    assert image_ids.pictures_of(of(min_side=30)) != image_ids.pictures_of(of())
    assert image_ids.pictures_of(Pictures(3)) == Pictures.fingerprint


def test_another_tokenizer_source_or_shard_is_refused(tmp_path, weights):
    ids, _ = make(tmp_path / "ids", weights[0])
    prints = {seed: encoder(weights[seed]).fingerprint for seed in (0, 1)}
    assert prints[0] == ids.origin.tokenizer != prints[1]
    with pytest.raises(UsageError) as caught:
        make(tmp_path / "ids", weights[1])
    assert f"tokenizer: {prints[1]} now, {prints[0]} in image_ids.json" in str(caught.value)
    with pytest.raises(UsageError, match=r"records: 51 now, 50 in image_ids\.json"):
        make(tmp_path / "ids", weights[0], Pictures(51))
    with pytest.raises(UsageError, match=r"shard: 10 now, 20 in image_ids\.json"):
        make(tmp_path / "ids", weights[0], shard=10)
    other = Pictures(50)
    other.fingerprint = "fedcba9876543210"
    with pytest.raises(
        SourceError, match=r"source: fedcba9876543210 now, 0123456789abcdef in image_ids\.json"
    ):
        image_ids.attach(other, tmp_path / "ids")


def test_ids_that_do_not_say_how_they_were_computed_are_refused(tmp_path, weights):
    """As those that were stored while accelerators rounded the tokenizer's products."""
    directory = tmp_path / "ids"
    wrapped = image_ids.WithIds(Pictures(50), make(directory, weights[0])[0])
    assert "float32 highest" in wrapped.fingerprint
    path = directory / "image_ids.json"
    values = json.loads(path.read_text())
    for found, said in ((None, "not said"), ("bfloat16", "bfloat16")):
        path.write_text(json.dumps({k: v for k, v in values.items() if k != "precision"}))
        if found:
            path.write_text(json.dumps(values | {"precision": found}))
        told = f"precision: float32 highest now, {said} in image_ids.json"
        with pytest.raises(SourceError, match=told) as caught:
            image_ids.attach(Pictures(50), directory)
        assert "make them anew:\n  python -m janus_jax.data tokenize" in str(caught.value)
        with pytest.raises(UsageError, match=told):
            make(directory, weights[0])


def test_a_directory_remembers_every_platform_that_computed_in_it(tmp_path, weights):
    make(tmp_path / "ids", weights[0])
    path = tmp_path / "ids" / "image_ids.json"
    values = json.loads(path.read_text())
    (here,) = values["computed"]
    assert here["platform"] == "cpu" and here["jax"] == jax.__version__
    earlier = here | {"platform": "tpu", "jax": "0.9"}
    path.write_text(json.dumps(values | {"computed": [earlier]}))
    for _ in range(2):
        make(tmp_path / "ids", weights[0])
        assert json.loads(path.read_text())["computed"] == [earlier, here]


def test_the_fingerprint_is_of_what_ids_depend_on(weights):
    with on_mesh():
        arrays = flatten(nnx.to_pure_dict(nnx.state(tiny.make_model(seed=0).generation_encoder)))
    print_ = image_ids.tokenizer_fingerprint
    assert (
        print_(arrays) == encoder(weights[0]).fingerprint
    )  # without a decoder, from another directory
    assert print_(arrays | {"decoder.conv_in.bias": np.ones(16)}) == print_(arrays)
    for name in ("codebook", "quant_conv.bias", "encoder.conv_in.kernel"):
        changed = np.array(arrays[name])
        changed.flat[-1] += 1e-6
        assert print_(arrays | {name: changed}) != print_(arrays)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda d: (d / "image_ids.json").unlink(), "no such file, so no image ids there"),
        (lambda d: (d / "image_ids.json").write_text("{}"), "does not say whose ids these are"),
        (
            lambda d: (d / "ids-00001-of-00003.npy").unlink(),
            "not finished, 1 of 3 shards are missing",
        ),
        (
            lambda d: (d / "ids-00001-of-00003.npy").write_bytes(b""),
            "ids-00001-of-00003.npy: .*remove this file",
        ),
        (
            lambda d: np.save(d / "ids-00001-of-00003.npy", np.zeros((3, 16), np.uint16)),
            "must be uint16",
        ),
    ],
)
def test_a_directory_that_is_not_whole_is_refused(tmp_path, weights, harm, message):
    make(tmp_path / "ids", weights[0])
    harm(tmp_path / "ids")
    with pytest.raises(SourceError, match=message) as caught:
        image_ids.Ids(tmp_path / "ids")
    assert "python -m janus_jax.data tokenize" in str(caught.value)
