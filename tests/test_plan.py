"""Plans: every shipped config's true step lowered with nothing allocated, and its bytes as the real step has them."""

import dataclasses
import functools
import json
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from conftest import on_mesh

from janus_jax import aot, budget, chips, collectives, plan, roofline, xla_flags
from janus_jax import sharding as sh
from janus_jax.checks import check
from janus_jax.data.pipeline import Rows
from janus_jax.experiment import Mesh, read
from janus_jax.model import attention

CONFIGS = sorted(str(path) for path in (pathlib.Path(__file__).parents[1] / "configs").glob("*.py"))
CONFIGS = [path for path in CONFIGS if "pro_1b" not in path]  # the shapes of Janus-1.3B again
CPU, _ = chips.parse_topology("cpu:8")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: pathlib.Path(path).stem)
def test_every_stage_lowers_on_eight_devices(path):
    experiment, wrong = read(path)
    check(experiment, 8, files=False, known=wrong)
    with on_mesh(1, 8, 1):
        for stage in experiment.stages.values():
            step, state, batch = budget.lower_inputs(experiment, stage)
            text = step.lower(state, batch).as_text()
            assert "stablehlo.dot_general" in text
            assert {name for name in state.trainable} == set(stage.trainable)
            rows = batch["tokens"]
            assert rows.shape == (stage.rows.count, stage.rows.length)
            assert rows.sharding.shard_shape(rows.shape)[0] == stage.rows.count // 8


@functools.cache
def small(remat: str = "dots", data: int = 1, fsdp: int = 8):
    """The quick start's stages over the tests' tiny model."""
    experiment, _ = read(next(c for c in CONFIGS if pathlib.Path(c).stem == "quickstart"))
    rows = Rows(32, tiny.LENGTH, tiny.PICTURES, tiny.IMAGES)
    stages = {name: dataclasses.replace(s, rows=rows) for name, s in experiment.stages.items()}
    return dataclasses.replace(
        experiment, model=tiny.small(remat=remat), mesh=Mesh(data, fsdp, 1), stages=stages
    )


def studied(experiment, name: str, chip=CPU) -> dict:
    m = experiment.mesh
    with on_mesh(m.data, m.fsdp, m.tensor):
        return plan.study(experiment, name, chip)


@functools.cache
def told() -> tuple[dict, str]:
    """The plan of stages 1 and 3, and what it said."""
    experiment, said = small(), []
    two = {name: experiment.stages[name] for name in ("stage1", "stage3")}
    out = plan.run(
        dataclasses.replace(experiment, stages=two), CPU, 8, jax.devices(), "a compiler", said.append
    )
    return out, "\n".join(said)


@pytest.mark.parametrize("name", ["stage1", "stage3"])
def test_the_plan_holds_what_the_step_with_real_arrays_holds(name):
    experiment, found = small(), told()[0]["stages"][name]["bytes"]
    with on_mesh(1, 8, 1):
        stage = experiment.stages[name]
        step, state, batch = budget.lower_inputs(experiment, stage)
        traced = budget.estimate(experiment, stage, state, batch)
        zeros = lambda x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding)
        state, batch = jax.tree.map(zeros, (state, batch))
        cheap = {"xla_backend_optimization_level": 0}
        real = step.lower(state, batch).compile(compiler_options=cheap).memory_analysis()
        here = lambda tree: sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))
        assert traced.trainable == here(state.trainable) and traced.frozen == here(state.frozen)
        assert traced.batch == here(batch)
    temporaries = found["activations"] + found["other"]
    assert traced.arguments == pytest.approx(real.argument_size_in_bytes, rel=0.1)
    assert found["total"] - found["program"] - temporaries == pytest.approx(
        real.argument_size_in_bytes, rel=0.1
    )
    assert temporaries == pytest.approx(real.temp_size_in_bytes, rel=0.1)


def test_what_the_backward_pass_keeps_follows_remat_and_microbatches():
    kept = {}
    for remat in ("none", "full"):
        experiment = small(remat)
        with on_mesh(1, 8, 1):
            _, state, batch = budget.lower_inputs(experiment, experiment.stages["stage2"])
            kept[remat] = [budget.kept_activations(state, batch, parts) for parts in (1, 2)]
    assert kept["full"][0] < 0.7 * kept["none"][0]
    assert all(half == pytest.approx(whole / 2, rel=0.1) for whole, half in kept.values())


def test_what_does_not_fit_names_three_knobs_and_the_first_helps():
    experiment = small("none", 2, 4)
    found = studied(experiment, "stage1", dataclasses.replace(CPU, name="a100-40gb", memory=1e5))
    assert any("too high" in remark for remark in found["remarks"])  # the CPU's compiler stands in
    assert not found["fits"] and len(found["knobs"]) == 3
    saves = [k["saves"] for k in found["knobs"]]
    assert saves == sorted(saves, reverse=True) and saves[-1] > 0
    assert found["knobs"][0]["flag"] in plan.knob_table(found["knobs"])
    with on_mesh(2, 4, 1):
        changed = budget.changed_by(experiment, found["knobs"][0]["flag"])
    after = studied(changed, "stage1")
    temporaries = lambda s: s["bytes"]["activations"] + s["bytes"]["other"]
    assert after["fits"] and not after["knobs"]
    assert temporaries(after) < temporaries(found) - saves[0] / 2


def test_an_out_of_memory_error_is_explained():
    experiment = small("none", 2, 4)
    error = RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 123 bytes.\nmore")
    with on_mesh(2, 4, 1):
        text = plan.explain_out_of_memory(experiment, "stage2", error)
    assert "stage2 does not fit" in text and "moments" in text and text.count("--config.") >= 3
    assert "RESOURCE_EXHAUSTED" in text and "more" not in text.splitlines()


def test_what_compilers_say_of_memory_is_read():
    tpu = "total memory required for HLO temporaries (89.49G) exceeds available HBM (15.75G)"
    assert aot.used(tpu) == pytest.approx(89.49 * 2**30)
    assert aot.used("Ran out of memory in memory space hbm. Used 512.5M of 15.75G hbm") == 512.5 * 2**20
    assert aot.used("Out of memory while trying to allocate 12884901888 bytes.") == 12884901888
    assert aot.used("something else") is None


def test_the_whole_plan_is_told_and_is_json():
    whole, text = json.loads(json.dumps(told()[0])), told()[1]
    s = whole["stages"]["stage3"]
    assert whole["mesh"] == {"data": 1, "fsdp": 8, "tensor": 1}
    for words in ("a compiler", "transformer", "moments", "FITS", "all-gather", "MFU", "Assumed"):
        assert words in text
    assert any(c["kind"] == "all-gather" and c["axes"] == ["fsdp"] for c in s["collectives"])
    in_turn, overlapped = (s["speeds"][f"bound, {how} overlapped"] for how in ("nothing", "all"))
    assert 0 < overlapped["seconds"] <= in_turn["seconds"] and overlapped["mfu"] <= 1
    with on_mesh(1, 8, 1):
        state = budget.lower_inputs(small(), small().stages["stage3"])[1]
    assert s["parameters"]["transformer"] == [
        sum(x.size for x in jax.tree.leaves(state.trainable["transformer"])),
        0,
    ]


def test_collectives_of_a_scan_are_counted_once_a_turn():
    """Five layers split over fsdp 4, used whole: each turn gathers one; backwards it is gathered again or kept, and
    its gradient is summed over all chips, as a reduction of 64 x 64 or of its shard."""
    with on_mesh(2, 4, 1):
        mesh = jax.sharding.get_mesh()

        def layer(x, w):
            return jnp.tanh(x @ jax.sharding.reshard(w, jax.P())), None

        f = lambda x, ws: jax.lax.scan(layer, x, ws)[0].sum()
        put = lambda shape, spec: jax.ShapeDtypeStruct(
            shape, jnp.float32, sharding=jax.NamedSharding(mesh, spec)
        )
        x, ws = put((16, 64), sh.BATCH), put((5, 64, 64), jax.P(None, "fsdp"))
        forward = jax.jit(f).lower(x, ws).compile().as_text()
        backward = jax.jit(jax.grad(f, argnums=1)).lower(x, ws).compile().as_text()
    whole, mesh = 64 * 64 * 4, {"data": 2, "fsdp": 4, "tensor": 1}
    found, remarks = collectives.parse(forward, mesh)
    (gather,) = [c for c in found if c.kind == "all-gather"]
    assert remarks == [] and gather.count == 5 and gather.bytes == 5 * whole * 3 / 4
    assert gather.axes == ("fsdp",) and gather.group == (0, 1, 2, 3)
    sums = [c for c in collectives.parse(backward, mesh)[0] if c.kind in ("all-reduce", "reduce-scatter")]
    assert sum(c.count for c in sums if c.bytes > 5 * whole / 4) >= 5
    assert {axis for c in sums for axis in c.axes} == {"data", "fsdp"}


TPU_TEXT = """HloModule jit_step, is_scheduled=true

%piece.1 (p: bf16[8]) -> bf16[64] {
  %all-gather.1 = bf16[64]{0:T(8)(2,1)} all-gather(%p), channel_id=7, replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}
}

%piece.2 (p: bf16[8]) -> bf16[64] {
  %all-gather.2 = bf16[64]{0} all-gather(%p), channel_id=7, replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}
}

%all-reduce-scatter.1 (p: f32[64]) -> f32[16] {
  %all-reduce.1 = f32[64]{0} all-reduce(%p), channel_id=8, replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %slice = f32[16]{0} dynamic-slice(%all-reduce.1)
}

%condition (p: (s32[])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(6)
  ROOT %lt = pred[] compare(%get-tuple-element.1, %constant.1), direction=LT
}

%body (p: (s32[])) -> (s32[]) {
  %fusion.1 = bf16[64]{0} fusion(%x), kind=kCustom, calls=%piece.1
  %fusion.2 = bf16[64]{0} fusion(%x), kind=kCustom, calls=%piece.2
  %fusion.3 = f32[16]{0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1
}

ENTRY %main (p: f32[8]) -> f32[] {
  %while.1 = (s32[]) while(%tuple), condition=%condition, body=%body
  %all-gather-start.1 = (f32[8]{0}, f32[16]{0}) all-gather-start(%p), channel_id=9, replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}
  %all-reduce.2 = (f32[], f32[3]{0}) all-reduce(%a, %b), channel_id=10, replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  %alone = f32[3]{0} all-reduce(%b), channel_id=11, replica_groups={{0},{1}}, to_apply=%add
}
"""  # noqa: E501


def test_a_tpu_programs_fused_and_started_collectives_are_read():
    found, remarks = collectives.parse(TPU_TEXT, {"data": 2, "fsdp": 4})
    assert remarks == []
    assert {(c.kind, c.axes, c.count, c.bytes) for c in found} == {
        ("all-gather", ("fsdp",), 6, 6 * 128 * 3 / 4),
        ("reduce-scatter", ("fsdp",), 6, 6 * 256 * 3 / 4),
        ("all-gather", ("data",), 1, 32.0),
        ("all-reduce", ("data", "fsdp"), 1, 2 * 16 * 7 / 8),
    }
    _, remarks = collectives.parse(TPU_TEXT.replace("constant(6)", "parameter(1)"), {"data": 2, "fsdp": 4})
    assert remarks == ["the turns of loop body are not known: its collectives count once"]


GPU_TEXT = """HloModule jit_step, is_scheduled=true

%body (p: (s32[])) -> (s32[]) {
  %all-gather-start = ((bf16[8,4]{1,0}, f32[2]{0}), (bf16[64,4]{1,0}, /*index=1*/f32[16]{0})) all-gather-start(%a, %b), channel_id=1, replica_groups=mesh['axis_0'=8,'axis_1'=2], device_ids=([2,8]T(1,0)) {'axis_0'}, dimensions={0}
  %all-gather-done = (bf16[64,4]{1,0}, f32[16]{0}) all-gather-done(%all-gather-start)
  %reduce-scatter-start = ((f32[64]{0}, f32[32]{0}), (f32[8]{0}, f32[4]{0})) reduce-scatter-start(%c, %d), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7},{8,9,10,11,12,13,14,15}}, dimensions={0}, to_apply=%add
}

ENTRY %main (p: f32[8]) -> f32[] {
  %while.1 = (s32[]) while(%tuple), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"11"},"known_init_step":{"init":"1","step":"2"}}
  %all-gather-start.1 = (bf16[8]{0}, bf16[64]{0}) all-gather-start(%p), channel_id=1, replica_groups=mesh['axis_0'=8,'axis_1'=2], device_ids=([2,8]T(1,0)) {'axis_0'}, dimensions={0}
  %all-reduce-start = f32[64]{0} all-reduce-start(%q), channel_id=1, replica_groups=mesh['axis_0'=16] {'axis_0'}, to_apply=%add
  %all-reduce-start.1 = bf16[64]{0} all-reduce-start(%r), channel_id=1, replica_groups=mesh['axis_0'=16] {'axis_0'}, to_apply=%add
}
"""  # noqa: E501


def test_a_gpu_programs_joined_collectives_are_read():
    """They share channels, hold several arrays, and a loop's turns are what the compiler says."""
    found, remarks = collectives.parse(GPU_TEXT, {"data": 2, "fsdp": 8})
    assert remarks == []
    assert {(c.kind, c.axes, c.count, c.bytes) for c in found} == {
        ("all-gather", ("fsdp",), 12, 11 * (64 * 4 * 2 + 16 * 4) * 7 / 8 + 64 * 2 * 7 / 8),
        ("reduce-scatter", ("fsdp",), 11, 11 * 96 * 4 * 7 / 8),
        ("all-reduce", ("data", "fsdp"), 2, 2 * 64 * (4 + 2) * 15 / 16),
    }


@pytest.mark.skipif(not aot.cuda_plugin(), reason='needs the GPU compiler: pip install ".[plan]"')
@pytest.mark.parametrize("name", ["a100-40gb", "h100"])
def test_gpus_that_are_not_there_are_compiled_for(name):
    """Five layers split over fsdp 8 and used whole, attention of packed rows between them: each turn gathers a layer
    once forwards and, recomputed, once backwards; attention is Triton's kernel, compiled, not interpreted."""
    chip, count = chips.parse_topology(f"{name}:16")
    found, compiler = aot.devices(chip, count, f"{name}:16")
    assert len(found) == 16 and {d.process_index for d in found} == {0, 1} and "ptxas" in compiler
    assert chips.of_device(found[0]) is chip
    assert (aot.CUDNN_UNSEEN in aot.assumptions(found[0])) == (name == "h100")
    layers, width, length = 5, 128, 640
    with sh.mesh_context(mesh := sh.make_mesh(2, 8, 1, found)):
        assert sh.platform() == "gpu" and attention.choose("auto", length, jnp.bfloat16) == "triton"
        put = lambda shape, dtype, spec: jax.ShapeDtypeStruct(
            shape, dtype, sharding=jax.NamedSharding(mesh, spec)
        )

        def layer(x, w):
            y = x @ jax.sharding.reshard(w.astype(x.dtype), jax.P())
            q = y.reshape(*y.shape[:2], 1, width, out_sharding=sh.ACT_BTHK)
            ids = jnp.zeros(x.shape[:2], jnp.int32, out_sharding=sh.BATCH)
            return attention.packed(q, q, q, ids).reshape(x.shape, out_sharding=sh.ACT_BTD), None

        loss = lambda ws, x: (jax.lax.scan(jax.checkpoint(layer), x, ws)[0].astype(jnp.float32) ** 2).mean()
        step = jax.jit(lambda ws, x: jax.tree.map(lambda w, g: w - g, ws, jax.grad(loss)(ws, x)))
        ws = put((layers, width, width), jnp.float32, jax.P(None, "fsdp"))
        x = put((16, length, width), jnp.bfloat16, sh.BATCH)
        compiled = aot.compile_step(step, ws, x)
        text = step.lower(ws, x).compile(compiler_options=aot.gpu_options()).as_text()
    assert compiled.own and not compiled.error and compiled.remarks == []
    part = layers * width * width * 4 / 8 + length * width * 2
    assert compiled.arguments == pytest.approx(part, rel=0.01) and compiled.temporaries > part
    gathered = [c for c in compiled.sent if c.kind == "all-gather" and c.axes == ("fsdp",)]
    assert [(c.count, c.bytes) for c in gathered] == [(2 * layers, 2 * layers * width * width * 2 * 7 / 8)]
    assert 'custom_call_target="__gpu$xla.gpu.triton"' in text


def test_without_the_gpu_compiler_the_plan_says_what_to_install(monkeypatch):
    monkeypatch.setattr(aot, "cuda_plugin", lambda: False)
    chip, _ = chips.parse_topology("h100:8")
    found, compiler = aot.devices(chip, 8, "h100:8")
    assert found[0].platform == "cpu" and "jax-cuda12-plugin" in compiler and "pip install" in compiler
    with pytest.raises(ValueError, match="whole nodes of 8"):
        aot.gpus(chip, 12, "h100:12")


def test_a_gpu_plan_is_compiled_with_the_flags_of_a_run_and_the_users_come_first(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_pipelined_all_reduce=false")
    options = aot.gpu_options()
    assert options["xla_gpu_enable_latency_hiding_scheduler"] is True
    assert options["xla_gpu_all_reduce_combine_threshold_bytes"] == xla_flags.LAYER
    assert "xla_gpu_enable_pipelined_all_reduce" not in options


def test_links_between_nodes_are_slower():
    chip = dataclasses.replace(CPU, link=100.0, network=10.0, node=4)
    inside = collectives.Collective("all-gather", ("fsdp",), (0, 1, 2, 3), 1, 300.0)
    assert collectives.seconds(inside, chip) == 3.0
    one_each = dataclasses.replace(inside, group=(0, 4), bytes=200.0)
    assert collectives.seconds(one_each, chip) == 20.0
    both = dataclasses.replace(inside, group=tuple(range(8)), bytes=700.0)
    assert collectives.seconds(both, chip) == 10.0  # half of 800 through four ports of 10


def test_topologies_are_read_and_mistakes_named():
    chip, count = chips.parse_topology("v5p:4x4x8")
    assert chip.name == "v5p" and count == 128 and chip.flops == 459e12
    assert chips.parse_topology("a100-40gb:128")[1] == 128
    shared = chips.parse_topology("cpu:2")[0]
    assert shared.flops == 4 * CPU.flops and shared.memory == 4 * CPU.memory > 0
    for text, words in (
        ("v5:2x2", "did you mean v5e or v5p"), ("a100:8", "a100-40gb or a100-80gb"), ("tofu:8", "known: v4"),
        ("v5p:128", "3 sizes"), ("v5e:4x4x4", "2 sizes"), ("h100", "h100:8"), ("h100:0", "number"), ("cpu:8x", "cpu:8"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=text) as error:
            chips.parse_topology(text)
        assert words in str(error.value)


def test_devices_are_known_by_their_kind():
    name = lambda kind: (found := chips.of_device(types.SimpleNamespace(device_kind=kind))) and found.name
    assert (
        name("TPU v5 lite") == "v5e" and name("TPU v5") == name("TPU v5p") == "v5p" and name("TPU v4") == "v4"
    )
    assert name("NVIDIA A100-SXM4-80GB") == "a100-80gb" and name("NVIDIA H100 80GB HBM3") == "h100"
    assert name("NVIDIA H100 PCIe") is None and name("TPU v4 lite") is None and name("cpu") is None


def test_a_bound_is_its_longest_part_and_its_speeds_follow():
    sent = [collectives.Collective("all-gather", ("fsdp",), (0, 1), 1, 27e9)]
    chip = dataclasses.replace(CPU, flops=1e12, bandwidth=1e9, link=9e9)
    limit = roofline.bound(chip, 4e12, 2e9, sent)
    assert (limit.compute, limit.memory, limit.links) == (4, 2, 3)
    assert limit.overlapped == 4 and limit.in_turn == 9
    stage, work = small().stages["stage2"], types.SimpleNamespace(tokens=100.0, pictures=3.0, images=5.0)
    speed = roofline.speeds(dataclasses.replace(stage, steps=86400), chip, 2, 4e12, work, 4.0)
    assert (
        speed["mfu"] == 0.5
        and speed["tokens_per_s"] == 25
        and speed["images_per_s"] == 2
        and speed["days"] == 4
    )
