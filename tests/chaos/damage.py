"""Bits that flip, files that are cut or gone: in each file of a checkpoint in turn, between two starts."""

import os
import pathlib
import random

HOW = ("flip", "cut", "remove")


def hurtable(checkpoint: pathlib.Path) -> list[pathlib.Path]:
    """Its files that hold anything."""
    return sorted(p for p in checkpoint.rglob("*") if p.is_file() and p.stat().st_size)


def hurt(path: pathlib.Path, how: str, draw: random.Random):
    """flip: one bit; cut: the end is missing; remove: the file is."""
    if how == "remove":
        path.unlink()
    elif how == "cut":
        os.truncate(path, draw.randrange(path.stat().st_size))
    else:
        data = bytearray(path.read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.write_bytes(data)
