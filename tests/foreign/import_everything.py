"""Import every module of cellstamp as on Windows: ``sys.platform`` is win32, and names that it lacks are hidden."""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module
from importlib.util import find_spec

NEED_TORCH = (
    *(f"cellstamp.embedding.{name}" for name in ("identity", "network", "reading", "returned", "run")),
    "cellstamp.pipeline.embed",
    "cellstamp.training.sending",
    "cellstamp.training.torch",
)


def modules() -> list[str]:
    import cellstamp

    left_out = {*sys.argv[1:], *(() if find_spec("torch") else NEED_TORCH)}
    found = [module.name for module in pkgutil.walk_packages(cellstamp.__path__, "cellstamp.")]
    return [name for name in found if name not in left_out and not name.endswith("__main__")]


def main() -> None:
    # once as on Linux: other packages have code for Windows that cannot run here
    names = modules()
    for name in names:
        import_module(name)
    for name in [name for name in sys.modules if name.split(".")[0] == "cellstamp"]:
        del sys.modules[name]
    sys.platform = "win32"
    for name in names:
        import_module(name)
    print(len(names))


if __name__ == "__main__":
    main()
