"""The package is a building: a module imports only from floors below its own. The list is the architecture."""

import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

import janus_jax

FLOORS = [  # ground first; modules on one floor never import each other
    [
        "batch", "checksums", "chips", "collectives", "curves", "guard", "joint", "leaving", "optim", "sharding",
        "xla_flags",
        "model.blockwise", "model.config",
        "sample.answer", "sample.options", "sample.terminal",
        "data.duplicates", "data.durable", "data.emoji", "data.resize", "data.shapes", "data.sources", "data.workers",
        "convert.hub", "convert.table", "convert.tensors",
    ],
    ["peers", "model.kernels", "data.images", "data.tokenizer"],
    ["hosts", "watchdog", "model.attention"],
    ["meet"],
    [
        "aot", "flops", "log", "model.layers",
        "data.fields", "data.formats.files", "data.formats.names", "data.generation", "data.image_ids",
        "data.messages", "data.mixture", "data.packing", "data.survey", "data.text", "data.understanding",
        "convert.parts", "convert.pickles",
    ],
    [
        "data.formats.array_record", "data.formats.folder", "data.formats.hub", "data.formats.json_files",
        "data.formats.parquet", "data.formats.tars", "data.formats.text_files", "data.formats.tfds",
        "data.lanes", "data.ledger", "data.position", "data.records", "data.report", "data.shards", "data.sheet",
        "loss", "model.understanding_encoder", "model.generation_encoder", "model.adaptors", "model.transformer",
        "model.heads", "data.processor", "roofline", "sample.chat",
        "convert.files", "convert.deepseek_llm", "convert.janus_hf", "convert.janus_torch",
        "convert.llamagen_vq", "convert.siglip",
    ],
    ["model.janus", "data.catalog", "data.forecast", "data.pipeline", "convert.run_checkpoint", "convert.sidecars"],
    ["convert.source", "convert.target", "meter", "train_state", "sample.decode"],
    ["sample.memory", "steps", "weights"],
    ["checkpoint", "tokenizer_training.vq", "sample.generate"],
    ["experiment", "sample.understand", "convert.verify"],
    ["convert.__main__", "data.command", "checks", "eval.samples", "eval.shapes", "feed", "identity"],
    ["opening", "train"],
    ["budget", "data.check", "data.convert"],
    ["plan"],
    ["stored"],
    ["preflight"],
    ["main"],
    ["data.image_ids_writer"],
    ["data.tokenize_images"],
]  # fmt: skip
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}
# The commands of data that compute: what they make is read back without JAX, and nothing imports them.
COMPUTING = ("data.tokenize_images",)
ROOT = pathlib.Path(janus_jax.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in FILES if p.name != "__init__.py"}


def imports(path):
    """Full dotted names of all that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it from janus_jax"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own(path):
    """The modules of the package that a file imports, as named in FLOORS."""
    for name in imports(path):
        if name.split(".")[0] == "janus_jax":
            parts = name.split(".")[1:]
            candidates = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
            found = next((c for c in candidates if c in MODULES), None)
            assert found, f"{path}: imports {name}, which is no module of the package"
            yield found


def test_every_module_has_one_floor():
    listed = [name for names in FLOORS for name in names]
    assert sorted(listed) == sorted(MODULES)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_downwards(name):
    upwards = {used: FLOOR[used] for used in own(MODULES[name]) if FLOOR[used] >= FLOOR[name]}
    assert not upwards, f"{name} stands on floor {FLOOR[name]}"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_outer_libraries_stay_where_they_belong(name):
    path = MODULES[name]
    libraries = {used.split(".")[0] for used in imports(path)}
    modules = set(own(path))
    assert not libraries & {"torch", "transformers", "tensorflow"}
    if name.startswith("data.") and name not in COMPUTING:
        assert not libraries & {"jax", "jaxlib", "flax", "optax", "orbax", "ml_collections"}
        # The commands' flags: a config's schema stands higher, and is imported where one is given.
        above = {"experiment"} if name == "data.command" else set()
        assert all(m.startswith("data.") or m in {"batch", "model.config"} | above for m in modules)
    if name.startswith("model."):
        assert not libraries & {"ml_collections", "grain", "optax", "orbax"}
        assert all(m.startswith("model.") or m in ("batch", "sharding") for m in modules)


def test_packages_import_nothing_and_the_public_names_exist():
    assert [p for p in FILES if p.name == "__init__.py" and list(own(p))] == []
    for name in janus_jax.__all__:
        home = importlib.import_module(janus_jax._HOME[name])
        assert getattr(janus_jax, name) is getattr(home, name)


def test_data_works_without_jax():
    """Grain imports JAX where it is installed, so the workers' imports are tried where it is not."""
    names = [f"janus_jax.{name}" for name in MODULES if name.startswith("data.") or name == "batch"]
    names = [name for name in names if name.removeprefix("janus_jax.") not in COMPUTING]
    program = f"""
import importlib, sys
sys.modules.update(dict.fromkeys(("jax", "jaxlib", "flax", "optax", "orbax")))
for name in {names}:
    importlib.import_module(name)
print(*[name for name in sys.modules if name.startswith("janus_jax.") and name not in {names}])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT.parent, check=False
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) <= {
        "janus_jax.data", "janus_jax.data.formats", "janus_jax.model", "janus_jax.model.config",
    }  # fmt: skip


def test_files_stay_readable_in_one_sitting():
    lengths = {str(p.relative_to(ROOT)): len(p.read_text("utf-8").splitlines()) for p in FILES}
    assert {name: n for name, n in lengths.items() if n > 300} == {}
