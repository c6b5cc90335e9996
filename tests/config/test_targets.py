"""The shipped configs say what the papers' tables say, and each of their targets can hold its
stage."""

import dataclasses
import functools
import importlib.util
import itertools

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractMesh, AxisType
from support import tiny
from support.paths import CONFIGS

from janus_jax.common.text import differences
from janus_jax.config import read as read_
from janus_jax.config import schema
from janus_jax.data.catalog import learn_tokenizer, open_datasets
from janus_jax.data.example_encoder import ExampleEncoder
from janus_jax.data.mixture import Entry, Mixture
from janus_jax.data.processor import Processor
from janus_jax.data.row_stream import RowStream
from janus_jax.model import batch as bt
from janus_jax.model import config as sizes
from janus_jax.model import presets
from janus_jax.model import sharding as sh
from janus_jax.model.janus import abstract
from janus_jax.training import check_config

ADAPTORS = {"understanding_adaptor", "generation_adaptor", "generation_embedding", "image_head"}
LLM = {"text_embedding", "transformer", "text_head"}
TRAINED = {1: ADAPTORS, 2: ADAPTORS | LLM, 3: ADAPTORS | LLM | {"understanding_encoder"}}
# arXiv 2410.13848, Table 1, and arXiv 2501.17811, Table 2. Config and size ("": the only one, or
# 1B) -> learning rate, schedule, weight decay, warm-up, steps, batch size, ratio.
TABLE = {
    ("stage1", ""): (1e-3, "cosine", 0.0, 300, 10_000, 256, (1, 0, 1)),
    ("stage2", ""): (1e-4, "constant", 0.0, 5_000, 180_000, 512, (2, 3, 5)),
    ("stage3", ""): (2e-5, "constant", 0.1, 0, 24_000, 256, (7, 3, 10)),
    ("pro_stage1", ""): (1e-3, "constant", 0.0, 600, 20_000, 256, (1, 0, 3)),
    ("pro_stage2", ""): (1e-4, "constant", 0.0, 5_000, 360_000, 512, (2, 3, 5)),
    ("pro_stage3", ""): (4e-5, "constant", 0.0, 0, 80_000, 128, (5, 1, 4)),
    ("pro_stage1", "7b"): (1e-3, "constant", 0.0, 600, 20_000, 256, (1, 0, 3)),
    ("pro_stage2", "7b"): (1e-4, "constant", 0.0, 5_000, 360_000, 512, (2, 3, 5)),
    ("pro_stage3", "7b"): (4e-5, "constant", 0.0, 0, 40_000, 128, (5, 1, 4)),
}
SIZES = {"janus_1_3b": presets.janus_1_3b(), "janus_pro_7b": presets.janus_pro_7b()}
# trained in stages 1, 2, 3: the released state dicts' shapes, the unused pooling head left out
PARAMETERS = {
    "janus_1_3b": (48_408_576, 1_701_064_704, 2_004_753_408),
    "janus_pro_7b": (121_835_520, 7_032_201_216, 7_335_889_920),
}
CHIPS = {
    "a100-40gb": 40e9,
    "a100-80gb": 80e9,
    "h100": 80e9,
    "v5e": 16e9,
    "v5p": 95e9,
    "rtx4090": 24e9,
    "rtx4070": 12e9,
}
EVERYWHERE = {"", "a100-40gb:128", "h100:64", "v5e:16x16", "v5p:4x4x8"}


@functools.cache
def targets(name: str) -> tuple:
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return tuple(module.TARGETS)


NAMES = list(dict.fromkeys(name for name, _ in TABLE))
ALL = [(name, target) for name in NAMES for target in targets(name)]
# A target that names no way to fine-tune is the one of LoRA.
ALL += [("finetune", target) for target in targets("finetune") if target[:5] != "lora:"]


def parts(target: str) -> tuple[str, str]:
    """A target's size, or way to fine-tune, and chips: "7b:h100:64" -> ("7b", "h100:64"),
    "h100:64" -> ("", "h100:64")."""
    first, _, rest = target.partition(":")
    return (first, rest) if first in ("7b", "lora", "full") else ("", target)


def devices_of(target: str) -> int:
    chips = parts(target)[1]
    return int(np.prod([int(n) for n in chips.split(":")[1].split("x")])) if chips else 8


@functools.cache
def read(name: str, target: str = ""):
    built, wrong = read_.read(f"{CONFIGS / name}.py{':' * bool(target)}{target}")
    return check_config.check(built, devices_of(target), known=wrong)


def stage_of(name: str, target: str = "") -> schema.Stage:
    (stage,) = read(name, target).stages.values()
    return stage


def test_every_config_of_the_papers_lists_every_target():
    for name, size in TABLE:
        single = {"a100-80gb:1", "h100:1"} if name.endswith("stage3") and not size else set()
        listed = {parts(target)[1] for target in targets(name) if parts(target)[0] == size}
        assert listed == EVERYWHERE | single
    assert {path.stem for path in CONFIGS.glob("*stage*.py")} == set(NAMES)


@pytest.mark.parametrize("name, target", ALL, ids=lambda x: x or "any")
def test_a_target_changes_the_shape_and_nothing_else(name, target):
    size = parts(target)[0]
    built, plain, stage = read(name, target), read(name, size), stage_of(name, target)
    changed = differences(dataclasses.asdict(plain), dataclasses.asdict(built))
    allowed = ("mesh.", "model.remat", f"stages.{next(iter(built.stages))}.")
    assert all(line.startswith(allowed) for line in changed)
    # A smaller card trains less, or beside a smaller base.
    of_stage = ("trainable", "optim", "options") if name == "finetune" else ()
    same = {
        "rows": stage.rows,
        "accumulate": stage.accumulate,
        **{k: getattr(stage, k) for k in of_stage},
    }
    assert dataclasses.replace(stage_of(name, size), **same) == stage


@pytest.mark.parametrize("name, size", TABLE, ids=lambda x: x or "any")
def test_hyperparameters_are_the_tables(name, size):
    rate, schedule, decay, warmup, steps, batch, ratio = TABLE[name, size]
    built = read(name, size)
    stage, o = stage_of(name, size), stage_of(name, size).optim
    assert (o.learning_rate, o.schedule, o.weight_decay, o.warmup_steps) == (
        rate,
        schedule,
        decay,
        warmup,
    )
    assert (o.b1, o.b2, o.clip_norm) == (0.9, 0.95, 1.0)
    assert (stage.steps, stage.batch_size) == (steps, batch)
    assert (stage.ratio.understanding, stage.ratio.text, stage.ratio.generation) == ratio
    number = int(name[-1])
    assert set(stage.trainable) == TRAINED[number]
    assert stage.supervise == ("answers" if number == 3 else "all")
    forms = {stage.form(line) for line in built.data.datasets.values()}
    assert forms == {"chat" if number == 3 else "plain"}
    assert stage.condition_dropout == 0.1 and (number != 2 or stage.first_sentence == 0.25)


@pytest.mark.parametrize("name, size", TABLE, ids=lambda x: x or "any")
def test_each_stage_goes_on_from_the_one_before(name, size):
    built, stage, number = read(name, size), stage_of(name, size), int(name[-1])
    pro = name.startswith("pro_")
    assert list(built.stages) == [f"stage{number}"]
    roles = ("<|User|>", "<|Assistant|>") if pro else ("User", "Assistant")
    assert (built.template.user, built.template.assistant) == roles
    model = (presets.janus_pro_7b if size else presets.janus_pro_1b) if pro else presets.janus_1_3b
    assert built.model == model()
    if number > 1:  # what the command of the stage before leaves in its work directory
        family = f"pro_{size or '1b'}_" if pro else ""
        before = f"runs/{family}stage{number - 1}/stage{number - 1}"
        assert stage.init == (before,) and built.tokenizer == before
    else:
        llm = "weights/deepseek_llm_7b" if size else "weights/deepseek_llm_1_3b"
        assert stage.init == ("weights/siglip_l16_384", llm, "weights/llamagen_vq16")


@functools.cache
def arrays(model: sizes.JanusConfig, mesh=(4, 32, 2)) -> dict:
    """child -> (shape, spec) of its arrays, by default on the widest mesh of all; nothing is
    allocated."""
    mesh = AbstractMesh(mesh, sh.AXES, axis_types=(AxisType.Explicit,) * 3)
    with jax.sharding.use_abstract_mesh(mesh):
        params = nnx.to_pure_dict(nnx.state(abstract(model)))
    return {
        child: [(x.shape, x.sharding.spec) for x in jax.tree.leaves(tree)]
        for child, tree in params.items()
    }


def on_a_device(shape, spec, mesh: dict[str, int]) -> int:
    """Numbers of an array that each device holds."""
    ways = [int(np.prod([mesh[axis] for axis in jax.tree.leaves(axes)])) for axes in spec]
    assert all(size % n == 0 for size, n in zip(shape, ways)), (shape, spec, mesh)
    return int(np.prod(shape)) // int(np.prod(ways))


@pytest.mark.parametrize("size", PARAMETERS)
def test_trained_parameters_of_each_stage(size):
    counts = {
        c: sum(int(np.prod(shape)) for shape, _ in xs) for c, xs in arrays(SIZES[size]).items()
    }
    assert tuple(sum(counts[c] for c in TRAINED[k]) for k in (1, 2, 3)) == PARAMETERS[size]


@pytest.mark.parametrize("name, target", [x for x in ALL if parts(x[1])[1]], ids=str)
def test_weights_and_moments_leave_a_third_of_the_memory(name, target):
    """Before activations; and the mesh divides every array that it splits."""
    built, stage = read(name, target), stage_of(name, target)
    m, model = built.mesh, dataclasses.replace(built.model, remat="dots")
    mesh = dict(zip(sh.AXES, sh.mesh_shape(m.data, m.fsdp, m.tensor, devices_of(target))))
    held = {
        child: sum(on_a_device(*x, mesh) for x in xs)
        for child, xs in arrays(model, tuple(mesh.values())).items()
    }
    trained = sum(n for child, n in held.items() if child in stage.trainable)
    moments = {"float32": 8, "bfloat16": 6}[stage.optim.mu_dtype]
    each = (
        4 + moments + 4 + (4 if stage.accumulate > 1 else 0)
    )  # weight, moments, gradient, sum of gradients
    frozen = 2 if stage.task == "lora" else 4  # at most: linear maps may be int8
    assert (
        each * trained + frozen * (sum(held.values()) - trained)
        < 2 / 3 * CHIPS[parts(target)[1].split(":")[0]]
    )


def test_a_mesh_that_passes_the_checks_divides_every_array():
    built, passed = read("quickstart"), []
    one = lambda size: dataclasses.replace(size, layers=1)  # the others have the same arrays
    model = dataclasses.replace(
        built.model,
        understanding_encoder=one(built.model.understanding_encoder),
        transformer=one(built.model.transformer),
    )
    for fsdp, tensor in itertools.product((1, 2, 3, 4, 8, 16, 32), (1, 2, 4)):
        mesh = {"data": 1, "fsdp": fsdp, "tensor": tensor}
        changed = dataclasses.replace(built, mesh=schema.Mesh(**mesh))
        try:
            check_config.check(changed, fsdp * tensor)
        except schema.ConfigError:
            continue
        passed.append((fsdp, tensor))
        for shape, spec in itertools.chain.from_iterable(arrays(model, (1, fsdp, tensor)).values()):
            on_a_device(shape, spec, mesh)
    assert {(16, 2), (1, 2), (8, 1)} <= set(passed) and not {(3, 1), (16, 16)} & set(passed)


def test_rows_hold_the_batch_at_the_mean_lengths():
    for name, target in ALL:
        stage = stage_of(name, target)
        ratio = vars(stage.ratio)
        mean = sum(share * sum(tiny.LENGTHS[task][:2]) for task, share in ratio.items()) / sum(
            ratio.values()
        )
        held = stage.rows.count * stage.rows.length / mean
        # 48 rows of 4096 are what up to 16 devices divide, a sixth more than 256 examples of stage
        # 1.
        assert stage.batch_size <= held < 1.26 * stage.batch_size, (name, target, held)
        assert stage.rows.length <= 4096


FULL = 0.95  # of the positions, where rows hold more than two pictures; two leave a tenth empty


def packed(
    stage, steps: int = 60, streams: int = 8, mixture=None, encoder=None
) -> tuple[float, float, float]:
    """Of a step, by packing drawn lengths as training does: share of positions filled, examples,
    texts cut."""
    entries = [Entry(kind, kind, tiny.Numbered(10**6)) for kind in bt.TASKS]
    mixture, drawn = mixture or Mixture(entries, vars(stage.ratio), 0, streams), []
    for number in range(streams):
        stream = RowStream(mixture, encoder or tiny.Lengths(stage.rows), number)
        rows = [stream.row(step)["drawn"] for step in range(steps)]
        drawn += [x for row in rows[steps // 10 :] for x in row]  # the first rows are the fullest
    count = streams * (steps - steps // 10)
    text = [code >= bt.TRUNCATED for _, _, _, code, _ in drawn if code % bt.TRUNCATED == 2]
    fill = sum(tokens for *_, tokens in drawn) / count / stage.rows.length
    return fill, len(drawn) / count * stage.rows.count, float(np.mean(text or [0]))


PACKED = {
    (stage_of(*x).ratio, stage_of(*x).rows, stage_of(*x).batch_size): x for x in reversed(ALL)
}


@pytest.mark.parametrize("name, target", PACKED.values(), ids=lambda x: x or "any")
def test_packing_fills_the_rows_with_the_batch(name, target):
    stage = stage_of(name, target)
    fill, examples, cut = packed(stage)
    print(
        f"{name}:{target} {stage.rows}: {examples:.0f} examples, {fill:.1%} full, {cut:.1%} of "
        "texts cut"
    )
    assert (
        (0.94 if stage.rows.length == 1408 else 0.98) * stage.batch_size
        <= examples
        < 1.1 * stage.batch_size
    )
    assert fill >= (0.88 if stage.rows.length == 1408 else FULL)


class WithoutPixels(ExampleEncoder):
    def pixels(self, *_):
        return []


def test_the_quick_start_fills_its_rows():
    built = read("quickstart")
    packs = [stage for stage in built.stages.values() if stage.rows]
    drawn = [line for line in built.data.datasets.values() if "stage0" not in line.stages]
    assert {stage.form(line) for stage in packs for line in drawn} == {"chat"}  # as its evaluation
    lines = {name: d for name, d in built.data.datasets.items() if "stage0" not in d.stages}
    sources = open_datasets(lines, built.model.generation_encoder.image_size, 0)
    processor = Processor(
        learn_tokenizer(sources, built.template, built.model.transformer.vocabulary),
        built.template,
        built.model.understanding_encoder.tokens,
        built.model.generation_encoder.tokens,
    )
    packing = {name: stage for name, stage in built.stages.items() if stage.rows}
    for name, stage in packing.items():
        entries = [Entry(n, d.kind, sources[n]) for n, d in lines.items()]
        encoder = WithoutPixels(processor, built.model, stage.rows, stage.supervise)
        fill, examples, _ = packed(stage, 30, 4, Mixture(entries, vars(stage.ratio), 0, 4), encoder)
        print(f"{name}: {examples:.0f} examples, {fill:.1%} full")
        # Stage 1 has no text to fill up with.
        assert (
            fill >= (0.95 if stage.ratio.text else 0.9)
            and abs(examples / stage.batch_size - 1) < 0.1
        )


# Reading a target


@pytest.mark.parametrize(
    "path, target, mesh",
    [
        ("stage2.py:a100-40gb:128", "", (16, 8, 1)),
        ("stage2.py", "v5e:16x16", (4, 32, 2)),
        ("stage2.py:h100:64", "v5e:16x16", (8, 8, 1)),  # the path's own target goes first
        ("stage2.py", "cpu:8", (1, -1, 1)),  # not listed: the default
        ("quickstart.py", "v5e:16x16", (1, -1, 1)),  # a config without targets
        ("pro_stage2.py", "a100-40gb:128", (16, 8, 1)),
        ("pro_stage2.py:7b", "", (1, -1, 1)),
        ("pro_stage2.py:7b", "a100-40gb:128", (2, 64, 1)),  # the path's size on the chips asked for
        ("pro_stage2.py:7b:h100:64", "a100-40gb:128", (8, 8, 1)),
        ("pro_stage3.py:7b", "h100:1", (1, -1, 1)),  # listed for 1B only: 7B's default
    ],
)
def test_the_target_meant(path, target, mesh):
    built, _ = read_.read(str(CONFIGS / path), {"seed": "3"}, target=target)
    assert (built.mesh.data, built.mesh.fsdp, built.mesh.tensor) == mesh and built.seed == 3


@pytest.mark.parametrize(
    "path, said",
    [
        ("stage2.py:h100:46", "stage2.py has no target 'h100:46'; did you mean 'h100:64'?"),
        (
            "stage2.py:",
            "stage2.py has no target ''; known: a100-40gb:128, h100:64, v5e:16x16, v5p:4x4x8",
        ),
        (
            "pro_stage2.py:7b:h100:46",
            "has no target '7b:h100:46'; did you mean '7b:h100:64'?",
        ),
        ("quickstart.py:h100:64", "quickstart.py has no targets; leave out ':h100:64'"),
        ("stage.py:h100:64", "stage.py:h100:64: no such file"),
        ("stage2.py.h100", "no such file"),
    ],
)
def test_a_target_that_is_not_there_is_refused(path, said):
    with pytest.raises(schema.ConfigError) as error:
        read_.read(str(CONFIGS / path))
    assert said in str(error.value)


def test_finetuning_trains_what_it_is_given_and_pays_for_no_other_pictures():
    added = {"data.add.mine": "", "data.datasets.mine.kind": "understanding"}
    again = {"data.add.chats": "", "data.datasets.chats.kind": "text"}  # a name of the file's own
    read_alone = {"data.datasets.captions.kind": "understanding"}
    for given, names, ratio, slots in (
        (again | {"data.datasets.chats.path": "a.jsonl"}, ["chats"], (0, 1, 0), (0, 0)),
        ({"data.remove.chats": ""}, ["captions"], (0, 0, 1), (0, 4)),
        (
            {"data.remove.chats": "", "data.datasets.captions.path": "a.jsonl"},
            ["captions"],
            (0, 0, 1),
            (0, 4),
        ),
        (read_alone, ["chats", "captions"], (1, 0, 0), (4, 0)),
        ({"data.datasets.captions.path": "a.jsonl"}, ["captions"], (0, 0, 1), (0, 4)),
        (added | {"data.datasets.mine.path": "a.jsonl"}, ["mine"], (1, 0, 0), (4, 0)),
        ({}, ["chats", "captions"], (1, 0, 1), (4, 4)),
        # One that is added may have a name of the file's.
        (
            {
                "data.add.text": "",
                "data.datasets.text.kind": "text",
                "data.datasets.text.path": "a",
            },
            ["text"],
            (0, 1, 0),
            (0, 0),
        ),
    ):
        built, wrong = read_.read(f"{CONFIGS / 'finetune.py'}", given)
        stage = built.stages["finetune"]
        assert (sorted(built.data.datasets), wrong) == (sorted(names), [])
        assert tuple(vars(stage.ratio).values()) == ratio
        assert (stage.rows.understanding_images, stage.rows.generation_images) == slots


@pytest.mark.parametrize("init", ["('quickstart',)", "['quickstart', 'more']", "quickstart,more"])
def test_finetuning_takes_the_sizes_of_the_first_weights_however_several_are_written(init):
    built, wrong = read_.read(f"{CONFIGS / 'finetune.py'}", {"stages.finetune.init": init})
    assert wrong == [] and built.stages["finetune"].init[0] == "quickstart"
    assert built.model.transformer.width == 128
