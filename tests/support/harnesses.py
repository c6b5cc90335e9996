"""Modules of the harnesses lmms-eval and VLMEvalKit, where they are installed."""

import importlib
import importlib.util
import os
import sys
import types

import pytest

# Packages of VLMEvalKit whose own code imports every model and data set.
BARE = (
    "vlmeval",
    "vlmeval.api",
    "vlmeval.utils",
    "vlmeval.dataset",
    "vlmeval.dataset.utils",
    "vlmeval.vlm",
)
KINDS = {"POPE": "Y/N", "MME": "Y/N", "MMVet": "VQA"}  # DATASET_TYPE of VLMEvalKit; else MCQ


def harness(name: str):
    """A module of an installed harness; the test is skipped where it is not installed, and fails
    where something that it imports is not."""
    package = name.split(".")[0]
    spec = importlib.util.find_spec(package) if package not in sys.modules else True
    if spec is None:
        pytest.skip(f"{package} is not installed")
    if package == "vlmeval" and package not in sys.modules:
        root = spec.submodule_search_locations[0]
        for bare in BARE:
            sys.modules[bare] = types.ModuleType(bare)
            sys.modules[bare].__path__ = [os.path.join(root, *bare.split(".")[1:])]
        sys.modules["vlmeval.dataset"].DATASET_TYPE = lambda name: KINDS.get(name, "MCQ")
        sys.modules["vlmeval.dataset"].DATASET_MODALITY = lambda name: "IMAGE"
        sys.modules["vlmeval.dataset"].img_root_map = None
        for module in ("matching_util", "mp_util"):
            vars(sys.modules["vlmeval.utils"]).update(
                vars(importlib.import_module(f"vlmeval.utils.{module}"))
            )
    return importlib.import_module(name)
