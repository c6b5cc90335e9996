"""Parquet by row groups."""

import pytest
from support.formats import photo

from janus_jax.config.schema import Dataset
from janus_jax.data.catalog import open_dataset
from janus_jax.data.formats.parquet import Parquet


def test_parquet_rows_are_the_same_in_any_order(tmp_path):
    """A row group is read up to the row that is asked for at first, whole when more of it is."""
    pyarrow, parquet = map(pytest.importorskip, ("pyarrow", "pyarrow.parquet"))
    pictures = [bytes([k]) * 2_000_000 for k in range(8)]  # larger than a page
    parquet.write_table(
        pyarrow.table({"image": pictures}), tmp_path / "x.parquet", row_group_size=4
    )
    for order in (range(8), reversed(range(8)), (5, 1, 7, 0, 5, 6, 2, 3, 4)):
        reader = Parquet(str(tmp_path))
        for k in order:
            assert reader.open(reader[k]["image"]) == pictures[k]


def test_rows_name_pictures_below_the_folder_that_the_line_names(tmp_path):
    """The folder was accepted, and not read."""
    pyarrow, parquet = map(pytest.importorskip, ("pyarrow", "pyarrow.parquet"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(photo(0))
    table = pyarrow.table({"image": ["a.jpg"], "caption": ["x"]})
    parquet.write_table(table, tmp_path / "x.parquet")
    line = Dataset("generation", str(tmp_path / "x.parquet"), images=str(tmp_path / "photos"))
    assert open_dataset(line, 24, 0).image(0).width == 96
