"""Which records are held out: exactly the share, the same for whoever asks, and never trained on."""

import pickle

import pytest
from support import tiny
from support.formats import photo

from janus_jax.config.read import resolve
from janus_jax.config.schema import Dataset, Rows
from janus_jax.data import catalog
from janus_jax.data.holdout import Part, stage_entries
from janus_jax.data.sources import SourceError
from janus_jax.data.toy import shapes_sources
from janus_jax.model import batch as bt
from janus_jax.model import config as model_config

RECORDS = 200


def indices(records: int, share: float, seed: int = 0) -> tuple[list[int], list[int]]:
    """The records that are held out, and the others, by number."""
    source = tiny.Numbered(records)
    parts = [Part.of(source, "any", share, seed, held) for held in (True, False)]
    return tuple([part[i] for i in range(len(part))] for part in parts)


@pytest.mark.parametrize(
    "records, share, count", [(200, 0.1, 20), (200, 0.001, 1), (3, 0.5, 2), (60, 8, 8), (2, 1, 1)]
)
def test_the_held_out_records_are_exactly_the_share_or_as_many_and_the_others_all_the_rest(
    records, share, count
):
    held, others = indices(records, share)
    assert len(held) == count and sorted(held + others) == list(range(records))


@pytest.mark.parametrize("held", [True, False])
def test_a_part_ends_where_the_other_begins(held):
    part = Part.of(tiny.Numbered(20), "any", 0.1, 0, held)
    for i in (-1, len(part), 20):
        with pytest.raises(IndexError):
            part.index(i)
    assert len(list(part)) == len(part)


def test_a_seed_and_a_number_of_records_hold_out_the_same_records_wherever_they_lie():
    same = [indices(RECORDS, 0.1)[0] for _ in range(2)]
    assert same[0] == same[1] != indices(RECORDS, 0.1, seed=1)[0]
    questions = shapes_sources.ShapesUnderstanding(0, RECORDS)
    part = pickle.loads(pickle.dumps(Part.of(questions, "questions", 0.1, 0, True)))
    assert [part.index(i) for i in range(len(part))] == same[0]
    assert [part.where(i) for i in range(20)] == [f"shapes:{i}" for i in same[0]]
    assert part[3] == questions[same[0][3]] and part.scored_by == "shapes"
    assert (part.image(3) == questions.image(same[0][3])).all()


def test_a_million_records_are_cut_without_a_list_of_them():
    million = tiny.Numbered(1_000_000)
    held = Part.of(million, "any", 0.001, 0, True)
    others = Part.of(million, "any", 0.001, 0, False)
    found = {held[i] for i in range(1000)}
    assert len(held) == len(found) == 1000 and len(others) == 999_000
    assert not found & {others[i] for i in range(0, 999_000, 37)}


def test_what_a_part_holds_and_where_it_begins_are_in_its_fingerprint():
    parts = [
        Part.of(tiny.Numbered(RECORDS), "any", share, seed, held)
        for share, seed, held in [(0.1, 0, True), (0.1, 0, False), (0.2, 0, True), (0.1, 1, True)]
    ]
    assert len({part.fingerprint for part in parts}) == 4


def test_a_share_that_leaves_nothing_to_train_on_names_the_data_set():
    with pytest.raises(SourceError, match=r"data.datasets.few: of its 1 record\(s\)"):
        Part.of(tiny.Numbered(1), "few", 0.1, 0, False)


def experiment(evaluation: float, **holdouts):
    """A config of three data sets."""
    lines = {
        name: {"kind": "text", "path": "shapes:"}
        | {k: v for k, v in [("holdout", held)] if v != ""}
        for name, held in holdouts.items()
    }
    stage = {
        "trainable": ("text_head",), "init": (), "steps": 10, "batch_size": 4,
        "ratio": {"understanding": 0, "text": 1, "generation": 0}, "optim": {"learning_rate": 1e-3},
    }  # fmt: skip
    values = {
        "model": model_config.to_dict(tiny.CONFIG),
        "template": {},
        "data": {"datasets": lines},
        "stages": {"one": stage},
        "evaluation": {"holdout": evaluation},
    }
    return resolve(values, {})[0]


def test_a_data_sets_own_holdout_goes_before_that_of_all():
    built = experiment(0.1, shared="", none=0, eight=8, apart="elsewhere")
    sources = {name: tiny.Numbered(200 + k) for k, name in enumerate(built.data.datasets)}
    sources["apart"].held_out = tiny.Numbered(5)
    held, trained = (
        {e.name: e.source for e in stage_entries(built, "one", sources, held_out)}
        for held_out in (True, False)
    )
    assert {name: len(source) for name, source in held.items()} == {
        "shared": 20, "eight": 8, "apart": 5,
    }  # fmt: skip
    assert {name: len(source) for name, source in trained.items()} == {
        "shared": 180, "none": 201, "eight": 194, "apart": 203,
    }  # fmt: skip
    assert held["apart"] is sources["apart"].held_out
    assert not {*held["eight"]} & {*trained["eight"]}


def test_what_is_held_out_by_path_is_opened_beside_and_never_what_is_trained_on(tmp_path):
    for name in ("mine", "apart"):
        (tmp_path / f"{name}.txt").write_text(f"some words to {name}\n\nand more\n")
    line = lambda path, holdout: Dataset(
        "text", str(tmp_path / path), holdout=str(tmp_path / holdout)
    )
    source = catalog.open_dataset(line("mine.txt", "apart.txt"), 24, 0)
    assert source[0]["text"] == "some words to mine" and len(source) == 2
    assert source.held_out[0]["text"] == "some words to apart"
    for path, holdout, said in [
        ("mine.txt", "mine.txt", "mine.txt"),
        ("*.txt", "apart.txt", "apart.txt"),
        ("mine.txt", ".", "mine.txt"),
    ]:
        with pytest.raises(SourceError, match="names the same: it would be trained on") as error:
            catalog.open_dataset(line(path, holdout), 24, 0)
        assert str(error.value).endswith(said)
    with pytest.raises(SourceError, match=r"holdout: .*gone.txt: no such file"):
        catalog.open_dataset(line("mine.txt", "gone.txt"), 24, 0)
    for name, to in (("d/link.txt", "mine.txt"), ("e/two.txt", "d/link.txt"), ("f", "e")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(tmp_path / to)
    for path, holdout in (("mine.txt", "d"), ("f", "mine.txt"), ("d", "e"), ("e", "f/two.txt")):
        with pytest.raises(SourceError, match="names the same"):
            catalog.open_dataset(line(path, holdout), 24, 0)
    for path in ("shapes:", f"{tmp_path}/mine.txt,shapes:"):
        with pytest.raises(SourceError, match="names the same"):
            catalog.open_dataset(Dataset("text", path, holdout="shapes:"), 24, 0)


def test_classes_whose_pictures_are_called_by_splits_may_have_a_folder_held_out(tmp_path):
    for name in ("d/bus/train_1.jpg", "d/bus/test_1.jpg", "apart/bus/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(photo(0))
    line = Dataset("generation", f"{tmp_path}/d", holdout=f"{tmp_path}/apart")
    assert len(catalog.open_dataset(line, 24, 0).held_out) == 1


def test_batches_of_the_others_never_hold_a_held_out_record():
    held = set(indices(RECORDS, 0.1)[0])
    source = shapes_sources.ShapesText(0, RECORDS)
    part = Part.of(source, "text", 0.1, 0, False)
    batches = tiny.batches(
        {"text": part}, tiny.processor(), tiny.CONFIG, Rows(2, 96, 0, 0), {**dict.fromkeys(bt.TASKS, 0), "text": 1}
    )  # fmt: skip
    read = set()
    for _ in range(60):
        _, examples = next(batches)
        numbers = examples[:, bt.EXAMPLE_COLUMNS.index("record")]
        read |= {part.index(i) for i in numbers}
    batches.close()
    assert len(read) == 180 and not read & held
