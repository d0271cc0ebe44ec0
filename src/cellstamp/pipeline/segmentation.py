"""The segmentation step for who has only an image."""

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

from cellstamp.cells.compiled import is_compiled
from cellstamp.engines.base import Engine, SerialEngine
from cellstamp.errors import ConfigError, InputError
from cellstamp.pipeline.base import ProcessingStep
from cellstamp.pipeline.workers import PRELOAD, BlockRunner, choose_engine, n_local_workers
from cellstamp.report import Progress, announce
from cellstamp.segmentation_config import SegmentationConfig
from cellstamp.source.arrays import PixelSource
from cellstamp.source.checks import check_free
from cellstamp.source.elements import find_image
from cellstamp.source.location import is_writable, path_of
from cellstamp.source.names import CYTOSOL, NUCLEUS
from cellstamp.source.parts import MASK_SIDE, Scratch, write_masks
from cellstamp.source.values import Centers, Rect
from cellstamp.warnings import warn

if TYPE_CHECKING:
    from cellstamp.segment.blocks import Masks
    from cellstamp.segment.nucleus_settings import NucleusSettings
    from cellstamp.segment.threshold import Split

_NEEDED = {"scipy": "scipy", "skimage": "scikit-image"}
_PRELOAD = ("cellstamp.segment.blocks",)
_IN_FLIGHT = 2
"""Blocks per worker that are under way or waiting to be written: what bounds memory."""


class _Part(Protocol):
    """What becomes of a block."""

    @property
    def rect(self) -> Rect:
        """The block."""
        ...


P = TypeVar("P", bound=_Part)


class ThresholdSegmentation(ProcessingStep):
    """Finds nuclei by a threshold and a distance watershed, and a cell around each by bounded expansion.

    For images whose nuclei are brighter than what is around them. Parameters are those of `ProcessingStep`;
    ``filehandler`` says where the image is: an object with the attribute ``sdata_path`` (a project's handler), or the
    path of a SpatialData zarr store. The configuration's keys are listed on the documentation's page "Segmentation".

    The store is given the labels ``seg_all_nucleus`` and ``seg_all_cytosol``, uint32 (y, x), 0 = background, and the
    points with the centres of both. A cell has the same id in both; ids are 1, 2, ... without gaps, in reading order of
    the middles of the nuclei, however large blocks are and however many workers there are.

    Examples
    --------
    >>> step = ThresholdSegmentation({"threads": 2, "cache": "."}, "out", filehandler="slide.zarr")
    >>> step()  # doctest: +SKIP
    """

    CACHE_REQUIRED = True

    def check_config(self) -> None:
        """Refuse a configuration with faults, naming all of them.

        Raises
        ------
        ConfigError
            If there is any.
        """
        SegmentationConfig.parse(self.config)

    def process(self, image: Any = None) -> None:
        """Segment the image of the store; called by calling the step.

        Parameters
        ----------
        image
            Not looked at: projects hand it to every segmentation step. This one reads the store itself, block by block.

        Raises
        ------
        ConfigError
            If the configuration cannot be used, or scikit-image is not installed; nothing has been done then.
        InputError
            If there is no image, or it cannot be used.
        OutputError
            If there are masks already, and overwriting was not asked for.
        WorkerError
            If a block failed, or workers died at it again and again. The store is as it was then.

        Warns
        -----
        UserWarning
            If there is no nucleus in the image; nothing is written then. If brightness hardly tells nuclei from the
            background, as in an image without any; masks are written.
        """
        del image
        started = time.perf_counter()
        config = SegmentationConfig.parse(self.config)
        _check_installed()
        store = self._find_store()
        source = find_image(store, config.image)
        channel = _channel_number(config, source)
        check_free(store, [NUCLEUS, CYTOSOL], overwrite=self.overwrite)
        engine = self._choose_engine(config, source)
        with Progress(3 * source.shape[0] * source.shape[1], config.progress, doing="segmenting", unit="px") as bar:
            work = _Work(config, source, channel, engine, bar)
            split = work.split()
            settings = _nucleus_settings(config, split)
            where = f"{source.image.name}, {source.image.shape} (c, y, x), channel {source.channel_names[channel]}"
            found = {"separability": f"{split.separability:.3f}", "expansion": config.expansion}
            self.log({"nuclei in": where, **asdict(settings), **found})
            names, kept = work.name_nuclei(settings, Path(self._tmp_dir_path or config.cache))
            if not kept.size:
                self._warn(f"{_no_nucleus(config, source, channel, settings, split)}{_what_stays(store)}")
                return
            if split.is_doubtful:
                self._warn(_doubtful(source, channel, split, kept.size))
            with closing(work.masks(names, kept)) as parts:
                centers = write_masks(store, source.image, parts, run=BlockRunner(n_local_workers(config)))
        self._report(centers, config, time.perf_counter() - started)

    def _find_store(self) -> Path:
        path = path_of(self.filehandler)
        if path is None:
            message = (
                f"filehandler is {type(self.filehandler).__name__}; needed is the path of a SpatialData zarr store, or "
                "an object with the attribute sdata_path, for the masks are written there"
            )
            raise InputError(message)
        if Path(path).exists() and not is_writable(path):
            raise InputError(f"{path} cannot be written to: the masks have to go there")
        return Path(path)

    def _choose_engine(self, config: SegmentationConfig, source: PixelSource) -> Engine:
        """Workers; but for a single block none has to be started."""
        if max(source.shape) <= config.block_size:
            return SerialEngine()
        # an extraction is likely to follow, but must not have its kernels compiled here, where nobody is told
        preload = (*PRELOAD, *_PRELOAD) if is_compiled() else _PRELOAD
        return choose_engine(config, log=self.log, warn=self._warn, preload=preload)

    def _report(self, centers: dict[str, Centers], config: SegmentationConfig, seconds: float) -> None:
        line = f"{len(centers[NUCLEUS])} nuclei and cells found in {seconds:.1f} s"
        self.log(line)
        announce(line, mode=config.progress)

    def _warn(self, message: str) -> None:
        self.log(message)
        warn(message)


class _Work:
    """The passes over the image: each applies a callable to blocks, in workers."""

    def __init__(
        self, config: SegmentationConfig, source: PixelSource, channel: int, engine: Engine, bar: Progress
    ) -> None:
        self._config, self._source, self._channel = config, source, channel
        self._engine, self._bar = engine, bar

    def split(self) -> Split:
        """Otsu's threshold of the whole image."""
        from cellstamp.segment.blocks import CountLevels
        from cellstamp.segment.threshold import otsu

        task = CountLevels(self._source, self._channel, self._config.smoothing)
        with closing(self._run(task, self._blocks(self._config.block_size))) as parts:
            counted = [(part.keys.copy(), part.counts.copy()) for part in parts]
        keys, counts = (np.concatenate(column) for column in zip(*counted, strict=True))
        return otsu(keys, counts)

    def name_nuclei(self, settings: NucleusSettings, folder: Path) -> tuple[Scratch, NDArray[np.uint64]]:
        """Find nuclei; returns where they are, by name, and the names of those that are large enough, ascending."""
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
        """Nuclei and cells with their ids, block by block."""
        from cellstamp.segment.blocks import MakeMasks

        yield from self._run(MakeMasks(names.handle, kept, self._config.expansion), self._blocks(MASK_SIDE))

    def _blocks(self, side: int) -> list[Rect]:
        from cellstamp.segment.blocks import tiles

        return tiles(self._source.shape, side)

    def _run(self, task: Callable[[Rect], P], blocks: Sequence[Rect]) -> Generator[P, None, None]:
        """What a task makes of every block, in order of completion; its large arrays are valid until the next one."""
        limit = _IN_FLIGHT * self._engine.n_workers
        # whatever ends this ends the workers too
        with closing(self._engine.run(task, blocks, lambda: limit)) as outcomes:
            for outcome in outcomes:
                yield outcome.value
                self._bar.advance(math.prod(outcome.value.rect.shape))


def _check_installed() -> None:
    """Refuse to begin without what the work needs.

    Raises
    ------
    ConfigError
        Naming it.
    """
    missing = [name for module, name in _NEEDED.items() if find_spec(module) is None]
    if missing:
        message = (
            f"ThresholdSegmentation needs {' and '.join(missing)}: install with pip install 'cellstamp[segmentation]'"
        )
        raise ConfigError(message)


def _channel_number(config: SegmentationConfig, source: PixelSource) -> int:
    """Where the channel of the nuclei is.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    name = config.nucleus_channel
    if name is None:
        return 0
    if source.channel_names.count(name) != 1:
        problem = "no channel" if name not in source.channel_names else "more than one channel"
        message = (
            f"nucleus_channel = {name!r}: {problem} of that name in image '{source.image.name}' of "
            f"{source.image.store}; it has {', '.join(source.channel_names)}"
        )
        raise ConfigError(message)
    return source.channel_names.index(name)


def _nucleus_settings(config: SegmentationConfig, split: Split) -> NucleusSettings:
    """How nuclei are found: the configuration, and Otsu's threshold of the whole image."""
    from cellstamp.segment.nucleus_settings import NucleusSettings

    level = split.level * (1 if config.method == "otsu" else config.floor)
    return NucleusSettings(
        config.method, config.smoothing, config.window, config.min_distance, config.min_area, level=level
    )


def _no_nucleus(
    config: SegmentationConfig, source: PixelSource, channel: int, settings: NucleusSettings, split: Split
) -> str:
    begin = f"no nucleus found in channel '{source.channel_names[channel]}' of image '{source.image.name}'"
    if split.is_flat:
        return f"{begin}: all of its pixels are about the same. Is it the right channel (nucleus_channel)?"
    return (
        f"{begin}: nothing there is brighter than {settings.level:g} and at least {config.min_area} pixels large. Is it "
        "the right channel (nucleus_channel)? Otherwise try a lower floor or min_area"
    )


def _what_stays(store: Path) -> str:
    old = [Path(element).name for element in (NUCLEUS, CYTOSOL) if (store / element).exists()]
    if not old:
        return "; no masks were written"
    return f"; no masks were written, and {' and '.join(old)} from before {'are' if len(old) > 1 else 'is'} still there"


def _doubtful(source: PixelSource, channel: int, split: Split, n_nuclei: int) -> str:
    from cellstamp.segment.threshold import DOUBTFUL

    return (
        f"{n_nuclei} nuclei found in channel '{source.channel_names[channel]}' of image '{source.image.name}', but are "
        f"they nuclei? They are hardly brighter than what is around them: separability {split.separability:.2f}, and "
        f"below {DOUBTFUL:g} it may be noise alone, which has 0.64. Look at project.plot_segmentation_masks(), and "
        "whether it is the right channel (nucleus_channel)"
    )
