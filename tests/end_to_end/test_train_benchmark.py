"""What both sides of benchmarks/train_step.py start from, and when it refuses a ratio."""

import json
import sys

import numpy as np
import pytest
from support.paths import BENCHMARKS
from support.tiny import CONFIG

from janus_jax.model import flops
from janus_jax.model.batch import IGNORE


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_rows_hold_what_the_ratio_draws():
    import train_rows

    ratio = {"understanding": 1, "text": 1, "generation": 2}
    batch = train_rows.batch(CONFIG, 4, 256, ratio, "answers")
    assert batch["understanding_images"].shape[1] and batch["generation_images"].shape[1]
    work = flops.of_batch(batch, CONFIG)
    begins = (batch["positions"] == 0) & (batch["segment_ids"] > 0)
    drawn = [int((batch["tasks"][begins] == task).sum()) for task in (1, 2, 3)]
    assert (work.understanding_images, work.generation_images) == (drawn[0], drawn[2]) and drawn[
        1
    ] > 0
    assert drawn[2] > max(drawn[:2])
    assert work.tokens > 0.9 * batch["tokens"].size
    assert work.image == drawn[2] * CONFIG.generation_encoder.tokens
    assert work.text < flops.of_batch(train_rows.batch(CONFIG, 4, 256, ratio, "all"), CONFIG).text


def test_rows_of_text_hold_about_five_and_are_always_the_same():
    import train_rows

    ratio = {"understanding": 0, "text": 1, "generation": 0}
    first, again = (train_rows.batch(CONFIG, 8, 512, ratio, "all") for _ in range(2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert 3 < first["segment_ids"].max(1).mean() < 8
    assert not first["understanding_images"].size and not first["generation_images"].size


def test_the_naive_form_has_both_heads_everywhere_and_no_examples():
    import train_rows

    ratio = {"understanding": 1, "text": 1, "generation": 1}
    batch = train_rows.naive(train_rows.batch(CONFIG, 2, 256, ratio, "all"))
    assert (batch["text_targets"] != IGNORE).all() and (batch["image_targets"] > 0).all()
    assert (batch["segment_ids"] == 1).all()


def test_a_ratio_needs_the_same_losses():
    import train_report

    apart = train_report.losses_apart
    assert train_report.same_loss(apart([10, 9, 8, 7], [10.001, 0, 0, 7.01]))
    assert not train_report.same_loss(apart([10.02, 9, 8, 7], [10, 9, 8, 7]))
    assert not train_report.same_loss(apart([10, 9, 8, 7.1], [10, 9, 8, 7]))
    assert not train_report.same_loss(apart([10, 9, 8, float("nan")], [10, 9, 8, 7]))


@pytest.mark.processes
def test_a_child_answers_and_its_end_is_no_answer(tmp_path):
    import machine

    script = tmp_path / "child.py"
    script.write_text(
        f"import json, sys\nsys.path.insert(0, {json.dumps(str(BENCHMARKS))})\nimport machine\n"
        "spec = json.loads(sys.argv[1])\n"
        "machine.serve(spec, lambda word: {'said': word, 'peak': machine.peak()} "
        "if word != 'end' else sys.exit(3))\n"
    )
    child = machine.Child(script, {"n": 1})
    assert child.about == {"n": 1}
    answer = child.ask("go")
    assert answer["said"] == "go" and 1e6 < answer["peak"] < 1e9
    with pytest.raises(RuntimeError, match=r"'n': 1.*ended with 3"):
        child.ask("end")
    child.stop()


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="CPU use of others is read from /proc"
)
def test_others_are_those_that_are_not_named():
    import machine

    others = machine.Others([])
    sum(i * i for i in range(2_000_000))
    mine = machine._used(machine.os.getpid())
    assert mine > 0 and others.cores() < machine.cores() + 0.5
    assert machine.disturbs(0.5) and not machine.disturbs(0.01) and not machine.disturbs(None)
