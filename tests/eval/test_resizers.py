"""The resizers against Pillow, torch and the libraries that define them."""

import importlib.util
import pathlib
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from support import pictures

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval import resizers

SIZES = [(32, 32), (384, 384), (299, 299), (210, 333)]  # width, height


def array(width: int, height: int) -> np.ndarray:
    return np.asarray(pictures.photograph(width, height))


def tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x.transpose(2, 0, 1).copy())[None].float()


def test_a_drawing_is_brought_to_256_by_pillows_bicubic_and_gigagans_leaves_it_so():
    drawing = pictures.photograph(384, 384)
    small = resizers.bicubic_256(drawing)
    assert np.array_equal(small, drawing.resize((256, 256), Image.Resampling.BICUBIC))
    assert np.array_equal(resizers.gigagan_256(small), small)
    assert not np.array_equal(resizers.gigagan_256(drawing), small)


@pytest.mark.parametrize(
    ("size", "box"), [((640, 427), (106, 0, 533, 427)), ((300, 501), (0, 100, 300, 400))]
)
def test_gigagans_square_is_torchvisions_centre_and_lanczos(size, box):
    """left = round((width - side) / 2): (640 - 427) / 2 = 106.5 and (501 - 300) / 2 = 100.5 round
    to even."""
    picture = pictures.photograph(*size)
    want = picture.crop(box).resize((256, 256), Image.Resampling.LANCZOS)
    assert np.array_equal(resizers.gigagan_256(picture), want)


@pytest.mark.parametrize("size", SIZES)
def test_pytorch_fids_entrance_is_torchs_bilinear(size):
    x = array(*size)
    theirs = torch.nn.functional.interpolate(
        tensor(x) / 255, size=(299, 299), mode="bilinear", align_corners=False
    )
    want = (2 * theirs - 1)[0].permute(1, 2, 0).numpy()
    assert np.abs(resizers.pytorch_fid(x) - want).max() < 1e-4


@pytest.mark.parametrize("size", SIZES)
def test_torch_fidelitys_entrance_is_tensorflow_1s_bilinear(size):
    """By torch's sampling of a grid, whose pixel i of 299 lies at i * n / 299."""
    x = array(*size)
    at = [torch.arange(299.0, dtype=torch.float64) * n / 299 for n in size]
    grid = torch.stack(
        torch.meshgrid(*[2 * a / (n - 1) - 1 for a, n in zip(at, size)], indexing="xy"), -1
    )
    theirs = torch.nn.functional.grid_sample(
        tensor(x).double(), grid[None], padding_mode="border", align_corners=True
    )
    want = ((theirs - 128) / 128)[0].permute(1, 2, 0).numpy()
    assert np.abs(resizers.torch_fidelity(x) - want).max() < 1e-4


@pytest.mark.parametrize("size", SIZES)
def test_clean_fids_entrance_is_pillows_bicubic_of_float_channels(size):
    x = array(*size)
    got = resizers.clean_fid(x)
    for k in range(3):
        channel = Image.fromarray(x[..., k].astype(np.float32), mode="F")
        want = np.asarray(channel.resize((299, 299), Image.Resampling.BICUBIC)).clip(0, 255)
        assert np.array_equal(got[..., k], (want - 128) / 128)
    whole = np.asarray(Image.fromarray(x).resize((299, 299), Image.Resampling.BICUBIC), np.float32)
    assert (size == (299, 299)) == np.array_equal(got, (whole - 128) / 128)  # not rounded


def test_entrances_of_one_picture_differ():
    x = array(384, 384)
    made = [enter(x) for enter in resizers.ENTRANCES.values()]
    assert all(m.shape == (299, 299, 3) and m.dtype == np.float32 for m in made)
    for i, a in enumerate(made):
        for b in made[:i]:
            assert np.abs(a - b).max() > 0.1


def test_a_resizer_that_is_not_there_is_named():
    with pytest.raises(UsageError, match=r"--resizer=gigagan256: .*did you mean 'gigagan-256'"):
        resizers.named(resizers.RESIZERS, "gigagan256", "--resizer")


def installed(package: str, file: str, monkeypatch):
    """A module of a package whose other modules import what need not be there."""
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"{package} is not installed (CONTRIBUTING.md)")
    stub = types.ModuleType(package)
    stub.__path__ = list(found.submodule_search_locations)
    monkeypatch.setitem(sys.modules, package, stub)
    return importlib.import_module(f"{package}.{pathlib.Path(file).stem}")


@pytest.mark.parametrize("size", SIZES)
def test_clean_fids_own_resizer_gives_the_same_bits(size, monkeypatch):
    theirs = installed("cleanfid", "resize.py", monkeypatch).build_resizer("clean")(array(*size))
    assert np.array_equal(resizers.clean_fid(array(*size)), (theirs - 128) / 128)


@pytest.mark.parametrize("size", SIZES)
def test_torch_fidelitys_own_resizer_gives_the_same_bits(size, monkeypatch):
    module = installed("torch_fidelity", "interpolate_compat_tensorflow.py", monkeypatch)
    resize = module.interpolate_bilinear_2d_like_tensorflow1x
    theirs = resize(tensor(array(*size)), size=(299, 299), align_corners=False)
    want = ((theirs - 128) / 128)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(resizers.torch_fidelity(array(*size)), want)
