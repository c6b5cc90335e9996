"""What a stage hands on that trained pairs beside a frozen base; see `weights.adapter`."""

import logging
import pathlib

from janus_jax.common.files import ADAPTER_FILE
from janus_jax.distributed import processes
from janus_jax.model.config import CHILDREN, JanusConfig
from janus_jax.model.low_rank import widened
from janus_jax.weights import adapter_facts, target
from janus_jax.weights.load import gather
from janus_jax.weights.reader import children
from janus_jax.weights.source import open_source


def export_adapter(
    directory, params: dict, *, trainable: tuple[str, ...], init: list, options: dict,
    config: JanusConfig, processor,
):  # fmt: skip
    """Writes an adapter in one move: its pairs, and the children that were trained whole or that no
    weights of `init` hold.

    directory: to write.
    params: all weights of the stage, `lora` (the pairs) among them.
    trainable: the children that were trained whole.
    init: the paths of the weights that the stage began with, in order.
    options: of the stage's task: rank, alpha, rslora, and how else the pairs were trained.
    config: of the model.
    processor: of the run.
    """
    bases, held = processes.all_gather(_bases(init) if processes.is_lead() else None)[0]
    given = {name for name in config.children if name in held and name not in trainable}
    own = {name: widened(x) for name, x in params.items() if name not in given}
    facts = adapter_facts.Facts(
        int(options["rank"]), options["alpha"], bool(options["rslora"]), options,
        tuple(adapter_facts.Base(*base) for base in bases), config,
    )  # fmt: skip
    write = lambda entries: target.write_own(
        directory, entries, processor=processor, name=ADAPTER_FILE,
        also=lambda partial: adapter_facts.write_facts(partial, facts),
    )  # fmt: skip
    gather(directory, own, write)


def _bases(init: list) -> tuple[list[tuple[str, str | None]], list[str]]:
    """(path and mark of each source of `init`, the children that they hold). Weights that are gone by
    now have no mark: training is not lost for that."""
    bases = []
    held = set()
    for path in map(str, init):
        try:
            source = open_source(path)
            bases.append((_absolute(path), adapter_facts.weights_mark(source)))
            held |= set(children(source))
        except (OSError, ValueError) as error:
            logging.getLogger(__name__).warning(
                "the adapter is written without a mark of its base, so that another would not be "
                "noticed: %s", error
            )  # fmt: skip
            bases.append((_absolute(path), None))
            held |= set(CHILDREN)
    return bases, sorted(held)


def _absolute(path: str) -> str:
    return str(pathlib.Path(path).absolute()) if pathlib.Path(path).exists() else path
