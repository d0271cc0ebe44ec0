"""Base classes of all steps: a folder, a log, a configuration, and a folder for temporary files."""

from __future__ import annotations

import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from cellstamp.config_files import read_config
from cellstamp.config_rules import as_folder, system_cache
from cellstamp.engines.cores import default_workers
from cellstamp.errors import ConfigError, OutputError
from cellstamp.location import path_of
from cellstamp.pipeline import temporary


class Logable:
    """Base class of objects with a log in their folder.

    Parameters
    ----------
    directory
        Folder of the log, created when needed.
    debug
        Whether log lines also go to stdout.

    Attributes
    ----------
    log_name : str
        Name of the log file in `directory`; `DEFAULT_LOG_NAME` unless set.

    Raises
    ------
    ConfigError
        If `directory` is not a path.
    """

    DEFAULT_LOG_NAME = "processing.log"
    DEFAULT_FORMAT = "%d/%m/%Y %H:%M:%S"

    def __init__(
        self,
        directory: str | os.PathLike[str],
        debug: bool = False,  # noqa: FBT001, FBT002 - scportrait's signature
    ) -> None:
        try:
            as_folder(directory)
        except ValueError as error:
            raise ConfigError(
                f"{type(self).__name__}: directory = {directory!r}: must be the path of the folder for results and log"
            ) from error
        self.directory = os.fspath(directory)
        self.debug = debug
        self.log_name = self.DEFAULT_LOG_NAME

    def get_timestamp(self) -> str:
        """Return the time in the format of the log: ``"[dd/mm/YYYY HH:MM:SS] "``."""
        return f"[{datetime.now().strftime(self.DEFAULT_FORMAT)}] "

    def log(self, message: object) -> None:
        """Append a message to the log; each line starts with the time.

        Parameters
        ----------
        message
            A `str`, split at newlines; a list, one line per entry; a dict, as ``key: value`` lines; or any object.

        Raises
        ------
        OutputError
            If the log cannot be written.
        """
        stamp = self.get_timestamp()
        text = "".join(f"{stamp}{line}\n" for line in _lines(message))
        path = self._make_directory() / self.log_name
        try:
            # a file name that is invalid text must not stop a run; same below
            with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
        except OSError as error:
            raise OutputError(f"{path}: the log cannot be written: {error.strerror}") from error
        if self.debug and sys.stdout is not None:
            encoding = sys.stdout.encoding or "utf-8"
            # a closed terminal must not stop a run
            with suppress(OSError, ValueError):
                sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))

    def _make_directory(self) -> Path:
        path = Path(self.directory)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise OutputError(f"{path} is a file: give the path of a folder for results and log") from error
        except OSError as error:
            raise OutputError(f"{path}: the folder for results and log cannot be made: {error.strerror}") from error
        return path


def _lines(message: object) -> list[str]:
    if isinstance(message, dict):
        entries = [f"{key}: {value}" for key, value in message.items()]
    elif isinstance(message, list):
        entries = [str(entry) for entry in message]
    else:
        entries = [str(message)]
    return [line for entry in entries for line in re.split(r"\r\n|\r|\n", entry)]


class ProcessingStep(Logable):
    """Base class of all steps. A subclass has a method ``process``; calling the step runs it.

    Parameters
    ----------
    config
        A dict, or the path of a YAML file. If it has a section with the name of the class, this section is the step's
        configuration, otherwise all of it. It is copied.
    directory
        Folder for the step's results and log, created when needed and never removed.
    project_location
        Folder of the step's project.
    debug
        Whether log lines also go to stdout.
    overwrite
        Whether existing results may be replaced.
    project
        The step's project.
    filehandler
        Input of the step.
    from_project
        Whether a project created the step.

    Attributes
    ----------
    config : dict
        The step's configuration. If it has no ``cache``, the current directory is added (the system's temporary folder
        if that directory was removed), unless `FILLS_IN_CACHE` is False.
    deep_debug : bool
        Whether the folder for temporary files is kept after a run; False unless set.
    _tmp_dir_path : str
        Folder for temporary files. The attribute exists only during a run, and after `create_temp_dir`.

    Raises
    ------
    ConfigError
        If `config` cannot be read, or `directory` is not a path.
    """

    FILLS_IN_CACHE = True
    """Whether ``config`` gets the current directory as ``cache`` if it has none. Otherwise temporary files go to the
    system's folder for them."""

    deep_debug: bool = False

    _tmp_dir_path: str

    def __init__(
        self,
        config: Mapping[str, Any] | str | os.PathLike[str],
        directory: str | os.PathLike[str] | None = None,
        project_location: str | os.PathLike[str] | None = None,
        debug: bool = False,  # noqa: FBT001, FBT002 - scportrait's signature
        overwrite: bool = False,  # noqa: FBT001, FBT002 - scportrait's signature
        project: Any = None,
        filehandler: Any = None,
        from_project: bool = False,  # noqa: FBT001, FBT002 - scportrait's signature
    ) -> None:
        if directory is None:
            raise ConfigError(f"{type(self).__name__}: directory is missing: give the folder for its results and log")
        super().__init__(directory, debug)
        self.project_location = project_location
        self.overwrite = overwrite
        self.project = project
        self.filehandler = filehandler
        self.from_project = from_project
        self.config = read_config(config, type(self).__name__)
        if self.FILLS_IN_CACHE and self.config.get("cache") is None:
            self._fill_in_cache()

    def _fill_in_cache(self) -> None:
        try:
            self.config["cache"] = str(Path.cwd())
            where = ": temporary files go to the current directory"
        except FileNotFoundError:
            self.config["cache"] = str(system_cache())
            where = ", and the current directory was removed: temporary files go to the system's folder for them"
        self.log(f"No cache in the config{where}, {self.config['cache']}")

    def __repr__(self) -> str:
        """Return the step's folder and, a line each, its input, main settings, result and next step."""
        lines = [f"  {name}: {value}" for name, value in self._about().items()]
        return "\n".join([f"{type(self).__name__} in {self.directory}", *lines])

    def _about(self) -> dict[str, str]:
        """Return what `repr` shows of the step."""
        return {}

    def _shown_config(self, *keys: str) -> dict[str, str]:
        """Return some keys of the configuration, and the number of workers, for `repr`."""
        threads = self.config.get("threads", f"{default_workers()} (default)")
        return {**{key: str(self.config[key]) for key in keys if key in self.config}, "threads": str(threads)}

    def _how_to_run(self, method: str) -> str:
        return f"call project.{method}()" if self.from_project else "call this step, like step()"

    def __call__(self, *args: Any, debug: bool | None = None, overwrite: bool | None = None, **kwargs: Any) -> Any:
        """Run the step: call ``process`` with a folder for temporary files, which is always removed.

        Parameters
        ----------
        *args, **kwargs
            Passed to ``process``.
        debug, overwrite
            Replace the step's attributes in this call, unless None.

        Returns
        -------
        object
            Result of ``process``; None, with a `UserWarning`, if the class does not have this method.

        Raises
        ------
        ConfigError
            If no folder for temporary files can be created in ``cache``.
        OutputError
            If the step's folder cannot be created.
        """
        self.check_config()
        with self._overridden(debug=debug, overwrite=overwrite), self._prepared():
            return self._call("process", *args, **kwargs)

    def check_config(self) -> None:
        """Check the configuration, before anything is written; steps with rules override this."""

    def __call_empty__(
        self, *args: Any, debug: bool | None = None, overwrite: bool | None = None, **kwargs: Any
    ) -> Any:
        """Run ``return_empty_mask``, as calling the step runs ``process``."""
        with self._overridden(debug=debug, overwrite=overwrite), self._prepared():
            return self._call("return_empty_mask", *args, **kwargs)

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        work = getattr(self, method, None)
        if work is None:
            warnings.warn(f"No {method} method defined.", UserWarning, stacklevel=3)
            return None
        return work(*args, **kwargs)

    @contextmanager
    def _overridden(self, **overrides: bool | None) -> Iterator[None]:
        given = {name: value for name, value in overrides.items() if value is not None}
        before = {name: getattr(self, name) for name in given}
        try:
            for name, value in given.items():
                setattr(self, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        self._make_directory()
        outer = getattr(self, "_tmp_dir_path", None)
        self.create_temp_dir()
        try:
            yield
        finally:
            if not self.deep_debug:
                self.clear_temp_dir()
                if outer is not None:
                    self._tmp_dir_path = outer
            elif hasattr(self, "_tmp_dir_path"):
                temporary.keep(Path(self._tmp_dir_path))
                self.log(f"Temporary folder kept: {self._tmp_dir_path}")

    def create_temp_dir(self) -> None:
        """Create a folder for temporary files in ``cache``; its path is `_tmp_dir_path`.

        Temporary folders of killed runs are removed first.

        Raises
        ------
        ConfigError
            If `cache` is not the path of a folder, or nothing can be created in it.
        """
        cache = self.config.get("cache") if "cache" in self.config else system_cache()
        prefix = f"{type(self).__name__} config: cache = {cache!r}"
        try:
            folder = as_folder(cache).absolute()
        except ValueError as error:
            raise ConfigError(f"{prefix}: must be the path of a folder for temporary files") from error
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for abandoned in temporary.remove_abandoned(folder):
                self.log(f"Removed the temporary folder of a run that was killed: {abandoned}")
            self._tmp_dir_path = str(temporary.new_temporary_folder(folder, f"{type(self).__name__}_"))
        except OSError as error:
            raise ConfigError(f"{prefix}: no folder for temporary files can be made there: {error.strerror}") from error

    def clear_temp_dir(self) -> None:
        """Remove the folder for temporary files, if it exists."""
        if not hasattr(self, "_tmp_dir_path"):
            return
        path = Path(self._tmp_dir_path)
        del self._tmp_dir_path
        shutil.rmtree(path, ignore_errors=True)
        if path.exists():
            self.log(f"Temporary folder could not be removed; delete it by hand: {path}")

    def _scratch_folder(self, cache: Path) -> Path:
        """Return the folder for temporary files; ``cache`` itself if ``process`` was called directly."""
        return Path(getattr(self, "_tmp_dir_path", cache))

    def register_parameter(self, key: object, value: Any) -> None:
        """Set a key of the configuration, unless it has a value.

        Parameters
        ----------
        key
            The key.
        value
            Value for a missing key; an existing key keeps its value.

        Raises
        ------
        NotImplementedError
            For a list of keys.
        TypeError
            For a key of any other type.
        """
        if isinstance(key, list):
            raise NotImplementedError("register_parameter: a list of keys (nested parameters) is not supported yet")
        if not isinstance(key, str):
            raise TypeError(f"register_parameter: the key must be a str (got {type(key).__name__})")
        if key not in self.config:
            self.log(f"No {key} in the config: set to {value}")
            self.config[key] = value

    def get_directory(self) -> str:
        """Return the step's folder, as given."""
        return self.directory


def source_of(filehandler: object) -> str:
    """Return the path or URL of a step's input, or the type of an object in memory, for `repr`."""
    path = path_of(filehandler)
    return type(filehandler).__name__ if path is None else str(path)
