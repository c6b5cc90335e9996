"""Which data sets are drawn at which steps of a stage, and from which seed."""

import zlib

ENDLESS = 1 << 62  # steps


def is_active(line, step: int) -> bool:
    """Is a data set (a Dataset, or an Entry of a mixture) drawn at a step?"""
    first, end = line.steps or (0, ENDLESS)
    return first <= step < end and line.weight > 0


def changes(lines, steps: int) -> list[int]:
    """The steps of a stage at which what is drawn changes, 0 first."""
    return sorted({0, *(step for line in lines for step in line.steps if step < steps)})


def gaps(lines: dict, ratio: dict[str, float], steps: int) -> list[str]:
    """The steps from which on there is nothing of a kind that the ratio asks for, in words.

    lines: name -> data set.
    ratio: kind -> share.
    steps: of the stage.
    """
    return [
        f"from step {step} on no data.datasets is of kind {kind!r}, of which the ratio asks "
        f"{share:g}; add one, give one a weight over 0, or widen the `steps` of one"
        for step in changes(lines.values(), steps)
        for kind, share in ratio.items()
        if share > 0
        and not any(line.kind == kind and is_active(line, step) for line in lines.values())
    ]


def seed_of(seed: int, name) -> int:
    """A seed for a named part, in [0, 2^32): adding a part changes no other's draws."""
    return zlib.crc32(f"{seed}/{name}".encode())
