"""numba's cache of one function, in a folder that we choose and with a stamp of all kernels.

numba has no public way to say where the code of some functions is kept, so this uses what it does not document:
`cellstamp.compiling.decorators` does without it, should it change.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

from cellstamp.compiling.cache_folders import find_folder, source_stamp


class _Locator(_CacheLocator):
    """Where the code of a function is kept."""

    def __init__(self, folder: Path, source: str) -> None:
        self._folder, self._py_file = folder, source

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        # numba looks at the function's own file; the code also has in it what functions of other files come to
        return source_stamp()

    def get_disambiguator(self) -> str:
        # numba takes the line: then files of a function that has moved would stay behind for good
        return Path(self._py_file).parent.name

    @classmethod
    def from_function(cls, function: Any, source: str) -> _Locator | None:
        del function
        folder = find_folder()
        return None if folder is None else cls(folder, source)


class _Files(CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012 - numba's attribute


class KeptCode(FunctionCache):
    """The code of one function; what cannot be read or written is compiled again, and no error."""

    _impl_class = _Files

    def load_overload(self, *arguments: Any) -> Any:
        """Load code, or return None."""
        try:
            return super().load_overload(*arguments)
        except Exception:  # noqa: BLE001 - whatever unpickling a damaged file comes to
            return None

    def save_overload(self, *arguments: Any) -> None:
        """Save code, if that is possible."""
        try:
            super().save_overload(*arguments)
        except Exception:  # noqa: BLE001 - a damaged index, or no room on the disk
            with suppress(Exception):
                self.flush()
                super().save_overload(*arguments)
