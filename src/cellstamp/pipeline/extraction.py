"""The extraction step: cut single-cell images and write them to a file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellstamp.cells.task import measuring_types_of, types_of
from cellstamp.config import ExtractionConfig
from cellstamp.config_rules import MEASURED
from cellstamp.engines import n_local_workers, open_engine
from cellstamp.engines.base import Engine
from cellstamp.engines.inflight import InflightLimit
from cellstamp.engines.memory import memory_budget
from cellstamp.errors import ConfigError, OutputError, notes_of, reworded, writing
from cellstamp.h5sc.feature_table import features_name, has_features
from cellstamp.h5sc.layout import removed_name
from cellstamp.h5sc.opening import bytes_of, is_finished
from cellstamp.h5sc.unfinished import JOURNAL, n_finished, noting_finished, settle
from cellstamp.location import Location, location_of
from cellstamp.pipeline import run
from cellstamp.pipeline.base import ProcessingStep, source_of
from cellstamp.pipeline.border_rule import check_crop_fits, mostly_padding
from cellstamp.pipeline.cell_selection import Selection, choose_cells
from cellstamp.pipeline.cluster_memory import plan_for
from cellstamp.pipeline.compile_kernels import compile_kernels
from cellstamp.pipeline.crop_size import SHARE, measure_size, size_in_pixels
from cellstamp.pipeline.disk_space import DiskSpace, check_fits
from cellstamp.pipeline.extraction_warnings import (
    cut_off_cells,
    empty_cells,
    measured_in_part,
    no_cells_left,
    numbered_apart,
    outside_further_images,
    outside_image,
    removed_cells,
    shapes_outside_image,
    taken_for_pixels,
    too_small_for_crops,
)
from cellstamp.pipeline.folder import STORE
from cellstamp.pipeline.job import Job, file_name_of, in_slide_order, result_in, result_name
from cellstamp.pipeline.measured_output import (
    choose_features,
    published,
    recording,
    remove_outdated,
    space_of_features,
    with_names,
)
from cellstamp.pipeline.output import open_output
from cellstamp.pipeline.queried_cells import find_chosen
from cellstamp.pipeline.result_folder import MEASURED_DIR, check_kind, claim_folder, is_published, keep_url, work_folder
from cellstamp.pipeline.resume_check import begun_from, check_equal, in_the_way, made_from, read_origin
from cellstamp.pipeline.scaling import check_ranges, find_scaling
from cellstamp.pipeline.workers import PACKAGES, PRELOAD, BlockRunner
from cellstamp.report import Progress, RunSummary, Stopwatch, announce, append_benchmark, conclude, format_cells
from cellstamp.source.find.cell_centers import cells_off_grid, centers_on_image, find_centers, why_not_stored
from cellstamp.source.find.elements import find_source
from cellstamp.source.find.masks import MaskChoice
from cellstamp.source.find.selection import ChosenCells
from cellstamp.source.find.shapes_extent import PLACE_ELEMENT, check_on_image
from cellstamp.source.load.file_handler import open_store
from cellstamp.source.load.spatialdata_in_memory import STORE_OF_OBJECT, THE_OBJECT
from cellstamp.source.load.store import store_centers
from cellstamp.source.outlines import OutlineMask
from cellstamp.source.read.arrays import PixelArray, PixelSource
from cellstamp.source.read.shared_ids import survey
from cellstamp.source.values import Centers
from cellstamp.system import check_replaceable, remove, return_freed_memory
from cellstamp.warnings import warn


class HDF5CellExtraction(ProcessingStep):
    """Cut single-cell images from a segmented image, and write them to ``single_cells.h5sc``.

    Parameters are those of `ProcessingStep`. ``filehandler`` is the path or URL of a SpatialData zarr store, a
    SpatialData object, or an object with the attribute ``sdata_path`` (a project's handler). The documentation's page
    "Configuration" lists the keys of the configuration.

    The file is an AnnData: ``obsm["single_cell_images"]`` (n_cells, n_masks + n_channels, y, x), values from 0 to 1,
    float16 unless ``dtype`` says otherwise; ``obsm["spatial"]`` float64 (n_cells, 2), centres as x, y in pixels;
    ``obs["scportrait_cell_id"]`` uint64. It is a table that annotates the mask, in SpatialData's sense.
    Missing centres are computed; ``store_centers`` says whether they are stored as points ``centers_<labels>``.

    Attributes
    ----------
    output_path : str or None
        Path of the file of the latest run; None before the first.
    overwrite_run_path : bool or None
        Whether the next run may replace results; reset after this run. None: ``overwrite`` decides. scportrait's
        projects set it.

    Examples
    --------
    >>> step = HDF5CellExtraction({"threads": 2, "image_size": 128, "cache": "."}, "out", filehandler="slide.zarr")
    >>> step()  # doctest: +SKIP
    >>> step.output_path  # doctest: +SKIP
    'out/data/single_cells.h5sc'
    """

    FILLS_IN_CACHE = False
    DEFAULT_DATA_DIR = "data"

    output_path: str | None = None
    overwrite_run_path: bool | None = None

    def __call__(self, *args: Any, overwrite: bool | None = None, **kwargs: Any) -> Any:
        """Run the step, see `ProcessingStep.__call__`; ``overwrite`` is for this run only."""
        if overwrite is not None:
            self.overwrite_run_path = overwrite
        try:
            return super().__call__(*args, overwrite=overwrite, **kwargs)
        finally:
            # scportrait's project does not reset it, and expects the default in the next call
            self.overwrite_run_path = None

    def check_config(self) -> None:
        """Check the configuration.

        Raises
        ------
        ConfigError
            If it has errors; the message lists all of them.
        """
        with warnings.catch_warnings(action="ignore"):  # the run itself warns
            ExtractionConfig.parse(self.config)

    @property
    def extraction_file(self) -> str:
        """Return the path of the file of a full run with the default folder name."""
        name = file_name_of(self.config.get("file_format"))
        return str(Path(self.directory) / self.DEFAULT_DATA_DIR / name)

    def process(
        self,
        partial: bool = False,  # noqa: FBT001, FBT002 - scportrait's signature
        n_cells: int | None = None,
        seed: int = 42,
        output_folder_name: str | None = None,
    ) -> None:
        """Extract all cells, or a random sample; called by calling the step.

        A finished file with equal settings and input is up to date: it is kept, and this returns at once.

        Parameters
        ----------
        partial
            Extract a sample of ``n_cells`` cells into ``partial_<folder>_ncells_<n_cells>_seed_<seed>``.
        n_cells
            Size of the sample.
        seed
            Seed of the sample.
        output_folder_name
            Name of the folder for the results, in the step's folder; ``data`` by default.

        Raises
        ------
        ConfigError
            If the configuration or an argument is invalid. Nothing is written.
        InputError
            If the image or a mask is missing or invalid, or if all cells of shapes are outside of the image.
        OutputError
            If a result with different settings or input exists and `overwrite` is False, another run writes to the
            folder, or writing fails. Finished cells are kept; the next run resumes.
        WorkerError
            If a batch failed, or workers died at it repeatedly. Finished cells are kept.
        """
        with self._log_for(partial=partial):
            config = ExtractionConfig.parse(self.config)
            _check_arguments(partial=partial, n_cells=n_cells, seed=seed)
            folder = self.folder_of_run(config, output_folder_name, (n_cells, seed) if partial else None)
            finished = result_in(folder, config)
            check_kind(folder, images=config.images, overwrite=self._may_replace)
            if self._may_replace:
                check_replaceable(folder / result_name(config))
            origin = read_origin(finished) if not self._may_replace and is_published(finished, folder) else None
            watch = Stopwatch()
            with open_engine(config, preload=PRELOAD, packages=PACKAGES, log=self.log, warn=self._warn) as engine:
                config, source = self._find_source(config)
                watch.lap("setup")
                if config.engine != "dask" and origin is None:  # workers of a cluster compile for their machines
                    types = types_of(source, config.dtype)
                    measuring = [measuring_types_of(source, config.dtype)] if config.features else []
                    compile_kernels(types, source.loops, engine, lambda line: self._tell(line, config), measuring)
                    watch.skip()
                blocks = BlockRunner(n_local_workers(config))
                sized, selection = self._select(config, source, blocks, partial=partial, n_cells=n_cells, seed=seed)
                if not len(selection.cells):
                    if origin is not None:
                        raise in_the_way(finished, " with different settings or input (no cell can be extracted now)")
                    self._warn_of_selection(source, selection, sized)
                    self._warn(f"{no_cells_left(source, sized, selection)}. No file was written")
                    return
                scaling = find_scaling(sized, source, blocks, log=self.log)
                measured, features = config.image_size == MEASURED, choose_features(sized, source)
                job = Job(sized, source, selection, scaling, folder, measured=measured, features=features)
                if origin is not None:
                    check_equal(origin, begun_from(job), finished)
                    if features is not None and not has_features(finished):
                        raise in_the_way(finished, f" without {features_name(finished.name)}")
                self._warn_of_selection(source, selection, sized)
                if origin is not None:
                    keep_url(finished, folder)
                    self._finish(finished, config, f"Up to date: {format_cells(len(job.cells))} -> {finished}")
                    return
                tally, n_empty = self._extract(job, engine, blocks, watch)
            for warning in empty_cells(job, n_empty):
                self._warn(warning)
            self._report(job, tally, int(n_empty[-1]), watch, engine.n_workers)

    def folder_of_run(self, config: ExtractionConfig, name: str | None, sample: tuple[int | None, int] | None) -> Path:
        """Return the folder for the results of a run, and check that nothing else has its name.

        Parameters
        ----------
        name
            ``output_folder_name`` of the run.
        sample
            Size and seed of a random sample; None: all cells.
        """
        draw = None if sample is None else f"_ncells_{sample[0]}_seed_{sample[1]}"
        default = self.DEFAULT_DATA_DIR if config.images else MEASURED_DIR
        return claim_folder(Path(self.directory), name, draw, default=default)

    def _select(
        self, config: ExtractionConfig, source: PixelSource, blocks: BlockRunner, **sample: Any
    ) -> tuple[ExtractionConfig, Selection]:
        """Return the configuration with a size of crops, and the cells to extract."""
        chosen = find_chosen(config.cells, source, self.filehandler)
        centers = self._find_centers(source, config, blocks)
        if config.image_size == MEASURED:
            config = self._measure_size(centers, chosen, source, config, blocks)
        selection = choose_cells(centers, source, config, chosen=chosen, **sample)
        self._log_selection(source, selection)
        if config.file_format == "zarr":
            selection = replace(selection, cells=in_slide_order(selection.cells, source, config.image_size))
        return_freed_memory()  # reading centres takes a multiple of their size
        return config, selection

    def _warn_of_selection(self, source: PixelSource, selection: Selection, config: ExtractionConfig) -> None:
        if selection.shared is not None:
            self._warn(selection.shared.message(f"'{source.main_mask.name}' in {source.main_mask.store}"))
        for warning in chain(numbered_apart(source, selection), outside_further_images(source, selection)):
            self._warn(warning)
        if len(selection.cells):
            for warning in removed_cells(selection, config):
                self._warn(warning)

    def _extract(
        self, job: Job, engine: Engine, blocks: BlockRunner, watch: Stopwatch
    ) -> tuple[run.Tally, NDArray[np.int64]]:
        """Write all images to a temporary folder, and rename the files when they are complete.

        Returns
        -------
        Tally, ndarray
            Sums over the batches; for each mask, the number of cells without a pixel.
        """
        config = job.config
        budget = memory_budget(config.target_ram_utilization)
        batches = plan_for(job, engine, budget)
        job = with_names(job, engine, batches)
        limit = InflightLimit(
            budget, engine.n_workers, len(batches), config.max_inflight_result_batches, self._warn, self.log
        )
        return_freed_memory()  # planning takes a multiple of the plan's size
        watch.lap("reading")
        layout, content, inputs = job.layout(), made_from(job), begun_from(job)
        with work_folder(job.folder) as work, Progress(len(job.cells), config.progress) as progress:
            settle(work, inputs, overwrite=self._may_replace, log=self.log)
            space, is_local = space_of_features(job, layout), config.output_url is None
            has_images = is_local and config.images
            if not is_local:  # it may be removed before the new one is complete
                self.output_path = None
            if is_local:
                check_fits(work, layout, len(job.cells) - n_finished(work), space, images=has_images)
            with (
                open_output(job, layout, batches, work, inputs, overwrite=self._may_replace, log=self.log) as output,
                recording(job, layout, output.writer, output.folder, self._warner_of_parts(job)) as writer,
            ):
                n_done = int(writer.written.is_written.sum())
                if n_done:
                    self._tell(f"Resuming: {n_done:,} of {len(job.cells):,} cells done", config)
                    progress.advance(n_done)
                tally = run.run_batches(
                    engine,
                    output.task,
                    output.batches,
                    writer,
                    limit=limit,
                    flush_every=config.flush_every,
                    room=DiskSpace(work, len(job.cells) - n_done, space, images=has_images),
                    progress=progress,
                )
                n_empty = writer.written.n_empty
                exceeding = run.find_exceeding(job, np.flatnonzero(writer.written.on_edge), blocks)
                with writing(job.folder):
                    _list_removed(job, output.folder)
                writer.describe(job.description(content, inputs, n_empty, exceeding.rows.size), exceeding.rows)
            with noting_finished(work, len(job.cells)), writing(job.folder):
                _publish(job, output.folder)
        watch.lap("extracting")
        if exceeding.rows.size:
            # with image_size auto, one cell in a hundred is expected
            report = self.log if job.measured else self._warn
            if config.images:  # features are measured beyond the crop
                report(cut_off_cells(job, exceeding))
        return tally, n_empty

    def _warner_of_parts(self, job: Job) -> Callable[[int], None]:
        return lambda n_cells: self._warn(measured_in_part(job, n_cells))

    @property
    def _may_replace(self) -> bool:
        return self.overwrite if self.overwrite_run_path is None else self.overwrite_run_path

    @contextmanager
    def _log_for(self, *, partial: bool) -> Iterator[None]:
        """Log to a separate file during a partial extraction."""
        name = self.log_name
        self.log_name = "partial_processing.log" if partial else name
        try:
            with reworded(self._in_words):
                yield
        except BaseException as error:
            # if the log cannot be written either, report the first error
            with suppress(OutputError):
                failed = f"failed: {type(error).__name__}: {error}".removesuffix(": ")
                self.log(". ".join([failed, *notes_of(error)]))
            raise
        finally:
            self.log_name = name

    def _find_source(self, config: ExtractionConfig) -> tuple[ExtractionConfig, PixelSource]:
        """Return the configuration with ``image_size`` in pixels, and the source."""
        masks = MaskChoice(
            config.segmentation_key,
            config.segmentation_mask,
            config.nucleus_labels,
            config.cytosol_labels,
            config.nucleus_shapes,
            config.cytosol_shapes,
        )
        folder = self._scratch_folder(config.cache)
        store = open_store(self.filehandler, config.image_names, masks, config.centers, folder)
        source = find_source(
            store,
            image=config.image,
            masks=masks,
            coordinate_system=config.coordinate_system,
            interpolation=config.interpolation,
            pixel_size=config.image_pixel_size,
            crop_pixel_size=config.crop_pixel_size,
        )
        for position in source.positions:
            (self._tell(position, config) if source.is_sampled else self.log(position))
        for remark in source.remarks:
            self.log(remark)
        for sentence in source.left_out:
            self._warn(sentence)
        sized = size_in_pixels(config, source)
        if sized is not config:
            self._tell(f"image_size {config.image_size!r} is {sized.image_size} pixels", config)
        for mask in source.outlines:
            check_on_image(mask, PLACE_ELEMENT)
        for warning in taken_for_pixels(source, in_project=self._own_store() is not None):
            self._warn(warning)
        check_crop_fits(sized, source)
        for warning in mostly_padding(sized, source):
            self._warn(warning)
        check_ranges(sized, source)
        return sized, source if config.channels is None else source.pick(config.channels)

    def _find_centers(self, source: PixelSource, config: ExtractionConfig, blocks: BlockRunner) -> Centers:
        """Return given or stored centres, or those of outlines, or compute and, if wanted, store them."""
        mask = source.main_mask
        if isinstance(mask, OutlineMask):
            if config.centers is not None:
                raise ConfigError(
                    f"centers = {config.centers!r}: cells are given as the shapes '{mask.name}', so their centres are "
                    "the centroids of these shapes. Remove the key centers"
                )
            for warning in shapes_outside_image(mask):
                self._warn(warning)
            return centers_on_image(mask)
        centers = find_centers(
            mask,
            config.centers,
            compute=lambda labels: survey(labels, blocks),
            write=store_centers,
            log=self.log,
            not_stored=why_not_stored(self.filehandler, mask, config.store_centers, self._own_store()),
        )
        if config.centers is None:
            self._warn_of_outside(source, mask, centers, blocks)
        return centers

    def _warn_of_outside(self, source: PixelSource, mask: PixelArray, centers: Centers, blocks: BlockRunner) -> None:
        """Warn of cells of labels with other pixels than the crops' that have no pixel in these."""
        outside = cells_off_grid(mask, centers, blocks)
        if outside.size and source.scale == (1.0, 1.0):
            self._warn(outside_image(mask, len(centers), outside))
        elif outside.size:
            self._warn(too_small_for_crops(source, len(centers), outside))

    def _own_store(self) -> Path | None:
        """Return the store of the step's project."""
        return None if self.project_location is None else Path(self.project_location) / STORE

    def _measure_size(
        self,
        centers: Centers,
        chosen: ChosenCells | None,
        source: PixelSource,
        config: ExtractionConfig,
        blocks: BlockRunner,
    ) -> ExtractionConfig:
        """Return the configuration with the size of crops that holds nearly all selected cells."""
        cells = centers if chosen is None else chosen.among(centers, source.main_mask)
        size = measure_size(cells, source, blocks) if len(cells) else 2
        self.log(f"image_size auto: {size} holds {SHARE:.0%} of {format_cells(len(cells))} completely")
        config = config.model_copy(update={"image_size": size})
        check_crop_fits(config, source, measured=True)
        return config

    def _tell(self, line: str, config: ExtractionConfig) -> None:
        self.log(line)
        announce(self._in_words(line), mode=config.progress)

    def _warn(self, message: str) -> None:
        self.log(message)
        warn(self._in_words(message))

    def log(self, message: object) -> None:
        """Append a message to the log; see `Logable.log`."""
        super().log(self._in_words(message) if isinstance(message, str) else message)

    def _in_words(self, text: str) -> str:
        """Replace the temporary store of a SpatialData object, which the user does not know."""
        folder = getattr(self, "_tmp_dir_path", None)
        if folder is None:
            return text
        store = str(Path(folder) / STORE_OF_OBJECT)
        return text.replace(f"spatialdata.read_zarr({store!r})", "sdata").replace(store, THE_OBJECT)

    def _log_selection(self, source: PixelSource, selection: Selection) -> None:
        image = source.image
        self.log(
            {
                "image": f"{image.name}, {image.shape} (c, y, x), {image.dtype}",
                "masks": ", ".join(source.mask_names),
                "cells in the mask": selection.n_in_mask,
                "not chosen": selection.n_not_chosen,
                "removed at the border": selection.removed.size,
                "to extract": len(selection.cells),
            }
        )

    def _report(self, job: Job, tally: run.Tally, n_empty: int, watch: Stopwatch, n_workers: int) -> None:
        """Report the run to the user, the log and the table of runs."""
        path = job.result
        summary = RunSummary(
            image_size=job.source.shape,
            cells_in_mask=job.selection.n_in_mask,
            cells_kept=len(job.cells),
            cells_removed=job.selection.removed.size,
            cells_not_chosen=job.selection.n_not_chosen,
            cells_empty=n_empty,
            masks=len(job.source.masks),
            crop_size=job.config.image_size,
            workers=n_workers,
            batch_size=tally.largest_batch,
            setup_s=watch["setup"],
            reading_s=watch["reading"],
            extracting_s=watch["extracting"],
            total_s=watch.total,
            peak_rss=tally.memory.peak,
            path=path,
            file_bytes=bytes_of(path),
            verb="Extracted" if job.config.images else "Measured",
        )
        append_benchmark(summary, Path(self.directory))
        self.log(
            f"seconds of all workers: reading {tally.read_s:.1f}, cutting and encoding {tally.cut_s:.1f}; "
            f"writing {tally.write_s:.1f}"
        )
        self._finish(path, job.config, summary.closing_line())

    def _finish(self, path: Location, config: ExtractionConfig, line: str) -> None:
        self.output_path = str(path)
        self.log(line)
        conclude(line, mode=config.progress)

    def _about(self) -> dict[str, str]:
        path = location_of(self.output_path or self.extraction_file)
        how = self._how_to_run("extract")
        is_there = self.output_path is not None or is_finished(path)
        found = f"{path}; read it with cellstamp.read_h5sc({str(path)!r})" if is_there else f"none yet; {how}"
        return {"cells from": source_of(self.filehandler), **self._shown_config("image_size"), "result": found}


def _list_removed(job: Job, folder: Path) -> None:
    """Write the ids of removed cells beside the unfinished result."""
    removed = "".join(f"{cell}\n" for cell in job.selection.removed.tolist())
    (folder / removed_name(job.file_name)).write_text(removed, encoding="ascii", newline="\n")


def _publish(job: Job, unfinished: Path) -> None:
    """Give the files in a folder of unfinished results their final names, the main one last."""
    remove_outdated(job)
    run.publish([removed_name(job.file_name), *published(job), job.file_name], unfinished, job.folder)
    if not job.config.images:  # it would be resumed
        remove(unfinished / JOURNAL)


def _check_arguments(*, partial: object, n_cells: object, seed: object) -> None:
    """Check the arguments of `HDF5CellExtraction.process`.

    Raises
    ------
    ConfigError
        If ``partial`` is not a boolean, ``seed`` not an integer >= 0, or ``n_cells`` given without ``partial``.
    """
    if not isinstance(partial, bool):
        message = f"partial = {partial!r}: must be True or False"
        if isinstance(partial, os.PathLike) or (isinstance(partial, str) and Path(partial).suffix):
            message += " (the filehandler gives the image and masks; their paths are not arguments)"
        raise ConfigError(message)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        message = f"seed = {seed!r}: must be an integer >= 0"
        raise ConfigError(message)
    if n_cells is not None and not partial:
        message = f"n_cells = {n_cells!r} was given without partial=True, which would extract all cells; give both"
        raise ConfigError(message)
