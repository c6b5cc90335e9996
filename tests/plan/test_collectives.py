"""What a compiled program sends, as its text says."""

import dataclasses

import jax
import jax.numpy as jnp
from support import quickstart
from support.mesh import on_mesh

from janus_jax.model import sharding as sh
from janus_jax.plan import collectives, hlo


def test_collectives_of_a_scan_are_counted_once_a_turn():
    """Five layers split over fsdp 4, used whole: each turn gathers one. Backwards it is gathered
    again or kept, and its gradient is summed over all chips, as a reduction of 64 x 64 or of its
    shard."""
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
    found, remarks = collectives.sent(hlo.Module(forward), mesh)
    (gather,) = [c for c in found if c.kind == "all-gather"]
    assert remarks == [] and gather.count == 5 and gather.bytes == 5 * whole * 3 / 4
    assert gather.axes == ("fsdp",) and gather.group == (0, 1, 2, 3)
    sums = [
        c
        for c in collectives.sent(hlo.Module(backward), mesh)[0]
        if c.kind in ("all-reduce", "reduce-scatter")
    ]
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
  %another = bf16[32]{0} all-gather(%x), channel_id=7, replica_groups=mesh['a'=2,'b'=4] {'b'}, dimensions={0}
}

ENTRY %main (p: f32[8]) -> f32[] {
  %while.1 = (s32[]) while(%tuple), condition=%condition, body=%body
  %all-gather-start.1 = (f32[8]{0}, f32[16]{0}) all-gather-start(%p), channel_id=9, replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}
  %all-reduce.2 = (f32[], f32[3]{0}) all-reduce(%a, %b), channel_id=10, replica_groups={{0,1,2,3,4,5,6,7}}, to_apply=%add
  %alone = f32[3]{0} all-reduce(%b), channel_id=11, replica_groups={{0},{1}}, to_apply=%add
}
"""  # noqa: E501


def test_a_tpu_programs_fused_and_started_collectives_are_read():
    found, remarks = collectives.sent(hlo.Module(TPU_TEXT), {"data": 2, "fsdp": 4})
    assert remarks == []
    assert {(c.kind, c.axes, c.count, c.bytes) for c in found} == {
        ("all-gather", ("fsdp",), 12, 6 * (128 + 64) * 3 / 4),
        ("reduce-scatter", ("fsdp",), 6, 6 * 256 * 3 / 4),
        ("all-gather", ("data",), 1, 32.0),
        ("all-reduce", ("data", "fsdp"), 1, 2 * 16 * 7 / 8),
    }
    _, remarks = collectives.sent(
        hlo.Module(TPU_TEXT.replace("constant(6)", "parameter(1)")), {"data": 2, "fsdp": 4}
    )
    assert remarks == ["the turns of loop body are not known: its collectives count once"]


GPU_TEXT = """HloModule jit_step, is_scheduled=true

%body (p: (s32[])) -> (s32[]) {
  %all-gather-start = ((bf16[8,4]{1,0}, f32[2]{0}), (bf16[64,4]{1,0}, /*index=1*/f32[16]{0})) all-gather-start(%a, %b), channel_id=1, replica_groups=mesh['axis_0'=8,'axis_1'=2], device_ids=([2,8]T(1,0)) {'axis_0'}, dimensions={0}
  %all-gather-done = (bf16[64,4]{1,0}, f32[16]{0}) all-gather-done(%all-gather-start)
  %reduce-scatter-start = ((f32[64]{0}, f32[32]{0}), (f32[8]{0}, f32[4]{0})) reduce-scatter-start(%c, %d), channel_id=1, replica_groups={{0,1,2,3,4,5,6,7},{8,9,10,11,12,13,14,15}}, dimensions={0}, to_apply=%add
}

%there (p: f32[8]) -> f32[8] {
  %all-gather-start.2 = (bf16[8]{0}, bf16[64]{0}) all-gather-start(%p), channel_id=1, replica_groups=mesh['axis_0'=8,'axis_1'=2], device_ids=([2,8]T(1,0)) {'axis_0'}, dimensions={0}
}

%not_there (p: f32[8]) -> f32[8] {
  ROOT %copy = f32[8]{0} copy(%p)
}

ENTRY %main (p: f32[8]) -> f32[] {
  %conditional = f32[8]{0} conditional(%pred, %a, %a), true_computation=%there, false_computation=%not_there
  %while.1 = (s32[]) while(%tuple), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"11"},"known_init_step":{"init":"1","step":"2"}}
  %all-gather-start.1 = (bf16[8]{0}, bf16[64]{0}) all-gather-start(%p), channel_id=1, replica_groups=mesh['axis_0'=8,'axis_1'=2], device_ids=([2,8]T(1,0)) {'axis_0'}, dimensions={0}
  %all-reduce-start = f32[64]{0} all-reduce-start(%q), channel_id=1, replica_groups=mesh['axis_0'=16] {'axis_0'}, to_apply=%add
  %all-reduce-start.1 = bf16[64]{0} all-reduce-start(%r), channel_id=1, replica_groups=mesh['axis_0'=16] {'axis_0'}, to_apply=%add
}
"""  # noqa: E501


def test_a_gpu_programs_joined_collectives_are_read():
    """They share channels, hold several arrays, and a loop's turns are what the compiler says."""
    found, remarks = collectives.sent(hlo.Module(GPU_TEXT), {"data": 2, "fsdp": 8})
    assert remarks == []
    assert {(c.kind, c.axes, c.count, c.bytes) for c in found} == {
        ("all-gather", ("fsdp",), 13, 11 * (64 * 4 * 2 + 16 * 4) * 7 / 8 + 2 * 64 * 2 * 7 / 8),
        ("reduce-scatter", ("fsdp",), 11, 11 * 96 * 4 * 7 / 8),
        ("all-reduce", ("data", "fsdp"), 2, 2 * 64 * (4 + 2) * 15 / 16),
    }


def test_links_between_nodes_are_slower():
    chip = dataclasses.replace(quickstart.CPU, link=100.0, network=10.0, node=4)
    inside = collectives.Collective("all-gather", ("fsdp",), (0, 1, 2, 3), 1, 300.0)
    assert collectives.seconds(inside, chip) == 3.0
    one_each = dataclasses.replace(inside, group=(0, 4), bytes=200.0)
    assert collectives.seconds(one_each, chip) == 20.0
    both = dataclasses.replace(inside, group=tuple(range(8)), bytes=700.0)
    assert collectives.seconds(both, chip) == 10.0  # half of 800 through four ports of 10
