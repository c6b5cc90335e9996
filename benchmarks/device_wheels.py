"""Collects what janus_jax needs and a bare machine lacks, as wheels, for benchmarks/device.py there.

    python benchmarks/device_wheels.py --out=.wheels

Names and versions are those installed here, as requirements.txt asks for them; what THERE asks for
itself is taken to be on that machine. On it, without network:

    python3 -m pip install --no-index --no-deps --find-links=.wheels -r .wheels/wheels.txt
"""

import argparse
import importlib.metadata
import pathlib
import subprocess
import sys

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).resolve().parents[1]
THERE = ("jax", "flax", "optax", "orbax-checkpoint", "torch", "transformers", "tokenizers")
PYTHON = "3.12"
GLIBC = ("2_28", "2_27", "2_17", "2_12", "2_5")  # no newer than that machine's
MOST = 64 * 2**20  # bytes of all wheels
LIST = "wheels.txt"


def closure(wanted: list[str]) -> dict[str, str]:
    """name -> version of the installed packages that requirements ask for, directly or not, on
    Linux and PYTHON. What is not installed here is left out."""
    found, todo, done = {}, [Requirement(line) for line in wanted], set()
    place = {
        "python_version": PYTHON,
        "python_full_version": f"{PYTHON}.0",
        "sys_platform": "linux",
    }
    while todo:
        asked = todo.pop()
        name = canonicalize_name(asked.name)
        key = name, frozenset(asked.extras)
        if key in done:
            continue
        done.add(key)
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found[name] = package.version
        for line in package.requires or ():
            needs = Requirement(line)
            extras = asked.extras or {""}
            if not needs.marker or any(needs.marker.evaluate(place | {"extra": x}) for x in extras):
                todo.append(needs)
    return found


def missing() -> dict[str, str]:
    """name -> version of what that machine lacks. Raises SystemExit where a requirement is not
    installed here."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    ours, theirs = closure(wanted), closure(list(THERE))
    absent = [x for x in wanted if canonicalize_name(Requirement(x).name) not in ours]
    if absent:
        sys.exit(f"not installed here: {', '.join(absent)}: pip install -r requirements.txt")
    return {name: version for name, version in sorted(ours.items()) if name not in theirs}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default=".wheels", type=pathlib.Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for wheel in args.out.glob("*.whl"):
        wheel.unlink()
    pins = [f"{name}=={version}" for name, version in missing().items()]
    platforms = [f"--platform=manylinux_{version}_x86_64" for version in GLIBC]
    platforms += ["--platform=manylinux2014_x86_64", "--platform=any"]
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
        f"--python-version={PYTHON}", "--implementation=cp", *platforms, "-d", str(args.out), *pins,
    ]  # fmt: skip
    if code := subprocess.run(command, check=False).returncode:
        return code
    (args.out / LIST).write_text("\n".join(pins) + "\n")
    wheels = sorted(args.out.glob("*.whl"))
    for wheel in wheels:
        print(f"{wheel.stat().st_size / 2**20:6.2f} MiB  {wheel.name}")
    total = sum(wheel.stat().st_size for wheel in wheels)
    print(f"{total / 2**20:6.2f} MiB in {len(wheels)} wheels, of {MOST / 2**20:.0f} at most")
    return 0 if total <= MOST and len(wheels) == len(pins) else 1


if __name__ == "__main__":
    sys.exit(main())
