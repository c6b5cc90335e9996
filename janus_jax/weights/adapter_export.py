"""What a stage hands on that trained pairs beside a frozen base; see `weights.adapter`."""

import dataclasses
import json
import logging
import pathlib

from janus_jax.common import files
from janus_jax.distributed import processes
from janus_jax.model.config import CHILDREN, JanusConfig
from janus_jax.model.low_rank import widened
from janus_jax.weights import adapter_facts, target
from janus_jax.weights import table as tb
from janus_jax.weights.load import gather
from janus_jax.weights.reader import children
from janus_jax.weights.source import open_source


def export_adapter(
    directory, params: dict, *, trainable: tuple[str, ...], begun: adapter_facts.Begun, options: dict,
    config: JanusConfig, processor,
):  # fmt: skip
    """Writes an adapter in one move: its pairs, and the children that were trained whole or that its
    bases do not hold.

    directory: to write.
    params: all weights of the stage, `lora` (the pairs) among them.
    trainable: the children that were trained whole.
    begun: what the stage began with.
    options: of the stage's task: rank, alpha, rslora, and how else the pairs were trained.
    config: of the model.
    processor: of the run.
    """
    given = {name for name in config.children if name in begun.held and name not in trainable}
    own = {name: widened(x) for name, x in params.items() if name not in given}
    facts = adapter_facts.Facts(
        int(options["rank"]), options["alpha"], bool(options["rslora"]), options, begun.bases, config,
    )  # fmt: skip
    write = lambda entries: target.write_own(
        directory, entries, processor=processor, name=files.ADAPTER_FILE,
        also=lambda partial: adapter_facts.write_facts(partial, facts),
    )  # fmt: skip
    gather(directory, own, write)


def remember_bases(folder: pathlib.Path, init: list, anew: bool) -> list:
    """Keeps, beside a stage's checkpoints, what it begins with: by its end other weights may lie at
    the same paths. All processes call it; the first writes. Returns the paths to read it from: of a
    stage whose checkpoints are still made, the step that was marked.

    folder: of the checkpoints.
    init: the paths of the weights that the stage begins with, in order.
    anew: the stage begins now, and what was kept before, if anything, is replaced.
    """
    path = folder / adapter_facts.BEGUN_FILE

    def write():
        folder.mkdir(parents=True, exist_ok=True)
        files.write(path, json.dumps(dataclasses.asdict(bases_of(init)), indent=2))

    wanted = lambda: processes.is_lead() and (anew or not path.is_file())
    processes.all_or_none(lambda: wanted() and write())
    return [base.path for base in begun_with(folder).bases] if anew else init


def begun_with(folder: pathlib.Path) -> adapter_facts.Begun:
    """What `remember_bases` has kept, as the first process reads it, on all."""
    read = lambda: processes.is_lead() and files.read_json(folder / adapter_facts.BEGUN_FILE)
    return adapter_facts.begun_of(processes.all_gather(processes.all_or_none(read))[0])


def bases_of(init: list) -> adapter_facts.Begun:
    """What the weights at these paths are. Those that are gone, as where a stage of an older version
    goes on, have no mark: training is not lost for that."""
    bases = []
    held = set()
    for path in map(str, init):
        try:
            source = open_source(path)
            place = str(source.path) if source.kind == tb.CHECKPOINT else _absolute(path)
            bases.append(adapter_facts.Base(place, adapter_facts.weights_mark(source)))
            held |= set(children(source))
        except (OSError, ValueError) as error:
            logging.getLogger(__name__).warning(
                "the adapter will be written without a mark of its base, so that another would not "
                "be noticed: %s", error
            )  # fmt: skip
            bases.append(adapter_facts.Base(_absolute(path)))
            held |= set(CHILDREN)
    return adapter_facts.Begun(tuple(bases), tuple(sorted(held)))


def _absolute(path: str) -> str:
    return str(pathlib.Path(path).absolute()) if pathlib.Path(path).exists() else path
