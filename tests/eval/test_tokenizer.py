"""The command `eval tokenizer`: its pictures, its figures against other ways to them, and what it
refuses."""

import json
import shutil

import jax
import numpy as np
import pytest
import torch
from flax import nnx
from PIL import Image
from skimage import metrics
from support import perceptual as theirs
from support import pictures, tiny
from support.mesh import on_mesh
from support.paths import CONFIGS

from janus_jax.data.images import generation_image
from janus_jax.distributed import initialize
from janus_jax.eval import __main__ as command
from janus_jax.eval import reconstructions
from janus_jax.eval.reconstruct import usage
from janus_jax.model.batch import pixels
from janus_jax.weights.load import export

COUNT, SIDE = 37, 16
PART = 16


@pytest.fixture(scope="module", autouse=True)
def alone():
    """One process, as the others of this test session are not its."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(initialize, "initialize", lambda: None)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder of pictures of several sizes, a tokenizer and LPIPS's weights."""
    root = tmp_path_factory.mktemp("world")
    (root / "pictures").mkdir()
    for i in range(COUNT):
        pictures.noise(SIDE + i % 5, SIDE + i % 7, i).save(root / "pictures" / f"{i:02}.png")
    with on_mesh():
        model = tiny.make_model(seed=0).generation_encoder
        part = {"generation_encoder": nnx.to_pure_dict(nnx.state(model))}
        export(root / "weights", part, part_of=tiny.CONFIG)
    torch.save(theirs.vgg() | theirs.heads(), root / "lpips.pth")
    return root, model


def run(root, out, *flags) -> int:
    words = [
        f"--weights={root}/weights",
        f"--path={root}/pictures",
        f"--size={SIDE}",
        f"--out={out}",
    ]
    given = {word.split("=")[0] for word in flags}
    words = [w for w in words if w.split("=")[0] not in given]
    return command.main(["tokenizer", *words, *(w for w in flags if w != "--path=")])


@pytest.fixture(scope="module")
def result(world):
    """In parts that do not fit the count, over eight devices."""
    root, _ = world
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reconstructions, "PART", PART)
        assert run(root, root / "out", f"--lpips={root}/lpips.pth", "--batch=1") == 0
    return root / "out"


def read(folder) -> np.ndarray:
    paths = sorted(folder.iterdir())
    assert [p.name for p in paths] == [f"{i:06}.png" for i in range(COUNT)]
    return np.stack([np.asarray(Image.open(p)) for p in paths])


def test_the_folders_hold_squares_and_what_the_tokenizer_makes_of_them(world, result):
    root, model = world
    squares = np.stack([
        generation_image(Image.open(p), SIDE) for p in sorted((root / "pictures").iterdir())
    ])  # fmt: skip
    assert np.array_equal(read(result / "originals"), squares)
    with on_mesh():
        drawn = jax.jit(lambda m, x: m.decode(m.encode(pixels(x)), (4, 4)))(model, squares[:5])
    want = np.clip(np.round((np.asarray(drawn, np.float64) + 1) * 127.5 + 1e-9), 0, 255)
    got = read(result / "reconstructions")[:5].astype(int)
    assert np.abs(got - want).max() <= 1 and (got == want).mean() > 0.99


def test_the_reports_figures_are_those_of_the_folders(result):
    x, y = (read(result / name) for name in ("originals", "reconstructions"))
    report = json.loads((result / "report.json").read_text())
    scores = {name: one["value"] for name, one in report["scores"].items()}
    options = {"gaussian_weights": True, "use_sample_covariance": False, "channel_axis": -1}
    flip = lambda a: torch.from_numpy(a.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
    want = {
        "psnr": [metrics.peak_signal_noise_ratio(a, b) for a, b in zip(x, y)],
        "ssim": [metrics.structural_similarity(a, b, **options) for a, b in zip(x, y)],
        "lpips": theirs.distance(theirs.vgg() | theirs.heads(), flip(x), flip(y)).numpy(),
    }
    lines = [json.loads(line) for line in (result / "pictures.jsonl").read_text().splitlines()]
    for name, values in want.items():
        assert scores[name] == pytest.approx(np.mean(values), rel=1e-4)
        assert [line[name] for line in lines] == pytest.approx(list(values), rel=1e-3)
        low, high = report["scores"][name]["interval"]
        assert low < scores[name] < high
    ids = np.concatenate([np.load(p)["ids"] for p in sorted((result / "parts").iterdir())])
    assert ids.shape == (COUNT, 16)
    share = np.unique(ids, return_counts=True)[1] / ids.size
    assert scores["usage"] == len(share) / 64 and report["scores"]["usage"]["interval"] is None
    assert scores["perplexity"] == pytest.approx(np.exp(-(share * np.log(share)).sum()))
    assert report["counts"]["codes"] == ids.size and report["settings"]["model"]["norm_groups"] == 4
    assert [line["picture"] for line in lines[:2]] == ["00.png", "01.png"]


def test_usage_of_known_counts():
    assert usage(np.array([5, 5, 0, 0])) == {"usage": 0.5, "perplexity": pytest.approx(2)}
    assert usage(np.array([9, 0])) == {"usage": 0.5, "perplexity": pytest.approx(1)}


def test_what_is_lost_is_made_again_and_the_rest_is_kept(world, result, tmp_path, monkeypatch):
    """In one part alone, and with no other settings; the distance takes the folder."""
    root, _ = world
    out = tmp_path / "again"
    shutil.copytree(result, out)
    (out / "parts" / "000016.npz").unlink()
    for i in range(PART, 2 * PART):
        (out / "reconstructions" / f"{i:06}.png").unlink()
    kept = (out / "parts" / "000000.npz").stat()
    monkeypatch.setattr(reconstructions, "PART", PART)
    assert run(root, out, f"--lpips={root}/lpips.pth", "--batch=1") == 0
    assert (out / "parts" / "000000.npz").stat().st_mtime_ns == kept.st_mtime_ns
    assert np.array_equal(read(out / "reconstructions"), read(result / "reconstructions"))
    scores = [
        json.loads((folder / "report.json").read_text())["scores"] for folder in (out, result)
    ]
    for name, one in scores[1].items():
        assert scores[0][name]["value"] == pytest.approx(one["value"], rel=1e-6)
    assert run(root, out) == 2  # without LPIPS it is another result
    assert command.main(["distance", str(out), f"{out}/originals", "--features=pixels"]) == 0
    assert len(json.loads((out / "report.json").read_text())["scores"]) == len(scores[0]) + 1
    assert Image.open(out / "sheet.png").size[1] > 200
    before = (out / "report.json").read_bytes()
    assert run(root, out, f"--lpips={root}/lpips.pth", "--batch=1") == 0
    assert (out / "report.json").read_bytes() == before, "nothing was made, and it says otherwise"


def test_a_whole_model_says_its_size_and_the_first_pictures_are_enough(world, tmp_path, result):
    root, _ = world
    with on_mesh():
        params = nnx.to_pure_dict(nnx.state(tiny.make_model(seed=0)))
        export(tmp_path / "whole", params, tiny.CONFIG, tiny.processor())
    out = tmp_path / "out"
    flags = ("--size=0", "--limit=9", "--batch=1", f"--lpips={root}/lpips.pth")
    assert run(root, out, f"--weights={tmp_path}/whole", *flags) == 0
    assert len(list((out / "originals").iterdir())) == 9
    first, many = ((folder / "reconstructions" / "000008.png") for folder in (out, result))
    assert first.read_bytes() == many.read_bytes()


def refused(capsys, *arguments) -> str:
    assert run(*arguments) == 2
    told = capsys.readouterr().err
    assert "Traceback" not in told
    return told


def test_pictures_that_are_too_small_or_damaged_are_named_all(world, tmp_path, capsys):
    root, _ = world
    shutil.copytree(root / "pictures", tmp_path / "some")
    (tmp_path / "some" / "03.png").write_bytes(b"no picture")
    pictures.noise(15, 90).save(tmp_path / "some" / "05.png")
    told = refused(capsys, root, tmp_path / "out", f"--path={tmp_path}/some")
    assert "05.png: 90 x 15 pixels, and enlarged it would be no original of 16" in told
    assert "03.png" in told and "give another --size" in told
    assert not (tmp_path / "out" / "report.json").exists()


def test_flags_that_cannot_be_followed_are_told(world, tmp_path, capsys, siglip_weights):
    root, _ = world
    out = tmp_path / "out"
    told = refused(capsys, root, out, "--size=18")
    assert "--size=18: must be a multiple of the tokenizer's stride of 4, and 16 at least" in told
    assert "--size: missing; a tokenizer alone does not say" in refused(
        capsys, root, out, "--size=0"
    )
    told = command.main(["tokenizer", f"--weights={root}/weights", f"--out={out}"])
    assert told == 2 and "no pictures are named: give --path=..." in capsys.readouterr().err
    told = refused(capsys, root, out, "--path=shapes:", "--kind=text")
    assert "--kind=text: a VQ tokenizer takes pictures of kind generation alone" in told
    told = refused(capsys, root, out, f"--lpips={root}/weights/model.safetensors")
    assert "not VGG16 and LPIPS's heads" in told and "bring torchvision's" in told
    told = refused(capsys, root, out, f"--weights={siglip_weights}")
    assert "holds no VQ tokenizer (generation_encoder); it is janus_jax" in told
    told = refused(
        capsys, root, out, "--path=", f"--config={CONFIGS}/quickstart.py", "--dataset=pictures"
    )
    assert "config -> weights:" in told and "generation_encoder.z_channels: 32 -> 16" in told
    shutil.copytree(root / "weights", tmp_path / "older")
    (tmp_path / "older" / "manifest.json").unlink()
    told = refused(capsys, root, out, f"--weights={tmp_path}/older")
    assert "does not say its norm_groups" in told and "name the --config" in told
    assert not out.exists()


@pytest.fixture
def siglip_weights(tmp_path):
    part = {"understanding_encoder": {"positions": jax.numpy.zeros((4, 8))}}
    export(tmp_path / "part", part, part_of=tiny.CONFIG)
    return tmp_path / "part"
