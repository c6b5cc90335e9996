"""The distance of folders: which pictures, under which name, and what is refused."""

import functools
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from support import inception as theirs
from support import pictures, sampling, tiny

from janus_jax.common.exit_codes import UsageError
from janus_jax.eval import features
from janus_jax.eval.distance import distance, folder_statistics, picture_files
from janus_jax.eval.distance import main as command
from janus_jax.eval.frechet import save_statistics
from janus_jax.sample import understand

QUIET = io.StringIO()


def folder(path, count: int, side: int = 24, seed: int = 0):
    for i in range(count):
        place = path / f"{i % 3}"
        place.mkdir(parents=True, exist_ok=True)
        pictures.noise(side, side, seed + i).save(place / f"{i:03}.{'png' if i % 2 else 'jpg'}")
    (path / "metadata.jsonl").write_text("{}")
    return path


def test_pictures_of_all_folders_count_by_name_and_other_files_do_not(tmp_path):
    path = folder(tmp_path / "a", 7)
    names = [p.relative_to(path).as_posix() for p in picture_files(path)]
    assert names == [
        "0/000.jpg",
        "0/003.png",
        "0/006.jpg",
        "1/001.png",
        "1/004.jpg",
        "2/002.jpg",
        "2/005.png",
    ]


def test_the_distance_of_folders_is_that_of_their_features(tmp_path):
    """One value a picture, so that the distance is known: the means' and the deviations' squares."""
    greys = {"a": np.arange(20, 60), "b": np.arange(100, 240, 2)}
    for name, values in greys.items():
        (tmp_path / name).mkdir()
        for v in values:
            Image.new("RGB", (8, 8), (int(v),) * 3).save(tmp_path / name / f"{v}.png")
    seen = features.Features(
        "Fréchet distance (grey features)", {"features": "grey"},
        lambda batch: np.stack([p.mean() for p in batch])[:, None], batch=16,
    )  # fmt: skip
    found = distance(tmp_path / "a", tmp_path / "b", seen, "gigagan-256", "none", QUIET)
    a, b = greys.values()
    want = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert found.value == pytest.approx(want, rel=1e-12)
    assert found.counts == (40, 70) and found.title == "Fréchet distance (grey features)"
    assert found.facts == {"features": "grey", "resizers": ["gigagan-256", "none"]}
    assert found.notes == ()


def test_stored_statistics_stand_for_the_folder_and_say_how_they_were_made(tmp_path):
    a, b = folder(tmp_path / "a", 5), folder(tmp_path / "b", 6, seed=50)
    seen = features.pixel_features(2)
    save_statistics(tmp_path / "b.npz", folder_statistics(b, seen, "none", QUIET))
    whole = distance(a, b, seen, out=QUIET)
    stored = distance(a, tmp_path / "b.npz", seen, out=QUIET)
    assert stored.value == pytest.approx(whole.value, rel=1e-12)
    assert (stored.facts, stored.counts) == (whole.facts, (5, 6))
    assert [note.split(": ")[1][:27] for note in whole.notes] == [
        "5 pictures for 12 features,",
        "6 pictures for 12 features,",
    ]
    with pytest.raises(
        UsageError, match=r"b.npz: statistics.*another way.*\n.*resizer: 'none' -> 'bicubic-256'"
    ):
        distance(a, tmp_path / "b.npz", seen, "bicubic-256", out=QUIET)
    with pytest.raises(UsageError, match=r"features: 'pixels 2x2' -> 'pixels 3x3'"):
        distance(a, tmp_path / "b.npz", features.pixel_features(3), out=QUIET)
    both = distance(tmp_path / "b.npz", tmp_path / "b.npz", None)
    assert both.title == "Fréchet distance (pixels 2x2 features)" and both.value < 1e-9


def test_statistics_of_other_programs_are_taken_with_a_note(tmp_path):
    a = folder(tmp_path / "a", 30)
    seen = features.pixel_features(2)
    made = folder_statistics(a, seen, "none", QUIET)
    np.savez(tmp_path / "theirs.npz", mu=made.mu, sigma=made.sigma)
    found = distance(a, tmp_path / "theirs.npz", seen, out=QUIET)
    assert found.value < 1e-9 and found.counts == (30, 0)
    assert "theirs.npz does not say with which features and resizer it was made" in found.notes[0]
    assert found.facts["resizers"] == ["none", "unknown"]
    assert (
        distance(*[tmp_path / "theirs.npz"] * 2, None).title
        == "Fréchet distance (features unknown)"
    )


def test_pictures_that_cannot_be_read_are_all_named_and_none_is_left_out(tmp_path):
    path = folder(tmp_path / "a", 6)
    (path / "0" / "cut.png").write_bytes(pictures.half("PNG"))
    (path / "2" / "words.jpg").write_text("no picture")
    with pytest.raises(UsageError) as raised:
        distance(path, path, features.pixel_features(2), out=QUIET)
    lines = str(raised.value).splitlines()
    assert "none may be missing" in lines[0] and len(lines) == 3
    assert "0/cut.png: cannot be read (" in lines[1] and "2/words.jpg: cannot be read (" in lines[2]


def test_sides_that_are_no_pictures_are_refused(tmp_path):
    seen = features.pixel_features(2)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.json").write_text("{}")
    with pytest.raises(UsageError, match=r"empty: no picture .*it holds 1 .json"):
        distance(tmp_path / "empty", tmp_path, seen, out=QUIET)
    with pytest.raises(UsageError, match=r"gone: no statistics in .npz form"):
        distance(tmp_path / "gone", tmp_path, seen, out=QUIET)
    path = folder(tmp_path / "a", 3)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "more").symlink_to(path)
    with pytest.raises(
        UsageError, match=r"links to folders, which are not followed.*\n.*links/more"
    ):
        distance(tmp_path / "links", path, seen, out=QUIET)
    with pytest.raises(UsageError, match="pictures need features"):
        distance(path, path, None)


def test_pictures_of_several_sizes_need_no_resizer_for_inception_and_the_title_is_fid(tmp_path):
    network = theirs.make()
    torch.save(network.weights, tmp_path / "weights.pth")
    for side in (40, 90, 300):
        pictures.noise(side, side, side).save(tmp_path / f"{side}.png")
    seen = features.inception_features(tmp_path / "weights.pth", "torch-fidelity", batch=2)
    found = distance(tmp_path, tmp_path, seen, out=QUIET)
    assert found.title == "FID" and found.value < 1e-6
    assert found.facts["entrance"] == "torch-fidelity" and len(found.facts["weights_sha256"]) == 64
    json.dumps(dict(found.facts))


def test_a_models_own_encoder_gives_features_of_each_picture_alone(one_device):
    see = functools.partial(understand.features, sampling.make())
    side = tiny.CONFIG.understanding_encoder.image_size
    seen = features.understanding_features(see, side, tiny.processor(), weights="abc")
    drawn = [np.asarray(pictures.noise(20, 20 + i, i)) for i in range(3)]
    rows = seen.extract(drawn)
    assert rows.shape == (3, tiny.CONFIG.transformer.width)
    assert np.allclose(rows[1], seen.extract(drawn[1:2])[0], rtol=1e-5, atol=1e-6)
    assert np.abs(rows[0] - rows[1]).max() > 1e-3
    assert seen.title == "Fréchet distance (understanding encoder features)"
    assert seen.facts == {"features": "understanding encoder", "weights": "abc"}


def test_the_command_keeps_the_references_statistics_and_takes_them_again(tmp_path, capsys):
    folder(tmp_path / "a", 6)
    folder(tmp_path / "b", 6, seed=50)
    flags = ["--features=pixels", f"--pictures={tmp_path}/a"]
    assert command([*flags, f"--reference={tmp_path}/b", f"--save={tmp_path}/b.npz"]) == 0
    first = capsys.readouterr().out
    assert "Fréchet distance (pixels 8x8 features): " in first
    assert command([*flags, f"--reference={tmp_path}/b.npz"]) == 0
    assert capsys.readouterr().out == first
    assert command([f"--pictures={tmp_path}/a", f"--reference={tmp_path}/b"]) == 2
    assert "--inception: missing" in capsys.readouterr().err
