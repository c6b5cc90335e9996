"""What callers give to functions, checked."""


def require_flags(**flags):
    """Raises ValueError with a line for each flag that is not True or False: its name and value."""
    wrong = [
        f"{name} is {repr(x)[:60]}: must be True or False, not a {type(x).__name__}"
        for name, x in flags.items()
        if type(x).__name__ != "bool"  # Python's, or numpy's
    ]
    if wrong:
        raise ValueError("\n".join(wrong))
