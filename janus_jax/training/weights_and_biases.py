"""A run at Weights & Biases."""

import pathlib


def open_run(project, workdir, config):
    """The run whose id is noted in this work directory, gone on with; else a new one, noted."""
    try:
        import wandb
    except ImportError as error:
        raise ImportError(
            f"wandb is {project!r}, but Weights & Biases is not installed ({error}): `pip install "
            f"janus_jax[wandb]`, or leave --config.wandb empty"
        ) from error
    noted = pathlib.Path(workdir, "wandb", "id")
    known = noted.read_text("utf-8").strip() if noted.is_file() else None
    name = pathlib.Path(workdir).resolve().name
    try:
        run = wandb.init(
            project=project, id=known, resume="allow", name=name, dir=workdir, config=config
        )
    except wandb.Error as error:
        raise ConnectionError(
            f"wandb is {project!r}, but Weights & Biases cannot be reached: {error} "
            "WANDB_MODE=offline needs neither account nor network (`wandb sync` sends the run "
            "later)"
        ) from error
    noted.parent.mkdir(exist_ok=True)
    noted.write_text(run.id, "utf-8")
    return run


def show(run, stage: str, step: int, picture):
    """A PIL picture of a step of a stage."""
    import wandb

    run.log({f"{stage}/sheet": wandb.Image(picture), f"{stage}/step": step})
