"""Keep the compiled code of a function in our folder, valid as long as no kernel changes.

numba has no public way to set the folder for some functions only, so this uses undocumented classes. If they change,
`cellstamp.compiling.decorators` works without them.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile, _CacheLocator
from numba.core.runtime.nrt import rtsys

from cellstamp.compiling.cache_folders import code_in_use, find_folders, source_stamp

_NEWEST_TESTED = (0, 68)
"""Newest version of numba that is known to run loaded code without its parts that compile; the tests run with it."""
_VERSION = re.match(r"(\d+)\.(\d+)", numba.__version__)
_IS_TESTED = _VERSION is not None and tuple(map(int, _VERSION.groups())) <= _NEWEST_TESTED


class _Locator(_CacheLocator):
    """The folders that keep the code of a function; numba knows the first, the only one that may be writable."""

    def __init__(self, folders: tuple[Path, ...], source: str) -> None:
        self.folders, self._py_file = folders, source

    def get_cache_path(self) -> str:
        return str(self.folders[0])

    def get_source_stamp(self) -> str:
        # numba checks the function's file only, but compiled code includes functions of other files
        return source_stamp()

    def get_disambiguator(self) -> str:
        # numba uses the line number, which would leave files behind for functions that have moved
        return Path(self._py_file).parent.name

    @classmethod
    def from_function(cls, function: Any, source: str) -> _Locator | None:
        del function
        folders = find_folders().to_load_from
        return cls(folders, source) if folders else None


class _Files(CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012 - numba's attribute


class _Layers(IndexDataCacheFile):
    """The code of one function: saved in the first folder, loaded from the first that has it.

    A file of code is named after source, types and processor. numba numbers files, and lists them before they are
    written. So it may load code for other types or of an older version, after two processes have compiled at the same
    time or one of them was killed.
    """

    def __init__(self, folders: tuple[Path, ...], name: str) -> None:
        first, *others = (str(folder) for folder in folders)
        super().__init__(first, name, source_stamp())
        self._others = [IndexDataCacheFile(folder, name, source_stamp()) for folder in others]
        self._current = f"{name}.{_digest(source_stamp(), numba.__version__)}"

    def load(self, key: Any) -> Any:
        loads = chain([super().load], (file.load for file in self._others))
        return next((code for load in loads if (code := load(key)) is not None), None)

    def save(self, key: Any, data: Any) -> None:
        name = f"{self._current}-{_digest(key)}.nbc"
        self._save_data(name, data)
        self._save_index(self._load_index() | {key: name})
        for file in Path(self._cache_path).glob(f"{Path(self._index_name).stem}.*.nbc"):
            if not file.name.startswith(self._current):
                with suppress(OSError):  # it needs only space
                    file.unlink()

    def _load_data(self, name: str) -> Any:
        code = super()._load_data(name)
        code_in_use.kept.add(name)
        return code

    def _save_data(self, name: str, data: Any) -> None:
        super()._save_data(name, data)
        code_in_use.kept.add(name)


def _digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


class KeptCode(FunctionCache):
    """The code of one function; unreadable code is compiled again, without an error."""

    _impl_class = _Files

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self._cache_file = _Layers(self._impl.locator.folders, self._impl.filename_base)

    def load_overload(self, signature: Any, context: Any) -> Any:
        """Load code, or return None."""
        try:
            if not _IS_TESTED:
                return super().load_overload(signature, context)
            # what code needs to run; numba would first import all that it can compile, which takes 0.2 s
            rtsys.initialize(context)
            return self._load_overload(signature, context)
        except Exception:  # noqa: BLE001 - unpickling a damaged file may raise anything
            return None

    def save_overload(self, *arguments: Any) -> None:
        """Save code, if possible."""
        try:
            super().save_overload(*arguments)
        except Exception:  # noqa: BLE001 - a damaged index, or a full disk
            try:
                self.flush()
                super().save_overload(*arguments)
            except Exception:  # noqa: BLE001
                code_in_use.lost = True
