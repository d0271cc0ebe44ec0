"""Measure the cells of a result for its page, and choose those at the quantiles of each measure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cellstamp.h5sc.result_tables import ResultTables, feature_values
from cellstamp.h5sc.selected_images import SelectedImages, selected_images
from cellstamp.location import Location
from cellstamp.pictures.canvas import colours_of_channels
from cellstamp.pictures.mosaic import limits_of, stretched, stretched_between
from cellstamp.pipeline.extraction_plots import MOST_COLOURS, in_legend
from cellstamp.run_report.content import Distribution, Note, Part, Section, Thumbnail
from cellstamp.run_report.histogram import in_digits
from cellstamp.run_report.thumbnails import thumbnail

_QUANTILES = {"smallest": 0.0, "5%": 0.05, "25%": 0.25, "median": 0.5, "75%": 0.75, "95%": 0.95, "largest": 1.0}
_IN_DOUBT = ("smallest", "largest", "median", "25%", "75%", "5%", "95%")
"""Names by priority, for few cells that are at several quantiles."""
_MASKS = ("cell", "nucleus")
_SAMPLE, _SAMPLE_BYTES = 1000, 2**28
"""Largest number of cells measured in their images, and of bytes read for it."""
_PIXELS = "pixels"


@dataclass(frozen=True)
class _Measure:
    """Values of some cells.

    Attributes
    ----------
    title, unit
        Name and unit.
    rows
        Rows of the cells in the file, int64 (n,).
    values
        float64 (n,), finite.
    channel
        Name of the channel whose intensity this is. None: an area.
    """

    title: str
    unit: str
    rows: NDArray[np.int64]
    values: NDArray[np.float64]
    channel: str | None = None


def distributions(path: Location, tables: ResultTables) -> Iterator[Section]:
    """Yield the histograms of area and intensities, with cells at their quantiles; nothing for an empty result."""
    if not tables.cell_ids.size:
        return
    with ExitStack() as stack:
        look = stack.enter_context(selected_images(path)) if tables.has_images else None
        measured, n_sampled = _measured(path, tables, look), 0
        if look is not None and len(measured) < 1 + len(_channels(tables, look)):
            n_sampled, sampled = _sampled(look)
            known = {measure.channel for measure in measured}
            measured += [measure for measure in sampled if measure.channel not in known]
        measured.sort(key=lambda measure: measure.channel is not None)
        parts: list[Part] = [_distribution(measure, look) for measure in measured if measure.values.size]
        if parts:
            notes = [] if look is None else _notes(look, tables, n_sampled)
            yield Section("Area and intensities", [*notes, *parts])


def _channels(tables: ResultTables, look: SelectedImages | None) -> list[str]:
    if look is not None:
        return list(look.plane_names[look.n_masks :])
    return [str(name) for name in tables.settings.get("channels", ())]


def _notes(look: SelectedImages, tables: ResultTables, n_sampled: int) -> Iterator[Note]:
    """Yield what a reader must know of the values and images; `n_sampled` cells were measured in their images."""
    if n_sampled:
        n_cells = tables.cell_ids.size
        cells = (
            f"all {n_cells:,} cells" if n_sampled == n_cells else f"{n_sampled:,} of {n_cells:,} cells, evenly spaced"
        )
        yield Note(f"Values that no table of features has are measured in the images of {cells}.")
    if look.is_normalized:
        meaning = tables.settings.get("intensities", "normalised")
        yield Note(f"Intensities of the images are {meaning}.")


def _measured(path: Location, tables: ResultTables, look: SelectedImages | None) -> list[_Measure]:
    """Return area and intensities from the table of features, if it has them."""
    areas = {f"{mask}__area": f"Area of the {mask}" for mask in _MASKS}
    means = {f"{mask}__intensity_mean__{name}": (mask, name) for name in _channels(tables, look) for mask in _MASKS}
    values = feature_values(path, [*areas, *means])
    found = [_finite(title, _PIXELS, values[name]) for name, title in areas.items() if name in values][:1]
    seen: set[str] = set()
    for feature, (mask, channel) in means.items():
        if feature in values and channel not in seen:
            seen.add(channel)
            found.append(_finite(f"Mean of {channel} in the {mask}", "", values[feature], channel))
    return found


def _finite(title: str, unit: str, values: NDArray[np.float64], channel: str | None = None) -> _Measure:
    rows = np.flatnonzero(np.isfinite(values))
    return _Measure(title, unit, rows, values[rows], channel)


def _sampled(look: SelectedImages) -> tuple[int, list[_Measure]]:
    """Measure area and intensities of some cells in their single-cell images; return how many, and the values."""
    planes = list(range(len(look.plane_names)))
    cell_bytes = len(planes) * look.image_size**2 * look.dtype.itemsize
    rows = look.rows_of(None, int(np.clip(_SAMPLE_BYTES // cell_bytes, 1, _SAMPLE)))
    values = np.empty((len(rows), 1 + len(planes) - look.n_masks))
    for places, stored in look.in_pieces(rows, planes):
        images = look.scaled(stored)
        mask = images[:, look.n_masks - 1] > 0.5 if look.n_masks else np.ones(images[:, 0].shape, np.bool_)
        area = mask.sum(axis=(1, 2))
        sums = (images[:, look.n_masks :] * mask[:, None]).sum(axis=(2, 3), dtype=np.float64)
        values[places, 0] = area
        with np.errstate(invalid="ignore"):  # cells without pixels get NaN
            values[places, 1:] = sums / area[:, None]
    titles: list[tuple[str | None, str]] = [
        (None, f"Area of the {in_legend(look.mask_names[-1])}" if look.n_masks else "Area")
    ]
    titles += [(name, f"Mean of {name}") for name in look.plane_names[look.n_masks :]]
    return len(rows), [_of_sample(rows, column, *title) for column, title in zip(values.T, titles, strict=True)]


def _of_sample(rows: NDArray[np.int64], values: NDArray[np.float64], channel: str | None, title: str) -> _Measure:
    is_finite = np.isfinite(values)
    return _Measure(title, _PIXELS if channel is None else "", rows[is_finite], values[is_finite], channel)


def _distribution(measure: _Measure, look: SelectedImages | None) -> Distribution:
    cells = () if look is None else list(_thumbnails(measure, look))
    return Distribution(measure.title, measure.values, measure.unit, cells)


def at_quantiles(values: NDArray[np.float64]) -> dict[str, int]:
    """Return the place of the value at each quantile, by the quantile's name; each place once."""
    order = np.argsort(values, kind="stable")
    names = {round(_QUANTILES[name] * (order.size - 1)): name for name in reversed(_IN_DOUBT)}
    return {names[rank]: int(order[rank]) for rank in sorted(names)}


def _thumbnails(measure: _Measure, look: SelectedImages) -> Iterator[Thumbnail]:
    chosen = at_quantiles(measure.values)
    planes = _planes_shown(look, measure.channel)
    masks = [look.n_masks - 1] if look.n_masks else []
    rows = [int(measure.rows[place]) for place in chosen.values()]
    images = np.stack([look.scaled_image(row, [*planes, *masks]) for row in rows])
    shown = images[:, : len(planes)]
    if not look.is_normalized:
        shown = np.stack([_on_one_scale(shown[:, k]) for k in range(len(planes))], axis=1)
    names = [look.plane_names[plane] for plane in planes]
    colours = colours_of_channels("auto", names) if len(names) > 1 else None
    for k, (quantile, place) in enumerate(chosen.items()):
        value = f"{in_digits(float(measure.values[place]))} {measure.unit}".strip()
        caption = f"{quantile}: {value}\ncell {look.cell_ids[rows[k]]}"
        yield Thumbnail(thumbnail(shown[k], images[k, -1] if masks else None, colours), caption)


def _on_one_scale(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a channel of the cells at the quantiles, 0 to 1, on the same scale.

    The last cell, at the largest value, does not count if there are others: it is often an outlier, beside which all
    others would be black.
    """
    limits = limits_of(planes[:-1] if len(planes) > 1 else planes)
    return stretched(planes) if limits is None else stretched_between(planes, *limits)


def _planes_shown(look: SelectedImages, channel: str | None) -> Sequence[int]:
    """Return the plane of a channel; for areas, the channels that are shown in colours."""
    planes = look.planes_of(None)
    if channel is None:
        return planes[:MOST_COLOURS]
    return [plane for plane in planes if look.plane_names[plane] == channel][:1]
