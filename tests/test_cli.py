"""The command line: what it does, what it says, and its exit codes."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import Result

import cellstamp
from cellstamp import Project, read_h5sc
from cellstamp.cli import commands
from commands import run_command

SIZE = 32
CONFIG = {"HDF5CellExtraction": {"threads": 1, "image_size": SIZE}}
SEGMENTATION = {"threads": 1, "window": 41, "min_distance": 5, "expansion": 4}


def invoke(*arguments: object) -> Result:
    return run_command(*arguments)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a separate process, as the console script does."""
    code = "import sys; from cellstamp.cli import main; sys.exit(main())"
    # the test project is so small that its one cell at the border is many
    command = [sys.executable, "-W", "ignore:1 of 7 cells (14%)", "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with 9 cells, one of them at the border."""
    folder = tmp_path_factory.mktemp("template") / "project"
    masks = np.zeros((200, 200), dtype=np.uint32)
    for number, (y, x) in enumerate([(y, x) for y in (8, 100, 160) for x in (60, 100, 160)], start=1):
        masks[y - 6 : y + 6, x - 6 : x + 6] = number
    masks[masks == 2] = masks[masks == 3] = 0
    image = np.random.default_rng(0).integers(0, 60000, size=(2, 200, 200), dtype=np.uint16)
    cache = tmp_path_factory.mktemp("cache")
    config = {"HDF5CellExtraction": CONFIG["HDF5CellExtraction"] | {"cache": str(cache)}}
    project = Project(str(folder), config_path=config)
    project.load_input_from_array(image, channel_names=["first", "second"])
    project.load_segmentation(nucleus=masks, cytosol=masks)
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    return folder


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Path:
    """A copy of it to work on."""
    return Path(shutil.copytree(template, tmp_path / "project"))


@pytest.fixture
def unsegmented(tmp_path: Path) -> Path:
    """A project with an image of 9 nuclei, and no masks."""
    image = np.full((2, 200, 200), 500, dtype=np.uint16)
    y, x = np.mgrid[:200, :200]
    for row, column in [(row, column) for row in (40, 100, 160) for column in (40, 100, 160)]:
        image[1][(y - row) ** 2 + (x - column) ** 2 <= 64] = 20000
    cache = {"cache": str(tmp_path / "cache")}
    segmentation = {**SEGMENTATION, **cache, "nucleus_channel": "DAPI"}
    config = {"ThresholdSegmentation": segmentation, "HDF5CellExtraction": CONFIG["HDF5CellExtraction"] | cache}
    project = Project(tmp_path / "project", config)
    project.load_input_from_array(image, channel_names=["other", "DAPI"])
    return tmp_path / "project"


@pytest.fixture(scope="module")
def h5sc(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of the project, for tests that read it."""
    folder = Path(shutil.copytree(template, tmp_path_factory.mktemp("extracted") / "project"))
    Project(folder).extract()
    return result_of(folder)


def masks_of(project: Path) -> list[np.ndarray]:
    sdata = Project(project).sdata
    return [np.asarray(sdata[name]) for name in ("seg_all_nucleus", "seg_all_cytosol") if name in sdata]


def result_of(project: Path, folder: str = "data") -> Path:
    return project / "extraction" / folder / "single_cells.h5sc"


def test_version():
    result = invoke("--version")
    assert (result.exit_code, result.output) == (0, f"cellstamp, version {cellstamp.__version__}\n")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["extract", "--help"], ["segment", "--help"], ["info", "-h"], ["demo", "--help"]]
)
def test_help(arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0
    assert result.output.startswith("Usage: cellstamp")


def test_extract_uses_the_folders_own_config_and_ends_with_one_line_on_stdout(project):
    result = run("extract", project)
    assert (result.returncode, result.stderr) == (0, "")
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"Extracted 6 of 7 cells (1 too close to the image border) -> {result_of(project)} (")
    assert line.endswith(" cells/s)")
    assert read_h5sc(result_of(project)).obsm["single_cell_images"].shape == (6, 4, SIZE, SIZE)


@pytest.mark.parametrize("way", ["--config", "--set"])
def test_a_flat_configuration_may_hold_a_mapping(project, tmp_path, way):
    ranges = {"normalization_range": {"first": [0.01, 0.99]}}
    flat = {**CONFIG["HDF5CellExtraction"], "cache": str(tmp_path / "cache")} | (ranges if way == "--config" else {})
    (tmp_path / "flat.yml").write_text(yaml.safe_dump(flat))
    setting = [] if way == "--config" else ["--set", "normalization_range={first: [0.01, 0.99]}"]
    result = invoke("extract", project, "--config", tmp_path / "flat.yml", *setting)
    assert result.exit_code == 0, result.output
    assert read_h5sc(result_of(project)).n_obs == 6
    assert yaml.safe_load((project / "config.yml").read_text()) == flat


def test_set_holds_for_this_run_and_leaves_the_folders_config_as_it_is(project):
    before = (project / "config.yml").read_bytes()
    result = invoke("extract", project, "--set", "image_size=24", "--set", "compression=gzip")
    assert result.exit_code == 0, result.output
    assert read_h5sc(result_of(project)).obsm["single_cell_images"].shape == (6, 4, 24, 24)
    assert (project / "config.yml").read_bytes() == before
    assert "compression    gzip" in invoke("info", result_of(project)).output


def test_set_takes_lists_and_booleans(project):
    result = invoke("extract", project, "--set", "normalization_range=[0, 0.5]", "--set", "compression=false")
    assert result.exit_code == 0, result.output
    about = invoke("info", result_of(project)).output
    assert "normalization  quantiles 0 to 0.5 of each channel of each cell" in about
    assert "compression    none" in about


def test_another_config_file_becomes_the_folders_own(project, tmp_path):
    settings = yaml.safe_load((project / "config.yml").read_text())
    settings["HDF5CellExtraction"]["image_size"] = 20
    other = tmp_path / "other.yml"
    other.write_text(yaml.safe_dump(settings))
    before = other.read_bytes()
    assert invoke("extract", project, "--config", other, "--set", "image_size=22").exit_code == 0
    assert read_h5sc(result_of(project)).obsm["single_cell_images"].shape == (6, 4, 22, 22)
    assert other.read_bytes() == before
    assert invoke("extract", project, "--overwrite").exit_code == 0
    assert read_h5sc(result_of(project)).obsm["single_cell_images"].shape == (6, 4, 20, 20)


def test_partial_with_a_seed_and_a_folder_of_its_own(project):
    assert invoke("extract", project, "--partial", 3, "--seed", 7, "--output-folder", "try").exit_code == 0
    assert read_h5sc(result_of(project, "partial_try_ncells_3_seed_7")).n_obs == 3
    assert invoke("extract", project, "--partial", 2).exit_code == 0
    assert read_h5sc(result_of(project, "partial_data_ncells_2_seed_42")).n_obs == 2


def test_a_finished_result_stays_unless_overwrite(project):
    assert invoke("extract", project).exit_code == 0
    result = invoke("extract", project)
    assert result.exit_code == 0
    assert result.stdout == f"Up to date: 6 cells -> {result_of(project)}\n"
    result = invoke("extract", project, "--set", "image_size=22")
    assert result.exit_code == 2
    told = " Set --overwrite to replace its files, or give another --output-folder\n"
    assert result.stderr.endswith(told)
    assert result.stdout == ""
    assert invoke("extract", project, "--overwrite").exit_code == 0


@pytest.mark.once
def test_progress_when_asked_for_and_not_else(project):
    assert "6/6" in invoke("extract", project, "--progress").stderr
    result = invoke("extract", project, "--overwrite", "--no-progress")
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.once
def test_extract_without_standard_error(project):
    code = "import os; os.close(2); os.execv(os.sys.executable, [os.sys.executable, *os.sys.argv[1:]])"
    main = "import sys; from cellstamp.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "-c", main, "extract", str(project), "--debug"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0
    assert "Extracted 6 of 7 cells" in done.stdout
    assert result_of(project).exists()


@pytest.mark.once
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [
        (["info", "{h5sc}"], "file           {h5sc}"),
        (["validate", "{h5sc}"], "{h5sc} is valid"),
        (["preview", "{h5sc}", "-o", "{tmp}/cells.png"], "Picture: {tmp}/cells.png"),
    ],
)
def test_commands_name_a_full_standard_output(h5sc, tmp_path, capsys, monkeypatch, arguments, outcome):
    values = {"h5sc": h5sc, "tmp": tmp_path}
    # closing it writes what is left in its buffer, as the end of a process does
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit, match=r"^1$"):
            commands([argument.format(**values) for argument in arguments], prog_name="cellstamp")
    told = capsys.readouterr().err
    start = "Error: standard output cannot be written (No space left on device). The command finished: "
    assert told.splitlines()[-1].startswith(start + outcome.format(**values)), told


@pytest.mark.once
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_standard_output_does_not_end_the_run_and_the_result_is_named(project):
    main = "import sys; from cellstamp.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", main, "extract", str(project)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("Error: standard output cannot be written (No space left on device). The command finished: ")
    assert f"Extracted 6 of 7 cells (1 too close to the image border) -> {result_of(project)}" in line
    assert result_of(project).exists()


def test_python_with_optimisation_is_named_and_the_store_not_called_damaged(project):
    main = "import sys; from cellstamp.cli import main; sys.exit(main())"
    command = [sys.executable, "-O", "-c", main, "extract", str(project)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        pytest.skip("this version of zarr reads metadata under -O")
    assert done.returncode == 2
    assert "zarr cannot read metadata under python -O; start Python without -O, and unset PYTHONOPTIMIZE" in done.stderr
    assert "damaged" not in done.stderr


def test_extract_where_the_current_directory_was_removed(project, tmp_path):
    assert invoke("extract", project).exit_code == 0  # compiles, which needs a current directory
    (tmp_path / "gone").mkdir()
    # newer releases of anndata cannot be imported in such a directory
    main = "import anndata, os, sys; os.rmdir(os.getcwd()); from cellstamp.cli import main; sys.exit(main())"
    # -P: Python 3.13.0 itself fails there if the current directory is in sys.path
    command = [sys.executable, "-P", "-W", "ignore:1 of 7 cells (14%)", "-c", main, "extract", "--overwrite"]
    done = subprocess.run([*command, str(project)], capture_output=True, text=True, check=False, cwd=tmp_path / "gone")
    assert (done.returncode, done.stderr) == (0, "")
    assert (result_of(project).parent / "removed_classes.csv").read_text() == "1\n"


def test_segment_writes_masks_that_extract_uses_and_ends_with_one_line_on_stdout(unsegmented):
    result = run("segment", unsegmented)
    assert (result.returncode, result.stderr) == (0, "")
    labels = re.escape(str(unsegmented / "scportrait.sdata" / "labels"))
    line = rf"Segmented 9 nuclei and cells -> {labels} \(seg_all_nucleus, seg_all_cytosol\) in [\d.]+ s\n"
    assert re.fullmatch(line, result.stdout)
    nuclei, cells = masks_of(unsegmented)
    assert nuclei.max() == cells.max() == 9
    assert invoke("extract", unsegmented).exit_code == 0
    assert read_h5sc(result_of(unsegmented)).n_obs == 9


def test_segment_replaces_masks_only_with_overwrite(unsegmented):
    assert invoke("segment", unsegmented).exit_code == 0
    before = masks_of(unsegmented)
    result = invoke("segment", unsegmented, "--set", "expansion=0")
    assert (result.exit_code, result.stdout) == (2, "")
    told = "labels/seg_all_nucleus, labels/seg_all_cytosol already exist. Set --overwrite to replace them"
    assert told in result.stderr
    assert np.array_equal(before, masks_of(unsegmented))
    config = (unsegmented / "config.yml").read_bytes()
    assert invoke("segment", unsegmented, "--set", "expansion=0", "--overwrite").exit_code == 0
    nuclei, cells = masks_of(unsegmented)
    assert np.array_equal(nuclei, cells)  # so the setting was used
    assert (unsegmented / "config.yml").read_bytes() == config


def test_segment_with_another_config_file(unsegmented, tmp_path):
    other = tmp_path / "other.yml"
    other.write_text(yaml.safe_dump({"ThresholdSegmentation": {**SEGMENTATION, "cache": str(tmp_path), "image": "no"}}))
    result = invoke("segment", unsegmented, "--config", other)
    assert result.exit_code == 2
    assert "'no'" in result.stderr


@pytest.mark.once
def test_segment_fails_where_it_finds_no_nucleus(unsegmented):
    assert invoke("segment", unsegmented).exit_code == 0
    before = masks_of(unsegmented)
    result = invoke("segment", unsegmented, "--overwrite", "--set", "min_area=5000")
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: No nucleus found in channel 'DAPI' of image 'input_image'")
    assert np.array_equal(before, masks_of(unsegmented))


@pytest.mark.once
@pytest.mark.parametrize(("number", "code", "word"), [("SIGINT", 130, "Interrupted"), ("SIGTERM", 143, "Terminated")])
def test_an_interrupted_segmentation_leaves_no_masks(unsegmented, tmp_path, number, code, word):
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job ignores Ctrl-C
        "from cellstamp.cli import main; main()"
    )
    arguments = ["segment", str(unsegmented), "--progress", "--set", "block_size=10"]
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stderr=subprocess.PIPE, bufsize=0)
    shown = b""
    while not re.search(rb"segmenting: +[1-9]", shown):
        shown += process.stderr.read(100) or pytest.fail(shown.decode())
    process.send_signal(getattr(signal, number))
    told = (shown + process.communicate(timeout=60)[1]).decode()
    assert process.returncode == code, told
    assert told.splitlines()[-1] == f"{word}. No masks were written. Run the command again to start over."
    assert "Traceback" not in told
    assert masks_of(unsegmented) == []
    assert list((tmp_path / "cache").iterdir()) == []
    assert invoke("segment", unsegmented).exit_code == 0


SEGMENT_ERRORS = {
    "no folder": (["segment"], "Missing argument 'PROJECT_FOLDER'"),
    "no project": (["segment", "{tmp}/empty"], "scportrait.sdata is missing"),
    "no section": (
        ["segment", "{project}", "--config", "{tmp}/extraction_only.yml"],
        "no section 'ThresholdSegmentation' for this step (it has: HDF5CellExtraction)",
    ),
    "no image": (["segment", "{tmp}/no_image"], "there is no image"),
    "a misspelt key": (
        ["segment", "{project}", "--set", "expnsion=4"],
        "expnsion = 4: unknown key; did you mean 'expansion'?",
    ),
    "an even window": (
        ["segment", "{project}", "--set", "window=4"],
        "Error: ThresholdSegmentation config: 1 error\n  window = 4: must be an odd integer >= 3",
    ),
    "a channel that is missing": (
        ["segment", "{project}", "--set", "nucleus_channel=DNA"],
        "nucleus_channel = 'DNA': image 'input_image' of {project}/scportrait.sdata has no channel of this name",
    ),
    "an option of extract": (["segment", "{project}", "--partial", "4"], "No such option"),
}


@pytest.mark.parametrize(("arguments", "told"), SEGMENT_ERRORS.values(), ids=SEGMENT_ERRORS)
def test_errors_of_segment_have_exit_code_2(arguments, told, unsegmented, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "extraction_only.yml").write_text(yaml.safe_dump(CONFIG))
    shutil.copytree(unsegmented, tmp_path / "no_image")
    shutil.rmtree(tmp_path / "no_image" / "scportrait.sdata" / "images")
    (tmp_path / "no_image" / "scportrait.sdata" / "images").mkdir()
    result = invoke(*(argument.format(tmp=tmp_path, project=unsegmented) for argument in arguments))
    assert result.exit_code == 2, result.exception
    assert told.format(project=unsegmented) in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert masks_of(unsegmented) == []


def test_embed_names_the_extra_for_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "cellstamp.pipeline.embed", raising=False)
    result = run_command("embed", tmp_path, "--model", "json:loads")
    assert result.exit_code == 2
    assert result.stderr == "Error: embed needs torch: pip install 'cellstamp[torch]'\n"


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "cellstamp", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"cellstamp, version {cellstamp.__version__}\n"


def test_info_tells_what_is_in_a_file(project):
    assert invoke("extract", project).exit_code == 0
    result = invoke("info", result_of(project))
    assert result.exit_code == 0
    lines = dict(line.split(maxsplit=1) for line in result.output.replace("image size", "image_size").splitlines())
    assert list(lines) == ["file", "cells", "image_size", "masks", "channels", "compression", "normalization"]
    assert lines["cells"] == "6"
    assert lines["image_size"] == f"{SIZE} x {SIZE} pixels, float16"
    assert lines["masks"] == "2: seg_all_nucleus, seg_all_cytosol"
    assert lines["channels"] == "2: first, second"
    assert lines["compression"].startswith("lzf, ")
    assert lines["compression"].endswith(" of images)")
    assert "times smaller" in lines["compression"]
    assert lines["normalization"] == "quantiles 0.001 to 0.999 of each channel of each cell"


def test_info_of_a_project_is_its_summary(project, tmp_path):
    none = invoke("info", project)
    assert (none.exit_code, "  results: none" in none.output.splitlines()) == (0, True)
    assert invoke("extract", project).exit_code == 0
    found = invoke("info", project)
    assert (found.exit_code, found.output) == (0, f"{cellstamp.Project(project)!r}\n")
    assert "  results: extraction/data (.h5sc file, 6 cells)" in found.output
    above = invoke("info", tmp_path)
    assert above.exit_code == 2
    assert f"there is a project in {project}: give that" in above.stderr


@pytest.mark.leaves_files
@pytest.mark.parametrize("below", [".", "extraction", "extraction/data"])
def test_a_folder_with_results_instead_of_a_file(project, below):
    assert invoke("extract", project).exit_code == 0
    (project / "extraction/.unfinished_data").mkdir()
    (project / "extraction/.unfinished_data/single_cells.h5sc").touch()
    told = invoke("validate", project / below)
    assert told.exit_code == 2
    assert told.stderr.endswith(f"it has no zarr.json. Give a file or store in it: {result_of(project)}\n")


def test_info_without_normalization(project):
    assert invoke("extract", project, "--set", "normalize_output=False").exit_code == 0
    assert "normalization  none" in invoke("info", result_of(project)).output


def test_info_tells_the_options(project):
    options = ["border=pad", "apply_masks=false", "normalization_scope=image", "dtype=float32"]
    assert invoke("extract", project, *(part for each in options for part in ("--set", each))).exit_code == 0
    told = invoke("info", result_of(project)).output
    assert f"{SIZE} x {SIZE} pixels, float32" in told
    assert "of each channel of the whole image" in told
    assert "surroundings   kept" in told
    assert "border         padded" in told


MISTAKES = {
    "no command": (["extrakt"], "No such command 'extrakt'"),
    "no folder": (["extract"], "Missing argument 'PROJECT_FOLDER'"),
    "not there": (["extract", "{tmp}/nowhere"], "nowhere' does not exist"),
    "a setting without =": (["extract", "{project}", "--set", "threads"], "--set: 'threads': write KEY=VALUE"),
    "a setting without a key": (["extract", "{project}", "--set", "=4"], "--set: '=4': write KEY=VALUE"),
    "no YAML": (["extract", "{project}", "--set", "threads=[1"], "'threads=[1': the value is not valid YAML"),
    "an odd size": (["extract", "{project}", "--set", "image_size=33"], "image_size = 33: must be an even integer"),
    "a misspelt key": (
        ["extract", "{project}", "--set", "thread=4"],
        "thread = 4: unknown key; did you mean 'threads'?",
    ),
    "none at all": (["extract", "{project}", "--partial", "0"], "'--partial': 0 is not in the range x>=1"),
    "too many": (
        ["extract", "{project}", "--partial", "7"],
        "--partial = 7 is more than the 6 cells that can be extracted; lower --partial",
    ),
    "no project": (["extract", "{tmp}/empty"], "scportrait.sdata is missing"),
    "a project below": (
        ["extract", "{tmp}"],
        "there is a project in {tmp}/project",
    ),
    "no file": (["info", "{tmp}/nowhere.h5sc"], "nowhere.h5sc' does not exist"),
    "no h5sc": (["info", "{project}/config.yml"], "config.yml"),
}


@pytest.mark.parametrize(("arguments", "told"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_told_with_exit_code_2(arguments, told, project, tmp_path):
    (tmp_path / "empty").mkdir()
    result = invoke(*(argument.format(tmp=tmp_path, project=project) for argument in arguments))
    assert result.exit_code == 2, result.exception
    assert told.format(tmp=tmp_path) in result.stderr
    # in a new clone, tests that run at the same time compile, too: code may be loaded again
    assert [line for line in result.stdout.splitlines() if not line.startswith("Compil")] == []
    assert "Traceback" not in result.stderr
    assert list((tmp_path / "empty").iterdir()) == []


@pytest.mark.once
def test_warnings_and_errors_are_one_line_each_without_traceback_in_the_real_program(project):
    result = run("extract", project, "--set", "hdf5_rdcc_nbytes=1000", "--partial", 100)
    assert (result.returncode, result.stdout) == (2, "")
    warning, error = result.stderr.splitlines()
    assert warning.startswith("Warning: HDF5CellExtraction config: hdf5_rdcc_nbytes means nothing here")
    assert error.startswith("Error: --partial = 100 is more than the 6 cells")


@pytest.mark.once
def test_debug_adds_the_traceback_and_the_log(project):
    result = run("extract", project, "--partial", 100, "--debug")
    assert result.returncode == 2
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert invoke("extract", project, "--debug").stdout.startswith("[")


BROKEN = """
import click, sys
from cellstamp import cli
from cellstamp.cli.errors import debug_option

@cli.commands.command()
@debug_option
def breaks():
    raise RuntimeError("something nobody\\nthought of")

sys.exit(cli.main())
"""


@pytest.mark.once
@pytest.mark.parametrize("debug", [False, True])
def test_what_nobody_thought_of_is_exit_code_1(debug):
    arguments = ["breaks", *(["--debug"] if debug else [])]
    result = subprocess.run([sys.executable, "-c", BROKEN, *arguments], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert ("Traceback" in result.stderr) == debug
    if not debug:
        assert result.stderr.splitlines()[0] == "Error: RuntimeError: something nobody thought of"
        assert "--debug" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--image", "uint12"],
            "image: 'uint12' is not one of uint8, int8, uint16, int16, uint32, int32, uint64, int64, f",
        ),
        (
            ["--masks", "float32"],
            "masks: 'float32' is not one of uint8, int8, uint16, int16, uint32, int32, uint64, int64",
        ),
        (["--dtype", "float64"], "dtype: 'float64' is not one of float16, float32, uint8, uint16"),
    ],
)
def test_compile_checks_data_types_before_it_compiles(arguments, message):
    result = invoke("compile", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
