"""The configuration: each rule right and wrong, every fault at once, and files that hold anything at all."""

from __future__ import annotations

import copy
import importlib.util
import math
import re
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from cellstamp.config import ExtractionConfig
from cellstamp.config_files import read_config
from cellstamp.config_rules import FeatureQuery, FileColumn, TableColumn
from cellstamp.errors import CellstampError, ConfigError
from examples import examples

REPOSITORY = Path(__file__).parents[1]
REQUIRED: dict[str, Any] = {"threads": 2, "image_size": 64, "cache": "scratch"}
DEFAULTS: dict[str, Any] = {
    "image": "input_image",
    "image_pixel_size": None,
    "crop_pixel_size": None,
    "nucleus_labels": None,
    "cytosol_labels": None,
    "nucleus_shapes": None,
    "cytosol_shapes": None,
    "coordinate_system": None,
    "interpolation": "bilinear",
    "centers": None,
    "store_centers": "auto",
    "segmentation_key": "seg_all",
    "segmentation_mask": None,
    "cells": None,
    "channels": None,
    "border": "drop",
    "apply_masks": True,
    "normalize_output": True,
    "normalization_range": (0.001, 0.999),
    "normalization_scope": "cell",
    "dtype": "float16",
    "compression": "lzf",
    "file_format": "h5sc",
    "output_url": None,
    "features": (),
    "images": True,
    "target_ram_utilization": 0.85,
    "max_inflight_result_batches": None,
    "flush_every": None,
    "max_batch_size": 1000,
    "engine": "processes",
    "dask_scheduler": None,
    "progress": "auto",
}
KEYS = [*REQUIRED, *DEFAULTS]
A_PAIR = "two numbers with 0 <= lower < upper <= 1"
AN_ELEMENT = "the name of an element in the store, or None"
ALLOWED = {
    "threads": "an integer >= 1",
    "image_size": 'an even integer >= 2, a length like "30 um", or "auto"',
    "cache": "the path of a folder for temporary files",
    "image": "the name of an image in the store, a list of such names, each once, or None for the default",
    "nucleus_labels": AN_ELEMENT,
    "cytosol_labels": AN_ELEMENT,
    "nucleus_shapes": AN_ELEMENT,
    "cytosol_shapes": AN_ELEMENT,
    "coordinate_system": AN_ELEMENT,
    "interpolation": '"bilinear" or "nearest"',
    "centers": AN_ELEMENT,
    "store_centers": '"auto", "never" or "always"',
    "segmentation_key": "a text that is not empty, or None for the default",
    "segmentation_mask": 'the name of a mask, or a list of one or two with "nucleus" or "cytosol" in each, or None',
    "image_pixel_size": "a number above 0 (micrometres), two of them (y, x), or None",
    "crop_pixel_size": "a number above 0 (micrometres), or None",
    "cells": (
        "a list of cell ids (integers >= 1, or all of them text), the path of a CSV file, a mapping with the keys "
        "table and column (and ids), path and ids, or features (a mapping with path and query), or None for all cells"
    ),
    "channels": "a list of channel names, each once, or None for all of them",
    "border": '"drop" or "pad"',
    "apply_masks": "True or False",
    "images": "True or False",
    "normalize_output": 'True, False, None or "None" (the last two mean False)',
    "normalization_range": f"{A_PAIR}, a mapping from channel names to such pairs, or None for the default",
    "normalization_scope": '"cell" or "image"',
    "dtype": '"float16", "float32", "uint8", "uint16"',
    "compression": 'True or "lzf", "gzip", or False for none',
    "file_format": '"h5sc" or "zarr"',
    "output_url": "a URL that fsspec can write to, like s3://bucket/run, or None",
    "features": (
        "True, False, or a list of shape, intensity, texture and of dotted paths of functions (module.function), "
        "each once"
    ),
    "target_ram_utilization": "a number above 0 and at most 1",
    "max_inflight_result_batches": "an integer >= 1, or None for the default",
    "flush_every": "an integer >= 1, or None for the default",
    "max_batch_size": "an integer >= 1",
    "engine": '"serial", "processes", "dask"',
    "dask_scheduler": "the address of a scheduler (tcp://HOST:PORT), a dask Client, or None",
    "progress": '"auto", True or False',
}
LARGEST_ID = 2**63 - 1


class OtherPath:
    """A path of nobody's class."""

    def __fspath__(self) -> str:
        return "elsewhere"


class BytesPath:
    def __fspath__(self) -> bytes:
        return b"elsewhere"


def parse(**changes: Any) -> ExtractionConfig:
    return ExtractionConfig.parse({**REQUIRED, **changes})


def faults(mapping: Any) -> list[str]:
    with pytest.raises(ConfigError, match="HDF5CellExtraction config: ") as caught:
        ExtractionConfig.parse(mapping)
    title, *lines = str(caught.value).split("\n  ")
    assert title == f"HDF5CellExtraction config: {len(lines)} error{'s' if len(lines) > 1 else ''}"
    return lines


def test_required_keys_alone_give_every_default() -> None:
    parsed = parse()
    assert (parsed.threads, parsed.image_size, parsed.cache) == (2, 64, Path("scratch"))
    assert {key: getattr(parsed, key) for key in DEFAULTS} == DEFAULTS


@pytest.mark.parametrize(
    ("key", "value", "meaning"),
    [
        ("threads", 1, 1),
        ("threads", np.int64(3), 3),
        ("threads", np.uint8(3), 3),
        ("image_size", 2, 2),
        ("image_size", np.int32(128), 128),
        ("image_pixel_size", 0.5, (0.5, 0.5)),
        ("image_pixel_size", [1, 0.5], (1.0, 0.5)),
        ("crop_pixel_size", np.int64(1), 1.0),
        ("cache", "a/b", Path("a/b")),
        ("cache", Path("a/b"), Path("a/b")),
        ("cache", OtherPath(), Path("elsewhere")),
        ("normalize_output", True, True),
        ("normalize_output", False, False),
        ("normalize_output", None, False),
        ("normalize_output", "None", False),
        ("normalization_range", [0.1, 0.9], (0.1, 0.9)),
        ("normalization_range", (0, 1), (0.0, 1.0)),
        ("normalization_range", (np.float32(0.25), np.int8(1)), (0.25, 1.0)),
        ("normalization_range", None, (0.001, 0.999)),
        ("normalization_range", "None", (0.001, 0.999)),
        ("compression", True, "lzf"),
        ("compression", "lzf", "lzf"),
        ("compression", "gzip", "gzip"),
        ("compression", False, None),
        ("target_ram_utilization", 1, 1.0),
        ("target_ram_utilization", np.float64(0.5), 0.5),
        ("max_inflight_result_batches", 1, 1),
        ("max_inflight_result_batches", None, None),
        ("max_inflight_result_batches", "None", None),
        ("flush_every", 12, 12),
        ("flush_every", None, None),
        ("flush_every", "None", None),
        ("max_batch_size", 1, 1),
        ("engine", "serial", "serial"),
        ("engine", "processes", "processes"),
        ("engine", "dask", "dask"),
        ("dask_scheduler", None, None),
        ("dask_scheduler", "None", None),
        ("progress", True, True),
        ("progress", False, False),
        ("progress", "auto", "auto"),
        ("segmentation_key", "seg_filtered", "seg_filtered"),
        ("segmentation_key", "None", "seg_all"),
        ("segmentation_mask", "cells", "cells"),
        ("segmentation_mask", ["my_nucleus"], ("my_nucleus",)),
        ("segmentation_mask", ["my_nucleus", "my_cytosol"], ("my_nucleus", "my_cytosol")),
        ("segmentation_mask", None, None),
        ("segmentation_mask", "None", None),
        ("image", "slide 7", "slide 7"),
        ("image", None, "input_image"),
        ("image", "None", "input_image"),
        ("image", ["input_image"], "input_image"),
        ("image", ["morphology_focus", "he_image"], ("morphology_focus", "he_image")),
        ("interpolation", "nearest", "nearest"),
        ("nucleus_labels", "nuclei", "nuclei"),
        ("nucleus_labels", "None", None),
        ("cytosol_labels", "cells", "cells"),
        ("cytosol_labels", None, None),
        ("centers", "my_points", "my_points"),
        ("centers", "None", None),
        ("cells", [7, 3, 7], (3, 7)),
        ("cells", (LARGEST_ID,), (LARGEST_ID,)),
        ("cells", {5, 4}, (4, 5)),
        ("cells", range(2, 5), (2, 3, 4)),
        ("cells", np.array([9, 2, 9], np.uint64), (2, 9)),
        ("cells", np.array([LARGEST_ID], np.int64), (LARGEST_ID,)),
        ("cells", pd.Series([4, 1], index=["a", "b"]), (1, 4)),
        ("cells", pd.Index([4, 1]), (1, 4)),
        ("cells", "ids.csv", Path("ids.csv")),
        ("cells", Path("ids.csv"), Path("ids.csv")),
        ("cells", OtherPath(), Path("elsewhere")),
        ("cells", {"table": "measured", "column": "is_round"}, TableColumn("measured", "is_round")),
        ("cells", {"table": "t", "column": "c", "ids": "i"}, TableColumn("t", "c", "i")),
        ("cells", {"path": Path("c.csv"), "ids": "CellID"}, FileColumn(Path("c.csv"), "CellID")),
        (
            "cells",
            {"features": {"path": "f.h5ad", "query": "cell__area > 400"}},
            FeatureQuery(Path("f.h5ad"), "cell__area > 400"),
        ),
        ("cells", ["b-1", " a-1", "b-1"], ("a-1", "b-1")),
        ("cells", np.array(["b-1", "a-1"]), ("a-1", "b-1")),
        ("cells", None, None),
        ("cells", "None", None),
        ("channels", ["dna", "actin"], ("dna", "actin")),
        ("channels", ("actin",), ("actin",)),
        ("channels", [2, np.int64(0), "1"], ("2", "0", "1")),
        ("channels", None, None),
        ("channels", "None", None),
        ("store_centers", "never", "never"),
        ("store_centers", "always", "always"),
        ("border", "drop", "drop"),
        ("border", "pad", "pad"),
        ("apply_masks", True, True),
        ("apply_masks", False, False),
        ("normalization_range", {"dna": [0, 0.9]}, {"dna": (0.0, 0.9)}),
        ("normalization_range", {"dna": (0.1, 1), 2: [0.5, 0.75]}, {"dna": (0.1, 1.0), "2": (0.5, 0.75)}),
        ("normalization_scope", "cell", "cell"),
        ("normalization_scope", "image", "image"),
        ("dtype", "float16", "float16"),
        ("dtype", "float32", "float32"),
    ],
)
def test_value_is_taken_with_its_meaning(key: str, value: Any, meaning: Any) -> None:
    result = getattr(parse(**{key: value}), key)
    assert result == meaning
    assert isinstance(result, type(meaning))
    # What goes into HDF5 attributes and JSON has to be a plain number.
    items = result if isinstance(result, tuple) else list(result) if isinstance(result, dict) else (result,)
    assert not any(isinstance(item, np.generic) for item in items)


@pytest.mark.parametrize(
    ("key", "value", "got"),
    [
        ("threads", "4", "a str"),
        ("threads", True, "a bool"),
        ("threads", 4.0, "a float"),
        ("threads", np.float64(4), "a float64"),
        ("threads", 0, None),
        ("threads", -(10**400), None),
        ("threads", None, "a NoneType"),
        ("threads", {"a": 1}, "a dict"),
        ("image_size", 127, None),
        ("image_size", 0, None),
        ("image_size", -4, None),
        ("image_size", 64.0, "a float"),
        ("image_pixel_size", "0.5", "a str"),
        ("crop_pixel_size", 0, None),
        ("crop_pixel_size", -1.0, None),
        ("cache", "", None),
        ("cache", " ", None),
        ("cache", "None", None),
        ("cache", "a\0b", None),
        ("cache", None, "a NoneType"),
        ("cache", 3, "an int"),
        ("cache", b"a", "a bytes"),
        ("cache", BytesPath(), "a bytes"),
        ("normalize_output", 1, "an int"),
        ("normalize_output", "False", None),
        ("normalization_range", [0.9, 0.1], None),
        ("normalization_range", [0.5, 0.5], None),
        ("normalization_range", [-0.1, 0.5], None),
        ("normalization_range", [0.1, 1.5], None),
        ("normalization_range", [math.nan, 0.9], None),
        ("normalization_range", [0.1, math.nan], None),
        ("normalization_range", [0, 10**400], None),
        ("normalization_range", [0.1], None),
        ("normalization_range", [0.1, 0.5, 0.9], None),
        ("normalization_range", ["0.1", 0.9], "a str"),
        ("normalization_range", [False, True], "a bool"),
        ("normalization_range", 0.5, "a float"),
        ("compression", 1, "an int"),
        ("compression", "zstd", None),
        ("compression", "None", None),
        ("compression", None, None),
        ("target_ram_utilization", 0, None),
        ("target_ram_utilization", 1.01, None),
        ("target_ram_utilization", math.nan, None),
        ("target_ram_utilization", math.inf, None),
        ("target_ram_utilization", True, "a bool"),
        ("target_ram_utilization", "0.5", "a str"),
        ("max_inflight_result_batches", 0, None),
        ("max_inflight_result_batches", "2", "a str"),
        ("flush_every", 0, None),
        ("flush_every", 1.5, "a float"),
        ("max_batch_size", 0, None),
        ("max_batch_size", None, "a NoneType"),
        ("engine", "threads", None),
        ("engine", None, None),
        ("engine", ["serial"], "a list"),
        ("dask_scheduler", 8786, "an int"),
        ("dask_scheduler", "10.0.0.1:8786", None),
        ("dask_scheduler", "tcp://", None),
        ("progress", "yes", None),
        ("progress", 0, "an int"),
        ("segmentation_key", "", None),
        ("segmentation_key", 5, "an int"),
        ("segmentation_mask", "", None),
        ("segmentation_mask", [], None),
        ("segmentation_mask", ["nucleus", "cells"], None),
        ("segmentation_mask", ["nucleus", "nucleus"], None),
        ("segmentation_mask", ["nucleus_1", "nucleus_2", "cytosol"], None),
        ("segmentation_mask", ["nucleus", 3], "an int"),
        ("image", "", None),
        ("image", 3, "an int"),
        ("image", [], None),
        ("image", ["dapi", "dapi"], None),
        ("image", ["dapi", 3], "an int"),
        ("interpolation", "cubic", None),
        ("interpolation", None, None),
        ("nucleus_labels", " ", None),
        ("nucleus_labels", 3, "an int"),
        ("cytosol_labels", ["cells"], "a list"),
        ("centers", True, "a bool"),
        ("cells", [], None),
        ("cells", np.array([], np.int64), None),
        ("cells", "", None),
        ("cells", 3, "an int"),
        ("cells", np.int64(3), "an int64"),
        ("cells", np.array([[1, 2]]), "a ndarray"),
        ("cells", b"ids.csv", "a bytes"),
        ("cells", {}, None),
        ("cells", {"table": "measured"}, None),
        ("cells", {"table": "measured", "column": "ok", "of": "it"}, None),
        ("cells", {"table": "measured", "column": 3}, "an int"),
        ("cells", {"table": "measured", "ids": "i"}, None),
        ("cells", {"path": "c.csv"}, None),
        ("cells", {"features": "f.h5ad"}, "a str"),
        ("cells", {"features": {"path": "f.h5ad"}}, None),
        ("cells", {"features": {"path": "f.h5ad", "query": "cell__area > 400", "of": "it"}}, None),
        ("cells", {"features": {"path": "f.h5ad", "query": 400}}, "an int"),
        ("cells", {"path": "c.csv", "ids": 3}, "an int"),
        ("channels", [], None),
        ("channels", "dna", "a str; write ['dna']"),
        ("channels", ["dna", "dna"], None),
        ("channels", [1, "1"], None),
        ("channels", ["dna", ""], None),
        ("channels", ["dna", True], "a bool"),
        ("channels", ["dna", 1.5], "a float"),
        ("store_centers", "sometimes", None),
        ("store_centers", None, None),
        ("store_centers", False, None),
        ("border", "keep", None),
        ("border", None, None),
        ("border", True, None),
        ("apply_masks", None, None),
        ("apply_masks", "False", None),
        ("apply_masks", 0, "an int"),
        ("normalization_range", {}, None),
        ("normalization_range", {1: [0, 0.5], "1": [0, 1]}, None),
        ("normalization_range", {"": [0, 0.5]}, None),
        ("normalization_scope", "channel", None),
        ("normalization_scope", None, None),
        ("dtype", "float64", None),
        ("dtype", np.float16, "a type"),
        ("dtype", None, None),
    ],
)
def test_value_is_refused_with_what_is_allowed(key: str, value: Any, got: str | None) -> None:
    (line,) = faults({**REQUIRED, key: value})
    assert line.startswith(f"{key} = ")
    assert line.endswith(f": must be {ALLOWED[key]}" + (f" (got {got})" if got else ""))


@pytest.mark.parametrize(
    ("ids", "which"),
    [
        ([1, 2, 3, 0, 5], "item 3 is 0"),
        ([1, -2], "item 1 is -2"),
        ([2**63], f"item 0 is {2**63}"),
        ([1, "2"], "item 1 is '2'"),
        ([1, 2.0], "item 1 is 2.0"),
        ([True], "item 0 is True"),
        ([1, [2]], "item 1 is [2]"),
        ([1, None], "item 1 is None"),
        (np.array([1.0, 2.0]), "item 0 is 1.0"),
        (np.array([True, False]), "item 0 is True"),
        (np.array([1, 2**64 - 1], np.uint64), f"item 1 is {2**64 - 1}"),
        (pd.Series([3, None, 4], dtype="Int64"), "item 1 is <NA>"),
        ([*range(1, 100_000), "v" * 10_000], "item 99999 is '" + "v" * 37 + "..." + "v" * 38 + "'"),
    ],
)
def test_an_id_that_is_none_is_shown_with_its_place(ids: Any, which: str) -> None:
    (line,) = faults({**REQUIRED, "cells": ids})
    assert line.startswith("cells = ")
    assert line.endswith(f": must be {ALLOWED['cells']} ({which})")
    assert len(line) < 400


@pytest.mark.parametrize(
    ("bounds", "which"),
    [
        (None, "'b' is None; a channel that is left out has the default"),
        ([0.9, 0.1], "'b' is [0.9, 0.1]"),
        ([0.1, "x"], "'b' is [0.1, 'x']"),
    ],
)
def test_a_channel_without_a_usable_range_is_named(bounds: Any, which: str) -> None:
    (line,) = faults({**REQUIRED, "normalization_range": {"a": [0.1, 0.9], "b": bounds}})
    assert line.startswith("normalization_range = {'a': [0.1, 0.9], 'b': ")
    assert line.endswith(f": each channel's range must be {A_PAIR} ({which})")


def test_an_empty_section_is_named_with_what_it_must_hold() -> None:
    assert faults({"HDF5CellExtraction": None})[-1] == (
        "HDF5CellExtraction: this section is empty; it must hold at least image_size"
    )


def test_the_words_for_what_is_allowed_are_had_for_every_key() -> None:
    assert {key: ExtractionConfig.allowed_for(key) for key in KEYS} == ALLOWED
    assert all(field.description for field in ExtractionConfig.model_fields.values())


INTEGERS_NEED_NO_NORMALISING = (
    "dtype = 'uint8': integers store unnormalised images; set normalize_output to False, or dtype to 'float16' or "
    "'float32'"
)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"dtype": "uint8"}, [INTEGERS_NEED_NO_NORMALISING]),
        (
            {"nucleus_labels": "nuclei", "segmentation_mask": "cells"},
            ["segmentation_mask = 'cells': names the masks, and so does nucleus_labels; choose one"],
        ),
        (
            {"nucleus_labels": "n", "cytosol_labels": "c", "segmentation_mask": ["a_nucleus"]},
            [
                "segmentation_mask = ('a_nucleus',): names the masks, and so do nucleus_labels and cytosol_labels; "
                "choose one"
            ],
        ),
        (
            {"nucleus_labels": "n", "cytosol_labels": "n"},
            ["cytosol_labels = 'n': must not be the same as nucleus_labels; give one of them"],
        ),
        (
            {"dtype": "uint8", "imige": 3},
            [INTEGERS_NEED_NO_NORMALISING, "imige = 3: unknown key; did you mean 'image'?"],
        ),
    ],
)
def test_keys_that_contradict_each_other(changes: dict[str, Any], told: list[str]) -> None:
    assert faults({**REQUIRED, **changes}) == told


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_integers_are_stored_of_what_is_not_normalised(dtype: str) -> None:
    assert parse(dtype=dtype, normalize_output=False).dtype == dtype
    assert parse(dtype=dtype, normalize_output=None).dtype == dtype


def test_a_channel_may_have_the_name_of_a_boolean() -> None:
    (line,) = faults({"image_size": 64, "channels": "True"})
    assert line.endswith("(got a str; write ['True'])")


def test_every_fault_is_reported_at_once() -> None:
    wrong = {"image_sise": 128, "border": "keep", "cells": [4, 0], "dtype": "int8", "channels": "dna"}
    lines = faults({"threads": "4", **wrong, "normalization_range": [0.9, 0.1], "engine": "dask_"})
    assert lines == [
        "threads = '4': must be an integer >= 1 (got a str)",
        'image_size: missing; must be an even integer >= 2, a length like "30 um", or "auto"',
        f"cells = [4, 0]: must be {ALLOWED['cells']} (item 1 is 0)",
        "channels = 'dna': must be a list of channel names, each once, or None for all of them (got a str; write "
        "['dna'])",
        'border = \'keep\': must be "drop" or "pad"',
        "normalization_range = [0.9, 0.1]: must be two numbers with 0 <= lower < upper <= 1, a mapping from channel "
        "names to such pairs, or None for the default",
        'dtype = \'int8\': must be "float16", "float32", "uint8", "uint16"',
        'engine = \'dask_\': must be "serial", "processes", "dask"',
        "image_sise = 128: unknown key; did you mean 'image_size'?",
    ]


def test_missing_key_is_named() -> None:
    assert faults({"threads": 2}) == [
        'image_size: missing; must be an even integer >= 2, a length like "30 um", or "auto"'
    ]


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [
        ("image_sise", "image_size"),
        ("n_threads", "threads"),
        ("Threads", "threads"),
        ("CACHE", "cache"),
        ("compresion", "compression"),
        ("normalise_output", "normalize_output"),
        ("max_inflight", "max_inflight_result_batches"),
        ("segmentation_masks", "segmentation_mask"),
        ("centres", "centers"),
        ("cell_ids", "cells"),
        ("normalisation_scope", "normalization_scope"),
        ("nuclei_labels", "nucleus_labels"),
    ],
)
def test_unknown_key_names_the_nearest(unknown: str, nearest: str) -> None:
    assert faults({**REQUIRED, unknown: 1}) == [f"{unknown} = 1: unknown key; did you mean {nearest!r}?"]


def test_unknown_key_that_resembles_none_should_be_removed() -> None:
    (line,) = faults({**REQUIRED, "qqq": 1})
    assert line == "qqq = 1: unknown key; remove it (the documentation lists the keys of HDF5CellExtraction)"


def test_unknown_key_that_holds_a_dict_is_another_steps_section() -> None:
    assert parse(CellFeaturizer={"threads": "many"}, image_sise={}) == parse()


@pytest.mark.parametrize("key", ["normalisation_range", "normalization", "Normalization_Range", "cell"])
def test_a_misspelt_key_that_holds_a_mapping_is_no_section(key: str) -> None:
    (line,) = faults({**REQUIRED, key: {"DAPI": [0.1, 0.9]}})
    assert re.fullmatch(
        rf"{key} = .*: unknown key; did you mean '(normalization_range|normalization_scope|cells)'\?", line
    )


@pytest.mark.parametrize(("key", "kind"), [(7, "an int"), (None, "a NoneType"), (True, "a bool"), ((1, 2), "a tuple")])
def test_key_that_is_no_text_is_refused(key: Any, kind: str) -> None:
    assert faults({**REQUIRED, key: 8}) == [f"{key} = 8: a key must be text (got {kind})"]


def test_key_and_value_of_any_length_stay_on_one_short_line() -> None:
    lines = faults({**REQUIRED, "k" * 10_000: "v" * 10_000, "two\nlines": np.zeros((50, 50)), "huge": 10**5000})
    assert len(lines) == 3
    assert all(len(line) < 300 and "\n" not in line for line in lines)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["hdf5_rdcc_w0"], "hdf5_rdcc_w0 means nothing here"),
        (["hdf5_rdcc_nbytes", "hdf5_rdcc_w0", "hdf5_rdcc_nslots"], "hdf5_rdcc_nslots mean nothing here"),
    ],
)
def test_keys_of_the_chunk_cache_get_a_warning(keys: list[str], message: str) -> None:
    with pytest.warns(UserWarning, match=message) as caught:
        parsed = parse(**dict.fromkeys(keys, 1))
    assert len(caught) == 1
    assert Path(caught[0].filename) == Path(__file__)
    assert parsed == parse()


@pytest.mark.parametrize("mapping", [None, [], "threads: 4", 3])
def test_parse_takes_mappings_only(mapping: Any) -> None:
    with pytest.raises(ConfigError, match="must be a dict of keys and values"):
        ExtractionConfig.parse(mapping)


def test_parsed_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        parse().threads = 3  # type: ignore[misc]


def test_config_error_is_also_what_a_caller_expects() -> None:
    assert issubclass(ConfigError, (CellstampError, ValueError))


def test_a_scheduler_is_for_the_dask_engine() -> None:
    address = "tcp://10.0.0.1:8786"
    assert parse(engine="dask", dask_scheduler=address).dask_scheduler == address
    assert faults({**REQUIRED, "dask_scheduler": address}) == [
        f"dask_scheduler = '{address}': is for engine = 'dask'; set it, or this key to None"
    ]


class ClientLike:
    """What a client of dask has, and that it cannot be copied."""

    scheduler = submit = None

    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("cannot be copied")


def test_a_client_is_taken_as_it_is() -> None:
    client = ClientLike()
    whole = {"HDF5CellExtraction": {**REQUIRED, "engine": "dask", "dask_scheduler": client}}
    config = read_config(whole, "HDF5CellExtraction")
    assert config["dask_scheduler"] is client
    assert ExtractionConfig.parse(config).dask_scheduler is client


# --- any value at all ------------------------------------------------------------------------------------------------

REFUSED = object()
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 12)
    | st.integers()
    | st.floats()
    | st.floats(0, 1)
    | st.text()
    | st.binary(max_size=5)
    | st.dates()
    | st.sampled_from(["None", "lzf", "gzip", "serial", "processes", "dask", "auto", "seg_nucleus", "seg_cytosol"])
    | st.sampled_from(["drop", "pad", "cell", "image", "float16", "float32", "uint8", "uint16"])
)
PAIRS = st.lists(st.floats(0, 1), min_size=2, max_size=2)
VALUES = (
    st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2))
    | PAIRS
    | st.dictionaries(st.text(max_size=3) | st.integers(0, 3), PAIRS, max_size=2)
    | st.lists(st.integers(1, 2**63), max_size=3)
    | st.fixed_dictionaries({"table": st.text(max_size=2), "column": st.text(max_size=2)})
    | st.fixed_dictionaries({"path": st.text(max_size=2), "ids": st.text(max_size=2)})
    | st.lists(st.text(max_size=2), max_size=3)
    | st.lists(st.sampled_from(["nucleus_a", "nucleus_b", "cytosol", "cells"]), max_size=3)
)


def is_whole(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def is_name(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(is_number, value)) and value[0] < value[1]


def is_channel(value: Any) -> bool:
    return type(value) is int or is_name(value)


CHOICES: dict[str, list[tuple[Any, Any]]] = {
    "normalize_output": [(True, True), (False, False), (None, False), ("None", False)],
    "compression": [(True, "lzf"), ("lzf", "lzf"), ("gzip", "gzip"), (False, None)],
    "file_format": [("h5sc", "h5sc"), ("zarr", "zarr")],
    "output_url": [
        ("s3://bucket/run", "s3://bucket/run"),
        ("gs://bucket/a/", "gs://bucket/a"),
        (None, None),
        ("None", None),
    ],
    "engine": [("serial", "serial"), ("processes", "processes"), ("dask", "dask")],
    "progress": [("auto", "auto"), (True, True), (False, False)],
    "store_centers": [("auto", "auto"), ("never", "never"), ("always", "always")],
    "border": [("drop", "drop"), ("pad", "pad")],
    "apply_masks": [(True, True), (False, False)],
    "images": [(True, True), (False, False)],
    "normalization_scope": [("cell", "cell"), ("image", "image")],
    "interpolation": [("bilinear", "bilinear"), ("nearest", "nearest")],
    "dtype": [(name, name) for name in ("float16", "float32", "uint8", "uint16")],
}
NAMES = {
    key: DEFAULTS[key]
    for key in (
        "image",
        "segmentation_key",
        "nucleus_labels",
        "cytosol_labels",
        "nucleus_shapes",
        "cytosol_shapes",
        "coordinate_system",
        "centers",
    )
}


def expected(key: str, value: Any) -> Any:
    """The contract's table, said again."""
    none = value is None or value == "None"
    if key in CHOICES:
        return next((to for given, to in CHOICES[key] if type(given) is type(value) and given == value), REFUSED)
    if key in ("threads", "max_batch_size"):
        return value if is_whole(value, 1) else REFUSED
    if key == "image_size":
        return value if is_whole(value, 2) and value % 2 == 0 else REFUSED
    if key in ("max_inflight_result_batches", "flush_every"):
        return None if none else value if is_whole(value, 1) else REFUSED
    if key in ("crop_pixel_size", "image_pixel_size"):
        return expected_pixel_size(key, value)
    if key == "target_ram_utilization":
        return float(value) if is_number(value) and value > 0 else REFUSED
    if key == "normalization_range":
        return (0.001, 0.999) if none else expected_ranges(value)
    if key == "cache":
        return Path(value) if is_name(value) and not none and "\0" not in value else REFUSED
    if key == "image" and isinstance(value, list):
        told = bool(value) and all(map(is_name, value)) and len(set(value)) == len(value)
        return REFUSED if not told else tuple(value) if len(value) > 1 else value[0]
    if key == "features":
        return () if none or value is False else ("shape", "intensity") if value is True else expected_features(value)
    if key in NAMES:
        return NAMES[key] if none else value if is_name(value) else REFUSED
    if none:
        return None
    if key == "dask_scheduler":  # the engine is another one
        return REFUSED
    return {"cells": expected_cells, "channels": expected_channels, "segmentation_mask": expected_masks}[key](value)


def expected_pixel_size(key: str, value: Any) -> Any:
    if value is None or value == "None":
        return None
    one = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf
    if key == "crop_pixel_size":
        return float(value) if one else REFUSED
    pair = value if isinstance(value, list) else [value, value]
    fine = len(pair) == 2 and all(expected_pixel_size("crop_pixel_size", side) not in (REFUSED, None) for side in pair)
    return tuple(map(float, pair)) if fine else REFUSED


def expected_ranges(value: Any) -> Any:
    if not isinstance(value, dict):
        return tuple(map(float, value)) if is_pair(value) else REFUSED
    told = all(is_channel(name) and is_pair(pair) for name, pair in value.items())
    ranges = {str(name): tuple(map(float, pair)) for name, pair in value.items()} if told else {}
    return ranges if ranges and len(ranges) == len(value) else REFUSED


def expected_cells(value: Any) -> Any:
    if isinstance(value, dict):
        told = all(map(is_name, value.values()))
        if set(value) == {"path", "ids"}:
            is_path = value["path"] != "None" and "\0" not in str(value["path"])
            return FileColumn(Path(value["path"]), value["ids"]) if told and is_path else REFUSED
        return TableColumn(**value) if told and set(value) == {"table", "column"} else REFUSED
    if isinstance(value, list) and value and all(map(is_name, value)):
        return tuple(sorted({text.strip() for text in value}))
    if isinstance(value, list):
        told = bool(value) and all(is_whole(cell, 1) and cell <= LARGEST_ID for cell in value)
        return tuple(sorted(set(value))) if told else REFUSED
    return Path(value) if is_name(value) and "\0" not in value else REFUSED


def expected_channels(value: Any) -> Any:
    told = isinstance(value, list) and all(map(is_channel, value))
    names = tuple(map(str, value)) if told else ()
    return names if names and len(set(names)) == len(names) else REFUSED


def expected_features(value: Any) -> Any:
    told = isinstance(value, list) and all(isinstance(name, str) for name in value) and len(set(value)) == len(value)
    groups = ("shape", "intensity", "texture")
    known = told and all(name in groups or re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", name) for name in value)
    return tuple(value) if value and known else REFUSED


def expected_masks(value: Any) -> Any:
    if is_name(value):
        return value
    told = isinstance(value, list) and all(is_name(name) and ("nucleus" in name or "cytosol" in name) for name in value)
    return tuple(value) if told and 1 <= len(value) <= 2 and len(set(value)) == len(value) else REFUSED


@pytest.mark.once
@examples(400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(KEYS), value=VALUES)
@example(key="cache", value="None")
@example(key="compression", value=0)
@example(key="progress", value=1.0)
@example(key="target_ram_utilization", value=10**400)
@example(key="cells", value=[LARGEST_ID, 1, 1])
@example(key="cells", value={"table": "t", "column": "c"})
@example(key="normalization_range", value={1: [0, 1], "1": [0, 1]})
@example(key="features", value=["texture", "module.function"])
@example(key="features", value=["shape", "shape"])
def test_any_yaml_value_is_accepted_with_its_meaning_or_refused_clearly(tmp_path: Path, key: str, value: Any) -> None:
    # settings that allow every type, and a run without images
    base = {**REQUIRED, "normalize_output": False, "features": True}
    path = tmp_path / "config.yml"
    path.write_text(yaml.safe_dump({"HDF5CellExtraction": {**base, key: value}}, allow_unicode=True), "utf-8")
    read = read_config(path, "HDF5CellExtraction")
    meaning = expected(key, read[key])
    if meaning is REFUSED:
        (line,) = faults(read)
        assert line.startswith(f"{key} = ")
        of_a_channel = key == "normalization_range" and f": each channel's range must be {A_PAIR} (" in line
        assert of_a_channel or f": must be {ALLOWED[key]}" in line
    else:
        assert getattr(ExtractionConfig.parse(read), key) == meaning


@pytest.mark.once
@examples(300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary() | st.text("{}[]:-&*!?|>#%@ \n\t\"'ab1_.", max_size=40).map(str.encode))
@example(content=b"!!int ''")
@example(content=b"!!timestamp x")
@example(content=b"!!bool x")
@example(content=b"a: 2020-13-45")
@example(content=b"a: " + b"9" * 5000)
@example(content=b"[" * 5000)
@example(content=b"&a {b: *a}")
@example(content=b"? {a: 1}\n: 2")
@example(content=b"\xff\xfe\x00")
@example(content=b"\x89HDF\r\n\x1a\n")
def test_file_of_any_content_gives_a_dict_or_a_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "any.yml"
    path.write_bytes(content)
    try:
        read, problem = read_config(path, "HDF5CellExtraction"), ""
    except ConfigError as error:
        read, problem = None, str(error)
    if read is None:
        assert re.fullmatch(f"config file {re.escape(repr(str(path)))}: .+", problem)
        return
    assert isinstance(read, dict)
    # Whatever it holds, it is not a configuration, and that is said too.
    assert faults(read)


def test_a_configuration_that_stands_for_billions_of_values_is_refused_in_a_line(tmp_path: Path) -> None:
    nested = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    nested += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    path = tmp_path / "bomb.yml"
    path.write_text("\n".join([*nested, "threads: *a11"]))
    found = faults(read_config(path, "HDF5CellExtraction"))
    assert any(line.startswith("threads = [[[...], [...], [...], ...],") for line in found), found
    assert max(map(len, found)) < 300


@pytest.mark.skipif(yaml.__version__ in ("6.0.2", "6.0.3"), reason="this version of PyYAML multiplies merged keys")
def test_merged_keys_do_not_multiply(tmp_path: Path) -> None:
    merged = ["a0: &a0 {x: 1, y: 2}"]
    merged += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 30)]
    path = tmp_path / "bomb.yml"
    path.write_text("\n".join(merged))
    assert read_config(path, "a29") == {"x": 1, "y": 2}


def test_a_file_too_large_to_be_a_configuration_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ConfigError, match=r"1,099,511,627,776 bytes are too many for a configuration"):
        read_config(path, "HDF5CellExtraction")


# --- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [str, Path], ids=["str", "PathLike"])
def test_section_is_read_from_a_file(tmp_path: Path, form: Any) -> None:
    path = tmp_path / "config.yml"
    path.write_text("HDF5CellExtraction:\n  threads: 4\nOther:\n  threads: 1\n")
    assert read_config(form(path), "HDF5CellExtraction") == {"threads": 4}
    assert read_config(form(path), "Third") == {"HDF5CellExtraction": {"threads": 4}, "Other": {"threads": 1}}


MISSPELT = re.escape(
    "config: no section 'HDF5CellExtraction', but 'HDF5CellExtracton'. Rename it to 'HDF5CellExtraction'"
)


@pytest.mark.parametrize("keys", [{"threads": 4}, None], ids=["with keys", "empty"])
def test_a_misspelt_section_is_an_error(keys: Any) -> None:
    config = {"HDF5CellExtracton": keys, "CellFeaturizer": {"threads": 1}, **REQUIRED}
    with pytest.raises(ConfigError, match=MISSPELT):
        read_config(config, "HDF5CellExtraction")
    with pytest.raises(ConfigError, match=MISSPELT):
        ExtractionConfig.parse(config)
    # beside the section itself, it is that of another step
    config["HDF5CellExtraction"] = {"threads": 2}
    assert read_config(config, "HDF5CellExtraction") == {"threads": 2}


def test_any_path_like_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("elsewhere").write_text("threads: 4")
    assert read_config(OtherPath(), "Step") == {"threads": 4}


def test_key_of_the_sections_name_that_holds_no_dict_is_a_key() -> None:
    assert read_config({"Step": 3, "a": 1}, "Step") == {"Step": 3, "a": 1}


def test_callers_dict_is_copied_to_the_bottom() -> None:
    config = {"Step": {"range": [0.1, 0.9]}, "whole": [1]}
    before = copy.deepcopy(config)
    read_config(config, "Step")["range"].append(1)
    whole = read_config(config, "Other")
    whole["whole"].append(2)
    whole["Step"]["new"] = 1
    assert config == before


def test_two_masks_in_yaml_and_none_as_text(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text("{threads: 1, image_size: 2, cache: ., normalize_output: None, normalization_range: None}")
    parsed = ExtractionConfig.parse(read_config(path, "HDF5CellExtraction"))
    assert (parsed.normalize_output, parsed.normalization_range) == (False, (0.001, 0.999))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"# only a comment\n", "the file is empty"),
        (b"- threads: 4\n", "must hold keys and values.*it holds a list"),
        (b"threads", "must hold keys and values.*it holds a str"),
        (b"threads: 4\nimage_size: [1\n", "not valid YAML: .*line 3, column 1"),
        (b"threads: 4\n\tcache: x\n", "not valid YAML: .*line 2"),
        (b"threads: 4\nthreads: 2\n", "not valid YAML: the key 'threads' is given twice; give it once"),
        (b"a: &x {b: 1}\nc: [*x, {d: 1, d: 2}]\n", r".* the key 'd' is given twice; .* \(line 2, column 16\)"),
        (b"\x89HDF\r\n\x1a\n\x00\x01", "not valid YAML: "),
        (b"a: !!python/object/apply:os.getcwd []\n", "not valid YAML: could not determine a constructor"),
    ],
)
def test_file_that_is_no_configuration_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.yml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"config file '.*bad\.yml': {message}"):
        read_config(path, "HDF5CellExtraction")


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config file '.*none\.yml': there is no such file"):
        read_config(tmp_path / "none.yml", "Step")
    with pytest.raises(ConfigError, match=r"config file '.*': this is a folder, not a YAML file"):
        read_config(tmp_path, "Step")
    with pytest.raises(ConfigError, match=r"config file 'a\\x00b': cannot be read"):
        read_config("a\0b", "Step")
    with pytest.raises(ConfigError, match="config file b'elsewhere': cannot be read"):
        read_config(BytesPath(), "Step")  # type: ignore[arg-type]


@pytest.mark.parametrize("config", [None, 3, ["threads"], b"config.yml"])
def test_config_of_another_type_is_refused(config: Any) -> None:
    with pytest.raises(ConfigError, match="config: must be a dict, or the path of a YAML file"):
        read_config(config, "Step")


# --- what ships ------------------------------------------------------------------------------------------------------


SHIPPED: dict[str, dict[str, Any]] = {
    "default": {},
    "two_masks": {"segmentation_mask": ("seg_all_nucleus", "seg_all_cytosol")},
    "nucleus_only": {"segmentation_mask": "seg_all_nucleus"},
    "no_normalisation": {"normalize_output": False},
    "spatialdata_io": {
        "image": "morphology_focus",
        "nucleus_labels": "nucleus_labels",
        "cytosol_labels": "cell_labels",
        "channels": ("DAPI",),
    },
    "comparable_intensities": {"normalization_scope": "image", "apply_masks": False, "border": "pad"},
    "raw_integers": {"normalize_output": False, "dtype": "uint16", "compression": "gzip"},
    "cluster": {"engine": "dask", "dask_scheduler": "tcp://10.0.0.1:8786"},
    "chosen_cells": {"cells": TableColumn("table", "to_extract")},
}


@pytest.mark.parametrize(("name", "differs"), SHIPPED.items(), ids=SHIPPED)
def test_shipped_configuration_is_ready_to_use(name: str, differs: dict[str, Any]) -> None:
    path = REPOSITORY / "configs" / f"{name}.yml"
    assert list(yaml.safe_load(path.read_text())) == ["HDF5CellExtraction"]
    parsed = ExtractionConfig.parse(read_config(path, "HDF5CellExtraction"))
    assert {key: getattr(parsed, key) for key in DEFAULTS} == {**DEFAULTS, **differs}


def test_every_shipped_configuration_is_tested() -> None:
    assert {path.stem for path in (REPOSITORY / "configs").glob("*.yml")} == {*SHIPPED, "segmentation"}


def test_every_key_is_in_the_default_configuration_with_a_comment() -> None:
    path = REPOSITORY / "configs" / "default.yml"
    assert list(read_config(path, "HDF5CellExtraction")) == KEYS == list(ExtractionConfig.model_fields)
    assert re.findall(r"^  #.*\n  (\w+):", path.read_text(), re.MULTILINE) == KEYS


def documentation_page() -> str:
    return (REPOSITORY / "docs" / "configuration.md").read_text()


def reference() -> Any:
    """The module that makes the documentation's table, as Sphinx loads it."""
    spec = importlib.util.spec_from_file_location("config_reference", REPOSITORY / "docs" / "config_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_in_the_documentation_is_made_of_the_model() -> None:
    text = "\n".join(reference().lines())
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == KEYS
    machine = {"threads": "usable cores", "cache": "the system's temporary folder"}
    shown = {**DEFAULTS, **machine, "image_size": "required", "features": False}
    for key, field in ExtractionConfig.model_fields.items():
        (row,) = re.findall(rf"^\| `{key}` \| (.*) \|$", text, re.MULTILINE)
        meaning, default, allowed = row.split(" | ")
        assert allowed.replace("`", "") == ExtractionConfig.allowed_for(key)
        assert not re.search(r'(?<!`)"', allowed.replace('"`', "`"))
        assert meaning.replace("`", "") == " ".join(str(field.description).split()).replace("`", "")
        assert default.strip("`").strip('"') == str(shown[key])
    assert "```{config-reference}\n" in documentation_page()


def test_every_option_has_an_example_that_is_a_configuration() -> None:
    examples = re.findall(r"```yaml\n(.*?)\n```", documentation_page(), re.DOTALL)
    given: set[str] = set()
    for example_ in examples:
        part = yaml.safe_load(example_)
        part = part.get("HDF5CellExtraction", part)
        ExtractionConfig.parse({**REQUIRED, **part})
        given |= set(part)
    wanted = {"cells", "channels", "border", "apply_masks", "normalization_scope", "normalization_range", "dtype"}
    wanted |= {"image", "nucleus_labels", "cytosol_labels", "centers"}
    assert wanted <= given


def test_error_shown_in_the_documentation_is_the_one_that_comes() -> None:
    shown = re.search(r"```text\n(.*?)\n```", documentation_page(), re.DOTALL)
    assert shown is not None
    assert shown[1].split("\n  ")[1:] == faults({"threads": "4", "image_sise": 128, "cache": PurePosixPath(".")})
