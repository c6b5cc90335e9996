"""What the commands that sample begin with: weights opened, pictures looked at, the model loaded."""

from janus_jax.common import exit_codes


def announced(f, source, watch, **work):
    """(model, processor) of --model, whose `source` is open, once it is said what loading and the
    `work` (see memory.Plan) will take; then it is said what loading took."""
    from janus_jax.sample import memory
    from janus_jax.weights.load import load

    memory.announce(f.model, source, f.dtype, **work)
    loaded = load(f.model, dtype=f.dtype, allow_pickle=f.allow_pickle, base=f.base)
    watch.tell("loaded")
    return loaded


def opened(f):
    """The source of --model, nothing of it read yet. Raises UsageError where JAX has no device."""
    from janus_jax.distributed import compile_cache
    from janus_jax.distributed.platform import require_devices
    from janus_jax.weights.source import open_source

    require_devices()
    compile_cache.keep()
    source = open_source(f.model, allow_pickle=f.allow_pickle, base=f.base)
    if source.config is None:
        raise exit_codes.UsageError(f"--model={f.model}: no whole model but parts of one")
    return source


def look_at(images: list[str]):
    """Opens the pictures of --image: what is wrong with one is told before minutes of loading."""
    from janus_jax.data.image_files import ImageError
    from janus_jax.data.image_parts import open_picture

    for path in images:
        try:
            open_picture(path, "--image")
        except ImageError as error:
            raise exit_codes.UsageError(str(error)) from error
