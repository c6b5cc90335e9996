"""Ids that were computed once: the same as in the step, the same after a kill, and refused where they are another's."""

import dataclasses
import functools
import json
import math
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time
import types

import jax
import numpy as np
import pytest
import tiny
from conftest import on_mesh
from flax import nnx
from PIL import Image

from janus_jax import batch as bt
from janus_jax import budget, feed, hosts, loss, optim, train, train_state
from janus_jax import sharding as sh
from janus_jax.checks import check
from janus_jax.data import image_ids, shapes, tokenize_images
from janus_jax.data.catalog import open_dataset
from janus_jax.data.command import CommandError
from janus_jax.data.images import ImageError, generation_image
from janus_jax.data.sources import Dataset, RecordError, SourceError
from janus_jax.experiment import ConfigError, resolve
from janus_jax.weights import export, flatten

VQ = tiny.CONFIG.generation_encoder
TX = optim.make(tiny.OPTIM, 10)


class Pictures:
    """`count` pictures of the shapes world; those in `rotten` cannot be opened."""

    fingerprint = "0123456789abcdef"

    def __init__(self, count: int, rotten=(), seconds: float = 0.0):
        self.count, self.rotten, self.seconds = count, rotten, seconds
        self.shapes = shapes.ShapesGeneration()

    def __len__(self):
        return self.count

    def __repr__(self):
        return f"Pictures({self.count})"

    def __getitem__(self, i):
        return self.shapes[i]

    def image(self, i, k=0):
        time.sleep(self.seconds)
        if i in self.rotten:
            raise ImageError(f"{self.where(i)}: is empty (0 bytes)")
        return self.shapes.image(i)

    def where(self, i):
        return f"pictures:{i}"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Directory -> weights of the VQ tokenizer alone, by seed."""
    found = {}
    for seed in (0, 1):
        with on_mesh():
            params = nnx.to_pure_dict(nnx.state(tiny.make_model(seed=seed).generation_encoder))
            found[seed] = tmp_path_factory.mktemp("weights") / str(seed)
            export(found[seed], {"generation_encoder": params})
    return found


def make(directory, weights, source=None, mesh=(1, 1, 1), **options):
    options = {"batch": 8, "shard": 20, "threads": 2, "arguments": ["--weights=old", "--out=ids"]} | options
    source = source or Pictures(50)
    rotten = tokenize_images.tokenize(source, encoder(weights, mesh), directory, **options)
    return image_ids.Ids(directory), rotten


@functools.cache
def encoder(weights, mesh=(1, 1, 1)):
    mesh = sh.make_mesh(*mesh, jax.devices()[: math.prod(mesh)])
    return tokenize_images.Encoder(weights, VQ, mesh=mesh)


def test_ids_are_those_that_the_step_computes(tmp_path, weights):
    """Several devices, a batch that does not divide the shard, and pictures in rows among other examples."""
    ids, rotten = make(tmp_path / "ids", weights[0], mesh=(1, 4, 1))
    assert rotten == 0 and len(ids) == 50 and ids.origin.dtype == np.uint16
    with on_mesh(1, 2, 1):
        model, batch = tiny.make_model(seed=0), tiny.rows(4)  # row b holds record b
        packed = np.asarray(jax.jit(loss.image_ids)(model, tiny.put(batch)))
        stored = np.stack([ids.ids(b) for b in range(4)])
        assert (packed[:, : VQ.tokens] == stored).all()
        assert len(np.unique(stored)) > 4, "pictures of one code show nothing"
        last = generation_image(Pictures(50).image(49), VQ.image_size)
        alone = jax.jit(lambda m, x: m.generation_encoder.encode(bt.pixels(x)))(model, np.stack([last] * 2))
    assert (ids.ids(49) == np.asarray(alone)[0]).all()


def test_rotten_pictures_are_marked_listed_and_refused_one_by_one(tmp_path, weights):
    source = Pictures(50, rotten={7, 20, 49})
    ids, rotten = make(tmp_path / "ids", weights[0], source)
    assert rotten == 3
    assert [i for i in range(50) if ids.bad(i)] == [7, 20, 49]
    assert (np.asarray(ids.row(20)) == 65535).all()
    lines = [json.loads(x) for x in (tmp_path / "ids" / "rotten.jsonl").read_text().splitlines()]
    assert [(x["record"], x["where"]) for x in lines] == [
        (7, "pictures:7"),
        (20, "pictures:20"),
        (49, "pictures:49"),
    ]
    assert not list((tmp_path / "ids").glob("rotten-*")) and not list((tmp_path / "ids").glob("*.partial"))

    whole, _ = make(tmp_path / "whole", weights[0])
    wrapped = pickle.loads(pickle.dumps(image_ids.attach(source, tmp_path / "ids")))
    assert (wrapped[8]["image_ids"] == whole.ids(8)).all() and wrapped[8]["image_ids"].dtype == np.int32
    assert wrapped[8]["captions"] == source[8]["captions"] and (wrapped.image(8) == source.image(8)).all()
    with pytest.raises(RecordError, match="pictures:20: its picture could not be encoded") as caught:
        wrapped[20]
    assert caught.value.cause == ids.bad(20)

    # Mended: the shard is made anew, and its record is listed no longer.
    (tmp_path / "ids" / ids.origin.files[1]).unlink()
    ids, rotten = make(tmp_path / "ids", weights[0], Pictures(50, rotten={7, 49}))
    assert rotten == 2 and not ids.bad(20) and (ids.ids(20) == whole.ids(20)).all()


def test_a_process_that_fails_ends_those_that_wait_for_its_shards(tmp_path, weights, monkeypatch):
    encoder(weights[0])
    with monkeypatch.context() as second:  # of two processes
        second.setattr(jax, "process_count", lambda: 2)
        second.setattr(jax, "process_index", lambda: 1)
        second.setattr(hosts, "gather", lambda value: [value])
        second.setattr(hosts, "first", lambda: True)  # begins, as the first would have
        with pytest.raises(SourceError, match="100 pictures in a row"):
            make(tmp_path, weights[0], Pictures(202, rotten=range(202)), shard=101)
    origin, _ = image_ids.read(tmp_path)
    with pytest.raises(hosts.HostsError) as caught:
        tokenize_images.finish(tmp_path, origin)
    said = (
        "this process is well, but not all are:\nprocess 1: SourceError: Pictures(202): 100 pictures in a row"
    )
    assert str(caught.value).startswith(said)
    _, rotten = make(tmp_path, weights[0], Pictures(202), shard=101)  # mended, the same command goes on
    assert not rotten and not list(tmp_path.glob("failed-*"))


def test_pictures_that_are_all_rotten_end_the_run(tmp_path, weights):
    with pytest.raises(SourceError, match=r"Pictures\(150\): 100 pictures in a row .* pictures:109"):
        make(tmp_path, weights[0], Pictures(150, rotten=range(10, 150)), shard=200)


def test_another_tokenizer_source_or_shard_is_refused(tmp_path, weights):
    ids, _ = make(tmp_path / "ids", weights[0])
    prints = {seed: encoder(weights[seed]).fingerprint for seed in (0, 1)}
    assert prints[0] == ids.origin.tokenizer != prints[1]
    with pytest.raises(CommandError) as caught:
        make(tmp_path / "ids", weights[1])
    assert f"tokenizer: {prints[1]} now, {prints[0]} in image_ids.json" in str(caught.value)
    with pytest.raises(CommandError, match=r"records: 51 now, 50 in image_ids\.json"):
        make(tmp_path / "ids", weights[0], Pictures(51))
    with pytest.raises(CommandError, match=r"shard: 10 now, 20 in image_ids\.json"):
        make(tmp_path / "ids", weights[0], shard=10)
    other = Pictures(50)
    other.fingerprint = "fedcba9876543210"
    with pytest.raises(
        SourceError, match=r"source: fedcba9876543210 now, 0123456789abcdef in image_ids\.json"
    ):
        image_ids.attach(other, tmp_path / "ids")


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


def test_the_fingerprint_is_of_what_ids_depend_on(weights):
    with on_mesh():
        arrays = flatten(nnx.to_pure_dict(nnx.state(tiny.make_model(seed=0).generation_encoder)))
    print_ = image_ids.tokenizer_fingerprint
    assert print_(arrays) == encoder(weights[0]).fingerprint  # without a decoder, from another directory
    assert print_(arrays | {"decoder.conv_in.bias": np.ones(16)}) == print_(arrays)
    for name in ("codebook", "quant_conv.bias", "encoder.conv_in.kernel"):
        changed = np.array(arrays[name])
        changed.flat[-1] += 1e-6
        assert print_(arrays | {name: changed}) != print_(arrays)


def test_weights_without_a_tokenizer_or_of_other_sizes_are_named(tmp_path, weights):
    with on_mesh():
        export(tmp_path / "head", {"image_head": nnx.to_pure_dict(nnx.state(tiny.make_model().image_head))})
        with pytest.raises(ValueError, match="head: holds no VQ tokenizer"):
            tokenize_images.Encoder(tmp_path / "head", VQ)
        with pytest.raises(ValueError, match="codebook_size is 64 there, 16384 here"):
            tokenize_images.Encoder(weights[0])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda d: (d / "image_ids.json").unlink(), "no such file, so no image ids there"),
        (lambda d: (d / "image_ids.json").write_text("{}"), "does not say whose ids these are"),
        (lambda d: (d / "ids-00001-of-00003.npy").unlink(), "not finished, 1 of 3 shards are missing"),
        (
            lambda d: (d / "ids-00001-of-00003.npy").write_bytes(b""),
            "ids-00001-of-00003.npy: .*remove this file",
        ),
        (lambda d: np.save(d / "ids-00001-of-00003.npy", np.zeros((3, 16), np.uint16)), "must be uint16"),
    ],
)
def test_a_directory_that_is_not_whole_is_refused(tmp_path, weights, harm, message):
    make(tmp_path / "ids", weights[0])
    harm(tmp_path / "ids")
    with pytest.raises(SourceError, match=message) as caught:
        image_ids.Ids(tmp_path / "ids")
    assert "python -m janus_jax.data.tokenize_images" in str(caught.value)


CHILD = """
import sys
import conftest, test_image_ids
test_image_ids.make(sys.argv[1], sys.argv[2], test_image_ids.Pictures(90, {30}, seconds=float(sys.argv[3])))
"""


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, weights):
    whole, rotten = make(tmp_path / "whole", weights[0], Pictures(90, {30}))
    assert rotten == 1
    here = pathlib.Path(__file__).parent
    paths = {"PYTHONPATH": f"{here.parent}{os.pathsep}{here}"}
    words = [sys.executable, "-c", CHILD, tmp_path / "killed", weights[0], "0.1"]
    with subprocess.Popen(words, env=os.environ | paths) as child:
        until = time.monotonic() + 120
        while not (tmp_path / "killed" / whole.origin.files[0]).is_file() and time.monotonic() < until:
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    first, *others = (tmp_path / "killed" / name for name in whole.origin.files)
    assert not others[-1].is_file()
    with pytest.raises(SourceError, match=r"not finished, [1-4] of 5 shards"):
        image_ids.Ids(tmp_path / "killed")
    others[0].with_name(others[0].name + ".partial").write_bytes(b"half")
    written = first.stat().st_mtime_ns
    make(tmp_path / "killed", weights[0], Pictures(90, {30}))
    assert first.stat().st_mtime_ns == written, "done again"
    files = sorted(p.name for p in (tmp_path / "whole").iterdir())
    assert files == sorted(p.name for p in (tmp_path / "killed").iterdir())
    for name in files:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """(stage, weights directory, the state it begins with, what the state is without) of a stage with ids."""
    directory = tmp_path_factory.mktemp("whole") / "model"
    experiment = types.SimpleNamespace(seed=0, model=tiny.CONFIG)
    stage = types.SimpleNamespace(init=("previous",), trainable=("image_head",))
    log = types.SimpleNamespace(say=lambda line: None)
    with on_mesh():
        export(directory, nnx.to_pure_dict(nnx.state(tiny.make_model(seed=0))), tiny.CONFIG)
    with on_mesh(1, 2, 1):
        return (
            stage,
            directory,
            *train.init_stage(experiment, stage, TX, directory, log, ("generation_encoder",)),
        )


def test_a_stage_refuses_the_ids_of_another_tokenizer(tmp_path, weights, stage):
    stage, directory, _, aside = stage
    own, other = (make(tmp_path / str(seed), weights[seed])[0].origin.tokenizer for seed in (0, 1))
    sources = [image_ids.attach(Pictures(50), tmp_path / str(seed)) for seed in (0, 1)]
    params = aside["generation_encoder"]
    feed.require_ids(tiny.CONFIG, train.directories(stage, directory), params, sources[:1])
    with pytest.raises(SourceError) as caught:
        feed.require_ids(tiny.CONFIG, train.directories(stage, directory), params, sources)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / '1'}: holds the ids of another tokenizer than {directory}")
    assert f"tokenizer: {own} now, {other} in image_ids.json" in message
    assert message.endswith(f"python -m janus_jax.data.tokenize_images --weights={directory} --out=ids")
    wider = dataclasses.replace(tiny.CONFIG, generation_encoder=dataclasses.replace(VQ, image_size=32))
    with pytest.raises(SourceError, match=r"32 pixels now, .*16 pixels in image_ids\.json"):
        feed.require_ids(wider, train.directories(stage, directory), params, sources[:1])


def test_a_step_with_ids_holds_no_tokenizer(stage):
    _, _, state, aside = stage
    assert "generation_encoder" not in state.params
    with on_mesh(1, 2, 1):
        tiny.same_bits(state.params | aside, nnx.to_pure_dict(nnx.state(tiny.make_model(seed=0))))
        batch = tiny.rows(2)
        batch["image_ids"] = np.zeros((2, tiny.IMAGES, VQ.tokens), np.int32)
        del batch["images"]
        after, _ = jax.eval_shape(functools.partial(train_state.train_step, tx=TX), state, tiny.put(batch))
        assert jax.tree.structure(after) == jax.tree.structure(state)


def test_plans_know_that_pictures_come_as_ids():
    def planned(**draw):
        lines = {"draw": {"kind": "generation", "path": "shapes:", **draw}}
        rows = {"count": 2, "length": 64, "pictures": 0, "images": 2}
        stage = {
            "trainable": ("image_head",), "init": (), "steps": 2, "batch_size": 2, "rows": rows, "supervise": "all",
            "ratio": {"understanding": 0, "text": 0, "generation": 1}, "optim": {"learning_rate": 1e-3},
        }  # fmt: skip
        values = {
            "model": dataclasses.asdict(tiny.CONFIG),
            "template": {"user": "User", "assistant": "Assistant"},
        }
        return resolve(values | {"data": {"datasets": lines}, "stages": {"one": stage}}, {})[0]

    with on_mesh():
        for experiment, ids in ((planned(), False), (planned(image_ids="ids"), True)):
            stage = experiment.stages["one"]
            assert budget.precomputed(experiment, stage) == ids
            _, state, batch = budget.lower_inputs(experiment, stage)
            assert ("generation_encoder" in state.params, "images" in batch) == (not ids, not ids)
            assert ("image_ids" in batch) == ids
            check(experiment, 1, files=False)
    with pytest.raises(ConfigError, match="only pictures to draw have ids, its kind is text"):
        check(planned(image_ids="ids", kind="text"), 1, files=False)
    experiment = planned(image_ids="ids")
    stages = {"one": dataclasses.replace(experiment.stages["one"], trainable=("generation_encoder",))}
    with pytest.raises(
        ConfigError, match="trainable has generation_encoder: training it would change the ids"
    ):
        check(dataclasses.replace(experiment, stages=stages), 1, files=False)
