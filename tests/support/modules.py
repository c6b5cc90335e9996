"""A package read as text: what its modules import, how much that comes to, and the names they
define."""

import ast
import dataclasses
import functools
import io
import pathlib
import tokenize
import typing


class CircleError(ValueError):
    """Modules that import each other in a circle."""


class Package:
    """The modules of the package in a folder, by their dotted names without the package's own. The
    `__init__.py` of packages are no modules here: a test says that they import nothing."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        self.files = sorted(root.rglob("*.py"))
        self.modules = {
            ".".join(path.relative_to(root).with_suffix("").parts): path
            for path in self.files
            if path.name != "__init__.py"
        }

    def own(self, path: pathlib.Path) -> set[str]:
        """The modules of this package that a file imports."""
        found = set()
        for name in imports(path):
            head, *parts = name.split(".")
            if head == self.root.name:
                candidates = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
                module = next((c for c in candidates if c in self.modules), None)
                if module is None:
                    raise ValueError(f"{path}: imports {name}, which is no module of the package")
                found.add(module)
        return found

    @functools.cached_property
    def graph(self) -> dict[str, set[str]]:
        """module -> the modules that it imports."""
        return {name: self.own(path) for name, path in self.modules.items()}

    def reached(self, *starts: str) -> set[str]:
        """The modules named and all that they import, and what those import, and so on."""
        found, todo = set(), list(starts)
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo += self.graph[name]
        return found

    def lines_reached(self, *starts: str) -> int:
        return sum(code_lines(self.modules[name]) for name in self.reached(*starts))

    def longest_chain(self) -> list[str]:
        """The longest way along imports, from the module that nobody imports down."""
        done, open_ = {}, []

        def longest(name: str) -> list[str]:
            if name in open_:
                raise CircleError(" -> ".join([*open_[open_.index(name) :], name]))
            if name not in done:
                open_.append(name)
                below = [longest(used) for used in sorted(self.graph[name])]
                done[name] = [name, *max(below, key=len, default=[])]
                open_.pop()
            return done[name]

        return max(map(longest, sorted(self.graph)), key=len)


@functools.cache
def tree(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@functools.cache
def imports(path: pathlib.Path) -> list[str]:
    """Full dotted names of all that a file imports, at its top or inside functions."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}: relative import; write the package's name")
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@functools.cache
def code(path: pathlib.Path) -> list[int]:
    """The numbers of a file's lines that are neither blank nor a comment alone; docstrings
    count."""
    text = path.read_text("utf-8")
    comments = {
        token.start[0]
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and not token.line[: token.start[1]].strip()
    }
    lines = enumerate(text.splitlines(), 1)
    return [number for number, line in lines if line.strip() and number not in comments]


def code_lines(path: pathlib.Path) -> int:
    return len(code(path))


def functions(path: pathlib.Path) -> dict[str, int]:
    """name:line of each function, those inside others too -> its lines of code."""
    return {
        f"{node.name}:{node.lineno}": sum(
            node.lineno <= number <= node.end_lineno for number in code(path)
        )
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef)
    }


def public(path: pathlib.Path) -> list[str]:
    """The functions and classes that a file defines at its top for others."""
    return [
        node.name
        for node in tree(path).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]


def dataclass_leaves(cls: type, prefix: str = "") -> set[str]:
    """Dotted paths of the fields of a dataclass that hold no dataclass themselves; what stands in a
    dictionary or is one of several types counts once by its path."""
    hints = typing.get_type_hints(cls)
    found = set()
    for field in dataclasses.fields(cls):
        inner = _dataclasses_in(hints[field.name])
        found |= set() if inner else {prefix + field.name}
        for one in inner:
            found |= dataclass_leaves(one, f"{prefix}{field.name}.")
    return found


def _dataclasses_in(hint) -> list[type]:
    if dataclasses.is_dataclass(hint):
        return [hint]
    return [found for inner in typing.get_args(hint) for found in _dataclasses_in(inner)]
