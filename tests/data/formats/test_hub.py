"""Folders that `datasets` has saved."""

import pytest
from support.formats import hub_table, parquet, refusal, saved_by_datasets

from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset


def test_hub_folders_of_other_pictures_are_others(tmp_path):
    pytest.importorskip("datasets")
    found = set()
    for name, order in (("a", [0, 1]), ("b", [0, 1]), ("c", [1, 0])):
        rows = hub_table(2)
        pictures = rows.select(order).select_columns("img")
        rows = rows.remove_columns("img").add_column(
            "img", list(pictures.with_format("arrow")[:]["img"].to_pylist())
        )
        (tmp_path / name).mkdir()
        rows.cast_column("img", pictures.features["img"]).save_to_disk(
            str(tmp_path / name / "saved")
        )
        found.add(
            open_dataset(Dataset("generation", str(tmp_path / name / "saved")), 24, 0).fingerprint
        )
    assert len(found) == 2
    (tmp_path / "none").mkdir()
    hub_table(2).select([]).save_to_disk(str(tmp_path / "none" / "saved"))
    assert (
        "none/saved" in (message := refusal(tmp_path / "none" / "saved")) and "no rows" in message
    )
    hub_table(2).select([]).to_parquet(str(tmp_path / "none.parquet"))
    assert "none.parquet: holds no rows" in refusal(tmp_path / "none.parquet")


def test_the_column_of_a_class_holds_its_word(tmp_path):
    for make in (parquet, saved_by_datasets):
        path = str(make(tmp_path, 3))
        for caption in ("label", "name", "class"):
            made = open_dataset(Dataset("generation", path, caption=caption), 24, 0)
            assert [made[i]["captions"] for i in range(3)] == [
                ["an astronaut"],
                ["coffee"],
                ["cat"],
            ]
        templates = open_dataset(Dataset("generation", path, prompt=("{caption}: {label}",)), 24, 0)
        assert templates[1]["captions"] == ["coffee number 1: coffee"]
        # The only column of pictures goes by its own name too.
        assert open_dataset(Dataset("generation", path, picture="img"), 24, 0).image(0).size
