"""JAX's coordination service: the one place that reaches into `jax._src`, since its client has no
public name."""

from jax._src import distributed


def client():
    """The service's client, a `DistributedRuntimeClient`, once the processes of a run have met;
    else None."""
    return distributed.global_state.client


def coordinator() -> tuple[str, int]:
    """(host, port) of process 0, where the service runs."""
    host, _, port = distributed.global_state.coordinator_address.rpartition(":")
    return host.strip("[]"), int(port)
