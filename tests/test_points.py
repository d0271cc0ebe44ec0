"""Read the points of a store: the tables of centres."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cellstamp.errors import InputError
from cellstamp.source.points import load_centers


def part(ids: list[int], dtype: str = "uint64") -> pd.DataFrame:
    return pd.DataFrame({"x": np.array(ids) + 0.5, "y": np.array(ids) + 0.25}, index=pd.Index(ids, dtype=dtype))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    folder = tmp_path / "points/centers_nuclei/points.parquet"
    folder.mkdir(parents=True)
    return folder


def ids_in(store: Path) -> list[int]:
    centers = load_centers(store, "nuclei")
    assert centers is not None
    np.testing.assert_array_equal(centers.xy, np.stack([centers.ids + 0.5, centers.ids + 0.25], axis=1))
    return centers.ids.tolist()


def test_a_table_is_one_file_or_a_folder_of_parts(tmp_path: Path, table: Path) -> None:
    part([3, 1]).to_parquet(table / "part.0.parquet")
    assert ids_in(tmp_path) == [1, 3]
    part([9, 4], "int64").to_parquet(table / "part.1.parquet")
    assert ids_in(tmp_path) == [1, 3, 4, 9]
    (table / "part.0.parquet").rename(tmp_path / "one")
    (table / "part.1.parquet").unlink()
    table.rmdir()
    (tmp_path / "one").rename(table)
    assert ids_in(tmp_path) == [1, 3]


@pytest.mark.parametrize("hidden", [".part.1.parquet", "_metadata.parquet", ".ipynb_checkpoints/part.0.parquet"])
@pytest.mark.parametrize("n_parts", [1, 2])
def test_hidden_files_and_folders_are_no_parts(tmp_path: Path, table: Path, hidden: str, n_parts: int) -> None:
    for number in range(n_parts):
        part([number + 1]).to_parquet(table / f"part.{number}.parquet")
    (table / hidden).parent.mkdir(exist_ok=True)
    part([77]).to_parquet(table / hidden)
    assert ids_in(tmp_path) == list(range(1, n_parts + 1))


@pytest.mark.parametrize("n_parts", [1, 2])
def test_a_damaged_part_is_an_error(tmp_path: Path, table: Path, n_parts: int) -> None:
    for number in range(n_parts):
        part([number + 1]).to_parquet(table / f"part.{number}.parquet")
    path = table / f"part.{n_parts - 1}.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"points 'centers_nuclei' in .*: the table cannot be read: "):
        load_centers(tmp_path, "nuclei")


def test_a_store_without_the_table_has_no_centres(tmp_path: Path) -> None:
    assert load_centers(tmp_path, "nuclei") is None
