"""What a compiled program does, counted in its text."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from support import quickstart
from support.mesh import on_mesh

from janus_jax.distributed import chips
from janus_jax.model import cpu
from janus_jax.plan import audit, hlo, products, rates

H100 = chips.CHIPS["h100"]
ALONE = {"data": 1, "fsdp": 1, "tensor": 1}

GPU_TEXT = r"""HloModule jit_step, is_scheduled=true

FileNames
1 "/home/janus_jax/training/step.py"
2 "/home/janus_jax/model/transformer.py"
3 "/home/janus_jax/model/layers.py"
4 "/home/janus_jax/model/generation_encoder.py"

FunctionNames
1 "train_step"
2 "TransformerBlock.__call__"
3 "Linear.__call__"
4 "Conv.__call__"

FileLocations
1 {file_name_id=1 function_name_id=1 line=21 end_line=21 column=9 end_column=9}
2 {file_name_id=2 function_name_id=2 line=32 end_line=32 column=9 end_column=9}
3 {file_name_id=3 function_name_id=3 line=107 end_line=107 column=9 end_column=9}
4 {file_name_id=4 function_name_id=4 line=35 end_line=35 column=9 end_column=9}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=3}
4 {file_location_id=4 parent_frame_id=2}

%sliced (p0: bf16[24,64,32], p1: s32[]) -> bf16[64,32] {
  %p0 = bf16[24,64,32]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %part = bf16[1,64,32]{2,1,0} dynamic-slice(%p0, %p1), dynamic_slice_sizes={1,64,32}
  ROOT %bitcast = bf16[64,32]{1,0} bitcast(%part)
}

%updated (q0: bf16[24,16,32], q1: bf16[16,32], q2: s32[]) -> bf16[24,16,32] {
  %q0 = bf16[24,16,32]{2,1,0} parameter(0)
  %q1 = bf16[16,32]{1,0} parameter(1)
  %q2 = s32[] parameter(2)
  %row = bf16[1,16,32]{2,1,0} bitcast(%q1)
  ROOT %put = bf16[24,16,32]{2,1,0} dynamic-update-slice(%q0, %row, %q2)
}

%condition (c: (s32[])) -> pred[] {
  ROOT %less = pred[] compare(%x, %y), direction=LT
}

%body (b: (s32[])) -> (s32[]) {
  %stack = bf16[24,64,32]{2,1,0} get-tuple-element(%b), index=1
  %kept = bf16[24,16,32]{2,1,0} get-tuple-element(%b), index=2
  %i = s32[] get-tuple-element(%b), index=0
  %x = bf16[16,64]{1,0} get-tuple-element(%b), index=3
  %weight = bf16[64,32]{1,0} fusion(%stack, %i), kind=kLoop, calls=%sliced
  %custom-call.1 = (bf16[16,32]{1,0}, s8[4194304]{0}) custom-call(%x, %weight), custom_call_target="__cublas$lt$matmul", metadata={op_name="jit(train_step)/transpose(jvp())/while/body/dot_general" stack_frame_id=3}, backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"],"lhs_batch_dimensions":[],"rhs_batch_dimensions":[]}}}
  %y = bf16[16,32]{1,0} get-tuple-element(%custom-call.1), index=0
  %stacked = bf16[24,16,32]{2,1,0} fusion(%kept, %y, %i), kind=kLoop, calls=%updated
}

%there (t: f32[8,8]) -> f32[8,8] {
  %t = f32[8,8]{1,0} parameter(0)
  ROOT %dot = f32[8,8]{1,0} dot(%t, %t), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%not_there (n: f32[8,8]) -> f32[8,8] {
  %n = f32[8,8]{1,0} parameter(0)
  ROOT %copied = f32[8,8]{1,0} copy(%n)
}

%step_of_data (d: (s32[])) -> (s32[]) {
  %one = f32[4]{0} fusion(), kind=kLoop, calls=%nothing
}

%nothing () -> f32[4] {
  ROOT %zeros = f32[4]{0} broadcast(%z), dimensions={}
}

ENTRY %main (p: f32[8]) -> f32[] {
  %big = bf16[4096,4096]{1,0} parameter(0)
  %image = f32[1,8,8,4]{3,2,1,0} parameter(1)
  %kernel = f32[4,3,3,4]{3,2,1,0} parameter(2)
  %square = f32[8,8]{1,0} parameter(3)
  %sum-start = bf16[1048576]{0} all-reduce-start(%flat), channel_id=1, replica_groups={{0,1}}, to_apply=%add
  %product = (bf16[4096,4096]{1,0}, s8[4]{0}) custom-call(%big, %big), custom_call_target="__cublas$lt$matmul", metadata={op_name="jit(train_step)/jvp()/dot_general" stack_frame_id=3}, backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"],"lhs_batch_dimensions":[],"rhs_batch_dimensions":[]}}}
  %sum-done = bf16[1048576]{0} all-reduce-done(%sum-start)
  %alone = bf16[1048576]{0} all-reduce(%flat), channel_id=2, replica_groups={{0,1}}, to_apply=%add
  %while.1 = (s32[]) while(%tuple), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %while.2 = (s32[]) while(%tuple.2), condition=%condition, body=%step_of_data
  %conditional = f32[8,8]{1,0} conditional(%index, %square, %square), branch_computations={%not_there, %there}
  %convolved = (f32[1,8,8,4]{3,2,1,0}, u8[0]{0}) custom-call(%image, %kernel), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, operand_precision={highest,highest}, custom_call_target="__cudnn$convForward", metadata={op_name="jit(train_step)/jvp()/conv" stack_frame_id=4}
}
"""  # noqa: E501


def of_gpu(branch=1.0, text=GPU_TEXT) -> audit.Audit:
    module = hlo.Module(text)
    return audit.audit(module, {"data": 2, "fsdp": 1, "tensor": 1}, H100, lambda loop: 5.0, branch)


def test_products_are_counted_by_kind_and_by_the_turns_of_their_loop():
    """A 3 x 3 convolution that is padded by one multiplies 22 pairs of places in each direction."""
    found = of_gpu().total.flops
    assert found[products.BFLOAT16] == 2 * 4096**3 + 3 * 2 * 16 * 64 * 32
    assert found[products.FLOAT32] == 2 * 22**2 * 4 * 4
    assert found[products.ROUNDED] == 2 * 8**3
    assert of_gpu(branch=0.25).total.flops[products.ROUNDED] == 0.25 * 2 * 8**3
    assert products.ROUNDED not in of_gpu(branch=0).total.flops  # the branch of that number


@pytest.mark.parametrize(
    "update", ["dynamic-update-slice(%q0, %row, %q2)", "scatter(%q0, %q2, %row)"]
)
def test_bytes_of_slices_and_of_updates_in_place_count_not_those_of_the_whole(update):
    text = GPU_TEXT.replace("dynamic-update-slice(%q0, %row, %q2)", update)
    loop = of_gpu(text=text).groups
    layer = 64 * 32 * 2
    assert loop[audit.BACKWARD].bytes == 3 * (16 * 64 * 2 + layer + 16 * 32 * 2)
    slices = 3 * (2 * layer + 4 + 2 * 16 * 32 * 2 + 4)
    assert loop[audit.OTHER].bytes == pytest.approx(slices + 5 * 16 + 2 * 8 * 8 * 4)


def test_kernels_of_loops_and_waits_for_the_host_are_counted():
    found = of_gpu()
    assert found.total.kernels == 1 + 3 * 3 + 5 + 1 + 1
    assert found.waits == 5 + 1  # each turn that depends on data, and the conditional


def test_kernels_are_grouped_by_the_lines_they_come_from():
    found = of_gpu()
    assert set(found.groups) == {audit.FORWARD, audit.BACKWARD, audit.VQ, audit.OTHER}
    assert found.groups[audit.BACKWARD].kernels == 3
    assert (audit.FORWARD, "janus_jax/model/layers.py:107") in found.places
    assert (audit.VQ, "janus_jax/model/generation_encoder.py:35") in found.places


def test_a_collective_that_was_started_runs_beside_the_kernels():
    """The product of 137 GFLOP takes longer than 1 MB on the links; the second waits."""
    beside, alone = sorted(of_gpu().links, key=lambda one: -one.beside)
    assert beside.beside and beside.exposed == 0 and beside.count == 1
    assert not alone.beside and alone.exposed == alone.seconds == beside.seconds
    assert alone.bytes == 2 * 2**21 * 1 / 2
    slow = dataclasses.replace(H100, link=1e9)
    late = audit.audit(hlo.Module(GPU_TEXT), {"data": 2}, slow, lambda loop: 5.0, 1.0)
    first = next(one for one in late.links if one.beside)
    product = rates.kernel_seconds(
        H100, [products.Product(2 * 4096**3, products.BFLOAT16, 1024)], 0
    )
    assert first.exposed == pytest.approx(first.seconds - product)
    assert late.seconds - of_gpu().seconds == pytest.approx(
        first.exposed + first.seconds - alone.seconds
    )


TPU_TEXT = """HloModule jit_step, is_scheduled=true

%inner (p: bf16[24,8,128,128], i: s32[]) -> bf16[8,128,128] {
  %p = bf16[24,8,128,128]{3,2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %ds = bf16[1,8,128,128]{3,2,1,0} dynamic-slice(%p, %i), dynamic_slice_sizes={1,8,128,128}
  ROOT %b = bf16[8,128,128]{2,1,0} bitcast(%ds)
}

%outer (o: bf16[24,8,128,128], j: s32[], k: bf16[8,128,128]) -> f32[8,128,128] {
  %o = bf16[24,8,128,128]{3,2,1,0} parameter(0)
  %j = s32[] parameter(1)
  %k = bf16[8,128,128]{2,1,0} parameter(2)
  %nested = bf16[8,128,128]{2,1,0} fusion(%o, %j), kind=kLoop, calls=%inner
  ROOT %convolution = f32[8,128,128]{2,1,0} convolution(%nested, %k), window={size=8 stride=7 lhs_dilate=8}, dim_labels=0bf_0io->0bf
}

ENTRY %main (a: bf16[24,8,128,128]) -> f32[8,128,128] {
  %a = bf16[24,8,128,128]{3,2,1,0:T(8,128)(2,1)} parameter(0)
  %n = s32[]{:T(128)S(6)} parameter(1)
  %c = bf16[8,128,128]{2,1,0} parameter(2)
  %copy-start = (bf16[8,128,128]{2,1,0:T(8,128)S(1)}, bf16[8,128,128]{2,1,0}, u32[]{:S(2)}) copy-start(%c)
  %copy-done = bf16[8,128,128]{2,1,0:T(8,128)S(1)} copy-done(%copy-start)
  %gather = bf16[1048576]{0} all-gather(%w), channel_id=3, replica_groups={{0,1}}, dimensions={0}
  ROOT %fusion = f32[8,128,128]{2,1,0:T(8,128)S(1)} fusion(%a, %n, %copy-done), kind=kOutput, calls=%outer
}
"""  # noqa: E501


def test_a_tpu_multiplies_batches_as_dilated_convolutions_and_has_memory_of_its_own():
    chip = chips.CHIPS["v5p"]
    found = audit.audit(hlo.Module(TPU_TEXT), {"fsdp": 2}, chip, lambda loop: 1.0, 1.0)
    assert found.total.flops == {products.BFLOAT16: 2 * 8 * 128**3}
    once = 8 * 128 * 128 * 2
    assert found.total.bytes == pytest.approx(once + once + 8)  # copied in; one slice
    (gather,) = found.links
    assert not gather.beside and gather.exposed == gather.seconds > 0


RENAMED = r"""HloModule jit_write, is_scheduled=true

%bitcast_fusion (p: bf16[64,32]) -> bf16[64,32] {
  %p = bf16[64,32]{1,0:T(8,128)} parameter(0)
  ROOT %b = bf16[64,32]{1,0:T(8,128)} bitcast(%p)
}

%outer (x: bf16[2,64], w: bf16[64,32]) -> bf16[2,32] {
  %x = bf16[2,64]{1,0:T(8,128)S(1)} parameter(0)
  %w = bf16[64,32]{1,0:T(8,128)} parameter(1)
  %f = bf16[64,32]{1,0:T(8,128)} fusion(%w), kind=kLoop, calls=%bitcast_fusion
  ROOT %c = bf16[2,32]{1,0:T(8,128)S(1)} convolution(%x, %f), dim_labels=bf_io->bf
}

%part (q: bf16[64,32]) -> bf16[16,32] {
  %q = bf16[64,32]{1,0:T(8,128)} parameter(0)
  ROOT %s = bf16[16,32]{1,0:T(8,128)S(1)} slice(%q), slice={[0:16], [0:32]}
}

ENTRY %main (x: bf16[2,64], w: bf16[64,32]) -> bf16[2,32] {
  %x = bf16[2,64]{1,0:T(8,128)S(1)} parameter(0)
  %w = bf16[64,32]{1,0:T(8,128)} parameter(1)
  %slice-start = ((bf16[64,32]{1,0:T(8,128)}), bf16[16,32]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) async-start(%w), calls=%part
  %slice-done = bf16[16,32]{1,0:T(8,128)S(1)} async-done(%slice-start)
  ROOT %fusion = bf16[2,32]{1,0:T(8,128)S(1)} fusion(%x, %w), kind=kOutput, calls=%outer
}
"""


def test_weights_that_a_tpu_reads_by_another_name_or_in_slices_count():
    """A product's weights come through a fusion that renames them, or by slices into a core's own
    memory."""
    found = audit.audit(hlo.Module(RENAMED), ALONE, chips.CHIPS["v5e"], lambda loop: 1.0, 1.0)
    assert found.total.bytes == 2 * 64 * 32 + 2 * 16 * 32


def test_attention_kernels_multiply_what_their_shapes_say():
    text = """HloModule m

ENTRY %main (q: bf16[2,128,4,64]) -> bf16[2,128,4,64] {
  %q = bf16[2,128,4,64]{3,2,1,0} parameter(0)
  %ids = s32[2,128]{1,0} parameter(1)
  %lse = f32[2,4,128]{2,1,0} parameter(2)
  %f = (bf16[2,128,4,64]{3,2,1,0}, f32[2,4,128]{2,1,0}) custom-call(%q, %q, %q, %ids), custom_call_target="__gpu$xla.gpu.triton"
  %s = f32[2,4,128]{2,1,0} custom-call(%q, %q), custom_call_target="__gpu$xla.gpu.triton"
  ROOT %b = (bf16[2,128,4,64]{3,2,1,0}, bf16[2,128,4,64]{3,2,1,0}, bf16[2,128,4,64]{3,2,1,0}) custom-call(%q, %q, %q, %ids, %q, %q, %lse, %lse), custom_call_target="__gpu$xla.gpu.triton"
}
"""  # noqa: E501
    found = audit.audit(hlo.Module(text), ALONE, H100, lambda loop: 1.0, 1.0).total.flops
    half = 2 * 4 * 128 * 128 * 64  # a product of all pairs below the diagonal
    assert found == {products.ATTENTION: 2 * half, products.ATTENTION_BACKWARD: 7 * half}


def test_a_program_compiled_here_is_counted_as_it_was_written():
    def loss(w, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0].sum()

    w, x = jax.ShapeDtypeStruct((5, 64, 64), "float32"), jax.ShapeDtypeStruct((16, 64), "float32")
    text = jax.jit(jax.grad(loss)).lower(w, x).compile().as_text()
    found = audit.audit(hlo.Module(text), ALONE, quickstart.CPU, lambda loop: 1.0, 1.0)
    assert sum(found.total.flops.values()) == 5 * 3 * 2 * 16 * 64 * 64
    layers = 5 * 64 * 64 * 4
    assert 3 * layers < found.total.bytes < 20 * layers


def test_what_decodes_on_a_cpu_is_counted_like_xla_s_own():
    shape = jax.ShapeDtypeStruct
    cache = shape((2, 4, 96, 16), "float32")
    rope = [shape((2, 1, 1, 8), "float32")] * 2
    with on_mesh():
        if not cpu.attends():
            pytest.skip("for processors with AVX-512, and a compiler")
        product = jax.jit(lambda x, w: cpu.product(x, w, jax.P(None, None)))
        product = product.lower(shape((2, 64), "float32"), shape((96, 64), "float32"))
        token = jax.jit(lambda *a: cpu.attend(a[0], a[1], *a[2:]), donate_argnums=(2, 3)).lower(
            shape((2, 1, 3, 4, 16), "float32"), rope, cache, cache, shape((2, 1), "int32")
        )
    text = lambda lowered: hlo.Module(lowered.compile().as_text())
    counted = lambda module, filled: (
        audit.audit(module, ALONE, quickstart.CPU, lambda loop: 1.0, 1.0, filled=filled).total
    )
    found = counted(text(product), 1.0)
    assert sum(found.flops.values()) == 2 * 2 * 64 * 96
    assert found.bytes == 4 * (2 * 64 + 64 * 96 + 2 * 96)
    all_of_it, a_quarter = (counted(text(token), filled).bytes for filled in (1.0, 0.25))
    assert all_of_it - a_quarter == 0.75 * 2 * 4 * (2 * 4 * 96 * 16)


def test_text_that_is_no_module_is_refused_not_misread():
    with pytest.raises(ValueError, match="ENTRY"):
        hlo.Module("not HLO")


def test_of_a_cache_that_a_kernel_writes_in_place_what_is_filled_is_read():
    """And nothing of it is written anew."""
    text = """HloModule jit_write, is_scheduled=true

ENTRY %main (p: bf16[2,16,640,128]) -> bf16[2,16,640,128] {
  %new = bf16[2,3,16,128]{3,2,1,0} parameter(0)
  %keys = bf16[2,16,640,128]{3,2,1,0} parameter(1)
  %values = bf16[2,16,640,128]{3,2,1,0} parameter(2)
  ROOT %token = (bf16[2,1,16,128]{3,2,1,0}, bf16[2,16,640,128]{3,2,1,0}, bf16[2,16,640,128]{3,2,1,0}) custom-call(%new, %keys, %values), custom_call_target="__gpu$xla.gpu.triton", output_to_operand_aliasing={{1}: (1, {}), {2}: (2, {})}, api_version=API_VERSION_TYPED_FFI
}
"""  # noqa: E501
    read = lambda filled: (
        audit.audit(hlo.Module(text), ALONE, H100, lambda loop: 1.0, 1.0, filled=filled).total.bytes
    )
    token, cache = 2 * 2 * 16 * 128, 2 * 2 * 16 * 640 * 128
    assert read(1.0) == 4 * token + 2 * cache
    assert read(0.25) == 4 * token + 0.5 * cache
