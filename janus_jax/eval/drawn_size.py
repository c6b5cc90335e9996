"""A benchmark drawn in another size than the model's square."""

import importlib

from janus_jax.common.exit_codes import UsageError


def size_of_pictures(settings: dict) -> int | tuple[int, int]:
    """Of a result with these settings: the side of its squares, or (width, height)."""
    if "size" not in settings:
        return settings["model"]["native_size"]
    width, height = map(int, settings["size"].split("x"))
    return width, height


def require_size(task, encoder):
    """Raises UsageError where a model does not draw in the size of a `result.Task`, or its benchmark's
    scorer cannot take such pictures. encoder: the model's `GenerationEncoderConfig`."""
    if not hasattr(task.module, "ANY_SIZE"):
        raise UsageError(
            f"--size={task.size}: the scorer of {task.name} compares or cuts squares; leave it out"
        )
    try:
        importlib.import_module("janus_jax.data.sizes").require(task.size, encoder)
    except ValueError as error:
        raise UsageError(f"--{error}") from None
