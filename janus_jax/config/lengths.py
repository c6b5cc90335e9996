"""How long a part of a schedule is."""


def in_steps(length: float, steps: int) -> int:
    """A part of a schedule in steps. length: so many steps, or, below 1, the share of the stage's
    `steps`, of which at least one is taken."""
    return int(length) if length >= 1 or not length else max(round(length * steps), 1)
