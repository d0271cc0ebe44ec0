"""The protocol between front end and session: a request is a dict of JSON, a reply such a dict and bytes.

Each request has a ``type``, one of the methods below; docs/design/gallery.md lists what it has besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import CellstampError, ConfigError
from cellstamp.gallery.saving import ExistsError
from cellstamp.gallery.session import GallerySession
from cellstamp.gallery.values import Histogram
from cellstamp.gallery.views import parse_view
from cellstamp.pictures.default_colours import CELL, NUCLEUS, default_colours, is_nucleus

_MOST_CELLS = 2000
"""Cells in one reply; a screen has a few hundred."""
_BINS = 60


@dataclass(frozen=True)
class Reply:
    """Answer to a request: a dict of JSON, and bytes."""

    content: dict[str, Any]
    buffers: list[NDArray[np.uint8]] = field(default_factory=list)


class Messages:
    """Answers requests about a session, one at a time."""

    def __init__(self, session: GallerySession) -> None:
        self._session = session
        self._lock = Lock()
        self._answers: dict[str, Callable[[Mapping[str, Any]], Reply]] = {
            "hello": self._hello,
            "cells": self._cells,
            "histogram": self._histogram,
            "find": self._find,
            "select": self._select,
            "cell": self._cell,
            "tag": self._tag,
            "save_ids": self._save_ids,
            "save_column": self._save_column,
        }

    def answer(self, request: Any) -> Reply:
        """Answer a request; errors of users become a reply with ``error``."""
        try:
            kind = request.get("type") if isinstance(request, Mapping) else None
            if kind == "surroundings":  # reads for a second, while the grid scrolls on
                return self._surroundings(request)
            if kind not in self._answers:
                raise ConfigError(f"type = {kind!r}: must be one of {', '.join(self._answers)}")
            with self._lock:
                return self._answers[kind](request)
        except ExistsError as error:
            return Reply({"error": str(error), "exists": True})
        except CellstampError as error:
            return Reply({"error": str(error)})
        except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
            return Reply({"error": f"the request failed: {type(error).__name__}: {error}"})

    # --- cells ----------------------------------------------------------------------------------------------------

    def _hello(self, _request: Mapping[str, Any]) -> Reply:
        session = self._session
        overview = session.overview
        about = {
            "where": session.images.where,
            "n_cells": session.n_cells,
            "image_size": session.images.image_size,
            "planes": self._planes(),
            "columns": self._columns(),
            "n_selected": int(session.selection.chosen.sum()),
            "folder": None if session.folder is None else str(session.folder),
            "features": None if session.features is None else session.features.table.where,
            "n_without_features": 0 if session.features is None else session.features.n_missing,
            "overview": None
            if overview is None
            else {"shape": overview.pixels.shape, "origin": overview.origin, "scale": overview.scale},
        }
        return Reply(about, [] if overview is None else [overview.pixels])

    def _planes(self) -> list[dict[str, Any]]:
        images = self._session.images
        masks, channels = images.plane_names[: images.n_masks], images.plane_names[images.n_masks :]
        outlines = [NUCLEUS if is_nucleus(name, masks) else CELL for name in masks]
        colours = [*outlines, *default_colours(channels)]
        return [
            {"name": name, "is_mask": number < images.n_masks, "colour": colour, **asdict(limits)}
            for number, (name, colour, limits) in enumerate(
                zip(images.plane_names, colours, self._session.ranges, strict=True)
            )
        ]

    def _columns(self) -> list[dict[str, str]]:
        return [{"name": column.name, "source": column.source} for column in self._session.columns]

    def _cells(self, request: Mapping[str, Any]) -> Reply:
        first, count = int(request["first"]), int(request["count"])
        if not (first >= 0 and 0 <= count <= _MOST_CELLS):
            raise ConfigError(f"first = {first}, count = {count}: must be 0 or more, and at most {_MOST_CELLS} cells")
        everything = self._session.rows(parse_view(request["view"]))
        rows = everything[first : first + count]
        images = self._session.planes(rows, request["planes"], int(request["crop"]), int(request.get("step", 1)))
        content = {"total": everything.size, "first": first, "side": images.shape[-1], **self._marks(rows)}
        return Reply(content, [images])

    def _marks(self, rows: NDArray[np.int64]) -> dict[str, Any]:
        """Return ids as text, since numbers of JavaScript end at 2**53, and which cells are selected."""
        session = self._session
        return {
            "ids": list(map(str, session.images.cell_ids[rows].tolist())),
            "selected": session.selection.chosen[rows].astype(int).tolist(),
            "n_selected": int(session.selection.chosen.sum()),
        }

    def _histogram(self, request: Mapping[str, Any]) -> Reply:
        found, labels = self._session.histogram(str(request["column"]), parse_view(request["view"]), _BINS)
        kind = self._session.columns.values(str(request["column"])).kind
        return Reply({"kind": kind, "labels": labels if kind == "category" else [], **_plain(found, kind)})

    def _find(self, request: Mapping[str, Any]) -> Reply:
        row = self._session.row_of(str(request["id"]))
        places = np.flatnonzero(self._session.rows(parse_view(request["view"])) == row)
        return Reply({"place": int(places[0]) if places.size else None})

    def _cell(self, request: Mapping[str, Any]) -> Reply:
        session, row = self._session, self._session.row_of(str(request["id"]))
        side = session.images.image_size
        images = session.planes(np.array([row]), range(session.images.n_planes), side)
        x, y = (np.nan, np.nan) if session.centers is None else session.centers[row].tolist()
        center = [x, y] if np.isfinite([x, y]).all() else None
        selected = bool(session.selection.chosen[row])
        return Reply({"values": session.describe(row), "center": center, "side": side, "selected": selected}, [images])

    def _surroundings(self, request: Mapping[str, Any]) -> Reply:
        found = self._session.surroundings(self._session.row_of(str(request["id"])))
        if found is None:
            return Reply({"shape": None})
        content = {"shape": found.planes.shape, "names": found.names, "extent": found.extent}
        return Reply(content, [np.rint(255 * np.nan_to_num(found.planes)).astype(np.uint8)])

    # --- selections -----------------------------------------------------------------------------------------------

    def _select(self, request: Mapping[str, Any]) -> Reply:
        rows = self._session.rows(parse_view(request["view"]))
        first, last = request.get("first"), request.get("last")
        if first is not None and last is not None:
            if not 0 <= int(first) <= int(last):
                raise ConfigError(f"first = {first}, last = {last}: must be places in the view, in this order")
            rows = rows[int(first) : int(last) + 1]
        self._session.select(rows, str(request["mode"]))
        return Reply({"n_selected": int(self._session.selection.chosen.sum())})

    def _tag(self, request: Mapping[str, Any]) -> Reply:
        value = str(request.get("value") or "").strip() or None
        name = self._session.tag(str(request.get("name") or ""), value, overwrite=bool(request.get("overwrite")))
        return Reply({"name": name, "columns": self._columns()})

    def _save_ids(self, request: Mapping[str, Any]) -> Reply:
        saved = self._session.save_ids(str(request.get("name") or ""), overwrite=bool(request.get("overwrite")))
        if saved.path is not None:
            return Reply({"path": str(saved.path)})
        return Reply({"path": None, "name": saved.name}, [np.frombuffer(saved.text.encode(), np.uint8)])

    def _save_column(self, request: Mapping[str, Any]) -> Reply:
        where = self._session.save_column(str(request["name"]), overwrite=bool(request.get("overwrite")))
        return Reply({"where": where})


def _plain(found: Histogram, kind: str) -> dict[str, Any]:
    counts = [] if kind == "text" else found.counts.tolist()
    return {"counts": counts, "low": found.low, "high": found.high, "n_missing": found.n_missing}
