"""What a config may not say of further senses (model/senses)."""

from janus_jax.common.text import near
from janus_jax.config.sizes import divides
from janus_jax.model import config as model_config
from janus_jax.model.batch import SLOTS
from janus_jax.model.senses import known

# What names mean already: of messages' parts, of a batch's arrays and of slots.
TAKEN = (
    "image", "image_url", "image_ids", "text", "tokens", "text_targets", "image_targets", "positions",
    "segment_ids", "tasks", *SLOTS,
)  # fmt: skip


def problems(model: model_config.JanusConfig, at: str) -> list[str]:
    """Senses that there are not, and sizes that they cannot have; `at` leads the names of the fields,
    with its dot."""
    found = []
    there = known.names()
    for name, given in model.senses.items():
        path = f"{at}senses.{name}"
        if name in TAKEN:
            found.append(f"{path}: {name!r} is the name of something else; give the sense another")
        elif name not in there:
            found.append(
                f"{path}: there is no sense {name!r}{near(name, there)}; there are "
                f"{', '.join(there)}; docs/new_modality.md says how another is added"
            )
        else:
            found += _problems_of(name, given, path)
    return found


def _problems_of(name: str, given: dict[str, int], path: str) -> list[str]:
    fields = vars(known.sizes_of(name, {}))
    found = [f"{path}.{k}: unknown field{near(k, fields)}" for k in given if k not in fields]
    found += [
        f"{path}.{k} is {x}: must be at least 1" for k, x in given.items() if k in fields and x < 1
    ]
    if found:
        return found
    sizes = known.sizes_of(name, given)
    return [f"{path}.{k} is {getattr(sizes, k)}: {why}" for k, why in sizes.problems()]


def mesh_problems(model: model_config.JanusConfig, tensor: int) -> list[str]:
    """Encoders of senses that so many devices cannot split: their layers are split as the tower's are."""
    if problems(model, ""):
        return []  # told already
    return [
        line
        for name, of in known.sizes(model).items()
        for n in ("heads", "width", "mlp_width")
        if hasattr(of, n)
        for line in divides(
            f"model.senses.{name}.{n}", getattr(of, n), tensor, "mesh.tensor =", "mesh.tensor"
        )
    ]


def row_problems(model: model_config.JanusConfig, length: int, path: str) -> list[str]:
    """Senses of which no input fits a row of so many tokens; path: of the stage."""
    if problems(model, ""):
        return []  # told already
    return [
        f"{path}.rows.length is {length}: one input of model.senses.{name} is {of.tokens} tokens, and "
        f"with its words needs at least {of.tokens + 8}; lengthen the row"
        for name, of in known.sizes(model).items()
        if length < of.tokens + 8
    ]
