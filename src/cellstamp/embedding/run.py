"""Embed all single-cell images of a file: settings, identity, and the loop over batches."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cellstamp import __version__
from cellstamp.embedding.identity import UnknownIdentityError, identity_of, name_of
from cellstamp.embedding.network import PRECISIONS, Network, choose_device, evaluating, networks_of
from cellstamp.embedding.reading import read_batches
from cellstamp.embedding.unfinished import EmbeddedRows
from cellstamp.engines.threads import Threads, usable_cores
from cellstamp.errors import ConfigError, OutputError, note_finished
from cellstamp.h5sc.embedding_table import Crops, write_embedding
from cellstamp.report import Progress, format_bytes
from cellstamp.system import remove
from cellstamp.training.order import check_number
from cellstamp.training.several_files import StampSet
from cellstamp.warnings import warn

_VALUE_BYTES = 4


@dataclass(frozen=True)
class Settings:
    """Arguments of `cellstamp.embed`, checked."""

    model: Callable[[torch.Tensor], Any]
    batch_size: int = 256
    device: str | torch.device = "auto"
    channels: Any = None
    transform: Callable[[torch.Tensor], Any] | None = None
    precision: str = "float32"
    n_threads: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.model, type):
            name = self.model.__name__
            raise ConfigError(f"model = {name}: is a class; pass an object, such as {name}()")
        _check_callable("model", self.model)
        if self.transform is not None:
            _check_callable("transform", self.transform)
        check_number("batch_size", self.batch_size, least=1)
        if self.n_threads is not None:
            check_number("n_threads", self.n_threads, least=1)
        if self.precision not in PRECISIONS:
            message = f"precision = {self.precision!r}: must be one of {', '.join(map(repr, PRECISIONS))}"
            raise ConfigError(message)

    def identity(self) -> dict[str, str] | None:
        """Return what decides the values, as JSON values; None: model or transform cannot be identified."""
        try:
            transform = "none" if self.transform is None else identity_of(self.transform)
            return {"model": identity_of(self.model), "transform": transform, "precision": self.precision}
        except UnknownIdentityError as error:
            warn(
                f"an interrupted run could not resume: {error} cannot be compared with that of another run. Pass a "
                "torch.nn.Module, or a function of a module"
            )
            return None


def _check_callable(name: str, value: object) -> None:
    if not callable(value):
        message = f"{name} = {value!r:.60}: must be a torch.nn.Module, or a function that takes images"
        raise ConfigError(message)


class EmbeddingRun:
    """An embedding to make.

    Parameters
    ----------
    crops
        Tables of the images.
    settings
        Model and settings.

    Attributes
    ----------
    origin
        Model, settings and images, as JSON values; None: the model cannot be identified.

    Raises
    ------
    ConfigError
        If a channel is unknown, or the device does not exist.
    """

    def __init__(self, crops: Crops, settings: Settings) -> None:
        self._crops, self._settings = crops, settings
        self._networks = networks_of(settings.model)
        self._device = choose_device(settings.device, self._networks)
        self._stamps = StampSet(str(crops.path), channels=settings.channels, cells=None, labels=None, dtype="float32")
        channels = ", ".join(self._stamps.channel_names)
        identity = settings.identity()
        self.origin = None if identity is None else {**identity, "channels": channels, **crops.origin()}

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self._stamps)

    @cached_property
    def _order(self) -> Any:
        return self._stamps.in_file_order()

    def write(self, path: Path, work: Path, bar: Progress) -> int:
        """Embed the cells, and write the table.

        Parameters
        ----------
        path
            File or store to write.
        work
            Folder for the values; those of an interrupted run are used.
        bar
            Progress bar.

        Returns
        -------
        int
            Number of cells embedded by this run.

        Raises
        ------
        InputError
            If the file was modified or is damaged, or the model fails.
        OutputError
            If something cannot be written.
        WorkerError
            If the memory is too small for one cell.
        """
        remove(path)
        with EmbeddedRows(work, self._order, self.origin) as rows:
            n_before = rows.n_done
            bar.advance(n_before)
            with evaluating(self._networks, self._device), self._noting_kept(rows):
                self._embed(rows, bar)
            n_columns = rows.values.n_values
            _check_space(path.parent, self.n_cells * n_columns * _VALUE_BYTES)
            write_embedding(path, self._crops, n_columns, self._about(), rows.values)
            return self.n_cells - n_before

    def _embed(self, rows: EmbeddedRows, bar: Progress) -> None:
        settings, threads = self._settings, Threads(self._settings.n_threads or usable_cores())
        network = Network(settings.model, self._device, settings.precision, settings.batch_size, rows.n_columns)
        while rows.n_done < self.n_cells:
            left = self._order[rows.n_done :]
            with closing(read_batches(self._stamps, left, network.batch_size, settings.transform, threads)) as batches:
                for images, ids in batches:
                    values = network.embed(images, ids)
                    if values is None:  # read again: a model may change its images before it fails
                        break
                    rows.add(values)
                    bar.advance(len(values))

    @contextmanager
    def _noting_kept(self, rows: EmbeddedRows) -> Iterator[None]:
        """Add the number of cells that the next run need not embed to errors and interrupts, if there are any."""
        try:
            yield
        except BaseException as error:
            if self.origin is not None:
                note_finished(error, rows.n_done, self.n_cells)
            raise

    def _about(self) -> dict[str, Any]:
        """Return model and settings for ``uns``."""
        transform = self._settings.transform
        return {
            "model": name_of(self._settings.model),
            "transform": "none" if transform is None else name_of(transform),
            "channels": np.array(self._stamps.channel_names, dtype=object),
            "precision": self._settings.precision,
            "device": str(self._device),
            "cellstamp": __version__,
            "torch": str(torch.__version__),
            "origin": json.dumps(self.origin or {}),
        }


def _check_space(folder: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        message = (
            f"{folder}: the table needs {format_bytes(n_bytes)}, and only {format_bytes(free)} are free there. "
            "Finished cells are kept: free disk space, and call embed again to resume"
        )
        raise OutputError(message)
