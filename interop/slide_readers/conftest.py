"""The store of each vendor's folder, made by its reader, and the images of labels of the same cells."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from comparing_cells import Images, extracted, images_by_id
from made_slide import Slide, make_slide
from numpy.typing import NDArray

import cellstamp
from stores import Sample, write_store


def pytest_report_header() -> str:
    names = ("spatialdata-io", "sopa", "spatialdata", "anndata", "numpy", "pandas")
    return f"cellstamp {cellstamp.__version__}, " + ", ".join(f"{name} {version(name)}" for name in names)


@pytest.fixture(scope="session")
def slide() -> Slide:
    return make_slide()


class FromLabels:
    """Extracts from plain stores of labels; cells by number."""

    def __init__(self, folder: Path, slide: Slide) -> None:
        self._folder, self._slide = folder, slide

    def images(self, *masks: str, pixels: NDArray[Any] | None = None, **config: Any) -> Images:
        """Return the images of each cell, with "nuclei", "cells" or both as masks."""
        labels = {name: self._slide.sample.masks[name] for name in masks}
        return self.images_of(self._slide.image if pixels is None else pixels, labels, **config)

    def images_of(self, pixels: NDArray[Any], labels: Mapping[str, NDArray[Any]], **config: Any) -> Images:
        """Return the images of each cell of these labels."""
        folder = self._folder / str(len(list(self._folder.iterdir())))
        names = [f"c{number}" for number in range(len(pixels))]
        store = write_store(folder / "plain.zarr", Sample(pixels, labels, names))
        keys = {"nuclei": "nucleus_labels", "cells": "cytosol_labels"}
        return images_by_id(extracted(store, folder / "out", **{keys[name]: name for name in labels}, **config))


@pytest.fixture(scope="session")
def from_labels(tmp_path_factory: pytest.TempPathFactory, slide: Slide) -> FromLabels:
    return FromLabels(tmp_path_factory.mktemp("labels"), slide)


@pytest.fixture(autouse=True)
def _cache_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
