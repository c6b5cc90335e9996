"""Checkpoints: ours beside Orbax's CheckpointManager and a save that blocks, on the same state.

    python benchmarks/checkpoint.py --dir=/tmp/checkpoints --out=benchmarks/results/checkpoint-cpu
    (12 GB of disk)

The state is float32 weights and Adam's two moments on eight fake devices, `--gb` in all; every step
changes all of it, donated, and then lasts `--step` seconds in which the host's cores are free, as
they are beside an accelerator. A side is a process of its own; they run one after the other.

A save's stall is how long the call to save keeps the loop. What it costs in all is the time of the
steps from the call until the checkpoint is there, above the same number of steps without a save.
"There" means: ours is summed, synced to the disk and named; Orbax's and the blocking one's are as
those leave them (no sums; the blocking one is synced and renamed). Restoring: ours sums the
arrays that it has read. Peaks include what the
allocator keeps from the rounds before, for all sides alike.
"""

import dataclasses
import functools
import importlib.metadata
import json
import os
import pathlib
import shlex
import shutil
import statistics
import sys
import time
import zlib

import jax
import jax.numpy as jnp
import machine
import numpy as np
from absl import app, flags

SIDES = ("ours", "orbax", "blocking")
LAYERS = 12  # arrays of the weights are stacked so
WARM, PLAIN = 2, 5  # steps before those that count; steps without a save


@dataclasses.dataclass
class State:
    """As train_state.TrainState, as far as a Checkpointer looks."""

    step: jax.Array
    nonfinite_updates: jax.Array
    trainable: dict
    frozen: dict
    opt_state: dict

    def replace(self, **changes):
        return dataclasses.replace(self, **changes)


def tree(state: State) -> dict:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(State)}


def make(gb: float) -> dict:
    """The state's tree, random (a compressor finds nothing), split over the devices along the
    width."""
    sharding = jax.NamedSharding(jax.sharding.get_mesh(), jax.P(None, "fsdp"))
    width = 256
    each = round(gb * 1e9 / 3 / 4 / LAYERS / width / 8)  # of eight matrices a layer

    @functools.partial(jax.jit, out_shardings=sharding)
    def draw(key):
        return jax.random.normal(key, (LAYERS, width, each), out_sharding=sharding)

    def weights(seed):
        keys = jax.random.split(jax.random.key(seed), 8)
        return {
            "transformer": {
                "blocks": {f"m{i}": {"kernel": draw(key)} for i, key in enumerate(keys)}
            }
        }

    zero = jax.device_put(np.int32(0), jax.NamedSharding(jax.sharding.get_mesh(), jax.P()))
    return {
        "step": zero, "nonfinite_updates": zero + 0, "trainable": weights(0), "frozen": {},
        "opt_state": {"mu": weights(1), "nu": weights(2)},
    }  # fmt: skip


def crc(state: dict) -> int:
    """Of one array, which tells one step from another."""
    return zlib.crc32(np.asarray(state["trainable"]["transformer"]["blocks"]["m3"]["kernel"]))


def freed(state: dict) -> dict:
    """Its shapes; the arrays make room for those that are read."""
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )
    jax.tree.map(lambda x: x.delete(), state)
    return shapes


@functools.partial(jax.jit, donate_argnums=0)
def update(state: dict) -> dict:
    return jax.tree.map(lambda x: x + 1 if x.dtype == jnp.int32 else x * jnp.float32(0.999), state)


class Ours:
    def __init__(self, directory: pathlib.Path):
        from janus_jax.checkpoint.manager import Checkpointer

        self.directory = directory
        self.it = Checkpointer(directory, say=lambda line: print(line, file=sys.stderr))

    def save(self, step: int, state: dict):
        self.it.save(step, State(**state))

    def there(self, step: int) -> bool:
        self.it.poll()
        return (self.directory / str(step)).is_dir()

    def restore(self, like: dict) -> dict:
        return tree(self.it.restore(State(**like)))

    def verify(self, step: int):
        from janus_jax.checkpoint import checksums

        if found := checksums.problems(self.directory / str(step)):
            raise RuntimeError(found)

    def close(self):
        self.it.close()


class Orbax:
    def __init__(self, directory: pathlib.Path):
        import orbax.checkpoint as ocp

        self.ocp = ocp
        self.it = ocp.CheckpointManager(
            directory, options=ocp.CheckpointManagerOptions(max_to_keep=2)
        )

    def save(self, step: int, state: dict):
        self.it.save(step, args=self.ocp.args.StandardSave(state))

    def there(self, step: int) -> bool:
        return not self.it.is_saving_in_progress()

    def restore(self, like: dict) -> dict:
        return self.it.restore(
            self.it.latest_step(), args=self.ocp.args.StandardRestore(freed(like))
        )

    def close(self):
        self.it.wait_until_finished()
        self.it.close()


class Blocking:
    """All arrays to the host, a .npy each, synced, and the directory renamed; then training goes
    on."""

    def __init__(self, directory: pathlib.Path):
        self.directory = directory

    def save(self, step: int, state: dict):
        partial, final = self.directory / "partial", self.directory / str(step)
        partial.mkdir(parents=True)
        for path, x in jax.tree.leaves_with_path(state):
            with open(
                partial / f"{jax.tree_util.keystr(path, simple=True, separator='.')}.npy", "wb"
            ) as file:
                np.save(file, np.asarray(x))
                file.flush()
                os.fsync(file.fileno())
        partial.rename(final)
        for old in sorted(map(int, (p.name for p in self.directory.iterdir())))[:-2]:
            shutil.rmtree(self.directory / str(old))

    def there(self, step: int) -> bool:
        return True

    def restore(self, like: dict) -> dict:
        last = self.directory / str(max(int(p.name) for p in self.directory.iterdir()))
        read = lambda path, x: jax.device_put(
            np.load(last / f"{jax.tree_util.keystr(path, simple=True, separator='.')}.npy"),
            x.sharding,
        )
        return jax.tree.map_with_path(read, freed(like))

    def close(self):
        pass


def child(spec: dict):
    """One side: each word it is sent is a round of steps, a save among them, and a restore."""
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_platforms", "cpu")
    from janus_jax.model import sharding as sh

    jax.set_mesh(sh.make_mesh(1, 8, 1))
    directory = pathlib.Path(spec["dir"]).absolute() / spec["side"]
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    side = {"ours": Ours, "orbax": Orbax, "blocking": Blocking}[spec["side"]](directory)
    box = {"state": jax.block_until_ready(make(spec["gb"])), "step": 0}
    size = sum(x.nbytes for x in jax.tree.leaves(box["state"]))
    machine.forget_peak()
    at_rest = machine.resident(os.getpid())

    def step() -> float:
        begin = time.perf_counter()
        box["state"] = jax.block_until_ready(update(box["state"]))
        box["step"] += 1
        time.sleep(spec["step"])
        return time.perf_counter() - begin

    def once(_) -> dict:
        machine.forget_peak()
        for _ in range(WARM):
            step()
        plain = statistics.median(step() for _ in range(PLAIN))
        before = crc(box["state"])
        begin = time.perf_counter()
        side.save(box["step"], box["state"])
        saved, called, steps = box["step"], time.perf_counter() - begin, 0
        while not side.there(saved):
            step()
            steps += 1
        there = time.perf_counter() - begin
        found = {"plain": plain, "stall": called, "there": there, "cost": there - steps * plain}
        found["peak"] = machine.peak() - at_rest
        machine.forget_peak()
        begin = time.perf_counter()
        if hasattr(side, "verify"):
            side.verify(saved)
            found["verify"] = time.perf_counter() - begin
            begin = time.perf_counter()
        box["state"] = jax.block_until_ready(side.restore(box["state"]))
        found |= {"restore": time.perf_counter() - begin, "restore_peak": machine.peak() - at_rest}
        if crc(box["state"]) != before:
            raise RuntimeError(f"{spec['side']}: what was restored is not what was saved")
        return found

    machine.serve({"bytes": size}, once)
    side.close()


COLUMNS = {
    "stall": "the loop stands, s", "share": "of a step", "cost": "costs the loop in all, s", "there": "there after, s",
    "peak": "peak, GB above the state", "verify": "verify files, s", "restore": "restore, s",
    "restore_peak": "its peak, GB",
}  # fmt: skip


def median(rounds: list[dict], name: str) -> float | None:
    values = [r[name] for r in rounds if name in r]
    return statistics.median(values) if values else None


def summary(rounds: list[dict]) -> dict:
    found = {name: median(rounds, name) for name in (*COLUMNS, "plain")}
    found["share"] = found["stall"] / found["plain"]
    for name in ("peak", "restore_peak"):
        found[name] /= 1e9
    return found


def report(found: dict, versions: dict, about: str) -> str:
    cell = lambda name, x: (
        "" if x is None else f"{100 * x:.0f} %" if name == "share" else f"{x:.2f}"
    )
    lines = [
        f"{machine.name()}; {versions}", "",
        f"`python benchmarks/checkpoint.py {shlex.join(sys.argv[1:])}`", "", about, "",
        "| | " + " | ".join(COLUMNS.values()) + " |", "|---" * (1 + len(COLUMNS)) + "|",
    ]  # fmt: skip
    lines += [
        f"| {side} | " + " | ".join(cell(name, x[name]) for name in COLUMNS) + " |"
        for side, x in found.items()
    ]
    if "ours" in found:
        ratio = lambda side, name: f"{found[side][name] / found['ours'][name]:.2f}x"
        for side in found.keys() - {"ours"}:
            told = ", ".join(
                f"{name} {ratio(side, name)}"
                for name in ("stall", "cost", "there", "restore", "peak")
            )
            lines += ["", f"{side} over ours, above 1 ours is better: {told}."]
    return "\n".join(lines) + "\n"


def main(_):
    f = flags.FLAGS
    rounds, others, size = {side: [] for side in f.sides}, [], 0
    for side in f.sides:
        spec = {"side": side, "dir": f.dir, "gb": f.gb, "step": f.step}
        one = machine.Child(pathlib.Path(__file__), spec)
        try:
            size = one.about["bytes"]
            one.ask("go")  # compiles
            for k in range(f.repeats):
                machine.wait_until_quiet([one.process.pid], f.patience)
                busy = machine.Others([one.process.pid])
                rounds[side].append(one.ask("go"))
                others.append(busy.cores())
                print(
                    f"  {side}, {k + 1} of {f.repeats}: {rounds[side][-1]}",
                    file=sys.stderr,
                    flush=True,
                )
        finally:
            one.stop()
            shutil.rmtree(pathlib.Path(f.dir, side), ignore_errors=True)
    versions = {
        name: importlib.metadata.version(name)
        for name in ("jax", "orbax-checkpoint", "tensorstore")
    }
    disturbed = sum(map(machine.disturbs, others))
    about = (
        f"{size / 1e9:.2f} GB on 8 fake devices, steps of {f.step:g} s and a change of it all; "
        f"medians of {f.repeats} rounds after a first, {disturbed} of all {len(others)} disturbed "
        "by others (a fifth of a core)"
    )
    text = report({side: summary(x) for side, x in rounds.items()}, versions, about)
    print(text)
    if f.out:
        out = pathlib.Path(f.out)
        out.with_suffix(".md").write_text(text)
        out.with_suffix(".json").write_text(
            json.dumps({"about": about, "rounds": rounds}, indent=1)
        )


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        child(json.loads(sys.argv[1]))
        sys.exit()
    flags.DEFINE_string(
        "dir", None, "Where the checkpoints are written; emptied afterwards.", required=True
    )
    flags.DEFINE_float("gb", 2.6, "Size of the state.", lower_bound=0.001)
    flags.DEFINE_float("step", 1.0, "Seconds that a step takes besides.", lower_bound=0.0)
    flags.DEFINE_integer("repeats", 3, "Rounds of each side.", lower_bound=1)
    flags.DEFINE_float(
        "patience", 20.0, "Seconds to wait for other processes to be quiet, at most."
    )
    flags.DEFINE_list("sides", list(SIDES), "Which sides run.")
    flags.DEFINE_string(
        "out", "", "Where the report goes, without suffix (.md and .json are written)."
    )
    app.run(main)
