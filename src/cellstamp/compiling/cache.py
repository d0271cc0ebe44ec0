"""Keep the compiled code of a function in our folder, valid as long as no kernel changes.

numba has no public way to set the folder for some functions only, so this uses undocumented classes. If they change,
`cellstamp.compiling.decorators` works without them.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

from cellstamp.compiling.cache_folders import find_folder, source_stamp


class _Locator(_CacheLocator):
    """The folder that keeps the code of a function."""

    def __init__(self, folder: Path, source: str) -> None:
        self._folder, self._py_file = folder, source

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        # numba checks the function's file only, but compiled code includes functions of other files
        return source_stamp()

    def get_disambiguator(self) -> str:
        # numba uses the line number, which would leave files behind for functions that have moved
        return Path(self._py_file).parent.name

    @classmethod
    def from_function(cls, function: Any, source: str) -> _Locator | None:
        del function
        folder = find_folder()
        return None if folder is None else cls(folder, source)


class _Files(CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012 - numba's attribute


class KeptCode(FunctionCache):
    """The code of one function; unreadable code is compiled again, without an error."""

    _impl_class = _Files

    def load_overload(self, *arguments: Any) -> Any:
        """Load code, or return None."""
        try:
            return super().load_overload(*arguments)
        except Exception:  # noqa: BLE001 - unpickling a damaged file may raise anything
            return None

    def save_overload(self, *arguments: Any) -> None:
        """Save code, if possible."""
        try:
            super().save_overload(*arguments)
        except Exception:  # noqa: BLE001 - a damaged index, or a full disk
            with suppress(Exception):
                self.flush()
                super().save_overload(*arguments)
