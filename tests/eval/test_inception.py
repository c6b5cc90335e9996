"""FID's Inception against torch, and the files of its weights."""

import importlib.util
import sys
import types

import numpy as np
import pytest
import torch
from support import inception as theirs

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval import inception, resizers

# From torch-fidelity's own conversion of the TensorFlow graph
# (utils/util_convert_inception_weights.py): one of each kind of branch.
SAME = {
    "Conv2d_4a_3x3": "conv_4", "Mixed_5c.branch5x5_2": "mixed_1.tower.conv_1",
    "Mixed_5b.branch3x3dbl_3": "mixed.tower_1.conv_2", "Mixed_6a.branch3x3": "mixed_3.conv",
    "Mixed_6a.branch3x3dbl_3": "mixed_3.tower.conv_2", "Mixed_6b.branch7x7_3": "mixed_4.tower.conv_2",
    "Mixed_6e.branch7x7dbl_5": "mixed_7.tower_1.conv_4", "Mixed_6c.branch_pool": "mixed_5.tower_2.conv",
    "Mixed_7a.branch3x3_2": "mixed_8.tower.conv_1", "Mixed_7a.branch7x7x3_4": "mixed_8.tower_1.conv_3",
    "Mixed_7b.branch3x3_2a": "mixed_9.tower.mixed.conv", "Mixed_7c.branch3x3_2b": "mixed_10.tower.mixed.conv_1",
    "Mixed_7b.branch3x3dbl_2": "mixed_9.tower_1.conv_1", "Mixed_7c.branch3x3dbl_3b": "mixed_10.tower_1.mixed.conv_1",
}  # fmt: skip


@pytest.fixture(scope="module")
def network():
    return theirs.make()


def test_the_features_are_torchs(tmp_path, network):
    torch.save(network.weights, tmp_path / "weights.pth")
    params = inception.read_inception(tmp_path / "weights.pth")
    x = np.random.default_rng(0).uniform(-1, 1, (2, 299, 299, 3)).astype(np.float32)
    want = network(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy()
    got = np.asarray(inception.pool3(params, x))
    assert got.shape == (2, 128) and np.abs(want).max() > 0.1
    assert np.abs(got - want).max() < 2e-6 * np.abs(want).max()


def test_the_released_files_form_of_torch_before_1_6_is_read(tmp_path, network):
    torch.save(network.weights, tmp_path / "new.pth")
    torch.save(network.weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    new, old = (inception.read_inception(tmp_path / f"{name}.pth") for name in ("new", "old"))
    assert new.keys() == old.keys()
    assert all(np.array_equal(a, b) for name in new for a, b in zip(new[name], old[name]))


def test_clean_fids_archive_gives_the_same_weights(tmp_path, network):
    plain = {n: x if not n.endswith("bn.weight") else x * 0 + 1 for n, x in network.weights.items()}
    torch.save(plain, tmp_path / "weights.pth")
    names = inception._names(script=True)
    for ours, name in SAME.items():
        assert names[ours].replace(".", "_") == f"layers_{name}".replace(".", "_")
    # Some as modules in modules, which the graph's names suggest; the others as the archive has it.
    theirs.archive(network, tmp_path / "a.pt", names | {k: f"layers.{SAME[k]}" for k in SAME})
    read = inception.read_inception(tmp_path / "a.pt")
    want = inception.read_inception(tmp_path / "weights.pth")
    assert read.keys() == want.keys() and len(read) == 94
    assert all(np.array_equal(a, b) for k in want for a, b in zip(want[k], read[k]))


def test_weights_of_another_inception_are_refused(tmp_path, network):
    other = dict(network.weights)
    other["fc.weight"] = torch.zeros(1000, 128)
    torch.save(other, tmp_path / "torchvision.pth")
    with pytest.raises(UsageError, match=r"1000 classes, and FID's has 1008: torchvision's own"):
        inception.read_inception(tmp_path / "torchvision.pth")
    del other["Mixed_7c.branch_pool.bn.running_var"]
    torch.save(other, tmp_path / "part.pth")
    with pytest.raises(UsageError, match=r"1 of its 471 arrays.*\n.*branch_pool.bn.running_var"):
        inception.read_inception(tmp_path / "part.pth")
    bad = {n: x * np.nan if "6d.branch1x1.conv" in n else x for n, x in network.weights.items()}
    torch.save(bad, tmp_path / "nan.pth")
    with pytest.raises(UsageError, match=r"Mixed_6d.branch1x1 holds NaN"):
        inception.read_inception(tmp_path / "nan.pth")
    with pytest.raises(UsageError, match=r"none.pth: no such file"):
        inception.read_inception(tmp_path / "none.pth")
    (tmp_path / "page.pth").write_text("<!doctype html>")
    with pytest.raises(UsageError, match="is a web page"):
        inception.read_inception(tmp_path / "page.pth")


def fidelity(monkeypatch):
    """torch-fidelity's network with random weights. Its package imports torchvision for others."""
    found = importlib.util.find_spec("torch_fidelity")
    if found is None:
        pytest.skip("torch-fidelity is not installed: pip install --no-deps torch-fidelity")
    package = types.ModuleType("torch_fidelity")
    package.__path__ = list(found.submodule_search_locations)
    monkeypatch.setitem(sys.modules, "torch_fidelity", package)
    module = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    whole = module.FeatureExtractorInceptionV3
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
    with monkeypatch.context() as patch:
        patch.setattr(whole, "load_state_dict", lambda *_: None)
        network = whole("fid", ["2048"])
    generator = torch.Generator().manual_seed(1)
    for name, x in network.state_dict().items():
        if x.ndim == 4:
            x.normal_(0, (2 / x[0].numel()) ** 0.5, generator=generator)
        elif x.is_floating_point():
            x.uniform_(0.5, 1.5, generator=generator)
            x -= 1 if name.endswith(("bias", "mean")) else 0
    return network


@pytest.mark.slow
def test_the_whole_network_is_torch_fidelitys_on_pictures(tmp_path, monkeypatch):
    network = fidelity(monkeypatch)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    params = inception.read_inception(tmp_path / "weights.pth")
    pictures = np.random.default_rng(0).integers(0, 256, (2, 64, 384, 3), np.uint8)
    want = network(torch.from_numpy(pictures).permute(0, 3, 1, 2))[0].numpy()
    got = inception.pool3(params, np.stack([resizers.torch_fidelity(p) for p in pictures]))
    assert got.shape == (2, 2048)
    assert np.abs(got - want).max() < 2e-6 * np.abs(want).max()
