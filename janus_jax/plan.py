"""`python -m janus_jax.plan --config=configs/stage3.py --devices=8`: the true step, compiled, nothing allocated.

Prints each stage's parameters, and the bytes that a device needs for the step's arguments (weights, moments,
batch) and temporaries, as the compiler reports them for that many fake CPU devices.
"""

import functools
import sys
import time


def lower_inputs(experiment, stage):
    """(the jitted step, its abstract state, its abstract batch) of a stage on the current mesh."""
    import jax
    import jax.numpy as jnp

    from janus_jax import batch as bt
    from janus_jax import optim, train_state
    from janus_jax import sharding as sh

    tx, model, rows = optim.make(stage.optim, stage.steps), experiment.model, stage.rows
    init = functools.partial(train_state.init_state, config=model, tx=tx, flames=stage.trainable)
    state = sh.concrete(jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0))))
    split = jax.NamedSharding(jax.sharding.get_mesh(), sh.BATCH)
    batch = {
        name: jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=split)
        for name, (shape, dtype) in bt.shapes(
            rows.count, rows.length, rows.pictures, rows.images, model
        ).items()
    }
    return (
        jax.jit(
            functools.partial(train_state.train_step, tx=tx, accumulate=stage.accumulate), donate_argnums=0
        ),
        state,
        batch,
    )


def compile_stage(experiment, stage) -> dict:
    """Lowers and compiles one stage's step. Parameters in numbers, sizes in bytes per device, time in seconds."""
    import jax

    step, state, batch = lower_inputs(experiment, stage)
    begin = time.perf_counter()
    memory = step.lower(state, batch).compile().memory_analysis()
    count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
    return {
        "trainable": count(state.trainable),
        "frozen": count(state.frozen),
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "seconds": time.perf_counter() - begin,
    }


def main(_, overrides: dict):
    import jax
    from absl import flags, logging

    logging.set_verbosity(logging.WARNING)
    jax.config.update("jax_num_cpu_devices", flags.FLAGS.devices)
    jax.config.update("jax_platforms", "cpu")
    from janus_jax import sharding as sh
    from janus_jax.checks import check
    from janus_jax.experiment import ConfigError, read
    from janus_jax.log import table

    try:
        experiment, wrong = read(flags.FLAGS.config, overrides)
        check(experiment, flags.FLAGS.devices, files=False, known=wrong)
    except ConfigError as error:
        sys.exit(str(error))
    m = experiment.mesh
    jax.set_mesh(sh.make_mesh(m.data, m.fsdp, m.tensor))
    headers = ("stage", "trainable", "frozen", "arguments GB", "temporaries GB", "compiled in s")
    lines = []
    for name, stage in experiment.stages.items():
        r = compile_stage(experiment, stage)
        sizes = [r[key] / 1e9 for key in ("arguments", "temporaries")]
        lines.append([name, f"{r['trainable']:,}", f"{r['frozen']:,}", *sizes, r["seconds"]])
    shape = " x ".join(f"{axis} {size}" for axis, size in jax.sharding.get_mesh().shape.items())
    print(f"{flags.FLAGS.config} on {flags.FLAGS.devices} devices ({shape}), bytes per device:")
    print(table(headers, lines))


if __name__ == "__main__":
    from absl import app, flags

    from janus_jax.experiment import split_flags

    flags.DEFINE_string("config", None, "A file with get_config(); see configs/.", required=True)
    flags.DEFINE_integer("devices", 8, "How many devices to compile for.", lower_bound=1)
    rest, overrides = split_flags(sys.argv)
    app.run(functools.partial(main, overrides=overrides), argv=rest)
