"""Compiled functions: where their code is kept, whatever the machine allows, and when it is valid."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import pytest

import cellstamp
from cellstamp.cells.load_kernels import load_kernels
from kept_code import copy_code, extract_twice
from stores import make_sample, write_store

pytestmark = pytest.mark.once

PACKAGE = Path(cellstamp.__file__).parent
ONE_KERNEL = "runs.count_runs"
COMPILE = """
import numpy as np
from cellstamp.compiling.cache_folders import find_folder
from cellstamp.source.read.runs import count_runs
assert count_runs(np.array([[0, 7, 7]])) == 1
hits, misses = sum(count_runs.stats.cache_hits.values()), sum(count_runs.stats.cache_misses.values())
print("loaded" if hits and not misses else "compiled", find_folder())
"""
PROBE = """
from cellstamp.compiling.decorators import compiled
@compiled
def twice(x):
    return 2 * x
"""
"""A function that is compiled in no time, for tests that need a compiled function and not a certain one."""
COMPILE_PROBE = """
from cellstamp.compiling.cache_folders import find_folder
from cellstamp.source.read.probe import twice
assert twice(3) == 6
hits, misses = sum(twice.stats.cache_hits.values()), sum(twice.stats.cache_misses.values())
print("loaded" if hits and not misses else "compiled", find_folder())
"""
Run = Callable[..., tuple[str, Path | None]]


def obeying_permissions(command: list[str]) -> list[str]:
    """A command that may not write where permissions say so, even if root runs it."""
    if os.name != "posix" or os.getuid():
        return command
    if shutil.which("setpriv") is None:
        pytest.skip("root may write anywhere, and there is no setpriv")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with a copy of the package, not compiled."""
    shutil.copytree(PACKAGE, tmp_path / "site" / "cellstamp", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "site" / "cellstamp" / "source" / "read" / "probe.py").write_text(PROBE)
    return tmp_path / "site"


@contextmanager
def protected(package: Path) -> Iterator[Path]:
    folders = [package, *(path for path in package.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield package
    for folder in folders:
        folder.chmod(0o755)


@pytest.fixture
def read_only(package: Path) -> Iterator[Path]:
    """The same where nothing can be written."""
    with protected(package):
        yield package


@pytest.fixture
def nearly_compiled(package: Path) -> Path:
    """A package with the code of all kernels but one: compiling the rest takes a second instead of fifteen."""
    copy_code(package / "cellstamp" / "__pycache__", without=ONE_KERNEL)
    return package


@pytest.fixture
def nearly_compiled_read_only(nearly_compiled: Path) -> Iterator[Path]:
    """The same where nothing can be written."""
    with protected(nearly_compiled):
        yield nearly_compiled


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


@pytest.fixture
def run(temporary: Path) -> Run:
    """``run(package, code, NAME=value, ...)``: in a process without a home; how it got its code, and the folder."""

    def start(package: Path, code: str = COMPILE_PROBE, **environment: Any) -> tuple[str, Path | None]:
        how, folder = run_command(package, temporary, code, environment).split()
        return how, None if folder == "None" else Path(folder)

    return start


def run_command(package: Path, temporary: Path, code: str, environment: dict[str, str]) -> str:
    """Run code in a process without a home; what it prints."""
    ours = {"PYTHONPATH": str(package), "TMPDIR": str(temporary), "HOME": "/nowhere", "PATH": os.environ["PATH"]}
    command = obeying_permissions([sys.executable, "-c", code])
    done = subprocess.run(command, env=ours | environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def private(temporary: Path) -> Path:
    return temporary / f"cellstamp-{os.getuid()}"


def test_code_is_kept_in_the_package_and_loaded_by_the_next_process(package: Path, run: Run) -> None:
    assert run(package, COMPILE) == ("compiled", package / "cellstamp" / "__pycache__")
    assert run(package, COMPILE) == ("loaded", package / "cellstamp" / "__pycache__")


def test_numbas_own_setting_says_where(read_only: Path, run: Run, tmp_path: Path) -> None:
    how, folder = run(read_only, NUMBA_CACHE_DIR=str(tmp_path / "chosen"))
    assert how == "compiled"
    assert folder is not None
    assert folder.parent == tmp_path / "chosen"
    assert list(folder.glob("probe.twice-read.*.nbi"))
    assert run(read_only, NUMBA_CACHE_DIR=str(tmp_path / "chosen")) == ("loaded", folder)


def test_in_a_read_only_package_it_is_kept_in_the_home(read_only: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    how, folder = run(read_only, HOME=str(tmp_path / "home"))
    assert how == "compiled"
    assert folder is not None
    assert folder.parent == tmp_path / "home" / ".cache"
    assert run(read_only, HOME=str(tmp_path / "home")) == ("loaded", folder)


def test_without_a_home_it_is_kept_in_a_private_temporary_folder(read_only: Path, run: Run, temporary: Path) -> None:
    how, folder = run(read_only)
    assert how == "compiled"
    assert folder is not None
    assert folder.parent == private(temporary)
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert run(read_only) == ("loaded", folder)


@pytest.mark.parametrize("how", ["link", "open to others", "replaceable", "of another user", "file"])
def test_a_temporary_folder_that_others_may_have_filled_is_not_used(
    read_only: Path, run: Run, temporary: Path, tmp_path: Path, how: str
) -> None:
    folder = private(temporary)
    (tmp_path / "theirs").mkdir(mode=0o700)
    if how == "link":
        folder.symlink_to(tmp_path / "theirs")
    elif how == "file":
        folder.touch()
    else:
        folder.mkdir(mode=0o700)
    if how == "open to others":
        folder.chmod(0o770)
    elif how == "replaceable":
        temporary.chmod(0o777)
    elif how == "of another user":
        if os.getuid():
            pytest.skip("only root can give a folder away")
        os.chown(folder, 65534, 65534)
    assert run(read_only) == ("compiled", None)
    assert not folder.is_dir() or list(folder.iterdir()) == []
    assert list((tmp_path / "theirs").iterdir()) == []


def test_damaged_files_are_compiled_again_and_replaced(package: Path, run: Run) -> None:
    _, folder = run(package)
    assert folder is not None
    for damaged in (lambda _: b"", lambda _: b"\x80\x04nonsense", lambda code: code[: len(code) // 2]):
        files = list(folder.glob("probe.twice-*"))
        assert len(files) == 2
        for file in files:
            file.write_bytes(damaged(file.read_bytes()))
        assert run(package) == ("compiled", folder)
        assert run(package) == ("loaded", folder)


NOTE = """
from cellstamp.compiling.cache_folders import USUAL, find_folder, is_kept, note_kept
from cellstamp.source.read.probe import twice
folder = find_folder()
twice(3)
note_kept(USUAL)
seen = [is_kept(USUAL)]
(code,) = folder.glob("probe.twice-*.nbc")
twice(3.0)  # code of other types
seen.append(is_kept(USUAL))
(index,) = folder.glob("probe.twice-*.nbi")
for file in code, index:
    intact = file.read_bytes()
    file.write_bytes(intact[:-1] if file == code else b"")
    seen.append(is_kept(USUAL))
    file.write_bytes(intact)
    seen.append(is_kept(USUAL))
code.unlink()
seen.append(is_kept(USUAL))
print("".join("ny"[each] for each in seen), None)
"""


def test_damaged_and_missing_files_are_noticed(package: Path, run: Run) -> None:
    assert run(package, NOTE)[0] == "yynynyn"


CALL = """
from cellstamp.source.read.probe import twice
print(twice({x}), None)
"""


def test_processes_that_compile_for_other_types_do_not_mix_their_code(package: Path, run: Run) -> None:
    folder = package / "cellstamp" / "__pycache__"
    assert run(package, CALL.format(x="3"))[0] == "6"
    (index,) = folder.glob("probe.twice-*.nbi")
    theirs = index.read_bytes()
    index.unlink()  # as a process sees it that began to save its code before the first had listed its own
    assert run(package, CALL.format(x="0.5"))[0] == "1.0"
    index.write_bytes(theirs)
    assert run(package, CALL.format(x="3"))[0] == "6"
    assert run(package) == ("loaded", folder)


KILLED = """
import os
from cellstamp.source.read.probe import twice
replace, written = os.replace, []
def replace_once(source, target):
    if written:
        os._exit(0)
    written.append(target)
    replace(source, target)
print("killed", None, flush=True)
os.replace = replace_once
twice(3)
"""


def test_after_an_update_a_process_that_is_killed_while_it_keeps_code_leaves_none_of_the_older_version(
    package: Path, run: Run
) -> None:
    assert run(package, CALL.format(x="3"))[0] == "6"
    probe = package / "cellstamp" / "source" / "read" / "probe.py"
    probe.write_text(PROBE.replace("2 * x", "4 * x"))
    with (package / "cellstamp" / "cells" / "kernels" / "blur.py").open("a") as file:
        file.write("\n_CHANGED = True\n")  # the probe is not among the files that make kept code invalid
    assert run(package, KILLED)[0] == "killed"
    assert run(package, CALL.format(x="3"))[0] == "12"
    assert len(list((package / "cellstamp" / "__pycache__").glob("probe.twice-*.nbc"))) == 1


REPLACE = """
from cellstamp.compiling.cache_folders import is_kept, note_kept
from cellstamp.source.read.probe import twice
twice({first})
note_kept(("first",))
twice({second})
print("ny"[is_kept(("first",))], None)
"""


def test_code_of_an_older_version_is_replaced_without_making_new_code_invalid(package: Path, run: Run) -> None:
    assert run(package, REPLACE.format(first="3", second="3.0"))[0] == "y"
    with (package / "cellstamp" / "cells" / "kernels" / "blur.py").open("a") as file:
        file.write("\n_CHANGED = True\n")
    assert run(package, REPLACE.format(first="3.0", second="3"))[0] == "y"


FULL = """
import resource
from cellstamp.compiling.cache_folders import USUAL, is_kept, note_kept
from cellstamp.source.read.probe import twice
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))  # after the imports, which write files too
assert twice(3) == 6
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
note_kept(USUAL)
print("ny"[is_kept(USUAL)], None)
"""


def test_where_code_cannot_be_written_the_run_continues_and_the_next_compiles_again(package: Path, run: Run) -> None:
    assert run(package, FULL)[0] == "n"
    assert list((package / "cellstamp" / "__pycache__").glob("*.nbc")) == []
    assert run(package)[0] == "compiled"


def test_a_change_in_any_kernel_makes_kept_code_invalid(package: Path, run: Run) -> None:
    run(package)
    for changed in ("source/read/runs.py", "cells/kernels/blur.py", "compiling/decorators.py"):
        with (package / "cellstamp" / changed).open("a") as file:
            file.write("\n_CHANGED = True\n")
        assert run(package)[0] == "compiled", changed
    assert run(package)[0] == "loaded"


EXTRACT = """
import warnings
warnings.simplefilter("ignore")
from cellstamp import HDF5CellExtraction
keys = {{"threads": 2, "image_size": 32, "cache": {cache!r}, "progress": False}}
HDF5CellExtraction(keys, {out!r}, filehandler={store!r})()
print("extracted", None)
"""


@pytest.mark.parametrize("kept", [True, False], ids=["temporary folder", "nowhere"])
def test_an_extraction_runs_where_nothing_is_writable_and_says_where_code_is_kept(
    nearly_compiled_read_only: Path, run: Run, temporary: Path, tmp_path: Path, *, kept: bool
) -> None:
    paths = {name: str(tmp_path / name) for name in ("cache", "out", "store")}
    write_store(tmp_path / "store", make_sample())
    if not kept:
        private(temporary).mkdir(0o755)  # not private
    assert run(nearly_compiled_read_only, EXTRACT.format(**paths)) == ("extracted", None)
    log = (tmp_path / "out" / "processing.log").read_text()
    assert ("s, kept in " if kept else "s, for this process only: no folder for the cache is writable") in log
    assert "set NUMBA_CACHE_DIR to a folder that stays" in log
    assert bool(list(private(temporary).rglob(f"{ONE_KERNEL}-*.nbc"))) is kept
    with h5py.File(tmp_path / "out" / "data" / "single_cells.h5sc") as file:
        assert file["obsm/single_cell_images"][:, -1].any(axis=(1, 2)).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_compiling_is_announced_once_and_not_counted(tmp_path: Path, threads: int) -> None:
    store = write_store(tmp_path / "store", make_sample())
    found = extract_twice(tmp_path, store, without=ONE_KERNEL, image_size=32, threads=threads)
    announced = "Compiling for uint32 masks, a uint16 image and float16 single-cell images: 10 to 60 s;"
    assert found.first_log.count(announced) == 1
    (compiled,) = re.findall(r"Compiled in ([0-9.]+) s, kept for later runs", found.first_log)
    assert found.reported_s + float(compiled) <= found.seconds + 0.1  # rounded
    assert "Compil" not in found.second_log


def only_readable(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def test_code_in_a_read_only_folder_is_loaded_and_new_code_is_kept_elsewhere(
    package: Path, run: Run, temporary: Path
) -> None:
    run(package, COMPILE)
    kept = package / "cellstamp" / "__pycache__"
    before = sorted(kept.iterdir())
    only_readable(package)
    assert run(package, COMPILE)[0] == "loaded"
    assert not list(private(temporary).rglob("*.nbc"))
    other_types = COMPILE.replace("[[0, 7, 7]]", "[[0, 7, 7]], np.int32")
    assert run(package, other_types)[0] == "compiled"
    assert run(package, other_types)[0] == "loaded"
    assert list(private(temporary).rglob("*.nbc"))
    assert sorted(kept.iterdir()) == before
    package.joinpath("cellstamp").chmod(0o755)  # pytest removes it


def test_code_in_a_read_only_folder_is_loaded_where_nothing_is_writable(
    package: Path, run: Run, temporary: Path, tmp_path: Path
) -> None:
    only_readable(package)
    run(package, NUMBA_CACHE_DIR=str(tmp_path / "chosen"))
    only_readable(tmp_path / "chosen")
    private(temporary).mkdir(0o755)  # not private, so it is not used
    assert run(package, NUMBA_CACHE_DIR=str(tmp_path / "chosen")) == ("loaded", None)


def test_a_read_only_home_is_not_loaded_from(read_only: Path, run: Run, temporary: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    run(read_only, HOME=str(tmp_path / "home"))
    only_readable(tmp_path / "home")
    how, folder = run(read_only, HOME=str(tmp_path / "home"))
    assert how == "compiled"
    assert folder is not None
    assert folder.parent == private(temporary)


KEPT_FOR = """
from cellstamp.compiling.cache_folders import USUAL, find_folder, is_kept, note_kept
{action}
print("ny"[is_kept(USUAL)], None)
"""


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ({}, {}, "y"),
        ({}, {"NUMBA_CPU_NAME": "generic"}, "n"),
        ({"NUMBA_CPU_NAME": "generic"}, {"NUMBA_CPU_NAME": "Generic", "NUMBA_CPU_FEATURES": ""}, "n"),
        ({"NUMBA_CPU_NAME": "generic"}, {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}, "y"),
        ({"NUMBA_CPU_NAME": "generic"}, {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "+avx2"}, "n"),
    ],
)
def test_code_is_kept_for_the_processor_that_numba_compiles_for(
    package: Path, run: Run, first: dict[str, str], second: dict[str, str], kept: str
) -> None:
    assert run(package, KEPT_FOR.format(action="note_kept(USUAL)"), **first)[0] == "y"
    assert run(package, KEPT_FOR.format(action=""), **second)[0] == kept


@pytest.mark.parametrize(("name", "expected"), [(None, False), ("generic", True)])
def test_generic_code_does_not_depend_on_the_machine(
    monkeypatch: pytest.MonkeyPatch, name: str | None, *, expected: bool
) -> None:
    from cellstamp.compiling import cache_folders

    monkeypatch.delenv("NUMBA_CPU_FEATURES", raising=False)
    if name is None:
        monkeypatch.delenv("NUMBA_CPU_NAME", raising=False)
    else:
        monkeypatch.setenv("NUMBA_CPU_NAME", name)
    here = cache_folders._processor.__wrapped__()
    monkeypatch.setattr(cache_folders, "_CPU_LINES", ("processor",))  # as on another machine
    assert (cache_folders._processor.__wrapped__() == here) is expected


def test_an_image_with_compiled_code_runs_at_once_as_any_user_on_any_machine(
    read_only: Path, run: Run, temporary: Path, tmp_path: Path
) -> None:
    paths = {name: str(tmp_path / name) for name in ("cache", "out", "store")}
    write_store(tmp_path / "store", make_sample())
    image = {"NUMBA_CACHE_DIR": str(tmp_path / "compiled"), "NUMBA_CPU_NAME": "generic"}
    compile_it = "import sys; sys.argv[1:] = ['compile']; from cellstamp.cli import main; main()"
    lines = run_command(read_only, temporary, compile_it, image).splitlines()
    types = "uint32 masks, a uint16 image and float16 single-cell images, with features"
    assert lines[0] == f"Compiling for {types}: 10 to 60 s"
    assert re.fullmatch(rf"Compiled in .+, kept in {tmp_path}/compiled/cellstamp_\w+", lines[1])
    again = run_command(read_only, temporary, compile_it, image)
    assert again == f"Already compiled for {types}\n"
    only_readable(tmp_path / "compiled")
    private(temporary).mkdir(0o755)  # not private: nothing is writable
    assert run(read_only, EXTRACT.format(**paths), **image) == ("extracted", None)
    assert "Compil" not in (tmp_path / "out" / "processing.log").read_text()


def test_compile_fails_where_nothing_can_be_kept(nearly_compiled_read_only: Path, run: Run, temporary: Path) -> None:
    private(temporary).mkdir(0o755)  # not private, so no folder is writable
    code = """
import sys
from click.testing import CliRunner
from cellstamp.cli import commands
result = CliRunner().invoke(commands, ["compile"])
assert "Error: Compiled for this process only: no folder for the cache is writable" in result.output, result.output
assert "set NUMBA_CACHE_DIR to a folder that stays and that you can write to" in result.output
print(result.exit_code, None)
"""
    assert run(nearly_compiled_read_only, code)[0] == "2"


def test_other_functions_are_kept_as_numba_has_it(package: Path, run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from numba import njit\n@njit(cache=True)\ndef f(x):\n    return x + 1\n")
    run(package, f"import sys\nsys.path.append({str(tmp_path)!r})\n{COMPILE_PROBE}\nimport mine\nassert mine.f(1) == 2")
    assert len(list((tmp_path / "__pycache__").glob("mine.f-*.nbc"))) == 1


def test_another_numba_that_works_otherwise_keeps_code_its_own_way(package: Path, run: Run) -> None:
    (package / "cellstamp" / "compiling" / "cache.py").write_text("from numba.core.caching import NoLongerThere\n")
    assert run(package)[0] == "compiled"
    assert len(list((package / "cellstamp" / "source" / "read" / "__pycache__").glob("probe.twice-*.nbc"))) == 1
    assert run(package)[0] == "loaded"


def test_kernels_are_loaded_without_the_parts_of_numba_that_compile(run: Run) -> None:
    """It also fails with a newer numba than `_NEWEST_TESTED`: if all other tests pass, raise that."""
    load_kernels()
    code = "import sys, cellstamp.cells.preload\nprint('numba.np.arrayobj' in sys.modules, None)"
    assert run(PACKAGE.parent, code)[0] == "False"


@pytest.mark.parametrize("version", ["1.0", "99.1rc2", "0+unknown"])
def test_with_a_numba_that_was_not_tested_code_is_loaded_as_numba_does(package: Path, run: Run, version: str) -> None:
    checked = "import sys\nassert 'numba.np.arrayobj' in sys.modules"
    code = f"import numba\nnumba.__version__ = {version!r}{COMPILE_PROBE}{checked}"
    assert run(package, code)[0] == "compiled"
    assert run(package, code)[0] == "loaded"


def test_nothing_is_compiled_where_numba_is_told_so(package: Path, run: Run) -> None:
    code = "from cellstamp.source.read.runs import count_runs\nprint(type(count_runs).__name__, None)"
    assert run(package, code, NUMBA_DISABLE_JIT="1")[0] == "function"
