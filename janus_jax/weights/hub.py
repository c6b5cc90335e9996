"""Weights by name: those that come with the package, and those of a hub id, through huggingface_hub
(the extra `hub`) and its cache."""

import pathlib
import re

from janus_jax.common.paths import typed
from janus_jax.common.text import short

ID = re.compile(r"\w[\w.-]*/\w[\w.-]*$")
PAGE = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://", re.IGNORECASE)
PATTERNS = [
    "*.json",
    "*.jinja",
    "*.safetensors",
    "*.npz",
]  # never *.py: a repository's code is not wanted
PICKLES = ["*.bin", "*.pt", "*.pth"]
# What configs/quickstart.py trains, in bfloat16; the README.md beside it says how it was made.
QUICKSTART = "quickstart"


def repository(path: str, revision: str | None = None) -> tuple[str, str | None] | None:
    """(hub id, revision) that a path means, by its id or its page's address; None for anything
    else. Raises ValueError for another address, and for a page of something else."""
    page = PAGE.match(path)
    if page is None:
        if re.match(r"\w+://", path):
            raise ValueError(
                f"{path[:200]}: weights are not read from such an address; download them and give "
                'their folder, or a hub id ("owner/name")'
            )
        path = path.rstrip("/")
        return (path, revision) if ID.match(path) else None
    parts = [part for part in re.split(r"[?#]", path[page.end() :])[0].split("/") if part]
    if parts[:1] == ["models"]:
        parts = parts[1:]
    if len(parts) < 2 or parts[0] in ("datasets", "spaces", "collections", "papers"):
        raise ValueError(f"{path[:200]}: no page of a model; give a hub id (owner/name)")
    name = "/".join(parts[:2])
    if len(parts) > 2 and (len(parts) < 4 or parts[2] not in ("tree", "blob", "resolve")):
        raise ValueError(f"{path[:200]}: no page of a model as a whole; give {name!r}")
    named = parts[3] if len(parts) > 2 else None
    if named and revision and named != revision:
        raise ValueError(
            f"{path[:200]}: revision {short(revision, 80)!r} is asked for as well; give one"
        )
    return name, revision or named


def is_local(path) -> bool:
    """Does a path mean what lies on this machine, and nothing on the hub?"""
    exists = pathlib.Path(path).expanduser().exists()
    return exists or repository(str(path)) is None


def local_path(path, revision: str | None, allow_pickle: bool) -> pathlib.Path:
    """A local path as it is. Where no such path exists, QUICKSTART is the folder of that name in
    this package, and "owner/name" or its page the folder of its snapshot. Pickles are asked for
    where they are allowed.

    Raises FileNotFoundError in one sentence when the hub cannot be reached or refuses, ValueError
    for a revision of something local, and for what is no path.
    """
    try:
        path = typed(str(path))
    except ValueError as error:
        raise ValueError(f"{short(path)}: {error}") from None
    if is_local(path):
        if revision is not None:
            raise ValueError(
                f"{path}: revision {short(revision, 80)!r} is for hub ids; this is a local path"
            )
        here = pathlib.Path(path)
        if path == QUICKSTART and not here.exists():
            here = pathlib.Path(__file__).with_name(QUICKSTART)
        return here
    name, revision = repository(path, revision)
    return _fetched(name, revision, PATTERNS + (PICKLES if allow_pickle else []))


def unasked(path, allow_pickle: bool) -> str:
    """Why there may be no weights in a snapshot: the end of a message, "" where that is not why."""
    if allow_pickle or is_local(path):
        return ""
    return (
        ". Of its repository only safetensors and .npz were asked for, and no Python pickles (.bin, "
        ".pt), which can run code when they are read; where you trust them, load it with "
        "allow_pickle=True (--allow_pickle): then only tensors are rebuilt from them"
    )


def _fetched(name: str, revision: str | None, patterns: list[str]) -> pathlib.Path:
    try:
        import huggingface_hub
    except ImportError:
        raise FileNotFoundError(
            f'{name}: no such path here; to fetch it from the hub, pip install "janus_jax[hub]"'
        ) from None
    from huggingface_hub import errors

    try:
        return pathlib.Path(
            huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=patterns)
        )
    except errors.GatedRepoError:
        raise FileNotFoundError(
            f"{name}: a gated repository; accept its terms on the hub and run `hf auth login`"
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError):
        at = f" at revision {short(revision, 80)!r}" if revision else ""
        raise FileNotFoundError(
            f"{name}: neither a path here nor a repository on the hub{at} (private ones need `hf "
            "auth login`)"
        ) from None
    except (
        errors.LocalEntryNotFoundError,
        errors.OfflineModeIsEnabled,
        errors.HfHubHTTPError,
        OSError,
    ) as error:
        offline = huggingface_hub.constants.HF_HUB_OFFLINE
        why = "is not asked (HF_HUB_OFFLINE, --dry_run)" if offline else "cannot be reached"
        raise FileNotFoundError(
            f"{name}: no such path here, not in the hub's cache, and the hub {why} "
            f"({type(error).__name__}); download it elsewhere and give its folder"
        ) from None
