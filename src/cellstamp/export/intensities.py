"""Choose which values are black and white in 8-bit pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cellstamp.errors import ConfigError
from cellstamp.h5sc.selected_images import SelectedImages
from cellstamp.pictures.mosaic import limits_of, stretched, stretched_between

Scale = Literal["auto", "cell", "all"] | tuple[float, float]
"""``"auto"``, ``"cell"``, ``"all"``, or the values that are black and white."""

MOST_SAMPLED = 1000
"""Cells that decide on the limits for all cells."""
_SAMPLE_BYTES = 2**26
_NO_LIMITS = (0.0, 1.0)


@dataclass(frozen=True)
class Intensities:
    """Black and white of each plane.

    Attributes
    ----------
    limits
        For each plane the values, from 0 to 1, that are black and white. None: different for each cell.
    """

    limits: tuple[tuple[float, float] | None, ...]

    def shown(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return an image (n_planes, y, x), 0 to 1, with black at 0 and white at 1."""
        pairs = zip(image, self.limits, strict=True)
        return np.stack(
            [stretched(plane) if each is None else stretched_between(plane, *each) for plane, each in pairs]
        )


def check_scale(scale: Any, dtype: np.dtype[Any]) -> None:
    """Check the argument ``scale``.

    Parameters
    ----------
    dtype
        Stored pixel type, for the message.

    Raises
    ------
    ConfigError
        If it is invalid.
    """
    if isinstance(scale, str) and scale in ("auto", "cell", "all"):
        return
    is_pair = isinstance(scale, Sequence | np.ndarray) and not isinstance(scale, str) and len(scale) == 2
    if is_pair and all(isinstance(each, int | float | np.number) for each in scale) and 0 <= scale[0] < scale[1] <= 1:
        return
    unit = f", where 1 stands for {np.iinfo(dtype).max}" if dtype.kind == "u" else ""
    raise ConfigError(
        f"scale = {scale!r}: must be 'auto', 'cell', 'all', or the values that are black and white: two ascending "
        f"numbers from 0 to 1{unit}, like (0, 0.5)"
    )


def intensities_of(look: SelectedImages, rows: NDArray[np.int64], planes: Sequence[int], scale: Scale) -> Intensities:
    """Return black and white of some planes; those of masks are 0 and 1.

    Parameters
    ----------
    rows
        The exported cells. At most `MOST_SAMPLED` of them, evenly spaced, decide for ``"all"``.
    scale
        Checked by `check_scale`.
    """
    if isinstance(scale, str) and scale == "auto":
        scale = _NO_LIMITS if look.is_normalized else "all"
    if scale == "cell":
        chosen: list[tuple[float, float] | None] = [None] * len(planes)
    elif scale == "all":
        chosen = [*_limits_for_all(look, rows, planes)]
    else:
        chosen = [(float(scale[0]), float(scale[1]))] * len(planes)
    return Intensities(
        tuple(_NO_LIMITS if plane < look.n_masks else each for plane, each in zip(planes, chosen, strict=True))
    )


def _limits_for_all(look: SelectedImages, rows: NDArray[np.int64], planes: Sequence[int]) -> list[tuple[float, float]]:
    cell_bytes = len(planes) * look.image_size**2 * look.dtype.itemsize
    n = min(rows.size, MOST_SAMPLED, max(1, _SAMPLE_BYTES // cell_bytes))
    places = np.linspace(0, rows.size - 1, n).round().astype(np.int64)
    images = look.reader_of(rows[places], planes)(np.arange(n))
    return [limits_of(look.scaled(images[:, number])) or _NO_LIMITS for number in range(len(planes))]
