"""Lists and dicts that are written as text: JSON, and how Python and NumPy print them."""

import ast
import io
import json
import re
import tokenize

_PACKED = 2**20  # characters of Python's own notation that are unpacked at most
_TOUCHING = re.compile(r"""['"]\s+['"]""")


def as_data(text: str):
    """The list or dict that a string is, as JSON, Python (a tuple, too) or NumPy writes it; None of
    any other."""
    if text.lstrip()[:1] not in ("[", "{", "("):
        return None
    for read in (json.loads, _literal) if len(text) <= _PACKED else (json.loads,):
        try:
            value = read(text.strip())
        except (
            ValueError,
            TypeError,
            SyntaxError,
            MemoryError,
            RecursionError,
            tokenize.TokenError,
        ):
            continue
        value = list(value) if isinstance(value, tuple) else value
        return value if isinstance(value, list | dict) else None
    return None


def _literal(text: str):
    """The value that Python writes so, or NumPy, which puts no commas between strings: Python would
    join them."""
    if _TOUCHING.search(text):
        tokens = [
            t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.string.strip()
        ]
        is_string = [t.type == tokenize.STRING for t in tokens]
        ends = ["," if a and b else "" for a, b in zip(is_string, [*is_string[1:], False])]
        text = " ".join(t.string + end for t, end in zip(tokens, ends))
    return ast.literal_eval(text)
