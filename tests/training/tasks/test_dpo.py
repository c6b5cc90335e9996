"""Tasks dpo and dpo_lora: their step against halves that stand alone, meshes, stops, and what they
refuse."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from support import tiny
from support.configs import refusal
from support.mesh import on_mesh
from support.paths import ROOT

from janus_jax.config.read import resolve
from janus_jax.data.fields import described
from janus_jax.data.holdout import Part
from janus_jax.data.mixture import Entry
from janus_jax.data.packing import assemble
from janus_jax.data.pair_encoder import LEAST, PairEncoder, most_pairs, split
from janus_jax.data.pairs import HALVES, Pair
from janus_jax.data.sources import SourceError
from janus_jax.data.toy import shapes_pairs
from janus_jax.model import batch as bt
from janus_jax.training import reference_commands, stored_reference
from janus_jax.training.log import Log
from janus_jax.training.stage_plan import StagePlan
from janus_jax.training.stages import run_stage
from janus_jax.weights.load import export
from janus_jax.weights.source import open_source

CONFIG = str(ROOT / "configs" / "quickstart_dpo.py")
CHILDREN = ("text_embedding", "transformer", "text_head")


class TextPairs:
    """Sums, with their answers and answers that are one off."""

    fingerprint = "sums"

    def __len__(self):
        return 60

    def __getitem__(self, i):
        said = {"chosen": f"{i + 3}", "rejected": f"{i + 4} or so"}
        return Pair({n: {"messages": described(f"{i} and 3?", x, 0)} for n, x in said.items()})

    def where(self, i):
        return f"sum {i}"


def plan_of(task: str = "dpo", options=None, **changes) -> StagePlan:
    rows = {"count": 8, "length": 192, "understanding_images": 2, "generation_images": 4}
    stage = {
        "task": task,
        "options": options or {},
        "trainable": CHILDREN if task == "dpo" else (),
        "init": ("quickstart",),
        "steps": 4,
        "batch_size": 24,
        "rows": rows,
        "ratio": {"understanding": 0, "text": 1, "generation": 0},
        "supervise": "answers",
        "condition_dropout": 0.0,
        "first_sentence": 0.0,
        "checkpoint_every": 1,
        "log_every": 1,
        "optim": {"learning_rate": 1e-2, "eps": 1e-3},
        **changes,
    }
    lines = {kind: {"kind": kind, "path": "shapes:pairs"} for kind in bt.TASKS}
    world = tiny.WORLD | {"data": {"datasets": lines}}
    values = {"model": dataclasses.asdict(tiny.CONFIG), **world, "stages": {"one": stage}}
    return StagePlan.of(resolve(values, {})[0], "one")


def begun(plan: StagePlan):
    """A state of drawn weights: the reference has others than the policy."""
    like = plan.state()
    zeros = lambda tree: jax.tree.map(
        lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding), tree
    )
    return like.replace(
        step=zeros(like.step),
        nonfinite_updates=zeros(like.nonfinite_updates),
        trainable=tiny.drawn(like.trainable, 0),
        frozen=tiny.drawn(like.frozen, 0),
        opt_state=zeros(like.opt_state),
    )


def texts() -> tuple[dict, list[list[dict]]]:
    """A batch of eight rows of two pairs each, and the rows' halves as Sequences."""
    encoder = PairEncoder(tiny.processor(), tiny.CONFIG, plan_of().stage.rows, "answers")
    source, bos = TextPairs(), tiny.processor().tokenizer.bos
    made = [[encoder("text", source[2 * r + k], None) for k in (0, 1)] for r in range(8)]
    batch = tiny.stacked([assemble(row, 192) for row in made])
    side = tiny.CONFIG.understanding_encoder.image_size
    for name in ("understanding_images", "generation_images"):
        batch[name] = np.zeros((8, 0, side, side, 3), np.uint8)
    return split(batch, bos), made


def alone(made: list) -> dict:
    """A batch of a row for each half, in the order of rows, pairs, halves."""
    bos = tiny.processor().tokenizer.bos
    rows = []
    for pair in (pair for row in made for pair in row):
        cut = np.flatnonzero(pair["tokens"] == bos)[1]
        for part in (slice(0, cut), slice(cut, None)):
            half = {n: pair[n][part] for n in ("tokens", "role", "supervised")}
            rows.append(assemble([pair | half], 64))
    batch = tiny.stacked(rows)
    return batch | {"understanding_images": np.zeros((len(rows), 0, 16, 16, 3), np.uint8)}


def sums(model, batch):
    """log p of what is said in each row, by a whole softmax: [pairs, 2]."""
    hidden = model(batch, jnp.zeros((len(batch["tokens"]), 0), jnp.int32))
    logs = jax.nn.log_softmax(model.text_head(hidden))
    hit = batch["text_targets"][..., None] == jnp.arange(logs.shape[-1])
    return jnp.where(hit, logs, 0.0).sum((1, 2)).reshape(-1, 2), hit.sum((1, 2)).reshape(-1, 2)


LOSSES = {
    "dpo": lambda s, r, n: -jax.nn.log_sigmoid(0.3 * ((s - r) @ jnp.array([1.0, -1]))),
    "ipo": lambda s, r, n: ((s - r) @ jnp.array([1.0, -1]) - 1 / 0.6) ** 2,
    "simpo": lambda s, r, n: -jax.nn.log_sigmoid(0.3 * ((s / n) @ jnp.array([1.0, -1])) - 0.2),
}


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_learns_what_halves_that_stand_alone_teach(loss, one_device):
    options = {"loss": loss, "beta": 0.3, "sft": 0.5} | ({"gamma": 0.2} if loss == "simpo" else {})
    plan = plan_of(options=options)
    state = begun(plan)
    batch, made = texts()
    apart = tiny.put(alone(made))
    other = None if loss == "simpo" else reference(state)

    def by_hand(trainable):
        policy = nnx.merge(state.graphdef, trainable, state.frozen)
        s, n = sums(policy, apart)
        r = None if other is None else sums(other, apart)[0]
        return LOSSES[loss](s, r, n).mean() - 0.5 * s[:, 0].sum() / n[:, 0].sum()

    want, gradient = jax.jit(jax.value_and_grad(by_hand))(state.trainable)
    new, metrics = jax.jit(plan.task.step(plan))(state, tiny.put(batch))
    assert float(metrics["loss"]) == pytest.approx(float(want), rel=1e-5)
    norm = np.sqrt(sum(np.square(x).sum() for x in tiny.numbers(gradient).values()))
    assert float(metrics["grad_norm"]) == pytest.approx(float(norm), rel=1e-5)
    for child, grad in gradient.items():
        own = np.sqrt(sum(np.square(x).sum() for x in tiny.numbers(grad).values()))
        assert float(metrics[f"grad_norm/{child}"]) == pytest.approx(float(own), rel=1e-4), child
    assert 0 < float(metrics["accuracy"]) <= 1 and float(metrics["text_loss"]) > 0
    tiny.same_bits(new.frozen, state.frozen)


def reference(state):
    """The frozen model, made of the state's parts by hand."""
    model = tiny.make_model()
    for child, params in (state.frozen | state.frozen["reference"]).items():
        if hasattr(model, child):
            nnx.update(getattr(model, child), params)
    return model


@functools.cache
def mixed() -> dict:
    """A batch of eight rows, a pair of pictures and one of answers in each."""
    sources = {"generation": shapes_pairs.ShapesPicturePairs(1)}
    sources["understanding"] = shapes_pairs.ShapesAnswerPairs(1)
    encoder = PairEncoder(tiny.processor(), tiny.CONFIG, plan_of().stage.rows, "answers")
    rows = []
    for i in range(8):
        made, shown = [], {"understanding_images": [], "generation_images": []}
        for kind, source in sources.items():
            record = source[i]
            made.append(encoder(kind, record, np.random.default_rng(i)))
            for name, found in encoder.pixels(kind, source, i, record, made[-1]).items():
                shown[name] += found
        rows.append(assemble(made, 192) | {name: np.stack(x) for name, x in shown.items()})
    return split(tiny.with_ids(tiny.stacked(rows)), tiny.processor().tokenizer.bos)


@functools.cache
def stepped(mesh: tuple, accumulate: int = 1):
    ratio = {"understanding": 1, "text": 0, "generation": 1}
    children = ("image_head", "transformer", "text_head", "generation_embedding")
    with on_mesh(*mesh):
        changes = dict(accumulate=accumulate, trainable=children, ratio=ratio)
        plan = plan_of(options={"sft": 0.2}, **changes)
        state, metrics = jax.jit(plan.task.step(plan))(begun(plan), tiny.put(mixed()))
        return tiny.numbers(state.trainable), {name: float(x) for name, x in metrics.items()}


@pytest.mark.slow
@pytest.mark.parametrize("mesh, accumulate", [((2, 2, 2), 1), ((1, 1, 1), 4)], ids=str)
def test_a_step_of_both_halves_is_the_same_on_meshes_and_in_parts(mesh, accumulate):
    weights, metrics = stepped((1, 1, 1))
    others, other = stepped(mesh, accumulate)
    assert {"understanding_accuracy", "generation_margin", "generation_logp_chosen"} < set(metrics)
    for name, x in metrics.items():
        assert other[name] == pytest.approx(x, rel=1e-4, abs=1e-5), name
    for name, x in weights.items():
        np.testing.assert_allclose(others[name], x, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_low_rank_pairs_are_held_to_the_janus_without_them(one_device):
    options = {"rank": 2, "alpha": 4, "targets": "transformer/*", "sft": 0.0}
    plan = plan_of("dpo_lora", options)
    state = begun(plan)
    assert "reference" not in state.frozen
    untouched = lambda path, x: jnp.zeros_like(x) if path[-1].key == "b" else x
    state = state.replace(trainable=jax.tree.map_with_path(untouched, state.trainable))
    batch = tiny.put(texts()[0])
    step = jax.jit(plan.task.step(plan))
    state, first = step(state, batch)
    assert float(first["loss"]) == pytest.approx(np.log(2), rel=1e-6) and not float(first["margin"])
    for _ in range(5):
        state, metrics = step(state, batch)
    assert float(metrics["loss"]) < 0.68 and float(metrics["margin"]) > 0.02
    assert float(metrics["accuracy"]) > 0.9


class Killed(Exception):
    pass


class Dying(Log):
    """A log that ends its run after a step."""

    def write(self, step, values):
        super().write(step, values)
        if step == 2:
            raise Killed


def trained(workdir, weights, log=Log, **changes):
    workdir.mkdir(exist_ok=True)
    tiny.processor().tokenizer.save(workdir)
    shows_nothing = lambda *_: lambda *_: {}
    with on_mesh():
        plan = plan_of(init=(str(weights),), **changes)
        sources = {"text": TextPairs()}
        run_stage(plan, sources, tiny.processor(), workdir, log(workdir), shows_nothing)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return open_source(workdir / "one").require(), [json.loads(line) for line in lines]


@pytest.mark.slow
def test_a_stage_that_was_killed_goes_on_to_the_same_bits_beside_stored_numbers_too(tmp_path):
    weights = tmp_path / "weights"
    with on_mesh():
        params = nnx.to_pure_dict(nnx.state(tiny.make_model(seed=0)))
        export(weights, params, tiny.CONFIG, tiny.processor())
    with pytest.raises(Killed):
        trained(tmp_path / "two", weights, Dying)
    weights.rename(tmp_path / "away")  # the reference is in the checkpoint
    stopped, _ = trained(tmp_path / "two", weights)
    (tmp_path / "away").rename(weights)
    whole, log = trained(tmp_path / "one", weights)
    before = open_source(weights)
    assert set(whole.leaves) == set(before.leaves), "the reference is not handed on"
    different = [n for n in whole.leaves if whole.read(n).tobytes() != stopped.read(n).tobytes()]
    assert not different
    moved = {n.split(".")[0] for n in whole.leaves if (whole.read(n) != before.read(n)).any()}
    assert moved == set(CHILDREN)
    assert log[0]["text_loss"] == pytest.approx(np.log(2), rel=1e-5) and log[0]["text_margin"] == 0
    assert log[-1]["text_margin"] > 0.1 and log[-1]["text_logp_chosen"] < 0

    saved = open_source(tmp_path / "one/checkpoints/one").require()
    assert not [name for name in saved.leaves if name.startswith("reference")]
    with on_mesh():
        plan = plan_of()
        model = tiny.make_model(seed=0)
        source = TextPairs()
        found, bad = reference_commands.of_records(model, plan, "text", source, tiny.processor())
    assert not bad and np.isfinite(found).all() and len(np.unique(found)) == found.size
    facts = stored_reference.facts_of(tiny.processor(), str(weights))
    datasets = {"text": {"content": "sums", "form": "chat", "bad": []}}
    stored_reference.write(tmp_path / "stored", facts, datasets, {"text": found})
    _, other = trained(tmp_path / "three", weights, options={"reference": str(tmp_path / "stored")})
    for a, b in zip(log, other, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4, abs=1e-5)
        assert b["text_margin"] == pytest.approx(a["text_margin"], rel=1e-3, abs=1e-4)


def stored(folder, found=None, **changes):
    """A folder of log-probabilities of TextPairs, opened as a stage's."""
    facts = stored_reference.facts_of(tiny.processor(), "weights") | changes.pop("facts", {})
    datasets = {"text": {"content": "sums", "form": "chat", "bad": [4]} | changes}
    if found is None:
        found = -np.arange(120, dtype=np.float32).reshape(60, 2) - 1
        found[4] = np.nan
    stored_reference.write(folder, facts, datasets, {"text": found})
    return stored_reference.StoredReference(str(folder), {"text": "chat"}, tiny.processor())


@pytest.mark.parametrize("held_out", [False, True])
def test_stored_numbers_stand_where_their_pairs_do(tmp_path, held_out):
    source = TextPairs()
    part = Part.of(source, "text", 0.2, 3, held_out) if held_out else source
    opened = stored(tmp_path)
    opened.require({"text": part})
    at = part.index if held_out else lambda i: i
    drawn = [(4, 7), (4, 8), (5, 1)]
    examples = np.array([(row, 0, 0, i, 2, 30) for row, i in drawn])
    rows = opened.rows([Entry("text", "text", part)], examples, [4, 5], 3)
    assert rows.shape == (2, 3, 2) and not rows[1, 1:].any()
    want = [[-1 - 2 * at(i), -2 - 2 * at(i)] for _, i in drawn]
    np.testing.assert_array_equal([*rows[0, :2], rows[1, 0]], want)


def test_a_stored_reference_that_is_not_of_this_run_is_refused(tmp_path):
    def told(**how):
        with pytest.raises(SourceError) as error:
            stored(tmp_path / "it", **how).require({"text": TextPairs()})
        return str(error.value)

    good = -np.ones((60, 2), np.float32)
    wrong = good.copy()
    wrong[7, 1] = np.inf
    assert "another tokenizer, other, than" in told(facts={"tokenizer": "other"})
    assert "another template" in told(facts={"template": {"user": "Human"}})
    assert "has the content sums, its stored log-probabilities are of products" in told(
        content="products"
    )
    assert "has the form chat" in told(form="plain")
    assert "1 log-probabilities are not finite, the first of record 7 (sum 7" in told(found=wrong)
    assert "has the shape (9, 2), 60 pairs need (60, 2)" in told(found=good[:9])
    with pytest.raises(SourceError, match=r"nowhere: no stored reference .*data reference"):
        stored_reference.StoredReference(str(tmp_path / "nowhere"), {}, tiny.processor())
    opened = stored(tmp_path)
    opened.require({"text": TextPairs()})
    examples = np.array([(0, 0, 0, 4, 2, 30)])
    with pytest.raises(SourceError, match="sum 4 could not be used when its log-prob"):
        opened.rows([Entry("text", "text", TextPairs())], examples, [0], 3)


@pytest.mark.parametrize("init, held_out", [("weights", False), ("other", False), ("other", True)])
def test_stored_numbers_of_other_weights_are_told_of_once(tmp_path, init, held_out):
    """Where the stage begins elsewhere than at its reference, it can be meant; validation says it not
    again."""
    stored(tmp_path / "stored")
    plan = plan_of(options={"reference": str(tmp_path / "stored")}, init=(init,))
    evaluation = dataclasses.replace(plan.experiment.evaluation, holdout=0.2)
    plan = dataclasses.replace(
        plan, experiment=dataclasses.replace(plan.experiment, evaluation=evaluation)
    )
    plan = plan.on_held_out() if held_out else plan
    said = []
    with on_mesh():
        data = plan.task.batches(
            plan, {"text": TextPairs()}, tiny.processor(), tmp_path, said.append
        )
        data.close()
    warned = [text for text in said if "WARNING" in text]
    due = init == "other" and not held_out
    assert len(warned) == due
    if due:
        assert (
            "are of weights, and stage one begins with other: the policy does not begin"
            in warned[0]
        )


STAGE = "stages.dpo."


@pytest.mark.parametrize(
    "given, said",
    [
        ({"options.loss": "kto"}, "options.loss is 'kto': unknown"),
        ({"options.beta": "0"}, "options.beta is 0: no pair would move anything"),
        ({"options.gamma": "0.5"}, "options.gamma is 0.5, and loss is 'dpo'"),
        ({"init": "()"}, "init is empty"),
        ({"supervise": "all"}, "supervise is 'all': what is preferred are answers"),
        ({"rows.generation_images": "1"}, "generation_images is 1: a pair of pictures stands in one"),
        ({"options.reference": "x"}, "condition_dropout is 0.1, and options.reference names"),
        ({"task": "dpo_lora"}, "trainable is"),
    ],
)  # fmt: skip
def test_what_a_stage_of_pairs_cannot_be_is_told_by_field(given, said):
    lines = refusal({STAGE + name: x for name, x in given.items()}, path=CONFIG)
    assert any(line.startswith(STAGE) and said in line for line in lines), lines


@pytest.mark.parametrize(
    "given, said",
    [
        ({"model.drawing": "masked"}, "model.drawing is 'masked': pairs are of pictures"),
        ({"data.datasets.pictures.image_ids": "ids"}, "image_ids is 'ids': they hold one picture"),
        ({STAGE + "options.loss": "simpo", STAGE + "options.reference": "x"}, "has no reference"),
        (
            {STAGE + "options.reference": "x", "data.datasets.pictures.prompt": "('{} it', 'a {}')"},
            "data.datasets.pictures.prompt has 2 templates, of which each visit takes one by chance",
        ),
        (
            {STAGE + "options.reference": "x", "data.datasets.answers.holdout": "apart.jsonl"},
            "data.datasets.answers.holdout is 'apart.jsonl', and stages.dpo.options.reference has no",
        ),
    ],
)  # fmt: skip
def test_what_pairs_cannot_be_combined_with_is_refused_by_name(given, said):
    assert any(said in line for line in refusal(given, path=CONFIG))


def test_a_row_holds_no_more_pairs_than_its_arrays():
    assert most_pairs(192) == 192 // LEAST and most_pairs(3) == 1
    batch, made = texts()
    assert batch["segment_ids"].max() == 4
    assert min(len(pair["tokens"]) for row in made for pair in row) >= LEAST
    assert {half for pair in (TextPairs()[3],) for half in pair} == set(HALVES)
