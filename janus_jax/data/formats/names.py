"""Names of classes: from a folder's or a label's name to words."""

import json
import logging
import re

from janus_jax.data.sources import SourceError

_NUMBER = re.compile(r"n?\d+")  # a class's, as ImageNet's n01440764


class Names:
    """What the classes of a data set are called.

    path: empty, or a file in UTF-8: JSON, either an object {"n01440764": "tench, Tinca tinca" or a
    list of synonyms}, Keras's {"0": ["n01440764", "tench"]}, or a list by class number; or lines of
    "n01440764<tab or space>tench, Tinca tinca" (ImageNet's LOC_synset_mapping.txt). Raises
    SourceError.
    """

    def __init__(self, path: str = ""):
        self.path = path
        self.table = {}
        self._said = False
        if path:
            try:
                with open(path, encoding="utf-8-sig") as file:
                    text = file.read()
                self.table = dict(_entries(text))
            except (OSError, ValueError, AttributeError, TypeError) as error:
                raise SourceError(
                    f"{path}: holds no names of classes ({error}); needs JSON or lines of a class "
                    f"and its name"
                ) from None
            if not self.table:
                raise SourceError(
                    f"{path}: names no class; needs JSON or lines of a class and its name"
                )

    def fields(self, label) -> dict:
        """label: a folder's name or a class number -> {"class", "name": its first name, "names":
        all of them}. One that the file does not name goes by its label, underscores as spaces."""
        known = self.table.get(str(label))
        if known is None:
            known = [" ".join(str(label).replace("_", " ").split())]
            if not self._said and (self.path or _NUMBER.fullmatch(str(label))):
                self._said = True
                if self.path:
                    told = f"{self.path}: does not name class {label!r}, perhaps others"
                else:
                    told = f"class {label!r} is a number, perhaps others; give a file of what they are called as names"
                logging.warning("%s: it is called %r", told, known[0])
        return {"class": label, "name": known[0], "names": list(known)}


def label(names: list[str], value, column: str) -> dict:
    """The fields of a class label that a data set itself names, the class's word in its own column
    too: {} where it is missing (-1 in unlabelled splits) or blank."""
    if not isinstance(value, int) or not 0 <= value < len(names) or not names[value].strip(" _,"):
        return {}
    known = _synonyms(names[value].replace("_", " "))
    return {column: known[0], "class": value, "name": known[0], "names": known}


def _entries(text: str):
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        for line in text.splitlines():
            if line.strip():
                label, *rest = line.split("\t") if "\t" in line else line.split(None, 1)
                if not rest:
                    raise ValueError(f"line {line[:40]!r} has no name") from None
                yield label.strip(), _synonyms(rest[0])
        return
    for label, value in enumerate(data) if isinstance(data, list) else data.items():
        if not isinstance(value, str) and not (value and all(isinstance(v, str) for v in value)):
            raise ValueError(
                f"class {label!r} is {str(value)[:40]!r}, needs a name or a list of names"
            )
        if (
            isinstance(value, list)
            and str(label).isdigit()
            and len(value) == 2
            and value[0][1:].isdigit()
        ):
            yield value[0], _synonyms(value[1].replace("_", " "))
            value = value[1].replace("_", " ")
        yield (
            str(label),
            [v.strip() for v in value] if isinstance(value, list) else _synonyms(value),
        )


def _synonyms(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ValueError("a class has an empty name")
    return names
