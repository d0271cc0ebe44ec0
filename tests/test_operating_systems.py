"""macOS and Windows, emulated: what they lack is hidden, and files follow their rules (see ``tests/foreign``)."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import cellstamp

pytestmark = pytest.mark.once

FOREIGN = Path(__file__).parent / "foreign"
SOURCES = Path(cellstamp.__file__).parent

UNIX_ENGINE = ("cellstamp.engines.fork_server",)
"""Modules that run only where processes can be forked."""


NAME = "Zellen 細胞"
"""Of folders: letters that the terminal's encoding on Windows lacks."""


def start_on(system: str | None, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python as on another system (None: this one)."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "PYTHONIOENCODING": "utf-8"}
    if system is not None:
        path = [str(FOREIGN), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment |= {"CELLSTAMP_FOREIGN": system, "PYTHONPATH": os.pathsep.join(path)}
    if system == "windows":
        environment["PYTHONIOENCODING"] = "cp1252"
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def run_on(system: str | None, *arguments: object) -> str:
    """Run Python as on another system without an error, and return its output."""
    done = start_on(system, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the project of the main job on this system, and the digest of its images in a file."""
    folder = tmp_path_factory.mktemp("here") / NAME
    lines = run_on(None, FOREIGN / "main_job.py", folder, 1).splitlines()
    (folder / "digest").write_text(next(line for line in lines if len(line) == 64))
    return folder


@pytest.mark.parametrize(("system", "threads"), [("windows", 2), ("macos", 1)])
def test_the_main_job_makes_the_same_images(tmp_path: Path, here: Path, system: str, threads: int) -> None:
    folder = tmp_path / NAME
    if system == "macos":  # whose /tmp is a link
        (tmp_path / "private").mkdir()
        folder.symlink_to(tmp_path / "private", target_is_directory=True)
    told = run_on(system, FOREIGN / "main_job.py", folder, threads)
    assert (here / "digest").read_text() in told.splitlines()
    assert told.splitlines()[-1] == "20"
    is_refused = "single_cells.h5sc cannot be replaced or removed: a program has it open" in told
    assert is_refused == (r"-> " + ascii(str(folder))[1:-1] in told) == (system == "windows")
    assert [path.name for path in (folder / "project").rglob(".*")] == []
    assert list((folder / "cache").iterdir()) == []


def test_names_that_the_terminal_lacks_are_escaped(here: Path) -> None:
    file = here / "project/extraction/data/single_cells.h5sc"
    told = run_on("windows", "-c", "from cellstamp.cli import main; main()", "info", file)
    assert told.splitlines()[0].startswith("file")
    assert r"Zellen \u7d30\u80de/project" in told


def test_ctrl_break_ends_a_command_cleanly() -> None:
    """Windows has it in place of SIGTERM; the emulation sends SIGUSR2."""
    program = """
import os, signal, threading
from cellstamp import cli

@cli.commands.command()
def wait():
    try:
        os.kill(os.getpid(), signal.SIGBREAK)
        threading.Event().wait(60)
    finally:
        print("cleaned up")

cli.main()
"""
    done = start_on("windows", "-c", program, "wait")
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGUSR2, "cleaned up\n", "Terminated.\n")


def test_every_module_can_be_imported_on_windows() -> None:
    assert int(run_on("windows", FOREIGN / "import_everything.py", *UNIX_ENGINE)) > 150


EMULATED = {
    "an open file keeps its name": "f = open('a', 'w'); os.rename('a', 'b')",
    "an open file is not removed": "f = open('a', 'w'); os.unlink('a')",
    "an open file is not replaced": "open('a', 'w').close(); f = open('b', 'w'); os.replace('a', 'b')",
    "a folder with an open file keeps its name": "os.mkdir('d'); f = open('d/a', 'w'); os.rename('d', 'e')",
    "a folder replaces no folder": "os.mkdir('d'); os.mkdir('e'); os.rename('d', 'e')",
    "folders cannot be opened": "os.open('.', os.O_RDONLY)",
    "a file open for reading is not synced": "open('a', 'w').close(); os.fsync(open('a').fileno())",
    "names without a question mark": "open('what?', 'w')",
    "no resource for cellstamp": "import types; exec('import resource', {'__name__': 'cellstamp.some'})",
    "no fork for cellstamp": "exec('os.fork()', {'__name__': 'cellstamp.some', 'os': os})",
}


@pytest.mark.parametrize("code", EMULATED.values(), ids=EMULATED)
def test_what_the_emulation_refuses(tmp_path: Path, code: str) -> None:
    """It is worth no more than what it refuses."""
    program = (
        f"import os; os.chdir({str(tmp_path)!r})\ntry:\n    {code}\nexcept Exception: pass\nelse: raise SystemExit(1)"
    )
    run_on("windows", "-c", program)


UNIX_CALLS = frozenset(
    """
    fork pread preadv pwrite posix_fallocate posix_fadvise memfd_create sched_getaffinity getuid statvfs uname mkfifo
    link symlink symlink_to hardlink_to O_DIRECTORY fchmod SIGKILL SIGCHLD pthread_sigmask CDLL
    """.split()  # noqa: SIM905 - a list would take a page
)


def test_only_one_module_outside_the_engines_knows_the_system() -> None:
    """Calls that a system lacks, modules of one system, and ``os.open``, which translates line ends on Windows."""
    found = []
    for path in SOURCES.rglob("*.py"):
        name = path.relative_to(SOURCES).as_posix()
        if name == "system.py" or name.startswith("engines/"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in UNIX_CALLS:
                found.append(f"{name}: {node.attr}")
            if isinstance(node, ast.Attribute) and node.attr == "open" and ast.unparse(node.value) == "os":
                found.append(f"{name}: os.open")
    # a check of the owner where there is one, and the file that swallows output
    assert sorted(found) == ["cli/output.py: os.open", *["compiling/cache_folders.py: getuid"] * 2]


def test_texts_are_read_and_written_in_one_encoding() -> None:
    """The default encoding differs between systems."""
    found = []
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _opens_text(node):
                found.append(f"{path.relative_to(SOURCES)}: {ast.unparse(node)}")
    # files of Linux' kernel
    assert [place for place in found if not place.startswith("engines/cgroups.py")] == []


def _opens_text(call: ast.Call) -> bool:
    """Whether a call reads or writes text in the system's encoding."""
    if not isinstance(call.func, ast.Attribute):
        return False
    modes = [argument.value for argument in call.args if isinstance(argument, ast.Constant)]
    is_file = call.func.attr == "open" and ast.unparse(call.func.value) in ("path", "self._path", "about", "own")
    is_text = call.func.attr in ("read_text", "write_text") or (is_file and not any("b" in str(mode) for mode in modes))
    return is_text and not any(option.arg in ("encoding", "buffering") for option in call.keywords)
