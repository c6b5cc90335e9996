"""What an adapter says of itself, and where its base is: adapter.json, beside its tensors."""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable

from janus_jax.common import provenance
from janus_jax.common.text import listed
from janus_jax.model import config as model_config
from janus_jax.model import low_rank
from janus_jax.weights import differences, hub, own, settings
from janus_jax.weights import table as tb
from janus_jax.weights.reader import WeightReader

FACTS_FILE = "adapter.json"
BEGUN_FILE = "bases.json"  # beside the checkpoints of a stage that trains pairs


@dataclasses.dataclass(frozen=True)
class Base:
    """Weights that pairs were trained beside: their path or hub id as it was given, and
    `weights_mark`, None where it is not known."""

    path: str
    sha256: str | None = None


@dataclasses.dataclass(frozen=True)
class Begun:
    """What a stage began with. held: the children of the model that the bases hold."""

    bases: tuple[Base, ...]
    held: tuple[str, ...]


def begun_of(values: dict) -> Begun:
    """Of what stands in BEGUN_FILE."""
    return Begun(tuple(Base(**base) for base in values["bases"]), tuple(values["held"]))


@dataclasses.dataclass(frozen=True)
class Facts:
    """rank, alpha, rslora: of the pairs, see `low_rank.scaling`. options: all that adapter.json says
    of how they were trained, these among it. bases: later ones win. config: of the model, None where
    the base alone says it."""

    rank: int
    alpha: float
    rslora: bool
    options: dict
    bases: tuple[Base, ...]
    config: model_config.JanusConfig | None = None

    @property
    def scaling(self) -> float:
        return low_rank.scaling(self.rank, self.alpha, self.rslora)


def read_facts(directory: pathlib.Path) -> Facts:
    """Of a directory's adapter.json. Raises ValueError naming what cannot stand there."""
    path = directory / FACTS_FILE
    values = settings.read(directory, FACTS_FILE)
    if values is None:
        raise ValueError(f"{path}: missing; it says on which base the adapter was trained")
    problems = []
    v = settings.Section(values, "", problems)
    rank, alpha = v.whole("rank", None), v.number("alpha", None, above=True)
    rslora = v.flag("rslora", False)
    bases = []
    given = v.get("base", [])
    if not isinstance(given, list):
        v.refuse("base", given, "a list of the weights that it stands on")
    for i, one in enumerate(given if isinstance(given, list) else ()):
        section = settings.Section(one, f"base[{i}].", problems)
        where, sha256 = section.get("path"), section.get("sha256")
        if not isinstance(where, str) or not isinstance(sha256, str | None):
            problems.append(f"base[{i}] is {settings.brief(one)}: must have a path and its sha256")
        else:
            bases.append(Base(where, sha256))
    problems += [f"{x}: missing" for x in ("rank", "alpha", "base") if v.get(x) is None]
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems[:8])}; copy the file again")
    options = {name: x for name, x in values.items() if name not in ("base", "model")}
    config = own.sizes(v.get("model"), path)
    return Facts(rank, alpha, rslora, options, tuple(bases), config)


def write_facts(directory: pathlib.Path, facts: Facts):
    """The adapter.json that `read_facts` reads."""
    values = facts.options | {"rank": facts.rank, "alpha": facts.alpha, "rslora": facts.rslora}
    if "base" in values:  # of task lora's options: in what it was kept
        values["base_kept_as"] = values["base"] or facts.config.dtype
    values["base"] = [dataclasses.asdict(base) for base in facts.bases]
    values["model"] = differences.written_config(facts.config)
    (directory / FACTS_FILE).write_text(json.dumps(values, indent=2), "utf-8")


def find_bases(
    bases: tuple[Base, ...], directory: pathlib.Path, given, open_base: Callable
) -> list[WeightReader]:
    """The bases of an adapter: among what is given; else where each was, or under the last part of
    its path in the adapter's directory, beside it, or a folder above.

    bases: what the adapter says.
    directory: of the adapter.
    given, open_base: see `open_adapter`. Of several bases, what is given need not be all.
    Raises ValueError that names each place where one was looked for, and why it is not there.
    """
    found = []
    for base in bases:
        known = _places(base.path, directory) if not given or len(bases) > 1 else []
        found.append(_find(base, directory, [*given, *known], open_base))
    return found


def _places(path: str, directory: pathlib.Path) -> list:
    """Where a base may be that was at a path; of a hub id, what lies near counts first."""
    name = pathlib.PurePath(path).name
    folders = (directory, *directory.absolute().parents[:2])
    near = [folder / name for folder in folders if (folder / name).exists()]
    try:
        there = hub.is_local(path)
    except ValueError:  # an address that nothing is read from, which `open_base` will say
        there = False
    return [path, *near] if there else [*near, path]


def _find(base: Base, directory: pathlib.Path, places: list, open_base: Callable) -> WeightReader:
    tried = []
    for place in places:
        try:
            if os.path.exists(place) and os.path.samefile(place, directory):
                raise ValueError(f"{place} is this adapter itself")
            source = open_base(place)
        except (OSError, ValueError) as error:
            tried.append(str(error))
            continue
        mark = weights_mark(source)
        if base.sha256 in (None, mark):
            return source
        tried.append(
            f"{place} holds other weights (sha256 {mark[:12]}) than the adapter was trained on "
            f"({base.sha256[:12]})"
        )
    raise tb.WeightsError(
        f"{directory}: an adapter whose base is not found; put the folder of the weights that it was "
        f"trained on, {base.path}, beside it, or name it by --base, where there is such a flag (base= "
        f"in Python):{listed(tried)}"
    )


def weights_mark(source: WeightReader) -> str:
    """SHA-256 of the files that a source's numbers are in, and of what changes their meaning: the
    same on every machine."""
    if source.kind == tb.CHECKPOINT:
        return provenance.digest(source.path / "manifest.json")
    paths = sorted({tensor.path for tensor in source.tensors.values()})
    if source.kind in (tb.ADAPTER, tb.PEFT):
        paths += sorted(source.path.glob("adapter*.json"))
    stats = [path.stat() for path in paths]
    return _mark(tuple(paths), tuple((s.st_size, s.st_mtime_ns) for s in stats))


@functools.lru_cache(maxsize=16)
def _mark(paths: tuple[pathlib.Path, ...], _) -> str:
    return hashlib.sha256("".join(map(provenance.digest, paths)).encode()).hexdigest()
