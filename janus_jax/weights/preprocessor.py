"""How a released model's pictures to understand become numbers: its preprocessor_config.json, or
the section of processor_config.json into which transformers 5 writes the same fields."""

import logging
import pathlib

from janus_jax.weights import settings
from janus_jax.weights.settings import Section

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
PUBLISHED = {"image_mean": (0.5,) * 3, "image_std": (0.5,) * 3, "background": (127,) * 3}
# Names that say nothing about the numbers: who wrote the file, and forms of arrays in their code.
HARMLESS = (
    "image_processor_type", "feature_extractor_type", "processor_class", "data_format",
    "input_data_format", "return_tensors", "device", "disable_grouping", "default_to_square",
    "image_processor_class", "backend",
)  # fmt: skip


def read_preprocessor(directory, side: int = 384) -> dict:
    """`image_size` (int), and the Processor's fields image_mean, image_std and background.

    side: what a file that gives no image_size means.

    A file that leaves the mean or deviation out means CLIP's, as in the original code; no file at
    all means the published numbers, and is told. do_normalize=false is honoured as written (mean 0,
    deviation 1: pixels in [0, 1]) and warned about: Janus-1.3B was first released so by mistake,
    mended on 14 November 2024, and its weights expect [-1, 1]. Raises ValueError that lists every
    field that is of a wrong type, out of range, or not honoured, and for two files that differ.
    """
    nested = settings.read(directory, "processor_config.json") or {}
    own = settings.read(directory, "preprocessor_config.json")
    found = {}
    if nested.get("image_processor") is not None:
        path = pathlib.Path(directory) / "processor_config.json"
        found[path] = _fields(path, nested["image_processor"], "image_processor.")
    if own is not None:
        path = pathlib.Path(directory) / "preprocessor_config.json"
        found[path] = _fields(path, own, "")
    if not found:
        logging.getLogger(__name__).warning(
            "%s: no preprocessor_config.json, and no image_processor in processor_config.json; "
            "pictures become numbers as published for Janus (mean 0.5, deviation 0.5)", directory
        )  # fmt: skip
        return {"image_size": side} | PUBLISHED
    first, *others = found.values()
    for other in others:  # as in transformers 5, the section counts
        differ = [
            f"{name} is {first[name]} there, {x} here"
            for name, x in other.items()
            if first[name] != x and None not in (first[name], x)
        ]
        if differ:
            raise ValueError(
                f"{path}: differs from the image_processor of processor_config.json: "
                f"{'; '.join(differ)}; remove the one that these weights were not trained with"
            )
    sides = [x["image_size"] for x in found.values() if x["image_size"] is not None]
    return first | {"image_size": sides[0] if sides else side}


def _fields(path, values, where: str) -> dict:
    problems = []
    v = Section(values, where, problems)
    side = _side(v)
    due = "between 0 and 1, where 1 is white"
    mean = v.colour("image_mean", CLIP_MEAN, lambda x: 0 <= x <= 1, due)
    std = v.colour("image_std", CLIP_STD, lambda x: x > 0, "above 0; it has a zero or less")
    background = tuple(int(255 * x) for x in mean)
    if v.colour("background_color", background) != background and not problems:
        logging.getLogger(__name__).warning(
            "%s: background_color is %s; squares are padded with the mean's colour, %s, as by the "
            "original code", path, v.get("background_color"), background
        )  # fmt: skip
    if v.number("min_size", 14) != 14:
        problems.append(f"{where}min_size is {v.get('min_size')}, only 14 is supported")
    if abs(v.number("rescale_factor", 1 / 255) - 1 / 255) > 1e-6:
        problems.append(
            f"{where}rescale_factor is {v.get('rescale_factor')}, only {1 / 255:.6g} is supported"
        )
    for name in ("do_resize", "do_rescale", "do_pad", "do_convert_rgb"):
        v.only(name, True, why="a picture to understand")
    v.only("do_center_crop", False, why="a picture to understand")
    v.only("resample", 3, "bicubic", why="resizing")
    normalize = v.flag("do_normalize", True)
    v.rest(*HARMLESS)
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems)}")
    if not normalize:
        logging.getLogger(__name__).warning(
            "%s says do_normalize: false, and it is done so: pixels stay in [0, 1]. Janus-1.3B was "
            "first "
            "released with this mistake; its answers are better with true", path
        )  # fmt: skip
        mean, std = (0.0,) * 3, (1.0,) * 3
    return {"image_size": side, "image_mean": mean, "image_std": std, "background": background}


def _side(v: Section) -> int | None:
    """Of the square that a picture becomes, by `image_size` (the original's) or `size`
    (transformers')."""
    sides = []
    for name in ("image_size", "size"):
        value = v.get(name)
        if isinstance(value, dict):
            value = [value.get("height"), value.get("width")]
        if value is not None:
            sides += value if isinstance(value, list) else [value]
    whole = all(isinstance(x, int) and not isinstance(x, bool) and x > 0 for x in sides)
    if not whole or len(set(sides)) > 1:
        name = "size" if v.get("image_size") is None else "image_size"
        both = f", as {v.where}size" if name == "image_size" and v.get("size") is not None else ""
        v.refuse(name, v.get(name), f"one side in pixels, a whole number above 0{both}")
        return None
    return sides[0] if sides else None
