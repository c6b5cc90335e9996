"""What of a data set is held out of training."""

from janus_jax.config.schema import Experiment


def holdout_of(experiment: Experiment, name: str) -> float | str:
    """What is held out of a data set: a share below 1, so many records, or where they lie; 0: none.
    Its own line says, else `evaluation.holdout`."""
    own = experiment.data.datasets[name].holdout
    return experiment.evaluation.holdout if own == "" else own
