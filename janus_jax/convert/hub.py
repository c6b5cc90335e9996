"""Weights by hub id, through huggingface_hub (the extra `hub`) and its cache."""

import pathlib
import re

ID = re.compile(r"[\w.-]+/[\w.-]+$")
PATTERNS = ["*.json", "*.jinja", "*.safetensors", "*.npz"]  # never *.py: a repository's code is not wanted
PICKLES = ["*.bin", "*.pt", "*.pth"]


def locate(path, revision: str | None, allow_pickle: bool) -> pathlib.Path:
    """A local path as it is; "owner/name", where no such path exists, as the folder of its snapshot.

    Raises FileNotFoundError in one sentence when the hub cannot be reached or refuses, ValueError for a
    revision of something local.
    """
    local = pathlib.Path(path).expanduser()
    if local.exists() or not ID.match(str(path)):
        if revision is not None:
            raise ValueError(f"{path}: revision {revision!r} is for hub ids; this is a local path")
        return local
    try:
        import huggingface_hub
    except ImportError:
        raise FileNotFoundError(
            f'{path}: no such path here; to fetch it from the hub, pip install "janus_jax[hub]"'
        ) from None
    from huggingface_hub import errors

    allowed = PATTERNS + (PICKLES if allow_pickle else [])
    try:
        return pathlib.Path(
            huggingface_hub.snapshot_download(path, revision=revision, allow_patterns=allowed)
        )
    except errors.GatedRepoError:
        raise FileNotFoundError(
            f"{path}: a gated repository; accept its terms on the hub and run `hf auth login`"
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        at = f" at revision {revision!r}" if revision else ""
        raise FileNotFoundError(
            f"{path}: neither a path here nor a repository on the hub{at} (private ones need `hf auth login`)"
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
            f"{path}: no such path here, not in the hub's cache, and the hub {why} "
            f"({type(error).__name__}); download it elsewhere and give its folder"
        ) from None
