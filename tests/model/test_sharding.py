"""Axis names stand in one module; specs that do not divide are whole."""

import ast
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny
from support.mesh import on_mesh

import janus_jax
from janus_jax.model import sharding as sh

PACKAGE = pathlib.Path(janus_jax.__file__).parent
FILES = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path != PACKAGE / "model" / "sharding.py" and PACKAGE / "config" not in path.parents
]


def named_axes(tree: ast.AST):
    """(line, name) of each axis that is spelled: `fsdp` and `tensor` anywhere, `data` in a spec or
    a mesh's shape."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in (sh.FSDP, sh.TENSOR):
            yield node.lineno, node.value
        inside = ()
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("P", "PartitionSpec")):
            inside = node.args
        elif isinstance(node, ast.Subscript) and "mesh" in ast.unparse(node.value):
            inside = (node.slice,)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("jax.lax."):
            inside = (*node.args, *(keyword.value for keyword in node.keywords))
        for part in inside:
            for leaf in ast.walk(part):
                if isinstance(leaf, ast.Constant) and leaf.value == sh.DATA:
                    yield leaf.lineno, leaf.value


def test_axis_names_stand_in_sharding_only():
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {name!r}"
        for path in FILES
        for line, name in named_axes(ast.parse(path.read_text()))
    ]
    assert not found, f"use the specs or sh.DATA, sh.FSDP, sh.TENSOR: {found}"


@pytest.mark.parametrize(
    "code",
    ['x["fsdp"]', 'jax.P(("data", None))', 'mesh["data"]', 'jax.lax.psum(x, "data")', "'tensor'"],
)
def test_a_spelled_axis_is_found(code):
    assert list(named_axes(ast.parse(code)))


def test_what_is_no_axis_is_not_found():
    code = 'config["data"]; batch.get("data"); P("x"); mesh["d"]; "a tensor"'
    assert not list(named_axes(ast.parse(code)))


def test_a_dimension_that_the_mesh_does_not_divide_is_whole():
    with on_mesh(1, 4, 2):
        assert sh.fitting(sh.W_DF, (8, 6)) == sh.W_DF
        assert sh.fitting(sh.W_DF, (6, 6)) == jax.P(None, sh.TENSOR)
        assert sh.fitting(sh.W_VD, (5, 8)) == sh.W_VD
        assert sh.fitting(sh.W_VD, (5, 12)) == jax.P(None, None)


def test_gather_makes_a_weight_whole_along_fsdp_only():
    with on_mesh(1, 4, 2):
        weight = jax.device_put(
            jnp.arange(64.0).reshape(8, 8), jax.NamedSharding(jax.sharding.get_mesh(), sh.W_DF)
        )
        found = jax.jit(lambda x: sh.gather(x, sh.W_DF))(weight)
        chex.assert_trees_all_equal(jax.device_get(found), jax.device_get(weight))
        rows, columns = jax.typeof(found).sharding.spec.partitions
        assert rows is None and columns == sh.TENSOR


def test_parts_of_a_batch_keep_each_devices_rows():
    with on_mesh(1, 4, 1):
        rows = jax.device_put(jnp.arange(8), jax.NamedSharding(jax.sharding.get_mesh(), sh.BATCH))
        found = jax.jit(lambda x: sh.parts(x, 2))(rows)
        chex.assert_shape(found, (2, 4))
        assert found[0].tolist() == [0, 2, 4, 6] and found[1].tolist() == [1, 3, 5, 7]


def test_parts_of_rows_without_pictures():
    with on_mesh(2, 2, 1):
        pictures = tiny.put({"understanding_images": np.zeros((8, 0, 4, 4, 3), np.uint8)})[
            "understanding_images"
        ]
        assert sh.parts(pictures, 2).shape == (2, 4, 0, 4, 4, 3)
