"""What numbers are in float32, in which the model computes."""

LEAST = 2.0**-126  # the smallest normal number: what is below becomes 0
MOST = (2 - 2.0**-23) * 2.0**127


def finite(x) -> bool:
    """Whether a real number is finite in float32, and becomes 0 only where it is 0."""
    return x == 0 or LEAST <= abs(x) <= MOST
