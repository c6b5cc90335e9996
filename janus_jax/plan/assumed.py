"""What a plan takes for granted, of the kinds of stages that it has."""

from janus_jax.distributed import chips
from janus_jax.plan import aot, pictures, program, rates, roofline


def taken_for_granted(stages: dict, chip: chips.Chip, device) -> list[str]:
    """What the plan of these stages takes for granted.

    stages: name -> study.
    chip: what it is planned for.
    device: one of those compiled for.
    """
    lengths = {name: s["lengths"] for name, s in stages.items() if "lengths" in s}
    of_rows = [
        *roofline.ASSUMPTIONS,
        *(
            f"tokens of an example of {name}: "
            + ", ".join(f"{task} {n:.0f}" for task, n in found.items())
            for name, found in lengths.items()
        ),
        program.ROWS_ASSUMED,
        *dict.fromkeys(s["assumed"] for s in stages.values() if "assumed" in s),
    ]
    kinds = {"rows": of_rows if lengths else []}
    kinds["pictures"] = pictures.ASSUMED if len(lengths) < len(stages) else []
    whose = lambda kind: f"stages of {kind}: " if all(kinds.values()) else ""
    return [
        *(f"{whose(kind)}{line}" for kind, lines in kinds.items() for line in lines),
        roofline.LINKS,
        *aot.assumptions(device),
        rates.in_words(chip),
        program.ASSUMED,
        "peaks, with sources: janus_jax/distributed/chips.py",
    ]
