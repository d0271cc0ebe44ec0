"""Logging and the frame around a step: folder, overrides, temporary files, configuration."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from cellstamp.errors import ConfigError, OutputError
from cellstamp.pipeline import temporary
from cellstamp.pipeline.base import Logable, ProcessingStep
from cellstamp.system import process_start

STAMP = re.compile(r"\[\d\d/\d\d/\d{4} \d\d:\d\d:\d\d\] ")


class Step(ProcessingStep):
    """Tells what it sees while it runs."""

    def process(self, *args: Any, fail: BaseException | None = None, **kwargs: Any) -> dict[str, Any]:
        folder = Path(self._tmp_dir_path)
        assert folder.is_dir()
        (folder / "inner").mkdir()
        (folder / "inner" / "scratch").write_text("x")
        self.seen = {"args": args, "kwargs": kwargs, "debug": self.debug, "overwrite": self.overwrite, "folder": folder}
        if fail is not None:
            raise fail
        return self.seen

    return_empty_mask = process


class Bare(ProcessingStep):
    pass


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def step(tmp_path: Path, cache: Path) -> Step:
    return Step({"cache": str(cache)}, tmp_path / "step")


def logged(directory: Path | str, name: str = "processing.log") -> list[str]:
    lines = (Path(directory) / name).read_text("utf-8").splitlines()
    assert all(STAMP.match(line) for line in lines)
    return [STAMP.sub("", line, count=1) for line in lines]


# --- log -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "lines"),
    [
        ("one", ["one"]),
        ("one\ntwo\r\nthree\rfour", ["one", "two", "three", "four"]),
        ("", [""]),
        (["a", 1, "b\nc"], ["a", "1", "b", "c"]),
        ({"threads": 2, "range": [0, 1]}, ["threads: 2", "range: [0, 1]"]),
        ([], []),
        ({}, []),
        (None, ["None"]),
        (("a", "b"), ["('a', 'b')"]),
        (Path("x/y"), ["x/y"]),
        ("100 µm, \udcff", ["100 µm, \\udcff"]),
    ],
)
def test_each_line_is_stamped(tmp_path: Path, message: object, lines: list[str]) -> None:
    Logable(tmp_path / "new" / "folder").log(message)
    assert logged(tmp_path / "new" / "folder") == lines


def test_log_is_appended_to_also_by_another_object(tmp_path: Path) -> None:
    for text in ("first", "second"):
        Logable(tmp_path).log(text)
    assert logged(tmp_path) == ["first", "second"]


def test_log_is_echoed_when_debug_and_only_then(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Logable(tmp_path)
    log.log("quiet")
    assert capsys.readouterr().out == ""
    log.debug = True
    log.log("a\nb")
    out = capsys.readouterr().out
    assert out == "".join((tmp_path / "processing.log").read_text().splitlines(keepends=True)[1:])
    assert STAMP.sub("", out) == "a\nb\n"


def test_echo_survives_a_terminal_without_the_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        Logable(tmp_path, debug=True).log("µm")
    assert (tmp_path / "out").read_text("ascii").endswith("\\xb5m\n")


def test_subclass_and_instance_can_log_elsewhere(tmp_path: Path) -> None:
    class Elsewhere(Logable):
        DEFAULT_LOG_NAME = "other.log"

    log = Elsewhere(tmp_path)
    log.log("a")
    log.log_name = "partial_processing.log"
    log.log("b")
    assert (logged(tmp_path, "other.log"), logged(tmp_path, "partial_processing.log")) == (["a"], ["b"])


def test_log_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match="file is a file: give the path of a folder for results and log"):
        Logable(tmp_path / "file").log("x")
    (tmp_path / "processing.log").mkdir()
    with pytest.raises(OutputError, match=r"the log cannot be written: (Is a directory|Permission denied)"):
        Logable(tmp_path).log("x")


@pytest.mark.parametrize("directory", [None, 3, "", b"x"])
def test_logable_needs_a_folder(directory: Any) -> None:
    with pytest.raises(ConfigError, match=r"Logable: directory = .*: must be the path of the folder"):
        Logable(directory)


# --- making a step ---------------------------------------------------------------------------------------------------


def test_attributes_are_what_was_given(tmp_path: Path) -> None:
    project, handler = object(), object()
    # By position, in scportrait's order.
    made = Step({"cache": "c", "a": 1}, tmp_path / "s", tmp_path, True, True, project, handler, True)  # noqa: FBT003
    assert made.config == {"cache": "c", "a": 1}
    assert (made.directory, made.project_location) == (str(tmp_path / "s"), tmp_path)
    assert (made.debug, made.overwrite, made.from_project, made.deep_debug) == (True, True, True, False)
    assert made.project is project
    assert made.filehandler is handler
    assert not (tmp_path / "s").exists()


def test_defaults(tmp_path: Path) -> None:
    made = Step({"cache": "c"}, str(tmp_path / "s"))
    assert made.get_directory() == str(tmp_path / "s")
    assert (made.debug, made.overwrite, made.from_project) == (False, False, False)
    assert not hasattr(made, "_tmp_dir_path")
    assert (made.project, made.filehandler, made.project_location) == (None, None, None)


def test_filehandler_is_kept_without_a_project(tmp_path: Path) -> None:
    assert Step({"cache": "c"}, tmp_path, filehandler="store.zarr").filehandler == "store.zarr"


def test_step_without_a_folder_is_refused() -> None:
    with pytest.raises(ConfigError, match="Step: directory is missing: give the folder for its results and log"):
        Step({"cache": "c"})


@pytest.mark.parametrize("form", [str, Path])
def test_config_from_a_file_by_the_concrete_class(tmp_path: Path, form: Any) -> None:
    (tmp_path / "c.yml").write_text("ProcessingStep: {cache: wrong}\nStep: {cache: right}\nBare: {cache: wrong}\n")
    assert Step(form(tmp_path / "c.yml"), tmp_path).config == {"cache": "right"}


def test_config_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yml': there is no such file"):
        Step(tmp_path / "none.yml", tmp_path)
    with pytest.raises(ConfigError, match="config: must be a dict, or the path of a YAML file"):
        Step(None, tmp_path)  # type: ignore[arg-type]


def test_callers_dict_is_never_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config: dict[str, Any] = {"Step": {"list": [1]}}
    made = Step(config, tmp_path / "s")
    made.register_parameter("new", 1)
    made.config["list"].append(2)
    assert config == {"Step": {"list": [1]}}


@pytest.mark.parametrize("config", [{}, {"cache": None}])
def test_without_a_cache_it_is_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    made = Step(config, tmp_path / "s")
    assert logged(tmp_path / "s") == [
        f"No cache in the config: temporary files go to the current directory, {tmp_path}"
    ]
    assert made()["folder"].parent == tmp_path


def test_in_a_removed_directory_it_is_the_systems_temporary_folder(tmp_path: Path) -> None:
    gone, folder = tmp_path / "gone", tmp_path / "step"
    gone.mkdir()
    code = f"""
import os, tempfile
os.chdir({str(gone)!r})
os.rmdir({str(gone)!r})
from cellstamp.pipeline.base import ProcessingStep
class Step(ProcessingStep):
    def process(self):
        return self._tmp_dir_path
step = Step({{}}, {str(folder)!r})
assert step.config["cache"] == tempfile.gettempdir(), step.config
assert step().startswith(tempfile.gettempdir())
"""
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    # -P: Python 3.13.0 itself fails there if the current directory is in sys.path
    subprocess.run([sys.executable, "-P", "-c", code], check=True, env=env, cwd=tmp_path)
    assert logged(folder) == [
        "No cache in the config, and the current directory was removed: temporary files go to the system's folder for "
        f"them, {tmp_path}"
    ]


def test_a_step_can_use_the_systems_temporary_folder(tmp_path: Path) -> None:
    class Strict(Step):
        FILLS_IN_CACHE = False

    made = Strict({"a": 1}, tmp_path / "s")
    assert made.config == {"a": 1}
    made.create_temp_dir()
    assert Path(made._tmp_dir_path).parent == Path(tempfile.gettempdir())
    made.clear_temp_dir()
    made.config["cache"] = None
    with pytest.raises(ConfigError, match="Strict config: cache = None: must be the path of a folder"):
        made()


# --- running it ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [Step.__call__, Step.__call_empty__])
def test_run_passes_arguments_and_returns_the_result(step: Step, cache: Path, run: Any) -> None:
    result = run(step, 1, 2, key="value")
    assert result is step.seen
    assert (result["args"], result["kwargs"]) == ((1, 2), {"key": "value"})
    assert Path(step.directory).is_dir()
    assert result["folder"].parent == cache
    assert list(cache.iterdir()) == []
    assert not hasattr(step, "_tmp_dir_path")


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt("boom"), SystemExit("boom")])
@pytest.mark.parametrize("run", [Step.__call__, Step.__call_empty__])
def test_temporary_folder_goes_and_overrides_end_whatever_happened(
    step: Step, cache: Path, run: Any, error: BaseException
) -> None:
    with pytest.raises(type(error), match="boom"):
        run(step, fail=error, debug=True, overwrite=True)
    assert (step.seen["debug"], step.seen["overwrite"]) == (True, True)
    assert (step.debug, step.overwrite) == (False, False)
    assert list(cache.iterdir()) == []
    assert not hasattr(step, "_tmp_dir_path")


def test_overrides_hold_for_one_call(tmp_path: Path, cache: Path) -> None:
    step = Step({"cache": cache}, tmp_path / "s", debug=True, overwrite=True)
    for overrides, debug, overwrite in [
        ({}, True, True),
        ({"debug": False}, False, True),
        ({"overwrite": False}, True, False),
        ({"debug": None, "overwrite": None}, True, True),
    ]:
        seen = step(**overrides)
        assert (seen["debug"], seen["overwrite"]) == (debug, overwrite)
        assert (step.debug, step.overwrite) == (True, True)


def test_temporary_folder_is_kept_when_deep_debug_and_can_be_cleared(step: Step, cache: Path) -> None:
    step.deep_debug = True
    with pytest.raises(RuntimeError, match="boom"):
        step(fail=RuntimeError("boom"))
    first = step.seen["folder"]
    assert (first / "inner" / "scratch").read_text() == "x"
    assert logged(step.directory) == [f"Temporary folder kept: {first}"]
    step()
    assert step._tmp_dir_path == str(step.seen["folder"])
    assert sorted(cache.iterdir()) == sorted([first, step.seen["folder"]])
    step.clear_temp_dir()
    assert list(cache.iterdir()) == [first]


def test_step_run_inside_itself_keeps_the_outer_folder(step: Step, cache: Path) -> None:
    class Outer(Step):
        def process(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            outer = self._tmp_dir_path
            self.__call_empty__()
            assert self._tmp_dir_path == outer
            return super().process(*args, **kwargs)

    Outer({"cache": cache}, step.directory)()
    assert list(cache.iterdir()) == []


def test_process_may_clear_its_temporary_folder_itself(tmp_path: Path, cache: Path) -> None:
    class Tidy(ProcessingStep):
        def process(self) -> None:
            self.clear_temp_dir()
            self.clear_temp_dir()

    Tidy({"cache": cache}, tmp_path / "s")()
    assert list(cache.iterdir()) == []


def test_relative_cache_is_cleared_after_process_went_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wanderer(Step):
        def process(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
            os.chdir(tmp_path / "elsewhere")
            return super().process(*args, **kwargs)

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    Wanderer({"cache": "cache"}, tmp_path / "s")()
    assert list((tmp_path / "cache").iterdir()) == []
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_other_files_in_the_folders_stay(step: Step, cache: Path) -> None:
    for folder in (Path(step.directory), cache):
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
    step(overwrite=True)
    with pytest.raises(RuntimeError, match="boom"):
        step(overwrite=True, fail=RuntimeError("boom"))
    assert [path.name for path in Path(step.directory).iterdir()] == ["mine.txt"]
    assert [path.name for path in cache.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (Bare.__call__, r"^No process method defined\.$"),
        (Bare.__call_empty__, r"^No return_empty_mask method defined\.$"),
    ],
)
def test_step_without_a_method_warns_and_returns_none(tmp_path: Path, cache: Path, run: Any, message: str) -> None:
    bare = Bare({"cache": cache}, tmp_path / "s")
    with pytest.warns(UserWarning, match=message) as caught:
        assert run(bare, 1, key=2) is None
    assert Path(caught[0].filename) == Path(__file__)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(
    ("cache", "message"),
    [
        ("", "Step config: cache = '': must be the path of a folder for temporary files"),
        (3, "Step config: cache = 3: must be the path of a folder for temporary files"),
        (__file__, "test_base.py': no folder for temporary files can be made there: File exists"),
    ],
)
def test_cache_that_is_no_folder_is_refused_before_any_work(tmp_path: Path, cache: Any, message: str) -> None:
    made = Step({"cache": cache}, tmp_path / "s")
    with pytest.raises(ConfigError, match=re.escape(message)):
        made()
    assert not hasattr(made, "seen")


def test_temporary_folders_are_made_and_cleared_by_hand(step: Step, cache: Path) -> None:
    step.create_temp_dir()
    assert Path(step._tmp_dir_path).parent == cache
    assert Path(step._tmp_dir_path).name.startswith("Step_")
    for _ in range(2):
        step.clear_temp_dir()
        assert list(cache.iterdir()) == []
        assert not hasattr(step, "_tmp_dir_path")


# --- temporary folders that a killed run has left ---------------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from cellstamp.pipeline.base import ProcessingStep

class Step(ProcessingStep):
    def process(self):
        (Path(self._tmp_dir_path) / "scratch").write_text("x")
        print(self._tmp_dir_path, flush=True)
        {end}

Step({{"cache": sys.argv[1]}}, sys.argv[2])()
"""


def start_run(cache: Path, directory: Path, end: str) -> tuple[subprocess.Popen[str], Path]:
    """A process with a step that has come as far as its temporary folder."""
    command = [sys.executable, "-c", KILLED.format(end=end), str(cache), str(directory)]
    run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    return run, Path(run.stdout.readline().strip())


def test_the_temporary_folder_of_a_killed_run_is_removed_by_the_next(step: Step, cache: Path, tmp_path: Path) -> None:
    run, left = start_run(cache, tmp_path / "other", "os.kill(os.getpid(), signal.SIGKILL)")
    run.communicate()
    assert left.is_dir()
    step()
    assert list(cache.iterdir()) == []
    assert logged(step.directory) == [f"Removed the temporary folder of a run that was killed: {left}"]


def test_a_killed_run_whose_parent_has_not_noticed_has_ended(step: Step, cache: Path, tmp_path: Path) -> None:
    run, left = start_run(cache, tmp_path / "other", "os.kill(os.getpid(), signal.SIGKILL)")
    os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOWAIT)
    step()
    assert not left.exists()
    run.communicate()


def test_the_temporary_folder_of_a_run_that_goes_on_stays(step: Step, cache: Path, tmp_path: Path) -> None:
    run, folder = start_run(cache, tmp_path / "other", "sys.stdin.read()")
    step()
    assert (folder / "scratch").read_text() == "x"
    run.communicate()
    assert not folder.exists()


def of_a_killed_run(cache: Path, **changed: Any) -> Path:
    """A temporary folder whose owner has ended, with some of what its record says changed."""
    cache.mkdir(exist_ok=True)
    folder = temporary.new_temporary_folder(cache, "Step_")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    record = folder / temporary.RECORD
    record.write_text(json.dumps({**json.loads(record.read_text()), "pid": ended.pid, **changed}))
    return folder


@pytest.mark.parametrize(
    "changed",
    [
        {"host": "elsewhere"},
        {"machine": "another of the same name"},
        {"container": "pid:[1]"},
        {"folder": "Step_of_which_this_is_a_copy"},
        {"pid": "none"},
        {"pid": 10**30},
        {"pid": os.getppid(), "started": process_start(os.getppid())},
    ],
    ids=lambda changed: ", ".join(changed),
)
def test_a_folder_that_may_be_in_use_or_is_not_ours_stays(step: Step, cache: Path, changed: dict[str, Any]) -> None:
    folder = of_a_killed_run(cache, **changed)
    step()
    assert list(cache.iterdir()) == [folder]


def test_a_later_process_with_the_same_id_does_not_keep_a_folder(step: Step, cache: Path) -> None:
    of_a_killed_run(cache, pid=os.getppid(), started="before")
    step()
    assert list(cache.iterdir()) == []


def test_folders_without_a_record_and_links_stay(step: Step, cache: Path, tmp_path: Path) -> None:
    folder = of_a_killed_run(tmp_path / "elsewhere")
    (cache / "Step_abcd1234").mkdir(parents=True)
    (cache / folder.name).symlink_to(folder)
    (cache / "Step_damaged").mkdir()
    (cache / "Step_damaged" / temporary.RECORD).write_text("{")
    before = sorted(cache.iterdir())
    step()
    assert sorted(cache.iterdir()) == before
    assert folder.is_dir()


def test_a_folder_that_deep_debug_kept_stays_when_its_run_has_ended(step: Step, cache: Path) -> None:
    step.deep_debug = True
    step()
    kept = step.seen["folder"]
    assert not (kept / temporary.RECORD).exists()


# --- register_parameter ----------------------------------------------------------------------------------------------


def test_register_parameter_fills_in_what_is_missing_only(step: Step) -> None:
    step.register_parameter("size", 3)
    step.register_parameter("size", 4)
    assert step.config["size"] == 3
    assert logged(step.directory) == ["No size in the config: set to 3"]


def test_register_parameter_takes_text_keys_only(step: Step) -> None:
    with pytest.raises(NotImplementedError, match="a list of keys"):
        step.register_parameter(["a", "b"], 1)
    with pytest.raises(TypeError, match=r"the key must be a str \(got tuple\)"):
        step.register_parameter(("a",), 1)
