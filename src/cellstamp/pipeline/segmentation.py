"""The segmentation step: segments an image without masks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cellstamp.compiling.cache_folders import USUAL, is_kept
from cellstamp.engines import choose_engine, n_local_workers
from cellstamp.engines.base import Engine
from cellstamp.engines.serial import SerialEngine
from cellstamp.errors import ConfigError, InputError
from cellstamp.location import is_remote, is_writable, path_of
from cellstamp.pipeline.base import ProcessingStep, source_of
from cellstamp.pipeline.workers import PRELOAD, BlockRunner
from cellstamp.report import Progress, conclude
from cellstamp.segmentation_config import SegmentationConfig
from cellstamp.source.find.elements import find_image
from cellstamp.source.load.checks import check_free
from cellstamp.source.load.segmented_masks import MASK_SIDE, Scratch, write_masks
from cellstamp.source.load.staging import check_not_linked
from cellstamp.source.names import CYTOSOL, MASKS, NUCLEUS
from cellstamp.source.read.arrays import PixelSource
from cellstamp.source.values import Rect
from cellstamp.warnings import NoNucleusWarning, warn

if TYPE_CHECKING:
    from cellstamp.segment.blocks import Masks
    from cellstamp.segment.nucleus_settings import NucleusSettings
    from cellstamp.segment.threshold import Split

_NEEDED = {"scipy": "scipy", "skimage": "scikit-image"}
_PRELOAD = ("cellstamp.segment.blocks",)
_IN_FLIGHT = 2
"""Blocks in flight for each worker; this limits memory."""


class _Part(Protocol):
    """Result for one block."""

    @property
    def rect(self) -> Rect:
        """The block."""
        ...


P = TypeVar("P", bound=_Part)


class ThresholdSegmentation(ProcessingStep):
    """Segment nuclei by a threshold and a distance watershed, and expand each nucleus into a cell.

    Works for images with nuclei brighter than their surroundings. Parameters are those of `ProcessingStep`;
    ``filehandler`` is the path of a SpatialData zarr store, or an object with the attribute ``sdata_path`` (a project's
    handler). The documentation's page "Segmentation" lists the keys of the configuration.

    Writes the labels ``seg_all_nucleus`` and ``seg_all_cytosol`` to the store: uint32 (y, x), 0 = background. Also
    writes the points with the centres of both. A cell has the same id in both masks. Ids are 1, 2, ... without gaps, in
    reading order of the centres of the nuclei. They don't depend on block size and number of workers.

    Examples
    --------
    >>> step = ThresholdSegmentation({"threads": 2, "cache": "."}, "out", filehandler="slide.zarr")
    >>> step()  # doctest: +SKIP
    """

    FILLS_IN_CACHE = False

    def check_config(self) -> None:
        """Check the configuration.

        Raises
        ------
        ConfigError
            If it has errors; the message lists all of them.
        """
        SegmentationConfig.parse(self.config)

    def process(self, image: Any = None) -> None:
        """Segment the image of the store; called by calling the step.

        Parameters
        ----------
        image
            Ignored. Projects pass it to every segmentation step; this step reads the image from the store, by blocks.

        Raises
        ------
        ConfigError
            If the configuration is invalid, or scikit-image is not installed. Nothing is written.
        InputError
            If the image is missing or invalid.
        OutputError
            If masks exist and `overwrite` is False, or the store is a link to another one.
        WorkerError
            If a block failed, or workers died at it repeatedly. The store is unchanged.

        Warns
        -----
        UserWarning
            If the image has no nucleus; no masks are written. If nuclei are hardly brighter than the background, as in
            an image of noise; masks are written.
        """
        del image
        started = time.perf_counter()
        config = SegmentationConfig.parse(self.config)
        _check_installed()
        store = self._find_store()
        source = find_image(store, config.image)
        channel = _channel_number(config, source)
        check_free(store, MASKS, overwrite=self.overwrite)
        engine = self._choose_engine(config, source)
        with Progress(3 * source.shape[0] * source.shape[1], config.progress, doing="segmenting", unit="px") as bar:
            work = _Work(config, source, channel, engine, bar)
            split = work.split()
            settings = _nucleus_settings(config, split)
            where = f"{source.image.name}, {source.image.shape} (c, y, x), channel {source.channel_names[channel]}"
            found = {"separability": f"{split.separability:.3f}", "expansion": config.expansion}
            self.log({"nuclei in": where, **asdict(settings), **found})
            names, kept = work.name_nuclei(settings, self._scratch_folder(config.cache))
            if not kept.size:
                message = _no_nucleus(config, source, channel, settings, split)
                self._warn(f"{message}. {_unchanged_masks(store)}", NoNucleusWarning)
                return
            if split.is_doubtful:
                self._warn(_doubtful(source, channel, split, kept.size))
            with closing(work.masks(names, kept)) as parts:
                centers = write_masks(store, source.image, parts, run=BlockRunner(n_local_workers(config)))
        self._report(store, len(centers[NUCLEUS]), config, time.perf_counter() - started)

    def _find_store(self) -> Path:
        path = path_of(self.filehandler)
        if path is None:
            message = (
                f"filehandler is {type(self.filehandler).__name__}: must be the path of a SpatialData zarr store, or "
                "an object with the attribute sdata_path. The masks are written to this store"
            )
            raise InputError(message)
        if is_remote(path):
            raise InputError(f"{path} is not a folder on a disk: the masks must be written to it")
        if Path(path).exists() and not is_writable(path):
            raise InputError(f"{path} is read-only: the masks must be written to it. Segment a copy on a local disk")
        check_not_linked(Path(path), ("labels", "points"))
        return Path(path)

    def _choose_engine(self, config: SegmentationConfig, source: PixelSource) -> Engine:
        """Return the engine; a single block runs in this process."""
        if max(source.shape) <= config.block_size:
            return SerialEngine()
        # an extraction often follows, but compiling its kernels here would take time without a message
        preload = (*PRELOAD, *_PRELOAD) if is_kept(USUAL) else _PRELOAD
        return choose_engine(config, log=self.log, warn=self._warn, preload=preload)

    def _about(self) -> dict[str, str]:
        store = Path(path_of(self.filehandler) or ".")
        masks = [Path(mask).name for mask in (NUCLEUS, CYTOSOL) if (store / mask).exists()]
        found = f"{', '.join(masks)} in {store / 'labels'}" if masks else f"none yet; {self._how_to_run('segment')}"
        return {"image from": source_of(self.filehandler), **self._shown_config("method"), "masks": found}

    def _report(self, store: Path, n: int, config: SegmentationConfig, seconds: float) -> None:
        found = "1 nucleus and cell" if n == 1 else f"{n:,} nuclei and cells"
        masks = ", ".join(Path(mask).name for mask in (NUCLEUS, CYTOSOL))
        line = f"Segmented {found} -> {store / 'labels'} ({masks}) in {seconds:.1f} s"
        self.log(line)
        conclude(line, mode=config.progress)

    def _warn(self, message: str, category: type[UserWarning] = UserWarning) -> None:
        self.log(message)
        warn(message, category)


class _Work:
    """Passes over the image; each applies a callable to blocks, in workers."""

    def __init__(
        self, config: SegmentationConfig, source: PixelSource, channel: int, engine: Engine, bar: Progress
    ) -> None:
        self._config, self._source, self._channel = config, source, channel
        self._engine, self._bar = engine, bar

    def split(self) -> Split:
        """Return Otsu's threshold of the whole image."""
        from cellstamp.segment.blocks import CountLevels
        from cellstamp.segment.threshold import otsu

        task = CountLevels(self._source, self._channel, self._config.smoothing)
        with closing(self._run(task, self._blocks(self._config.block_size))) as parts:
            counted = [(part.keys.copy(), part.counts.copy()) for part in parts]
        keys, counts = (np.concatenate(column) for column in zip(*counted, strict=True))
        return otsu(keys, counts)

    def name_nuclei(self, settings: NucleusSettings, folder: Path) -> tuple[Scratch, NDArray[np.uint64]]:
        """Find nuclei; return an image of their names, and the names of nuclei with enough pixels, ascending."""
        from cellstamp.segment.blocks import NameNuclei

        scratch = Scratch(folder, "names", self._source.shape)
        seen = [(np.zeros(0, np.uint64), np.zeros(0, np.int64))]
        task = NameNuclei(self._source, self._channel, settings)
        with closing(self._run(task, self._blocks(self._config.block_size))) as parts:
            for part in parts:
                scratch.write(part.rect, part.pixels)
                seen.append((part.names.copy(), part.n_pixels.copy()))
        names, where = np.unique(np.concatenate([names for names, _ in seen]), return_inverse=True)
        sizes = np.bincount(where, weights=np.concatenate([n_pixels for _, n_pixels in seen]))
        return scratch, names[sizes >= settings.min_area]

    def masks(self, names: Scratch, kept: NDArray[np.uint64]) -> Generator[Masks, None, None]:
        """Yield the masks of nuclei and cells, block by block."""
        from cellstamp.segment.blocks import MakeMasks

        yield from self._run(MakeMasks(names.handle, kept, self._config.expansion), self._blocks(MASK_SIDE))

    def _blocks(self, side: int) -> list[Rect]:
        from cellstamp.segment.blocks import tiles

        return tiles(self._source.shape, side)

    def _run(self, task: Callable[[Rect], P], blocks: Sequence[Rect]) -> Generator[P, None, None]:
        """Yield the result for each block, in order of completion; large arrays are valid until the next result."""
        limit = _IN_FLIGHT * self._engine.n_workers
        # workers end with this generator, also after an error
        with closing(self._engine.run(task, blocks, lambda: limit)) as outcomes:
            for outcome in outcomes:
                yield outcome.value
                self._bar.advance(math.prod(outcome.value.rect.shape))


def _check_installed() -> None:
    """Check that scipy and scikit-image are installed.

    Raises
    ------
    ConfigError
        If a package is missing.
    """
    missing = [name for module, name in _NEEDED.items() if find_spec(module) is None]
    if missing:
        message = (
            f"ThresholdSegmentation needs {' and '.join(missing)}: install with pip install 'cellstamp[segmentation]'"
        )
        raise ConfigError(message)


def _channel_number(config: SegmentationConfig, source: PixelSource) -> int:
    """Return the number of the channel with the nuclei, from 0.

    Raises
    ------
    ConfigError
        If the image has no channel of this name, or several.
    """
    name = config.nucleus_channel
    if name is None:
        return 0
    if source.channel_names.count(name) != 1:
        problem = "no channel" if name not in source.channel_names else "more than one channel"
        message = (
            f"nucleus_channel = {name!r}: image '{source.image.name}' of {source.image.store} has {problem} of this "
            f"name; its channels are {', '.join(source.channel_names)}"
        )
        raise ConfigError(message)
    return source.channel_names.index(name)


def _nucleus_settings(config: SegmentationConfig, split: Split) -> NucleusSettings:
    """Combine the configuration and Otsu's threshold of the whole image."""
    from cellstamp.segment.nucleus_settings import NucleusSettings

    level = split.level * (1 if config.method == "otsu" else config.floor)
    return NucleusSettings(
        config.method, config.smoothing, config.window, config.min_distance, config.min_area, level=level
    )


def _no_nucleus(
    config: SegmentationConfig, source: PixelSource, channel: int, settings: NucleusSettings, split: Split
) -> str:
    begin = f"No nucleus found in channel '{source.channel_names[channel]}' of image '{source.image.name}'"
    if split.is_flat:
        return f"{begin}: all pixels have about the same brightness. Check nucleus_channel"
    lower = "floor or min_area" if config.method == "local" else "min_area"
    return (
        f"{begin}: no object is brighter than {settings.level:g} and has at least {config.min_area} pixels. Check "
        f"nucleus_channel, or lower {lower}"
    )


def _unchanged_masks(store: Path) -> str:
    old = [Path(element).name for element in (NUCLEUS, CYTOSOL) if (store / element).exists()]
    if not old:
        return "No masks were written"
    return f"No masks were written; the existing {' and '.join(old)} {'are' if len(old) > 1 else 'is'} unchanged"


def _doubtful(source: PixelSource, channel: int, split: Split, n_nuclei: int) -> str:
    from cellstamp.segment.threshold import DOUBTFUL

    return (
        f"Found {n_nuclei:,} nuclei in channel '{source.channel_names[channel]}' of image '{source.image.name}', but "
        f"they may be noise: their separability from the background is {split.separability:.2f}, below {DOUBTFUL:g} "
        "(pure noise has 0.64). Look at project.plot_segmentation_masks(), and check nucleus_channel"
    )
