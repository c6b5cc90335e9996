"""Compilers of chips that are not there, and what they say of memory."""

import importlib.util
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from support import compiled, paths

from janus_jax.distributed import chips, xla_flags
from janus_jax.model import attention
from janus_jax.model import sharding as sh
from janus_jax.plan import aot, audit, hlo, products


def test_what_compilers_say_of_memory_is_read():
    tpu = "total memory required for HLO temporaries (89.49G) exceeds available HBM (15.75G)"
    assert aot.used(tpu) == pytest.approx(89.49 * 2**30)
    assert (
        aot.used("Ran out of memory in memory space hbm. Used 512.5M of 15.75G hbm")
        == 512.5 * 2**20
    )
    assert aot.used("Out of memory while trying to allocate 12884901888 bytes.") == 12884901888
    assert aot.used("something else") is None


@pytest.mark.skipif(not aot.cuda_plugin(), reason='needs the GPU compiler: pip install ".[plan]"')
@pytest.mark.parametrize("name", ["a100-40gb", "h100"])
def test_gpus_that_are_not_there_are_compiled_for(name):
    """Five layers split over fsdp 8 and used whole, attention of packed rows between them: each
    turn gathers a layer once forwards and, recomputed, once backwards. Attention is Triton's
    kernel, compiled, not interpreted."""
    chip, count = chips.parse_topology(f"{name}:16")
    found, compiler = aot.devices(chip, count, f"{name}:16")
    assert len(found) == 16 and {d.process_index for d in found} == {0, 1} and "ptxas" in compiler
    assert chips.of_device(found[0]) is chip
    assert (aot.CUDNN_UNSEEN in aot.assumptions(found[0])) == (name == "h100")
    layers, width, length = 5, 128, 640
    with sh.mesh_context(mesh := sh.make_mesh(2, 8, 1, found)):
        assert sh.platform() == "gpu" and attention.choose("auto", length, jnp.bfloat16) == "triton"
        assert attention.choose("auto", length, jnp.float32) == "blockwise"  # kernels round
        put = lambda shape, dtype, spec: jax.ShapeDtypeStruct(
            shape, dtype, sharding=jax.NamedSharding(mesh, spec)
        )

        def layer(x, w):
            y = x @ jax.sharding.reshard(w.astype(x.dtype), jax.P())
            q = y.reshape(*y.shape[:2], 1, width, out_sharding=sh.ACT_BTHK)
            ids = jnp.zeros(x.shape[:2], jnp.int32, out_sharding=sh.BATCH)
            return attention.packed(q, q, q, ids).reshape(x.shape, out_sharding=sh.ACT_BTD), None

        loss = lambda ws, x: (
            jax.lax.scan(jax.checkpoint(layer), x, ws)[0].astype(jnp.float32) ** 2
        ).mean()
        step = jax.jit(lambda ws, x: jax.tree.map(lambda w, g: w - g, ws, jax.grad(loss)(ws, x)))
        ws = put((layers, width, width), jnp.float32, jax.P(None, "fsdp"))
        x = put((16, length, width), jnp.bfloat16, sh.BATCH)
        compiled = aot.compile_step(step, ws, x)
        text = (
            step.lower(ws, x).compile(compiler_options=aot.gpu_options(mesh.size, False)).as_text()
        )
    assert compiled.own and not compiled.error and compiled.remarks == []
    part = layers * width * width * 4 / 8 + length * width * 2
    assert compiled.arguments == pytest.approx(part, rel=0.01) and compiled.temporaries > part
    gathered = [c for c in compiled.sent if c.kind == "all-gather" and c.axes == ("fsdp",)]
    assert [(c.count, c.bytes) for c in gathered] == [
        (2 * layers, 2 * layers * width * width * 2 * 7 / 8)
    ]
    assert 'custom_call_target="__gpu$xla.gpu.triton"' in text
    counted = audit.audit(hlo.Module(text), dict(mesh.shape), chip, lambda loop: 1.0, 1.0).total
    # Forwards, again, and two backwards; no product multiplies float32 by float32.
    pairs = 4 * 2 * layers * length * width
    assert counted.flops == {
        products.BFLOAT16: pairs * width,
        products.ATTENTION: 2 * layers * length * length * width * (1 + 1),
        products.ATTENTION_BACKWARD: 7 * layers * length * length * width,
    }


def require_float32(text: str):
    """Of a compiled program: no product of it may be rounded."""
    calls = r"(?:convolution|dot|custom-call)\(.*(?:dim_labels|contracting|[gG]emm|matmul)"
    products = re.findall(rf".* = .*{calls}.*", text)
    assert len(products) > 15
    exact = re.compile(r'operand_precision(=\{highest,highest|":\["HIGHEST","HIGHEST")')
    assert [x for x in products if not exact.search(x)] == []
    assert "tf32" not in text.lower()


@pytest.mark.skipif(not aot.cuda_plugin(), reason='needs the GPU compiler: pip install ".[plan]"')
def test_a_gpu_computes_ids_from_float32_products():
    """Left to itself its compiler rounds what is multiplied to TensorFloat-32."""
    require_float32(compiled.encode("h100:1"))


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason='pip install ".[plan]"')
def test_a_tpu_computes_ids_from_float32_products():
    """Left to itself its compiler rounds what is multiplied to bfloat16. In a process of its own:
    libtpu ends one whose XLA_FLAGS it does not know."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    words = [
        sys.executable,
        "-c",
        "from support import compiled; print(compiled.encode('v5e:2x2'))",
    ]
    here = os.pathsep.join([str(paths.ROOT), str(paths.ROOT / "tests")])
    done = subprocess.run(
        words, env=environment | {"PYTHONPATH": here}, capture_output=True, text=True, check=True
    )
    require_float32(done.stdout)


def test_without_the_gpu_compiler_the_plan_says_what_to_install(monkeypatch):
    monkeypatch.setattr(aot, "cuda_plugin", lambda: False)
    chip, _ = chips.parse_topology("h100:8")
    found, compiler = aot.devices(chip, 8, "h100:8")
    assert (
        found[0].platform == "cpu" and "jax-cuda12-plugin" in compiler and "pip install" in compiler
    )
    with pytest.raises(ValueError, match="whole nodes of 8"):
        aot.gpus(chip, 12, "h100:12")


def test_a_gpu_plan_is_compiled_with_the_flags_of_a_run_and_the_users_come_first(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_pipelined_all_reduce=false")
    options = aot.gpu_options(64, deterministic=False)
    assert options["xla_gpu_enable_latency_hiding_scheduler"] is True
    assert options["xla_gpu_all_reduce_combine_threshold_bytes"] == xla_flags.LAYER
    assert "xla_gpu_enable_pipelined_all_reduce" not in options
    assert "xla_gpu_deterministic_ops" not in options
    alone = aot.gpu_options(1, deterministic=True)
    assert alone["xla_gpu_enable_latency_hiding_scheduler"] is False
    assert alone["xla_gpu_enable_triton_gemm"] is False
    assert alone["xla_gpu_deterministic_ops"] is True
    assert "xla_gpu_enable_pipelined_all_reduce" not in alone
