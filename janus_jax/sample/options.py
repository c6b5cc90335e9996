"""The numbers that `generate` and `understand` take, checked all at once."""

import math
import numbers


def _finite(x) -> bool:
    return isinstance(x, numbers.Real) and not isinstance(x, bool) and 0 <= x < math.inf


def _whole(x, low: int, high: float = math.inf) -> bool:
    return isinstance(x, numbers.Integral) and not isinstance(x, bool) and low <= x <= high


RULES = {
    "cfg_scale": (
        _finite,
        "must be a finite number, 0 or more (0 ignores the prompt, 1 is no guidance, 5 is the paper's)",
    ),
    "temperature": (
        _finite,
        "must be a finite number, 0 or more (0 takes the likeliest each time, 1 samples as the model says)",
    ),
    "top_p": (lambda x: _finite(x) and 0 < x <= 1, "must be in (0, 1]; 1 keeps every token"),
    "max_new_tokens": (lambda x: _whole(x, 1), "must be a whole number, at least 1"),
    "images_per_prompt": (lambda x: _whole(x, 1), "must be a whole number, at least 1 (--n of the command)"),
    "seed": (lambda x: _whole(x, 0, 2**32 - 1), "must be a whole number from 0 to 4294967295"),
}


def check(**options):
    """Raises ValueError with a line for each option outside its rule: its name, its value, and the rule."""
    problems = [f"{name} is {x}: {RULES[name][1]}" for name, x in options.items() if not RULES[name][0](x)]
    if problems:
        raise ValueError("\n".join(problems))


def seeds(seed, count: int, of: str) -> list[int]:
    """One number for all, or one for each of the `count` rows. Raises ValueError."""
    if isinstance(seed, numbers.Integral):
        seed = [seed] * count
    seed = list(seed)
    if len(seed) != count:
        raise ValueError(f"seed has {len(seed)} numbers for {count} {of}: give one, or one for each")
    for number in seed:
        check(seed=number)
    return [int(number) for number in seed]
