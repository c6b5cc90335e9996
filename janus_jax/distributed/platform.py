"""Whether JAX has the device that it was asked for."""

import logging
import os
import sys

import jax

from janus_jax.common.exit_codes import UsageError
from janus_jax.common.text import short

HELD = ("in use", "busy", "lockfile", "UNAVAILABLE")  # what JAX says of another's device


def require_devices():
    """Raises UsageError, in one line, where JAX cannot begin: the platform is not known or not
    there, or another process holds it. To be called first: a plugin of JAX's that cannot begin is
    told in a line too, not by its stack."""
    plugins = []

    def without_stack(record) -> bool:
        if record.exc_info:
            plugins.append(str(record.exc_info[1]))
        return not record.exc_info

    log = logging.getLogger("jax._src.xla_bridge")
    log.addFilter(without_stack)
    asked = jax.config.jax_platforms or os.environ.get("JAX_PLATFORMS") or ""
    try:
        platform = jax.devices()[0].platform
    except Exception as error:  # JAX's are of many kinds; some say nothing
        if "DEADLINE" in str(error):  # another process of the run did not come: no fault of ours
            raise
        said = "; ".join(filter(None, [str(error).split("\n")[0], *plugins]))
        said = said or type(error).__name__
        where = f"JAX_PLATFORMS={short(asked, 60)}: " if asked else ""
        remedy = "unset it to take what is here, or set cpu" if asked else "set JAX_PLATFORMS=cpu"
        if any(word in said for word in HELD):
            remedy = f"end the process that holds the device and start again, or {remedy}"
        raise UsageError(
            f"{where}JAX has no such device here ({short(said, 300)}); {remedy}"
        ) from None
    finally:
        log.removeFilter(without_stack)
    for why in plugins:
        print(
            f"WARNING: JAX leaves out a plugin ({short(why)}) and runs on {platform}",
            file=sys.stderr,
        )
