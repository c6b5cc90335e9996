"""Records of pictures to edit: pictures that are there, what to do, and the picture that comes out.

Fields go by the names that people have (InstructPix2Pix, MagicBrush, UltraEdit, ShareGPT-4o-Image):

    {"images": ["a.png"], "prompt": "make it red", "target": "b.png"}

A line may name them: `picture` the pictures that are there, `caption` what to do, `target` what comes
out. A line that names one of the first two is of edits only where it names `target` too.
"""

from janus_jax.config.schema import Dataset
from janus_jax.data.mapping import CAPTIONS, PICTURES, Raw, lookup, there
from janus_jax.data.notation import as_data
from janus_jax.data.sources import RecordError

TARGETS = (
    "edited_image", "edited_img", "output_image", "target_image", "target_img", "target",
)  # fmt: skip
# What stands in these is there to be edited; in those of PICTURES it may be.
EDITED = (
    "input_image", "input_images", "original_image", "source_image", "source_img", "src_img",
)  # fmt: skip
SOURCES = (*PICTURES, *EDITED, "sources", "source")
INSTRUCTIONS = (
    "instruction", "edit_prompt", "edit_instruction", "input_prompt", "edited_prompt_list", "edit",
    "prompt",
)  # fmt: skip


def gathered(raw: Raw, d: Dataset, names) -> Raw:
    """A record with its pictures in "image", the one to draw last, and in `sources` how many come
    before it; one that is no edit as it is. Raises RecordError for an edit that lacks a part.

    raw: as `mapping.mapped` gives it.
    d: the line.
    names: of all its fields, those that are null too.
    """
    if d.kind != "generation" or not _is_edit(raw, d, names):
        return raw
    target = d.target or next((name for name in TARGETS if name in raw), "")
    if not target or (d.target and _value(raw, d.target, "target") in (None, "")):
        looked = f'"{d.target}"' if d.target else ", ".join(f'"{name}"' for name in TARGETS)
        raise RecordError(
            "no target",
            f"an edit without the picture that comes out: none in {looked} (fields: {there(raw)}); "
            "name its field as target, or leave such records out",
        )
    source = "image" if raw.moved else next((n for n in SOURCES if _is_there(raw, n)), "")
    if not source:
        raise RecordError(
            "no picture",
            f"an edit without a picture to begin from: none in {', '.join(SOURCES)} (fields: "
            f"{there(raw)}); name its field as picture, or leave such records out",
        )
    told = raw.moved or source
    shown = _listed(raw[source], told)
    drawn = _listed(_value(raw, target, "target"), target)
    if len(drawn) != 1:
        raise RecordError(
            "several targets",
            f'field "{target}" has {len(drawn)} pictures, an edit draws one; name it, as in '
            f"target={target}.0",
        )
    taken = {source, target, *PICTURES}
    out = Raw({name: dict.get(raw, name) for name in raw if name not in taken}, raw)
    out |= {"image": [*shown, *drawn]}
    out.moved = told
    out.sources = len(shown)
    out.read |= {told, target}
    return out


def instruction(raw: Raw, d: Dataset) -> str:
    """The field that says what to do; empty where the line's `prompt` does. Raises RecordError."""
    if d.caption:
        return d.caption
    field = next((name for name in INSTRUCTIONS if name in raw), "")
    if not field and not d.prompt:
        raise RecordError(
            "no instruction",
            f"an edit that does not say what to do: none in {', '.join(INSTRUCTIONS)} (fields: "
            f"{there(raw)}); name its field as caption",
        )
    raw.note(f'an edit by "{field or "prompt"}"')
    return field


def _is_edit(raw: Raw, d: Dataset, names) -> bool:
    """By the line's `target`, or by names that say so where the line names no field and there is no
    caption. "target" alone may mean many things: then a field must say what to do."""
    if d.target or d.picture or d.caption:
        return bool(d.target)
    if any(name in raw for name in CAPTIONS):
        return False
    told = any(name in raw for name in INSTRUCTIONS)
    return any(name in names for name in (*EDITED, *TARGETS[:-1])) or (told and "target" in names)


def _is_there(raw: Raw, name: str) -> bool:
    return dict.get(raw, name) not in (None, "", [])


def _value(raw: Raw, name: str, of: str):
    try:
        return lookup(raw, name, of)
    except RecordError:
        return None


def _listed(value, field: str) -> list:
    """A picture, or several, as a list. Raises RecordError for a place that holds none."""
    found = as_data(value) if isinstance(value, str) else None
    value = value if found is None else found
    out = list(value) if isinstance(value, list) else [value]
    if any(x is None or x == "" for x in out):
        raise RecordError(
            "no picture", f'field "{field}": one of its {len(out)} pictures is empty; give it'
        )
    return out
