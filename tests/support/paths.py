"""Where things lie in this repository."""

import pathlib

ROOT = pathlib.Path(__file__).parents[2]
TESTS = ROOT / "tests"
CONFIGS = ROOT / "configs"
BENCHMARKS = ROOT / "benchmarks"
