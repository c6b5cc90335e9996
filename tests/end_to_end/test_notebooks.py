"""The notebooks: their files as they are kept, and each run from top to bottom with small settings."""

import base64
import io
import json
import os
import re

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image
from support.paths import ROOT
from support.processes import COMPILING, LEAN

from janus_jax.data.toy import shapes

NOTEBOOKS = sorted(ROOT.glob("notebooks/*"))
NAMES = [path.stem for path in NOTEBOOKS]
MOST_BYTES, MOST_LINES = 1_000_000, 40
MACHINES = r"/(?:tmp|home|root|Users|work|content|mnt|var)/|\b[A-Z]:\\\\"
LONGEST = 900  # seconds of a cell

# What the cell tagged `parameters` says in these tests.
PARAMETERS = {
    "quickstart": """
SHORT = True
FIELDS = {
    "evaluation.count": "0",
    "evaluation.every": "60",
    "model.understanding_encoder.width": "32",
    "model.understanding_encoder.mlp_width": "32",
    "model.understanding_encoder.layers": "1",
    "model.generation_encoder.channels": "8",
    "model.generation_encoder.z_channels": "8",
    "model.generation_encoder.codebook_size": "32",
    "model.transformer.width": "32",
    "model.transformer.mlp_width": "64",
    "model.transformer.layers": "2",
    "model.image_head_width": "32",
    "stages.stage0.steps": "30",
    "stages.stage3.optim.warmup_steps": "1",
    "stages.stage3.steps": "5",
    "stages.stage1.rows.count": "4",
    "stages.stage2.rows.count": "4",
    "stages.stage3.rows.count": "4",
}
""",
    "pretrained": 'MODEL = "quickstart"',
    "finetune": "STEPS = 60",
    "pod_plan": 'CONFIG = pathlib.Path("one_stage.py")\nTOPOLOGY = "cpu:2"',
}
PICTURES = {  # the cells that show one
    "quickstart": {"curves", "tokenizer-sheet", "first-sheet", "last-sheet", "draw", "map"},
    "pretrained": {"draw", "guidance"},
    "finetune": {
        "pictures", "shown", "before", "before-drawn", "curves", "after", "after-drawn",
    },
    "pod_plan": {"memory", "speed", "program"},
}  # fmt: skip
ONE_STAGE = f"""
import importlib.util

spec = importlib.util.spec_from_file_location("quickstart", {str(ROOT / "configs/quickstart.py")!r})
quickstart = importlib.util.module_from_spec(spec)
spec.loader.exec_module(quickstart)


def get_config():
    config = quickstart.get_config()
    for unused in ("stage0", "stage1", "stage3"):
        del config.stages[unused]
    config.data.datasets.scenes.stages = ("stage2",)
    del config.data.datasets["pictures"]
    config.stages.stage2.init = ()
    config.model.transformer.layers = 1
    return config
"""


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", nbformat.NO_CONVERT)


def code(notebook) -> dict:
    """The code cells by id."""
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def test_the_folder_holds_the_four_notebooks_and_nothing_else():
    assert {path.name for path in NOTEBOOKS} == {f"{name}.ipynb" for name in PARAMETERS}


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_kept_small_valid_and_without_outputs(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    notebook = read(name)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert path.stat().st_size <= MOST_BYTES
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for cell in code(notebook).values():
        assert cell.outputs == [] and cell.execution_count is None, cell.id
    assert re.findall(MACHINES, path.read_text("utf-8")) == []
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    tags = {cell.id: dict(cell.metadata) for cell in notebook.cells if cell.metadata}
    assert tags == {"parameters": {"tags": ["parameters"]}}


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_installs_first_and_explains_in_short_sentences(name):
    notebook = read(name)
    title, *_ = notebook.cells
    assert title.source.startswith("# ") and "jax.distributed" in title.source
    first, second, *_ = code(notebook).items()
    assert first[0] == "install" and second[0] == "parameters"
    assert "%pip install" in first[1].source and 'find_spec("janus_jax") is None' in first[1].source
    for before, cell in zip(notebook.cells, notebook.cells[1:]):
        assert len(cell.source.splitlines()) <= MOST_LINES, cell.id
        if cell.cell_type == "markdown":
            assert before.cell_type == "code" or before is title, f"{cell.id}: two texts in a row"
            *_, last = cell.source.split("\n\n")
            assert last.startswith(("#", "|")) or re.search(r"\.[)*]*$", last), cell.id


def test_all_notebooks_find_the_repository_alike():
    found = {code(read(name))["install"].source.split("SOURCE", 1)[1] for name in NAMES}
    assert len({text.split("    %pip")[0] for text in found}) == 1


def executed(name: str, folder, monkeypatch) -> nbformat.NotebookNode:
    """The notebook as it is after a run in `folder`/notebooks, beside the configs."""
    work = folder / "notebooks"
    work.mkdir()
    (folder / "configs").symlink_to(ROOT / "configs")
    (work / "one_stage.py").write_text(ONE_STAGE)
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(folder / variable.lower()))
    env = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    env |= COMPILING | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": LEAN}
    notebook = read(name)
    code(notebook)["parameters"].source = PARAMETERS[name]
    where = {"metadata": {"path": str(work)}}
    NotebookClient(notebook, timeout=LONGEST, resources=where).execute(env=env)
    assert all(cell.execution_count for cell in code(notebook).values())
    return notebook


def text(cell) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def pictures(notebook) -> dict[str, Image.Image]:
    """What the cells show, by their ids."""
    found = {}
    for name, cell in code(notebook).items():
        for output in cell.outputs:
            if "image/png" in output.get("data", {}):
                found[name] = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"])))
    return found


def require_pictures(notebook, name: str):
    found = pictures(notebook)
    assert set(found) == PICTURES[name]
    for cell, picture in found.items():
        colours = picture.convert("RGB").getcolors(1 << 24)
        assert min(picture.size) > 100 and len(colours) > 2, f"{name}, {cell}"


@pytest.mark.slow
@pytest.mark.processes
def test_the_quick_start_learns_draws_answers_and_shows_its_attention(tmp_path, monkeypatch):
    notebook = executed("quickstart", tmp_path, monkeypatch)
    require_pictures(notebook, "quickstart")
    workdir = tmp_path / "notebooks/runs/quickstart"
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    for stage in ("stage0", "stage2"):
        losses = [record["loss"] for record in records if record["stage"] == stage]
        assert losses[-1] < 0.9 * losses[0], stage
    cells = code(notebook)
    assert "stage2: 60 steps" in text(cells["train"])
    assert len(re.findall(r"\? -> ", text(cells["ask"]))) == 3
    assert re.search(r"tokens: \(2, 4, \d+, \d+\)", text(cells["check"]))


@pytest.mark.slow
@pytest.mark.processes
def test_released_weights_chat_draw_and_come_back_byte_for_byte(tmp_path, monkeypatch):
    notebook = executed("pretrained", tmp_path, monkeypatch)
    require_pictures(notebook, "pretrained")
    cells = code(notebook)
    assert text(cells["chat"]).strip() in shapes.COLOURS
    assert text(cells["further"]).strip() in shapes.SHAPES
    count, size = re.search(
        r"(\d+) tensors, ([\d,]+) bytes, all equal", text(cells["compare"])
    ).groups()
    assert int(count) == 255 and int(size.replace(",", "")) > 2_000_000


@pytest.mark.slow
@pytest.mark.processes
def test_own_pictures_are_checked_learned_and_exported(tmp_path, monkeypatch):
    notebook = executed("finetune", tmp_path, monkeypatch)
    require_pictures(notebook, "finetune")
    cells = code(notebook)
    assert re.search(r"castle\.png: no such file", text(cells["check"]))
    assert "«[36 x image]»" in text(cells["show"]) and "« a house" in text(cells["show"])
    named, drawn = re.findall(r"right: (\d) of 8", text(cells["score"]))
    assert int(named) >= 6 and int(drawn) >= 6
    assert "model.safetensors" in text(cells["again"])


@pytest.mark.slow
@pytest.mark.processes
def test_a_stage_is_planned_and_its_tables_are_read(tmp_path, monkeypatch):
    notebook = executed("pod_plan", tmp_path, monkeypatch)
    require_pictures(notebook, "pod_plan")
    cells = code(notebook)
    study = json.loads((tmp_path / "notebooks/plan.json").read_text())["stages"]["stage2"]
    assert study["fits"] and study["bytes"]["trainable"] > 0
    assert "FITS" in text(cells["plan"]) and "planned: stage2" in text(cells["study"])
    for kind in {c["kind"] for c in study["collectives"]}:
        assert kind in text(cells["links"])
