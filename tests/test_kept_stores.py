"""Stores that tests get copies of: the bytes that spatialdata wrote, in separate files."""

from __future__ import annotations

from pathlib import Path

import pytest

from kept_stores import written
from stores import make_sample, write_store

pytestmark = pytest.mark.once


def contents(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def test_a_copy_has_what_was_written_whatever_became_of_the_first(tmp_path: Path) -> None:
    sample = make_sample((60, 70), seed=987)
    first = write_store(tmp_path / "a.zarr", sample)
    before = contents(first)
    for path in first.rglob("zarr.json"):
        path.write_text("changed")
    assert contents(write_store(tmp_path / "b.zarr", sample)) == before


def test_each_content_is_written_once(tmp_path: Path) -> None:
    calls: list[Path] = []

    def write(path: Path) -> None:
        path.mkdir()
        calls.append(path)

    for name, content in (("a", 1), ("b", 1), ("c", 2)):
        assert written(tmp_path / name, write, "of this test", content).is_dir()
    assert calls == [tmp_path / "a", tmp_path / "c"]
