"""Numbers of a stage that can be written in two ways: steps or a share, for all parts or by part."""

DEFAULT = "default"  # the parts that are not named


def in_steps(length: float, steps: int) -> int:
    """A part of a schedule in steps. length: so many steps, or, below 1, the share of the stage's
    `steps`, of which at least one is taken."""
    return int(length) if length >= 1 or not length else max(round(length * steps), 1)


def by_part(value) -> dict[str, float]:
    """Part -> number, of a schema.ByPart; DEFAULT stands for all that are not named."""
    return value if isinstance(value, dict) else {DEFAULT: value}
