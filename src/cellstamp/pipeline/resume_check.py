"""Decide which settings and inputs must be equal to resume an extraction, or for its file to be up to date."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from cellstamp import __version__
from cellstamp.errors import CellstampError, InputError, OutputError
from cellstamp.h5sc.feature_table import read_features
from cellstamp.h5sc.layout import FEATURES_NAMES, OURS
from cellstamp.h5sc.reader import read_h5sc
from cellstamp.location import Location
from cellstamp.pipeline.job import Job
from cellstamp.source.read.arrays import Mask

Origin = Mapping[str, Any]
"""Settings, and a signature of each input, that decide the content of a file."""


def made_from(job: Job) -> dict[str, Any]:
    """Return everything that decides the content of an extraction's file, as JSON values.

    Copies of image and masks count as equal: their digests are of samples.
    """
    return _described(job, lambda array: array.sample())


def begun_from(job: Job) -> dict[str, Any]:
    """Return what must be equal to resume a run: `made_from`, but with signatures of the files of image and masks.

    A signature changes with each change of the files.
    """
    return _described(job, lambda array: array.signature())


def _described(job: Job, digest: Callable[[Mask], str]) -> dict[str, Any]:
    cells = hashlib.sha256(np.ascontiguousarray(job.cells.ids).data)
    cells.update(np.ascontiguousarray(job.cells.xy).data)
    return {
        "cellstamp": __version__,
        **job.settings(),
        "channels": list(job.source.channel_names),
        "cells": f"{len(job.cells)}, digest {cells.hexdigest()[:16]}",
        **_signed(job.source.elements, digest),
    }


def _signed(elements: Iterable[Mask], digest: Callable[[Mask], str]) -> dict[str, str]:
    return {each.name: f"{list(each.shape)} {each.dtype}, digest {digest(each)[:16]}" for each in elements}


def signatures(elements: Iterable[Mask]) -> dict[str, str]:
    """Return what `made_from` says about images and masks."""
    return _signed(elements, lambda array: array.sample())


def read_origin(path: Location) -> Origin:
    """Return what a finished file was made from.

    Raises
    ------
    OutputError
        If the file does not say so, for example because another program wrote it.
    """
    try:
        is_table = path.name in FEATURES_NAMES
        about = (read_features(path) if is_table else read_h5sc(path, images=False)).uns[OURS]
        origin = json.loads(str(about["begun_from"]))
    except (CellstampError, KeyError, ValueError) as error:
        how = f", and cannot be read ({error})" if isinstance(error, InputError) else ""
        raise in_the_way(path, how) from error
    return dict(origin)


def check_equal(before: Origin, now: Origin, path: Location) -> None:
    """Check that an extraction would make the same file again.

    Raises
    ------
    OutputError
        If it would not; the message names the differences.
    """
    found = "; ".join(differences(before, now))
    if found:
        raise in_the_way(path, f" with different settings or input ({found})")


def in_the_way(path: Location, how: str = "") -> OutputError:
    """Return the error for a finished file that must not be replaced."""
    return OutputError(
        f"{path.parent} already exists{how}. Set overwrite=True to replace its files, or give another "
        "output_folder_name"
    )


def differences(before: Origin, now: Origin) -> Iterator[str]:
    """Yield a few words about each setting or input that differs."""
    for key in {**before, **now}:
        was, is_now = before.get(key), now.get(key)
        if was != is_now:
            shown, shown_now = (str(value).partition(", digest ")[0] for value in (was, is_now))
            yield f"{key} has changed" if shown == shown_now else f"{key}: {shown} -> {shown_now}"
