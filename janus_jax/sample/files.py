"""Pictures to files, each with how it was drawn; nothing that is there is replaced."""

import pathlib
import re
import sys
import zlib

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from janus_jax.common import files
from janus_jax.common.contact_sheet import contact_sheet, per_page
from janus_jax.common.outputs import free
from janus_jax.common.text import version


class Gallery:
    """A folder of drawn pictures, and sheets of those that are added.

    A picture's file holds the facts about it as PNG text. One that is there with the same facts is
    the same picture; one with others keeps its name, and the next number is taken.
    """

    def __init__(self, folder, **facts):
        """facts: of every picture: the seed, the guidance, the weights, ..."""
        self.folder = pathlib.Path(folder)
        self.facts = facts | {"janus_jax": version()}
        self.page = []
        self.read = {}  # (beginning, end of a name) -> ({facts: path}, how many were read)

    def holds(self, prompt: str, index: int, **facts) -> bool:
        """Whether this picture is there: drawn from the same, it would be the same."""
        return self._place(prompt, self._told(prompt, index, facts))[1]

    def add(self, picture, prompt: str, index: int, **facts) -> pathlib.Path:
        """Writes a picture where it is not there yet; its path. index: among those of its
        prompt."""
        told = self._told(prompt, index, facts)
        path, there = self._place(prompt, told)
        if not there:
            self.folder.mkdir(parents=True, exist_ok=True)
            chunks = PngInfo()
            for key, value in told.items():
                chunks.add_itxt(key, value)
            files.write(path, lambda file: picture.save(file, "PNG", pnginfo=chunks))
        return path

    def show(self, picture, prompt: str, columns: int) -> pathlib.Path | None:
        """Takes a picture onto the sheet; the sheet's path where that made it full."""
        self.page.append((picture, prompt))
        full = len(self.page) == per_page(picture.size, columns, _scale(picture))
        return self.finish(columns) if full else None

    def finish(self, columns: int) -> pathlib.Path | None:
        """Writes the sheet begun, as sheet.png or the next number that is free."""
        if not self.page:
            return None
        pictures, prompts = zip(*self.page)
        self.page = []
        columns = min(len(pictures), columns)
        sheet = contact_sheet(list(pictures), prompts, columns, _scale(pictures[0]))
        path = self.folder / "sheet.png"
        path = free(path, "-", 2) if path.exists() else path
        files.write(path, lambda file: sheet.save(file, "PNG"))
        return path

    def _told(self, prompt: str, index: int, facts: dict) -> dict[str, str]:
        facts = self.facts | facts | {"prompt": prompt, "index": index}
        return {key: str(value) for key, value in facts.items()}

    def _place(self, prompt: str, told: dict[str, str]) -> tuple[pathlib.Path, bool]:
        """(path, whether this very picture is there). PROMPT-INDEX.png; any seed but 0 stands in
        the name."""
        end = f"-{told['index']}.png"
        if told.get("seed", "0") != "0":
            end = f"-seed{told['seed']}{end}"
        begin = file_name(prompt)
        facts = frozenset(told.items())
        there, count = self.read.get((begin, end), ({}, 0))
        while facts not in there:  # each file is read once, however many prompts share its name
            middle = f"-{count + 1}" if count else ""
            path = self.folder / f"{begin}{middle}{end}"
            if not path.exists():
                return path, False
            count += 1
            there.setdefault(frozenset(facts_of(path).items()), path)
            self.read[begin, end] = there, count
        return there[facts], there[facts].exists()


def _scale(picture) -> int:
    return max(1, 192 // picture.width)


def facts_of(path: pathlib.Path) -> dict[str, str]:
    """What a drawn picture's file tells of it; empty for any other file."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            return {key: str(x) for key, x in picture.info.items() if isinstance(x, str)}
    except Exception:  # no picture, or a damaged one: not ours to replace
        return {}


def file_name(prompt: str) -> str:
    """A prompt as the beginning of a file's name, one that every file system can hold."""
    name = re.sub(r"\W+", "-", prompt.lower()).strip("-")[:60]
    name = name.encode(sys.getfilesystemencoding(), "ignore").decode(sys.getfilesystemencoding())
    while len(name.encode()) > 120:
        name = name[:-1]
    return name.strip("-") or "picture"


def weights_mark(*paths: pathlib.Path) -> str:
    """Changes when weights do: of their files' names, sizes and times. Pictures that lie with them
    do not count."""
    found = []
    for path in paths:
        found += sorted(path.rglob("*")) if path.is_dir() else [path]
    found = [file for file in found if file.is_file() and file.suffix != ".png"]
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in found]
    return f"{zlib.crc32(repr(stats).encode()):08x}"
