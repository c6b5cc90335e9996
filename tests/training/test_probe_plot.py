"""The picture of what probes found, as a user asks for it."""

import json

import numpy as np
import pytest
from PIL import Image

from janus_jax.common import exit_codes
from janus_jax.training import probe_plot


def write(directory, cosines, stage="stage2", layers=12, generation=True):
    """metrics.jsonl of a run that was looked at in every second record."""
    directory.mkdir(parents=True)
    lines = []
    for i, cosine in enumerate(cosines):
        record = {"stage": stage, "step": 10 * (i + 1), "time": 0.0, "loss": 1.0}
        if i % 2:
            record |= {"probes/norm_understanding": 2.0}
            if generation:
                record |= {"probes/cosine": cosine, "probes/norm_generation": 1.0}
                record |= {f"probes/cosine/{k:02}": cosine + k / 20 for k in range(layers)}
        lines.append(json.dumps(record))
    (directory / "metrics.jsonl").write_text("\n".join(lines) + "\n")


def test_a_run_is_read_by_step_and_layer(tmp_path):
    write(tmp_path / "d", [0.1, 0.2, 0.3, -0.4])
    records = probe_plot.read_run(str(tmp_path / "d"))
    assert probe_plot.values_of(records, "cosine") == ([20, 40], [0.2, -0.4])
    steps, values = probe_plot.by_layer(records, "cosine")
    assert steps == [20, 40] and values.shape == (2, 12)
    np.testing.assert_allclose(values[1], -0.4 + np.arange(12) / 20)


def test_the_picture_has_a_line_a_run_and_a_panel_for_each_with_layers(tmp_path, capsys):
    flags = []
    for name, cosines in (("d", [0.3] * 8), ("a", [-0.2] * 8)):
        write(tmp_path / name / "run", cosines)
        flags.append(f"--run={tmp_path / name / 'run'}")
    write(tmp_path / "e" / "run", [0.0] * 8, generation=False)
    flags.append(f"--run={tmp_path / 'e' / 'run'}")
    out = tmp_path / "out" / "probes.png"
    assert probe_plot.main([*flags, f"--out={out}"]) == exit_codes.DONE
    assert "d/run (4 steps), a/run (4 steps), e/run (4 steps)" in capsys.readouterr().out
    all_three = np.asarray(Image.open(out).convert("RGB"))
    assert probe_plot.main([flags[2], f"--out={out}"]) == exit_codes.DONE
    assert "kept as probes.1.png" in capsys.readouterr().out
    alone = np.asarray(Image.open(out).convert("RGB"))
    assert all_three.shape[0] > alone.shape[0], "no run with layers, no panel of them"
    red, _, blue = np.moveaxis(all_three[alone.shape[0] :].astype(int), -1, 0)
    assert (red - blue > 60).sum() > 1000 < (blue - red > 60).sum(), "one run apart, one together"


@pytest.mark.parametrize(
    "flags, told",
    [
        ([], "--run is missing"),
        (["--run={0}/nowhere"], "no metrics.jsonl in it"),
        (["--run={0}/d", "--run={0}/d"], "named twice"),
        (["--run={0}/d", "--stage=stage3"], "did you mean 'stage2'"),
        (["--run={0}/plain"], "holds no probes"),
    ],
)
def test_runs_that_cannot_be_plotted_are_refused(flags, told, tmp_path, capsys):
    write(tmp_path / "d", [0.1, 0.2])
    write(tmp_path / "plain", [0.1])
    out = tmp_path / "probes.png"
    flags = [flag.format(tmp_path) for flag in flags]
    assert probe_plot.main([*flags, f"--out={out}"]) == exit_codes.USAGE
    assert told in capsys.readouterr().err and not out.exists()
