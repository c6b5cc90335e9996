"""The plan of the house: which room may import which, and how large each may become.

`python tests/test_rooms.py` prints every budget with its figure. A path to another checkout's
package measures that one, and `part=module,module` says where a part begins there: `python
tests/test_rooms.py /other/janus_jax step=steps`.
"""

import collections
import importlib
import pathlib
import re
import subprocess
import sys

import pytest
from support import modules, paths

# From the ground up: a room imports only from floors below its own, and never from a room on its
# own floor. Modules of one room may import each other, but never in a circle. `main` and what else
# stands at the root is the roof.
FLOORS = [
    ("common", "model"),
    ("config", "distributed"),
    ("checkpoint", "data"),
    ("weights",),
    ("training", "sample"),
    ("plan", "eval", "serve"),
    ("main",),
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
JAX = {"jax", "jaxlib", "flax", "optax", "orbax"}

# Where the parts begin whose size has a budget.
PARTS = {
    # A run loads one kernel of attention; the longest counts.
    "step": ["training.step", "model.attentions.triton"],
    "init": ["training.init"],
    "loop": ["training.loop"],
    "schema": ["config.schema", "config.read"],
    "worker": ["data.pipeline", "data.row_stream"],
    "generate": ["sample.generate"],
}
# Modules that stand for each other, so that each defines the same names: (modules, names; None for
# all).
INTERFACES = [
    (r"data\.formats\..*", None),
    (r"data\.toy\..*", None),
    (r"data\.(understanding|text|generation|editing|interleaved)", {"encode"}),
    (r"weights\.layouts\..*", None),
    (r"data\.(masked|scales)", {"drawn_row"}),
    (r"training\.tasks\..*", None),
    (r"model\.attentions\..*", None),
    (r"model\.senses\..*", {"Sizes", "Encoder"}),
    (r"eval\..*", {"report"}),
    (r"eval\.(understanding|generation)\..*", None),
    (r".*", {"main", "define_flags"}),  # of commands
]

PACKAGE = modules.Package(paths.ROOT / "janus_jax")
MODULES = sorted(PACKAGE.modules)


def room(module: str) -> str:
    return module.split(".")[0]


def libraries(package: modules.Package, names) -> set[str]:
    """The outermost names of all that these modules import."""
    return {used.split(".")[0] for name in names for used in modules.imports(package.modules[name])}


def test_every_module_is_in_a_room():
    assert {room(name) for name in MODULES} <= FLOOR.keys()


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_down(name):
    others = {used for used in PACKAGE.graph[name] if room(used) != room(name)}
    wrong = {used for used in others if FLOOR[room(used)] >= FLOOR[room(name)]}
    assert not wrong, f"{name} is in {room(name)}, on floor {FLOOR[room(name)]}"


@pytest.mark.parametrize("name", MODULES)
def test_outer_libraries_stay_where_they_belong(name):
    here = libraries(PACKAGE, [name])
    assert not here & {"torch", "transformers", "tensorflow"}
    if room(name) == "data":
        assert not here & {"ml_collections"}
        assert not libraries(PACKAGE, PACKAGE.reached(name)) & JAX
    if room(name) == "model":
        assert not here & {"ml_collections", "grain", "optax", "orbax"}


def test_packages_import_nothing_and_the_public_names_exist():
    import janus_jax

    inits = [path for path in PACKAGE.files if path.name == "__init__.py"]
    assert [str(path) for path in inits if PACKAGE.own(path)] == []
    for name in janus_jax.__all__:
        home = importlib.import_module(janus_jax._HOME[name])
        assert getattr(janus_jax, name) is getattr(home, name)


def run(program: str) -> list[str]:
    """The words that a program prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=PACKAGE.root.parent,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.processes
def test_data_works_without_jax():
    """Grain imports JAX where it is installed, so the workers' imports are tried where it is
    not."""
    names = [f"janus_jax.{name}" for name in MODULES if room(name) == "data"]
    loaded = run(f"""
import importlib, sys
sys.modules.update(dict.fromkeys({sorted(JAX)}))
for name in {[*names, "janus_jax.model.batch"]}:
    importlib.import_module(name)
print(*[name for name in sys.modules if name.startswith("janus_jax.")])
""")
    others = {name.removeprefix("janus_jax.") for name in loaded}
    assert {name for name in others if room(name) == "model"} == {
        "model", "model.config", "model.batch", "model.presets", "model.senses", "model.senses.known",
    }  # fmt: skip
    assert {room(name) for name in others} <= {"data", "config", "common", "model"}


@pytest.mark.processes
def test_a_config_is_read_without_jax_and_grain():
    names = [f"janus_jax.{name}" for name in PARTS["schema"]]
    loaded = run(f"import sys, {', '.join(names)}\nprint(*sys.modules)")
    assert not {name.split(".")[0] for name in loaded} & (JAX | {"grain"})


def twice(package: modules.Package) -> list[str]:
    """The public names that two modules of one room define, other than those of an interface."""
    homes = collections.defaultdict(list)
    for module, path in package.modules.items():
        for name in modules.public(path):
            homes[room(module), name].append(module)
    return [
        f"{name} in {', '.join(found)}"
        for (_, name), found in sorted(homes.items())
        if len(found) > 1 and not is_interface(name, found)
    ]


def is_interface(name: str, homes: list[str]) -> bool:
    return any(
        (names is None or name in names) and all(re.fullmatch(pattern, home) for home in homes)
        for pattern, names in INTERFACES
    )


def long_functions(package: modules.Package) -> dict[str, int]:
    return {
        f"{name}.{function}": lines
        for name, path in package.modules.items()
        for function, lines in modules.functions(path).items()
    }


def knobs(schema: str) -> set[str]:
    """Fields of a config outside the model and a data set's line; those of the stages count
    once."""
    experiment = importlib.import_module(f"janus_jax.{schema}").Experiment
    leaves = modules.dataclass_leaves(experiment)
    return {path for path in leaves if not path.startswith(("model.", "data.datasets."))}


def largest(sizes: dict[str, int]) -> tuple[int, str]:
    name = max(sizes, key=sizes.get)
    return sizes[name], name


def budgets(package: modules.Package, parts: dict[str, list[str]]) -> dict[str, tuple]:
    """What has a budget -> (a function that gives the figure and where it is from, the limit).

    Lines are those that are neither blank nor a comment; those of every import count, of imports
    inside functions too. A file's are all its lines.
    """

    def lines(*names):
        starts = [module for name in names for module in parts[name]]
        reached = package.reached(*starts)
        return package.lines_reached(*starts), f"{len(reached)} modules from {', '.join(starts)}"

    def without_jax(name, *others):
        found = libraries(package, package.reached(*parts[name])) & JAX.union(others)
        return len(found), ", ".join(sorted(found))

    def chain():
        found = package.longest_chain()
        return len(found), " -> ".join(found)

    def root():
        names = sorted(p.name for p in package.root.iterdir() if p.name != "__pycache__")
        return len(names), " ".join(names)

    def schema():
        found = knobs(parts["schema"][0])
        return len(found), " ".join(sorted(found))

    def files():
        texts = {name: path.read_text("utf-8") for name, path in package.modules.items()}
        return largest({name: len(text.splitlines()) for name, text in texts.items()})

    def names():
        found = twice(package)
        return len(found), "; ".join(found)

    return {
        "lines that the step reaches": (lambda: lines("step"), 1000),
        "lines that step and init reach": (lambda: lines("step", "init"), 1590),
        "lines that the loop reaches": (lambda: lines("loop"), 3025),
        "lines that reading a config reaches": (lambda: lines("schema"), 815),
        "JAX and Grain while a config is read": (lambda: without_jax("schema", "grain"), 0),
        "lines that a data worker reaches": (lambda: lines("worker"), 2305),
        "JAX in a data worker": (lambda: without_jax("worker"), 0),
        "lines that generate reaches": (lambda: lines("generate"), 1875),
        "modules in the longest chain of imports": (chain, 9),
        "names at the root": (root, 14),
        "knobs outside the model and a data set's line": (schema, 59),
        "lines of the longest file": (files, 300),
        "lines of the longest function": (lambda: largest(long_functions(package)), 60),
        "names public in two modules of one room": (names, 0),
    }


BUDGETS = budgets(PACKAGE, PARTS)


@pytest.mark.parametrize("what", BUDGETS)
def test_budget(what):
    figure, limit = BUDGETS[what]
    value, of = figure()
    assert value <= limit, f"{what}: {value} of at most {limit}: {of}"


def table(figures: dict[str, tuple], width: int = 100) -> str:
    lines = []
    for what, (figure, limit) in figures.items():
        try:
            value, of = figure()
        except (KeyError, modules.CircleError) as error:
            value, of = "-", f"{type(error).__name__}: {error}"
        over = "" if value != "-" and value <= limit else " !"
        lines.append(f"{what:46} {value:>6} of {limit:>5}{over:2}  {of[:width]}")
    return "\n".join(lines)


if __name__ == "__main__":
    given = [argument for argument in sys.argv[1:] if "=" not in argument]
    begins = dict(argument.split("=") for argument in sys.argv[1:] if "=" in argument)
    where = pathlib.Path(*given).resolve() if given else PACKAGE.root
    sys.path.insert(0, str(where.parent))
    starts = {part: begins[part].split(",") if part in begins else PARTS[part] for part in PARTS}
    print(table(budgets(modules.Package(where), starts)))
