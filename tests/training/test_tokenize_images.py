"""Ids that were computed once: the same as in the step, the same after a kill, and refused where
they are another's."""

import dataclasses
import functools
import json
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from flax import nnx
from support import tiny
from support.configs import QUICKSTART
from support.ids import VQ, Pictures, encoder, make, tokenizers
from support.mesh import on_mesh

from janus_jax.config.read import resolve
from janus_jax.config.schema import ConfigError
from janus_jax.data import image_ids
from janus_jax.data.images import generation_image
from janus_jax.data.sources import RecordError, SourceError
from janus_jax.data.tools.command import CommandError
from janus_jax.distributed import processes
from janus_jax.model import batch as bt
from janus_jax.model.janus import Janus
from janus_jax.plan import memory
from janus_jax.training import stages, tokenize_images, vq_encoder
from janus_jax.training.check_config import check
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.step import train_step
from janus_jax.weights.load import export

TX = tiny.TX


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Directory of a VQ tokenizer's weights, by seed."""
    return tokenizers(tmp_path_factory.mktemp("weights"))


def test_ids_are_those_that_the_step_computes(tmp_path, weights):
    """Several devices, a batch that does not divide the shard, and pictures in rows among other
    examples."""
    ids, bad = make(tmp_path / "ids", weights[0], mesh=(1, 4, 1))
    assert bad == 0 and len(ids) == 50 and ids.origin.dtype == np.uint16
    with on_mesh(1, 2, 1):
        model, batch = tiny.make_model(seed=0), tiny.rows(4)  # row b holds record b
        packed = np.asarray(jax.jit(Janus.image_ids)(model, tiny.put(batch)))
        stored = np.stack([ids.ids(b) for b in range(4)])
        assert (packed[:, : VQ.tokens] == stored).all()
        assert len(np.unique(stored)) > 4, "pictures of one code show nothing"
        last = generation_image(Pictures(50).image(48), VQ.image_size)
        alone = jax.jit(lambda m, x: m.generation_encoder.encode(bt.pixels(x)))(
            model, np.stack([last] * 2)
        )
    assert (ids.ids(48) == np.asarray(alone)[0]).all()


def test_bad_pictures_are_marked_listed_and_refused_one_by_one(tmp_path, weights):
    source = Pictures(50, bad={7, 20, 49})
    ids, bad = make(tmp_path / "ids", weights[0], source)
    assert bad == 3
    assert [i for i in range(50) if ids.bad(i)] == [7, 20, 49]
    assert (np.asarray(ids.row(20)) == 65535).all()
    lines = [
        json.loads(x) for x in (tmp_path / "ids" / "bad_records.jsonl").read_text().splitlines()
    ]
    assert [(x["record"], x["where"]) for x in lines] == [
        (7, "pictures:7"),
        (20, "pictures:20"),
        (49, "pictures:49"),
    ]
    assert not list((tmp_path / "ids").glob("bad-*")) and not list(
        (tmp_path / "ids").glob("*.partial")
    )

    whole, _ = make(tmp_path / "whole", weights[0])
    wrapped = pickle.loads(pickle.dumps(image_ids.attach(source, tmp_path / "ids")))
    assert (wrapped[8]["image_ids"] == whole.ids(8)).all() and wrapped[8][
        "image_ids"
    ].dtype == np.int32
    assert (
        wrapped[8]["captions"] == source[8]["captions"]
        and (wrapped.image(8) == source.image(8)).all()
    )
    with pytest.raises(
        RecordError, match="pictures:20: its picture could not be encoded"
    ) as caught:
        wrapped[20]
    assert caught.value.cause == ids.bad(20)

    # Mended: the shard is made anew, and its record is listed no longer.
    (tmp_path / "ids" / ids.origin.files[1]).unlink()
    ids, bad = make(tmp_path / "ids", weights[0], Pictures(50, bad={7, 49}))
    assert bad == 2 and not ids.bad(20) and (ids.ids(20) == whole.ids(20)).all()


def test_a_process_that_fails_ends_those_that_wait_for_its_shards(tmp_path, weights, monkeypatch):
    encoder(weights[0])
    with monkeypatch.context() as second:  # of two processes
        second.setattr(jax, "process_count", lambda: 2)
        second.setattr(jax, "process_index", lambda: 1)
        second.setattr(processes, "all_gather", lambda value: [value])
        second.setattr(processes, "is_lead", lambda: True)  # begins, as the first would have
        with pytest.raises(SourceError, match="100 pictures in a row"):
            make(tmp_path, weights[0], Pictures(202, bad=range(202)), shard=101)
    origin, _ = image_ids.read_origin(tmp_path)
    with pytest.raises(processes.HostsError) as caught:
        tokenize_images.finish(tmp_path, origin)
    said = "this process is well, but not all are:\nprocess 1: SourceError: Pictures(202): 100 pictures in a row"
    assert str(caught.value).startswith(said)
    _, bad = make(
        tmp_path, weights[0], Pictures(202), shard=101
    )  # mended, the same command goes on
    assert not bad and not list(tmp_path.glob("failed-*"))


def test_pictures_that_are_all_bad_end_the_run(tmp_path, weights):
    with pytest.raises(
        SourceError, match=r"Pictures\(150\): 100 pictures in a row .* pictures:109"
    ):
        make(tmp_path, weights[0], Pictures(150, bad=range(10, 150)), shard=200)


def test_weights_without_a_tokenizer_or_of_other_sizes_are_named(tmp_path, weights):
    with on_mesh():
        export(
            tmp_path / "head",
            {"image_head": nnx.to_pure_dict(nnx.state(tiny.make_model().image_head))},
        )
        with pytest.raises(ValueError, match="head: holds no VQ tokenizer"):
            vq_encoder.TokenizerEncoder(tmp_path / "head", VQ)
        with pytest.raises(ValueError, match="codebook_size is 64 there, 16384 here"):
            vq_encoder.TokenizerEncoder(weights[0])


def test_an_accelerator_that_rounds_is_told_from_one_that_computes_in_float32(
    tmp_path, weights, monkeypatch, capsys
):
    """A second fake device stands for the CPU beside an accelerator; off: what rounding operands to
    float32, TensorFloat-32 and bfloat16 does to unit latents."""
    random = np.random.default_rng(0)
    ids, z = np.zeros((4, 16), np.int32), random.normal(size=(4, 4, 4, 8))
    for off, rounded in ((3e-7, False), (3e-4, True), (3e-3, True), (np.nan, True)):
        there = ids, z + off * random.normal(size=z.shape)
        assert vq_encoder.agreement((ids, z), there).rounded == rounded
    assert vq_encoder.Agreement(2300, 2304, 1e-6).rounded is False
    assert vq_encoder.Agreement(2000, 2304, 1e-6).rounded is True
    monkeypatch.setattr(tokenize_images, "cpu_beside", lambda device: jax.devices()[1])
    make(tmp_path / "right", weights[0], Pictures(8))
    assert "64 of 64 ids equal the CPU's (100.00%)" in capsys.readouterr().out
    monkeypatch.setattr(vq_encoder, "agreement", lambda *_: vq_encoder.Agreement(61, 64, 9e-4))
    with pytest.raises(
        CommandError, match="does not compute in float32 on cpu: 61 of 64 ids equal"
    ):
        make(tmp_path / "wrong", weights[0], Pictures(8))
    said = []
    monkeypatch.setattr(vq_encoder, "SMALL", VQ)
    vq_encoder.warn_of_rounding(said.append)  # a CPU
    vq_encoder.warn_of_rounding(said.append, *jax.devices()[:2])
    assert len(said) == 1 and said[0].startswith(
        "WARNING: the VQ tokenizer does not compute in float32 on cpu"
    )


CHILD = """
import sys
import conftest
from support import ids
ids.make(sys.argv[1], sys.argv[2], ids.Pictures(90, {30}, seconds=float(sys.argv[3])))
"""


@pytest.mark.processes
def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path, weights):
    whole, bad = make(tmp_path / "whole", weights[0], Pictures(90, {30}))
    assert bad == 1
    here = pathlib.Path(__file__).parents[1]
    paths = {"PYTHONPATH": f"{here.parent}{os.pathsep}{here}"}
    words = [sys.executable, "-c", CHILD, tmp_path / "killed", weights[0], "0.1"]
    with subprocess.Popen(words, env=os.environ | paths) as child:
        until = time.monotonic() + 120
        while (
            not (tmp_path / "killed" / whole.origin.files[0]).is_file() and time.monotonic() < until
        ):
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
        assert (tmp_path / "whole" / name).read_bytes() == (
            tmp_path / "killed" / name
        ).read_bytes(), name


def planned(init=(), **draw):
    lines = {"draw": {"kind": "generation", "path": "shapes:", **draw}}
    rows = {"count": 2, "length": 64, "understanding_images": 0, "generation_images": 2}
    stage = {
        "trainable": ("image_head",), "init": init, "steps": 2, "batch_size": 2, "rows": rows, "supervise": "all",
        "ratio": {"understanding": 0, "text": 0, "generation": 1}, "optim": {"learning_rate": 1e-3},
    }  # fmt: skip
    values = {
        "model": dataclasses.asdict(tiny.CONFIG),
        "template": {"user": "User", "assistant": "Assistant"},
    }
    return resolve(values | {"data": {"datasets": lines}, "stages": {"one": stage}}, {})[0]


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """(plan, weights directory, the state it begins with, what waits on the host) of a stage with
    ids."""
    directory = tmp_path_factory.mktemp("whole") / "model"
    plan = StagePlan.of(planned(("previous",), image_ids="ids"), "one")
    say = lambda line: None
    with on_mesh():
        export(directory, nnx.to_pure_dict(nnx.state(tiny.make_model(seed=0))), tiny.CONFIG)
    with on_mesh(1, 2, 1):
        state, aside, named = stages.initial_state(plan, [directory], None, say)
        assert named["generation_encoder"] == directory
        return plan, directory, state, aside


def test_a_stage_refuses_the_ids_of_another_tokenizer(tmp_path, weights, stage):
    plan, directory, _, aside = stage
    own, other = (make(tmp_path / str(seed), weights[seed])[0].origin.tokenizer for seed in (0, 1))
    sources = [image_ids.attach(Pictures(50), tmp_path / str(seed)) for seed in (0, 1)]
    stages.require_ids(plan, aside, sources[:1], directory)
    with pytest.raises(SourceError) as caught:
        stages.require_ids(plan, aside, sources, directory)
    message = str(caught.value)
    assert message.startswith(
        f"{tmp_path / '1'}: holds the ids of another tokenizer than {directory}"
    )
    assert f"tokenizer: {own} now, {other} in image_ids.json" in message
    assert message.endswith(f"python -m janus_jax.data tokenize --weights={directory} --out=ids")
    wider = dataclasses.replace(
        tiny.CONFIG, generation_encoder=dataclasses.replace(VQ, image_size=32)
    )
    with pytest.raises(SourceError, match=r"32 pixels now, .*16 pixels in image_ids\.json"):
        stages.require_ids(dataclasses.replace(plan, model=wider), aside, sources[:1], directory)


def test_a_step_with_ids_holds_no_tokenizer(stage):
    _, _, state, aside = stage
    assert "generation_encoder" not in state.params
    with on_mesh(1, 2, 1):
        tiny.same_bits(state.params | aside, nnx.to_pure_dict(nnx.state(tiny.make_model(seed=0))))
        batch = tiny.rows(2)
        batch["image_ids"] = np.zeros((2, tiny.IMAGES, VQ.tokens), np.int32)
        del batch["generation_images"]
        after, _ = jax.eval_shape(functools.partial(train_step, tx=TX), state, tiny.put(batch))
        assert jax.tree.structure(after) == jax.tree.structure(state)


def test_plans_know_that_pictures_come_as_ids():
    with on_mesh():
        for experiment, ids in ((planned(), False), (planned(image_ids="ids"), True)):
            assert experiment.uses_ids("one") == ids
            _, state, batch = memory.lower_inputs(StagePlan.of(experiment, "one"))
            assert ("generation_encoder" in state.params, "generation_images" in batch) == (
                not ids,
                not ids,
            )
            assert ("image_ids" in batch) == ids
            check(experiment, 1)
    with pytest.raises(ConfigError, match="only pictures to draw have ids, its kind is text"):
        check(planned(image_ids="ids", kind="text"), 1)
    experiment = planned(image_ids="ids")
    changed = {
        "one": dataclasses.replace(experiment.stages["one"], trainable=("generation_encoder",))
    }
    with pytest.raises(
        ConfigError, match="trainable has generation_encoder: training it would change the ids"
    ):
        check(dataclasses.replace(experiment, stages=changed), 1)


def test_edits_have_no_stored_ids(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tokenize_images.initialize, "initialize", lambda: None)
    words = [
        f"--config={QUICKSTART}", "--data.add=name=edits kind=generation path=shapes:edits",
        "--dataset=edits", "--weights=quickstart", f"--out={tmp_path / 'ids'}",
    ]  # fmt: skip
    assert tokenize_images.main(words) == 2
    assert (
        "edits holds edits or conversations that draw, whose records have several"
        in capsys.readouterr().err
    )
