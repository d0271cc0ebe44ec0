"""Embeddings: values, order of rows, resuming, errors, and the command."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

import embedding_models as models  # noqa: E402
from cellstamp import Project, SingleCellDataset, embed, read_h5sc  # noqa: E402
from cellstamp.embedding.identity import UnknownIdentityError, identity_of  # noqa: E402
from cellstamp.errors import ConfigError, InputError, OutputError, WorkerError  # noqa: E402
from cellstamp.h5sc.validate import errors_in  # noqa: E402
from commands import run_command  # noqa: E402
from conftest import make_cells  # noqa: E402
from listening import as_started_from_a_terminal  # noqa: E402
from stamp_files import layout_of, store_anew, write_file  # noqa: E402

N_CELLS = 40
TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def _no_calls() -> Iterator[None]:
    models.CALLS.clear()
    yield
    models.CALLS.clear()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_file(tmp_path / "single_cells.h5sc", layout_of(N_CELLS), {"kind": ["round", "flat"] * (N_CELLS // 2)})
    return tmp_path / "single_cells.h5sc"


def in_a_loop(path: Path, model: Any, **chosen: Any) -> np.ndarray:
    """The values that a plain loop over the dataset gives, in the order of the file."""
    dataset = SingleCellDataset(path, **chosen)
    with torch.inference_mode():
        return torch.cat([model(dataset[row][0][None]) for row in range(len(dataset))]).float().numpy()


def left_beside(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir() if each != path)


# --- values and rows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 40, 1000])
def test_values_are_those_of_a_plain_loop(path: Path, batch_size: int) -> None:
    network = models.make_network()
    found = embed(path, network, batch_size=batch_size)
    assert all(module.training for module in network.modules())
    network.eval()
    assert found.X.dtype == np.float32
    np.testing.assert_allclose(found.X, in_a_loop(path, network), rtol=1e-4, atol=1e-6)
    assert left_beside(path) == ["embedding.h5ad"]


def test_the_table_has_the_cells_of_the_images(path: Path) -> None:
    found, images = embed(path, models.network), read_h5sc(path, images=False)
    pd.testing.assert_frame_equal(found.obs, images.obs)
    np.testing.assert_array_equal(found.obsm["spatial"], images.obsm["spatial"])
    assert found.uns["spatialdata_attrs"] == images.uns["spatialdata_attrs"]
    assert found.var_names.tolist() == [f"embedding_{number}" for number in range(6)]
    about = found.uns["embedding"]
    assert (about["model"], about["precision"], about["device"]) == ("embedding_models:Tiny", "float32", "cpu")
    assert about["channels"].tolist() == ["nucleus", "cytosol", "DAPI", "actin"]
    assert isinstance(anndata.io.read_h5ad(path.with_name("embedding.h5ad")).X, np.ndarray)


def test_modes_are_restored_after_errors_too(path: Path) -> None:
    network = models.make_network()
    network.layers[1].eval()
    before = [module.training for module in network.modules()]
    with pytest.raises(InputError, match=r"model: failed with RuntimeError: .*It got a tensor \(40, 1, 16, 16\)"):
        embed(path, network, channels="DAPI")
    assert [module.training for module in network.modules()] == before
    embed(path, network)
    assert [module.training for module in network.modules()] == before


@pytest.mark.parametrize(
    ("model", "transform"),
    [
        (models.means, None),
        (models.means_in_numpy, None),
        (models.means, models.doubled),
        (partial(models.means), torch.nn.AvgPool2d(2)),
    ],
    ids=["function", "numpy", "transform", "network as transform"],
)
def test_functions(path: Path, model: Any, transform: Any) -> None:
    found = embed(path, model, transform=transform, channels=["actin", 0], batch_size=9)
    wanted = in_a_loop(path, models.means, channels=["actin", 0], transform=transform)
    np.testing.assert_allclose(found.X, wanted, rtol=1e-5)
    assert found.uns["embedding"]["channels"].tolist() == ["actin", "nucleus"]


def test_methods_of_networks_run_in_evaluation_mode(path: Path) -> None:
    network = models.make_network()
    found = embed(path, network.before_last, batch_size=9)
    assert network.training
    np.testing.assert_allclose(found.X, in_a_loop(path, network.eval().before_last), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision(path: Path, precision: Any) -> None:
    network = models.make_network()
    exact = embed(path, network, path=path.with_name("exact.h5ad"))
    found = embed(path, network, precision=precision)
    assert found.X.dtype == np.float32
    assert not np.array_equal(found.X, exact.X)
    np.testing.assert_allclose(found.X, exact.X, rtol=0.1, atol=0.02)
    assert {each.dtype for each in network.parameters()} == {torch.float32}


def test_images_in_other_layouts(tmp_path: Path) -> None:
    """Uncompressed, with all planes in a chunk, or in a way that HDF5 reads."""
    path = tmp_path / "crops.h5sc"
    for storage in ({}, {"chunks": (4, 4, 8, 8)}):
        write_file(path, layout_of(N_CELLS))
        store_anew(path, **storage)
        found = embed(path, models.means, overwrite=True)
        np.testing.assert_allclose(found.X, in_a_loop(path, models.means), rtol=1e-5)
        assert left_beside(path) == ["crops.h5sc.embedding.h5ad"]
        path.unlink()


def make_project(folder: Path, **keys: Any) -> Project:
    image, nucleus, cytosol = make_cells(n=25)
    project = Project(folder, {"HDF5CellExtraction": {"image_size": 32, "threads": 1, "border": "pad", **keys}})
    project.load_input_from_array(image, channel_names=["DAPI", "FITC", "actin"])
    project.load_segmentation(nucleus, cytosol)
    project.extract()
    return project


@pytest.mark.parametrize("file_format", ["h5sc", "zarr"])
def test_projects(tmp_path: Path, file_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellstamp.zarr_store.layout.MOST_ROWS", 5)  # several shards
    project = make_project(tmp_path / "project", file_format=file_format, features=True)
    images = Path(project.extraction_f.output_path)
    with pytest.raises(InputError, match=r"has no embedding embedding\.\w+: call cellstamp\.embed"):
        _ = project.embedding
    found = project.embed(models.means, channels=["DAPI", "FITC"], batch_size=4, progress=False)
    np.testing.assert_allclose(found.X, in_a_loop(images, models.means, channels=["DAPI", "FITC"]), rtol=1e-4)
    np.testing.assert_array_equal(found.obsm["spatial"], project.h5sc.obsm["spatial"])
    assert found.obs_names.tolist() == project.h5sc.obs_names.tolist()
    np.testing.assert_array_equal(project.embedding.X, found.X)
    assert images.with_name(f"embedding.{'zarr' if file_format == 'zarr' else 'h5ad'}").exists()
    assert errors_in(images) == []
    assert "embedding      2 columns of embedding_models:means (embedding." in run_command("info", images).stdout
    assert run_command("validate", images).exit_code == 0
    # a table of the store, which spatialdata checks
    project.add_table("deep", embedding=True)
    table = project.sdata["deep"]
    np.testing.assert_array_equal(table.X, found.X)
    assert table.uns["spatialdata_attrs"]["region"] == "seg_all_nucleus"
    with pytest.raises(ConfigError, match="features or an embedding, not both"):
        project.add_table("both", features=True, embedding=True)
    # the project, its folder, and the file are the same input
    for file in (project, tmp_path / "project", images):
        np.testing.assert_array_equal(embed(file, models.means, channels=["DAPI", "FITC"], progress=False).X, found.X)
    # a new extraction leaves the embedding, and validate reports it
    project.extraction_f.config["image_size"] = 30
    project.extract(overwrite=True)
    assert re.search(
        r"embedding\.\w+ was made with other settings or input than this file\. Embed", errors_in(images)[0]
    )


def test_a_store_behind_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec

    project = make_project(tmp_path / "project", file_format="zarr")
    images, url = Path(project.extraction_f.output_path), f"memory://{tmp_path.name}/single_cells.zarr"
    fsspec.filesystem("memory").put(str(images), url.removeprefix("memory:/"), recursive=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"path: must be given for memory:.*URL: path='embedding\.h5ad'"):
        embed(url, models.means)
    found = embed(url, models.means, path="embedding.h5ad")
    np.testing.assert_allclose(found.X, in_a_loop(images, models.means), rtol=1e-4)


def test_only_numbers_of_the_model_are_in_a_damaged_table(path: Path) -> None:
    embed(path, models.means)
    table = path.with_name("embedding.h5ad")
    with h5py.File(table, "a") as file:
        file["X"][3, 2] = np.nan
    assert errors_in(path) == ["embedding.h5ad: values must be finite"]
    table.write_bytes(table.read_bytes()[:1000])
    (error,) = errors_in(path)
    assert re.search(r"embedding\.h5ad is damaged: .*\. Call embed with overwrite=True", error)
    with pytest.raises(InputError, match=r"embedding\.h5ad is damaged: .*Call embed with overwrite=True"):
        embed(path, models.means)
    embed(path, models.means, overwrite=True)
    assert errors_in(path) == []


# --- resuming ---------------------------------------------------------------------------------------------------------

CHILD = """
import sys
import embedding_models
from cellstamp import embed
embed(sys.argv[1], embedding_models.means_until_a_signal, batch_size=8, overwrite=True)
"""


def run_child(path: Path, number: signal.Signals, call: int, code: str = CHILD, *more: str) -> Any:
    folders = os.pathsep.join([str(TESTS), *sys.path])
    about = {"PYTHONPATH": folders, "SIGNAL": str(int(number)), "SIGNAL_AT_CALL": str(call)}
    command = [sys.executable, "-c", code, *(more or [str(path)])]
    as_usual = {"env": os.environ | about, "preexec_fn": as_started_from_a_terminal}
    return subprocess.run(command, capture_output=True, text=True, check=False, **as_usual)  # type: ignore[call-overload]


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_run_resumes(path: Path, ending: signal.Signals) -> None:
    ended = run_child(path, ending, 3)
    assert ended.returncode == -ending, ended.stderr
    assert not path.with_name("embedding.h5ad").exists()
    assert (path.parent / ".unfinished_embedding.h5ad" / "batches").read_text().count("\n") == 3
    told = "Finished cells are kept (24 of 40): run again to resume"
    assert (told in ended.stderr) == (ending == signal.SIGINT)
    found = embed(path, models.means_until_a_signal, batch_size=16)
    assert models.CALLS == [16]  # 3 x 8 cells were there
    np.testing.assert_allclose(found.X, in_a_loop(path, models.means), rtol=1e-5)
    assert left_beside(path) == ["embedding.h5ad"]


def test_a_run_of_something_else_does_not_resume(path: Path) -> None:
    run_child(path, signal.SIGKILL, 3)
    other = r"found unfinished results of a run with different settings or input \(model: embedding_models:means_until"
    with pytest.raises(OutputError, match=other + r".* -> embedding_models:means\)\. Set overwrite=True to discard"):
        embed(path, models.means)
    with pytest.raises(OutputError, match=r"channels: nucleus, cytosol, DAPI, actin -> DAPI"):
        embed(path, models.means_until_a_signal, channels=["DAPI"])
    with pytest.raises(OutputError, match=r"precision: float32 -> bfloat16"):
        embed(path, models.means_until_a_signal, precision="bfloat16")
    assert models.CALLS == []
    found = embed(path, models.means_until_a_signal, overwrite=True, channels=["DAPI"], batch_size=16)
    assert models.CALLS == [16, 16, 8]
    assert found.shape == (N_CELLS, 1)


def test_other_images_do_not_resume(path: Path) -> None:
    run_child(path, signal.SIGKILL, 3)
    path.unlink()
    write_file(path, layout_of(N_CELLS), seed=5)
    with pytest.raises(OutputError, match="images has changed"):
        embed(path, models.means_until_a_signal)
    embed(path, models.means_until_a_signal, overwrite=True)


@pytest.mark.parametrize("damage", ["values", "end of values", "half a line", "no line"])
def test_batches_that_are_not_on_the_disk_are_embedded_again(path: Path, damage: str) -> None:
    """What a power failure leaves."""
    run_child(path, signal.SIGKILL, 3)
    folder = path.parent / ".unfinished_embedding.h5ad"
    rows, batches = folder / "rows", folder / "batches"
    lines = batches.read_text()
    if damage == "values":
        rows.write_bytes(bytes(len(rows.read_bytes())))
    elif damage == "end of values":
        rows.write_bytes(b"")
    else:
        batches.write_text({"half a line": lines[:-4], "no line": ""}[damage])
    found = embed(path, models.means_until_a_signal, batch_size=8)
    assert len(models.CALLS) == (3 if damage == "half a line" else 5)
    np.testing.assert_allclose(found.X, in_a_loop(path, models.means), rtol=1e-5)


def test_errors_keep_what_is_done(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIGNAL_AT_CALL", "2")
    with pytest.raises(InputError, match="failed with KeyError: 'SIGNAL'"):
        embed(path, models.means_until_a_signal, batch_size=8)
    monkeypatch.delenv("SIGNAL_AT_CALL")
    models.CALLS.clear()
    embed(path, models.means_until_a_signal, batch_size=8)
    assert models.CALLS == [8, 8, 8]


def test_a_run_that_cannot_resume_leaves_nothing(path: Path) -> None:
    warned = pytest.warns(
        UserWarning, match="an interrupted run could not resume: an object of BufferedReader cannot be"
    )
    with warned as caught, pytest.raises(InputError, match="failed with ZeroDivisionError"):
        embed(
            path, lambda images: images.mean((2, 3)) * (1 % (len(images) // 8)), batch_size=9, transform=open_file(path)
        )
    assert {each.filename for each in caught} == {__file__}
    assert left_beside(path) == []


def open_file(path: Path) -> Callable[[Any], Any]:
    """A transform with something that cannot be compared with that of another run."""
    handle = path.open("rb")
    handle.close()
    return lambda image: image if handle.closed else None


def test_a_finished_table_is_up_to_date(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = path.with_name("embedding.h5ad")
    first = embed(path, models.means_until_a_signal)
    assert f"Embedded 40 cells -> {table} (" in capsys.readouterr().out
    models.CALLS.clear()  # the function uses it
    again = embed(path, models.means_until_a_signal, batch_size=3)  # its size changes no value
    assert f"{table} is up to date" in capsys.readouterr().out
    assert models.CALLS == []
    np.testing.assert_array_equal(first.X, again.X)
    changed = r"embedding\.h5ad already exists with different settings or input \(precision: float32 -> bfloat16\)"
    with pytest.raises(OutputError, match=changed):
        embed(path, models.means_until_a_signal, precision="bfloat16")
    embed(path, models.means_until_a_signal, overwrite=True, progress=False)
    assert models.CALLS == [40]
    assert capsys.readouterr().out == ""


def test_a_copy_of_a_result_is_up_to_date(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project")
    project.embed(models.means_until_a_signal)
    copy = shutil.copytree(Path(project.extraction_f.output_path).parent, tmp_path / "copy")
    models.CALLS.clear()
    embed(copy / "single_cells.h5sc", models.means_until_a_signal)
    assert models.CALLS == []


def test_a_trained_network_is_another_one(path: Path) -> None:
    network = models.make_network()
    embed(path, network)
    embed(path, models.make_network())  # the same weights
    with torch.no_grad():
        network.layers[1].running_mean[2] += 1e-3
    with pytest.raises(OutputError, match=r"already exists with different settings or input \(model has changed\)"):
        embed(path, network)


def test_two_runs_at_once(path: Path) -> None:
    def another(images: Any) -> Any:
        with pytest.raises(OutputError, match=r"another run is writing .*embedding\.h5ad"):
            embed(path, models.means)
        return models.means(images)

    embed(path, another)


# --- identities -------------------------------------------------------------------------------------------------------


def scaled_by(factor: Any) -> Any:
    return lambda images: factor * models.means(images)


class Pipeline:
    """As chains of transforms are."""

    def __init__(self, *steps: Any) -> None:
        self.steps = list(steps)

    def __call__(self, image: Any) -> Any:
        for step in self.steps:
            image = step(image)
        return image


class Scaled(torch.nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.log = factor, open_file
        self.register_buffer("hidden", torch.full((1,), factor), persistent=False)

    def forward(self, images: Any) -> Any:
        return self.factor * images.mean((2, 3))


def test_equal_models_have_equal_identities() -> None:
    assert identity_of(models.make_network()) == identity_of(models.make_network())
    assert identity_of(scaled_by(2)) == identity_of(scaled_by(2))
    assert identity_of(Pipeline(models.doubled, Scaled(2))) == identity_of(Pipeline(models.doubled, Scaled(2)))
    assert identity_of(partial(models.means)).startswith("embedding_models:means, digest ")


def test_different_models_have_different_identities() -> None:
    network = models.make_network()
    strided = models.make_network()
    strided.layers[0].stride = (1, 1)
    different = [
        models.means,
        models.doubled,
        partial(models.means),
        partial(torch.mean, dim=(2, 3)),
        partial(torch.mean, dim=(3, 2)),
        scaled_by(2),
        scaled_by(3),
        scaled_by(network),
        scaled_by(models.network),
        network,
        strided,
        models.make_network().half(),
        models.make_network().before_last,
        models.make_network().maps,
        Scaled(2),
        Scaled(3),
        Pipeline(models.doubled),
        Pipeline(models.doubled, models.doubled),
        Pipeline(Scaled(2)),
        torch.flatten,
    ]
    assert len({identity_of(each).partition("digest ")[2] for each in different}) == len(different)


def test_functions_are_identified_with_the_globals_they_use(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity_of(uses_a_global)
    monkeypatch.setattr(models, "network", models.make_network())
    assert identity_of(uses_a_global) == before  # modules count by their names
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert identity_of(uses_a_global) != before


FACTOR = 2


def uses_a_global(images: Any) -> Any:
    return next(FACTOR * models.means(images) for _ in range(1))


@pytest.mark.parametrize(
    ("unknown", "reason"),
    [
        (lambda: open_file(Path(__file__)), "an object of BufferedReader"),
        (lambda: eval("lambda images: images"), "has no source code"),
        (lambda: scaled_by(np.array([object()])), "an array of object"),
        (lambda: torch.nn.LazyLinear(3), "a tensor of Uninitialized"),
        (lambda: [].append, "a method of list"),
        (lambda: scaled_by(iter([])), "an object of list_iterator"),
    ],
)
def test_what_cannot_be_compared_is_unknown(unknown: Callable[[], Any], reason: str) -> None:
    with pytest.raises(UnknownIdentityError, match=reason):
        identity_of(unknown())


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [models.means_of_at_most_five, models.much_memory])
def test_out_of_memory_halves_the_batch(path: Path, model: Any) -> None:
    with pytest.warns(
        UserWarning, match=r"out of memory on cpu with \d+ cells: continuing with batches of \d+"
    ) as caught:
        found = embed(path, model, batch_size=20)
    assert models.CALLS == [20, 10, 5, 5, 5, 5, 5, 5, 5, 5]
    assert [str(each.message).rpartition(" ")[2] for each in caught] == ["10", "5"]
    assert {each.filename for each in caught} == {__file__}
    np.testing.assert_allclose(found.X, in_a_loop(path, models.means), rtol=1e-5)


@pytest.mark.filterwarnings("ignore:out of memory")
def test_memory_that_is_too_small_for_one_cell(path: Path) -> None:
    with pytest.raises(WorkerError, match=r"out of memory on cpu with one cell\. Use precision='bfloat16'"):
        embed(path, models.no_memory, batch_size=4)
    assert left_beside(path) == []


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda x: (x.mean((2, 3)), x), r"returned a tuple of 2; .* as in: (lambda images: model\(images\)\[0\])"),
        (lambda x: {"z": x.mean((2, 3))}, r"returned a dict with z; .* as in: (lambda images: model\(images\)\['z'\])"),
        (
            lambda x: x,
            r"returned the shape \(40, 4, 16, 16\) for 40 .* as in: (lambda images: model\(images\).mean\(\(2, 3\)\))",
        ),
        (
            lambda x: x.flatten(2),
            r"returned the shape \(40, 4, 256\).* class token, as in: (lambda images: model\(images\)\[:, 0\])",
        ),
        (
            lambda x: x.mean((1, 2, 3)),
            r"returned the shape \(40,\).* as in: (lambda images: model\(images\)\[:, None\])",
        ),
        (lambda x: x.mean(), r"returned the shape \(\) for 40 cells; it must return a tensor \(n, d\)"),
        (lambda x: x.mean((2, 3))[1:], r"returned 39 rows for 40 cells"),
        (lambda x: x.mean((2, 3))[:, :0], r"returned 0 numbers for each cell"),
        (lambda x: None, r"returned NoneType; it must return a tensor \(n, d\)"),
        (lambda x: x.mean((2, 3)) * 1j, r"returned complex numbers \(torch\.complex64\)"),
    ],
)
def test_other_results_are_errors(path: Path, result: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^model: {message}") as caught:
        embed(path, result)
    assert left_beside(path) == []
    advice = re.search(message, str(caught.value)).groups()  # type: ignore[union-attr]
    if advice:  # the advice works
        assert embed(path, eval(advice[0], {"model": result}), overwrite=True).n_obs == N_CELLS


def test_the_number_of_columns_must_stay(path: Path) -> None:
    sizes = iter([4, 3])
    with (
        pytest.warns(UserWarning, match="could not resume"),
        pytest.raises(InputError, match=r"3 numbers .*4 for earlier"),
    ):
        embed(path, lambda images: images.mean((2, 3))[:, : next(sizes)], batch_size=20)
    assert left_beside(path) == []


def test_values_must_be_finite(path: Path) -> None:
    def divides(images: Any) -> Any:
        values = images.mean((2, 3))
        values[1] = torch.tensor(0.0) / 0
        return values

    with pytest.raises(
        InputError, match=r"NaN or infinite values for 1 of 40 cells \(ids (\d+)\)\. Look for"
    ) as caught:
        embed(path, divides)
    ids = read_h5sc(path, images=False).obs["scportrait_cell_id"]
    assert int(re.search(r"ids (\d+)", str(caught.value))[1]) in set(ids)  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"model": models.Tiny}, ConfigError, r"model = Tiny: is a class; pass an object, such as Tiny\(\)"),
        ({"model": "resnet"}, ConfigError, r"model = .resnet.: must be a torch\.nn\.Module"),
        ({"transform": 3}, ConfigError, "transform = 3: must be"),
        ({"batch_size": 0}, ConfigError, "batch_size = 0: must be an integer of at least 1"),
        ({"n_threads": 0}, ConfigError, "n_threads = 0: must be an integer of at least 1"),
        ({"precision": "half"}, ConfigError, "precision = 'half': must be one of 'float32', 'float16', 'bfloat16'"),
        ({"device": "gpu"}, ConfigError, r"device = 'gpu': cannot be used: .*Use 'auto' or 'cpu'"),
        ({"device": "cuda:99"}, ConfigError, "device = 'cuda:99': cannot be used"),
        ({"channels": ["DAPY"]}, ConfigError, "channels: .* has no 'DAPY'.* 'DAPI'"),
        ({"file": 3}, ConfigError, "file: is int; must be the path of an .h5sc file or zarr store, or a Project"),
        ({"file": "missing.h5sc"}, InputError, "there is no file missing.h5sc"),
        ({"path": "a.csv"}, ConfigError, r"path = 'a\.csv': must end with \.h5ad, or with \.zarr"),
        ({"path": "nowhere/a.h5ad"}, OutputError, "the folder nowhere does not exist: create it"),
        ({"path": "s3://bucket/a.zarr"}, ConfigError, "path = 's3://bucket/a.zarr': must be on a disk, not a URL"),
        ({"transform": lambda image: None}, InputError, r"transform: returned None for cell \d+; it must return the"),
        ({"transform": lambda image: 1 / 0}, InputError, r"transform: failed at cell \d+ with ZeroDivisionError"),
    ],
)
def test_invalid_arguments(path: Path, arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        embed(**{"file": path, "model": models.means, **arguments})
    assert left_beside(path) == []


def test_images_of_a_transform_must_have_one_shape(path: Path) -> None:
    with pytest.raises(InputError, match=r"transform: returned the shapes \(4, \d+, 16\) for cell \d+ and"):
        embed(path, models.means, transform=lambda image: image[:, int(image.sum()) % 7 :])


def test_other_files_are_not_replaced(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.h5ad"
    anndata.AnnData(np.zeros((3, 2), np.float32)).write_h5ad(other)
    with pytest.raises(
        OutputError, match=r"other\.h5ad exists, and is not an embedding of cellstamp: give another path"
    ):
        embed(path, models.means, path=other, overwrite=True)
    store = make_project(tmp_path / "project", file_format="zarr").extraction_f.output_path
    with pytest.raises(OutputError, match="is not an embedding of cellstamp"):
        embed(path, models.means, path=store, overwrite=True)
    folder = tmp_path / "folder.zarr"
    folder.mkdir()
    with pytest.raises(OutputError, match="is not an embedding of cellstamp"):
        embed(path, models.means, path=folder, overwrite=True)


def test_a_file_that_changes_meanwhile(path: Path) -> None:
    def changes(images: Any) -> Any:
        with path.open("ab") as file:
            file.write(b"more")
        return models.means(images)

    with pytest.raises(InputError, match="was modified after it was opened"):
        embed(path, changes, batch_size=4)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command(path: Path) -> None:
    result = run_command("embed", path, "--model", "embedding_models:make_network", "--batch-size", 16)
    assert result.exit_code == 0, result.stderr
    assert re.match(r"Embedded 40 cells -> .*embedding\.h5ad \(.*\) in .* \(.* cells/s\)\n", result.stdout)
    found = anndata.io.read_h5ad(path.with_name("embedding.h5ad"))
    np.testing.assert_allclose(found.X, in_a_loop(path, models.make_network().eval()), rtol=1e-4, atol=1e-6)
    assert "is up to date" in run_command("embed", path, "--model", "embedding_models:make_network").stdout


def test_options_of_the_command(path: Path, tmp_path: Path) -> None:
    table = tmp_path / "actin.zarr"
    options = ("--model", "embedding_models:means", "--transform", "embedding_models:doubled", "--channel", "actin")
    more = ("--device", "cpu", "--precision", "bfloat16", "-o", table, "--no-progress")
    for extra in ((), ("--overwrite",)):
        result = run_command("embed", path, *options, *more, *extra)
        assert result.exit_code == 0, result.stderr
    found = anndata.io.read_zarr(table)
    wanted = in_a_loop(path, models.means, channels="actin", transform=models.doubled)
    np.testing.assert_allclose(found.X, wanted, rtol=0.02)
    assert found.uns["embedding"]["device"] == "cpu"


@pytest.mark.parametrize("model", ["network", "Tiny", "make_network", "network.before_last"])
def test_models_of_the_command(path: Path, model: str) -> None:
    result = run_command("embed", path, "--model", f"embedding_models:{model}", "--no-progress")
    assert result.exit_code == 0, result.stderr
    assert anndata.io.read_h5ad(path.with_name("embedding.h5ad")).n_obs == N_CELLS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "network"], "Error: --model network: must be a module and a name, such as my_module:network"),
        (["--model", "no_module:x"], "--model no_module:x: cannot be imported: ModuleNotFoundError"),
        (["--model", "embedding_models:x"], "--model embedding_models:x: cannot be imported: AttributeError"),
        (["--model", "embedding_models:CALLS"], "Error: --model = []: must be a torch.nn.Module"),
        (["--model", "embedding_models:means", "--device", "gpu"], "Error: --device = 'gpu': cannot be used"),
        (["--model", "embedding_models:means", "--channel", "x"], "Error: --channel: "),
        (["--model", "embedding_models:means", "-o", "x.csv"], "Error: --output = 'x.csv': must end with .h5ad"),
        (["--model", "embedding_models:network.maps"], "Error: --model: returned the shape (40, 8, 7, 7)"),
    ],
)
def test_errors_of_the_command(path: Path, options: list[str], message: str) -> None:
    result = run_command("embed", path, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_command_says_what_to_overwrite(path: Path) -> None:
    assert run_command("embed", path, "--model", "embedding_models:means").exit_code == 0
    result = run_command("embed", path, "--model", "embedding_models:network")
    assert result.exit_code == 2
    assert "Set --overwrite to replace it, or give another --output" in result.stderr


def test_an_interrupted_command(path: Path, tmp_path: Path) -> None:
    """Its model is in the current folder, from which a console script does not import."""
    shutil.copy(TESTS / "embedding_models.py", tmp_path / "my_models.py")
    code = "import os, sys; os.chdir(sys.argv.pop(1)); sys.path = [each for each in sys.path if each]\n"
    code += "from cellstamp.cli import main; main()"
    command = [str(tmp_path), "embed", str(path), "--model", "my_models:means_until_a_signal", "--batch-size", "8"]
    ended = run_child(path, signal.SIGINT, 2, code, *command)
    assert ended.returncode == 130
    assert ended.stderr.endswith("Interrupted. Finished cells are kept (16 of 40): run again to resume.\n")
    done = run_child(path, signal.SIGINT, 3, code, *command)  # 3 of 5 batches are left
    assert done.returncode == 0, done.stderr
    assert "Embedded 40 cells (16 of them by an interrupted run) -> " in done.stdout


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_the_page_on_embedding_shows_the_output_of_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("skimage")
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    page = (TESTS.parent / "docs" / "embedding.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    with matplotlib.rc_context({"backend": "agg"}):
        for block in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
            exec(block, names)
    matplotlib.pyplot.close("all")
    (shown,) = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert shown in capsys.readouterr().out
    assert names["project"].sdata["deep"].shape == names["embedding"].shape
