"""janus_jax: train, study and run Janus (arXiv 2410.13848), one transformer that reads and draws
pictures.

load, generate, edit, understand, respond, clear_caches, Janus and Processor are the public face;
they are imported when first used, so that data workers never import JAX.
"""

import importlib

_HOME = {
    "load": "janus_jax.weights.load",
    "generate": "janus_jax.sample.generate",
    "edit": "janus_jax.sample.edit",
    "understand": "janus_jax.sample.understand",
    "respond": "janus_jax.sample.respond",
    "clear_caches": "janus_jax.sample.decode",
    "Janus": "janus_jax.model.janus",
    "Processor": "janus_jax.data.processor",
}
__all__ = list(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(
            f"module 'janus_jax' has no attribute {name!r}; it offers {', '.join(_HOME)}"
        )
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value  # the function, also where a submodule has the same name
    return value
