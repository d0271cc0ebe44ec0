"""The dataset for torch: items and batches, in this process and in a DataLoader's workers."""

from __future__ import annotations

import gc
import pickle
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader, Subset, default_collate, random_split  # noqa: E402

from cellstamp import SingleCellDataset, SingleCellSampler  # noqa: E402
from cellstamp.errors import ConfigError, InputError  # noqa: E402
from stamp_files import IMAGES, layout_of, write_file  # noqa: E402

N_CELLS = 40


@pytest.fixture(autouse=True)
def _workers_end() -> Iterator[None]:
    """An error that torch hands on holds its loader, and so the workers, in a cycle."""
    yield
    gc.collect()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    kind = ["round", "flat"] * (N_CELLS // 2)
    write_file(tmp_path / "a.h5sc", layout_of(N_CELLS), {"kind": kind, "score": np.arange(N_CELLS) / 2})
    return tmp_path / "a.h5sc"


def stored(path: Path) -> tuple[Any, Any]:
    """Images and ids as HDF5 reads them, as tensors."""
    with h5py.File(path) as file:
        images, ids = file[IMAGES][:], file["obs/scportrait_cell_id"][:]
    return torch.from_numpy(images.astype(np.float32)), torch.from_numpy(ids.astype(np.int64))


def together(loader: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(map(torch.cat, zip(*loader, strict=True)))


def half(image: Any) -> Any:
    return image[:, ::2, ::2]


def test_items(path: Path) -> None:
    images, ids = stored(path)
    dataset = SingleCellDataset(path)
    assert len(dataset) == N_CELLS
    image, identity = dataset[3]
    assert torch.equal(image, images[3])
    assert (image.dtype, type(identity), identity) == (torch.float32, int, int(ids[3]))
    assert dataset[-1][1] == ids[-1]
    assert torch.equal(dataset.cell_ids, ids)
    assert dataset.channel_names == ("nucleus", "cytosol", "DAPI", "actin")
    with pytest.raises(IndexError, match="index 40 is out of range: the dataset has 40 cells"):
        dataset[N_CELLS]


@pytest.mark.parametrize("labels", [None, [3]], ids=["no labels", "labels"])
@pytest.mark.parametrize("return_id", [True, False], ids=["ids", "no ids"])
@pytest.mark.parametrize("transform", [None, half], ids=["no transform", "transform"])
def test_batches_are_what_torch_makes_of_the_items(path: Path, labels: Any, return_id: bool, transform: Any) -> None:  # noqa: FBT001
    dataset = SingleCellDataset(path, ["DAPI"], transform=transform, return_id=return_id, labels=labels)
    (got,) = list(DataLoader(dataset, N_CELLS))
    items = [dataset[index] for index in range(N_CELLS)]
    wanted = torch.stack(items) if labels is None and not return_id else default_collate(list(map(_plain, items)))
    parts = zip([got], [wanted], strict=True) if torch.is_tensor(wanted) else zip(got, wanted, strict=True)
    assert all(torch.equal(one, other) and one.dtype == other.dtype for one, other in parts)


def _plain(item: Any) -> Any:
    return tuple(item)


def test_whole_batches_are_not_copied(path: Path) -> None:
    items = SingleCellDataset(path).__getitems__([4, 2, 9])
    images, ids = default_collate(items)
    assert images.data_ptr() == items[0][0].data_ptr()
    assert ids.tolist() == [17, 11, 32]
    images, ids = default_collate(items[::-1])
    assert ids.tolist() == [32, 11, 17]
    assert torch.equal(images, stored(path)[0][[9, 2, 4]])


@pytest.mark.parametrize(
    ("method", "chunk_aware", "sent_encoded"),
    [
        (None, True, False),
        (None, False, True),
        ("fork", True, False),
        ("fork", False, True),
        ("spawn", True, True),
        ("forkserver", False, False),
    ],
)
def test_loaders(path: Path, tmp_path: Path, method: str | None, chunk_aware: bool, sent_encoded: bool) -> None:  # noqa: FBT001
    """Every cell once, with its label and its id, from two files, with and without workers."""
    write_file(tmp_path / "b.h5sc", layout_of(25, first_id=1000, dtype="uint8", compression="gzip"), seed=1)
    dataset = SingleCellDataset([path, tmp_path / "b.h5sc"], labels=["treated", "control"])
    assert dataset.classes == ("control", "treated")
    dataset[0]  # opened here before processes are started
    how: dict[str, Any] = {"num_workers": 0 if method is None else 2, "multiprocessing_context": method}
    how |= {"batch_sampler": SingleCellSampler(dataset, 8)} if chunk_aware else {"batch_size": 8, "shuffle": True}
    how |= {"collate_fn": SingleCellDataset.collate} if sent_encoded else {}
    loader = DataLoader(dataset, persistent_workers=method is not None, **how)
    first, second = together(loader), together(loader)
    for images, labels, ids in (first, second):
        order = ids.argsort()
        (images_a, ids_a), (images_b, ids_b) = stored(path), stored(tmp_path / "b.h5sc")
        assert torch.equal(ids[order], torch.cat([ids_a, ids_b]))
        assert torch.equal(images[order], torch.cat([images_a, images_b * np.float32(1 / 255)]))
        assert labels[order].tolist() == [1] * N_CELLS + [0] * 25
    assert not torch.equal(first[2], second[2])


@pytest.mark.parametrize("transform", [None, half], ids=["no transform", "transform"])
@pytest.mark.parametrize("return_id", [True, False], ids=["ids", "no ids"])
def test_what_a_worker_sends_is_the_batch(path: Path, return_id: bool, transform: Any) -> None:  # noqa: FBT001
    dataset = SingleCellDataset(path, ["DAPI"], transform=transform, return_id=return_id, dtype="float16")
    wanted = list(DataLoader(dataset, 16))
    for collate in (None, SingleCellDataset.collate, own_collate):
        got = list(DataLoader(dataset, 16, num_workers=1, collate_fn=collate))
        for one, other in zip(got, wanted, strict=True):
            pairs = zip(one, other, strict=True) if return_id else [(one, other)]
            assert all(torch.equal(*pair) for pair in pairs)


def own_collate(items: list[Any]) -> Any:
    """As users write them."""
    if torch.is_tensor(items[0]):
        return torch.stack(items)
    images, ids = zip(*items, strict=True)
    return torch.stack(images), torch.tensor(ids)


def test_images_that_a_worker_sends_are_decoded_by_the_one_that_gets_them(path: Path) -> None:
    damage(path)
    loader = DataLoader(SingleCellDataset(path), 4, num_workers=1, collate_fn=SingleCellDataset.collate)
    with pytest.raises(InputError, match=r"a\.h5sc is damaged: nucleus of cell 5 cannot be decoded") as caught:
        list(loader)
    assert "worker process" not in str(caught.value)  # what torch says of an error in a worker


def damage(path: Path) -> None:
    """Make the first plane one that cannot be decoded, and no other."""
    with h5py.File(path) as file:
        chunk = file[IMAGES].id.get_chunk_info(0)
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * chunk.size)


def test_batches_that_are_kept_stay_as_they_are(path: Path) -> None:
    kept = [images[1:] for images, _ in DataLoader(SingleCellDataset(path), 4)]
    assert torch.equal(torch.cat(kept), stored(path)[0].reshape(-1, 4, 4, 16, 16)[:, 1:].flatten(0, 1))


def test_the_order_depends_on_the_seed_and_the_epoch(path: Path) -> None:
    dataset = SingleCellDataset(path)
    sampler = SingleCellSampler(dataset, 7, seed=3)
    epochs = [list(sampler), list(sampler)]
    assert len(sampler) == len(epochs[0]) == 6
    assert epochs[0] != epochs[1]
    assert sampler.epoch == 2
    sampler.epoch = 1
    assert list(sampler) == epochs[1] != list(SingleCellSampler(dataset, 7, seed=4))
    assert list(SingleCellSampler(dataset, 30, shuffle=False, drop_last=True)) == [list(range(30))]
    with pytest.raises(ConfigError, match="batch_size = 0: must be an integer of at least 1"):
        SingleCellSampler(dataset, 0)


@pytest.mark.parametrize("persistent", [True, False])
def test_the_order_is_the_same_with_workers(path: Path, persistent: bool) -> None:  # noqa: FBT001
    def epochs(**how: Any) -> list[list[int]]:
        dataset = SingleCellDataset(path)
        loader = DataLoader(dataset, batch_sampler=SingleCellSampler(dataset, 7, seed=3), **how)
        return [together(loader)[1].tolist() for _ in range(3)]

    assert epochs(num_workers=1, persistent_workers=persistent) == epochs()


def test_what_cannot_be_used_is_told(path: Path) -> None:
    dataset = SingleCellDataset(path)
    with pytest.raises(ConfigError, match="a SingleCellSampler yields batches; pass it to the DataLoader as batch_sam"):
        next(iter(DataLoader(dataset, sampler=SingleCellSampler(dataset, 4))))
    with pytest.raises(ConfigError, match="transform = 3: must be a function that takes an image, or None"):
        SingleCellDataset(path, transform=3)  # type: ignore[arg-type]
    sampler = SingleCellSampler(dataset)
    sampler.epoch = -1
    with pytest.raises(ConfigError, match="epoch = -1: must be an integer of at least 0"):
        next(iter(sampler))


def test_parts_of_a_dataset(path: Path) -> None:
    dataset = SingleCellDataset(path)
    parts = random_split(dataset, [30, 10])
    ids = [together(DataLoader(part, batch_sampler=SingleCellSampler(part, 8)))[1].tolist() for part in parts]
    assert sorted(ids[0] + ids[1]) == dataset.cell_ids.tolist()
    assert together(DataLoader(Subset(dataset, [5, 1]), 2))[1].tolist() == [20, 8]


def test_labels_and_types(path: Path) -> None:
    assert SingleCellDataset(path, labels="kind")[0][1] == 1  # flat, round
    scores = SingleCellDataset(path, labels="score").labels
    assert (scores.dtype, scores[:3].tolist()) == (torch.float32, [0, 0.5, 1])
    assert SingleCellDataset(path, labels=np.arange(N_CELLS, dtype=np.uint16)).labels.dtype == torch.int64
    assert SingleCellDataset(path, labels=np.arange(N_CELLS) % 2 == 0).labels[:3].tolist() == [1, 0, 1]
    assert SingleCellDataset(path, labels=np.arange(N_CELLS) % 2 == 0).labels.dtype == torch.int64
    dataset = SingleCellDataset(path, dtype="float16", cells=[20, 8])
    assert next(iter(DataLoader(dataset, 2)))[0].dtype == torch.float16


def test_it_is_pickled_without_anything_open(path: Path) -> None:
    dataset = SingleCellDataset(path)
    dataset.__getitems__(list(range(N_CELLS)))
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[7][0], dataset[7][0])
    items = pickle.loads(pickle.dumps(dataset.__getitems__([1, 2])))
    assert [type(item) for item in items] == [tuple, tuple]


def test_a_file_that_has_changed(path: Path) -> None:
    dataset = SingleCellDataset(path)
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match=r"a\.h5sc was modified after it was opened"):
        dataset[0]
    with pytest.raises(InputError, match=r"a\.h5sc was modified after it was opened"):
        list(DataLoader(dataset, 4, num_workers=1))


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_the_page_that_trains_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's code gives the outputs stored on the page; accuracies depend on the version of torch."""
    pytest.importorskip("skimage")
    matplotlib = pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "training-a-network.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    n_threads = torch.get_num_threads()
    try:
        with matplotlib.rc_context({"backend": "agg"}):
            for block in re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
                exec(block, names)
    finally:
        torch.set_num_threads(n_threads)
        matplotlib.pyplot.close("all")
    counts, first, second, shape = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    shown = capsys.readouterr().out
    assert counts in shown
    assert shown.endswith(shape)
    accuracies = [int(re.match(r"accuracy: (\d+)%", shown)[1]) / 100 for shown in (first, second)]  # type: ignore[index]
    assert accuracies[0] == pytest.approx(names["is_right"].mean(), abs=0.06)
    assert accuracies[1] == pytest.approx(np.mean(names["said"] == names["label"][names["held_out"]]), abs=0.06)
    assert names["is_right"].mean() > names["majority"] + 0.08
    assert np.mean(names["said"] == names["label"][names["held_out"]]) > 0.92


def test_the_page_on_training_shows_the_batches_of_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output stored on the page is the one of its code."""
    pytest.importorskip("skimage")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text(encoding="utf-8")
    opening = r"^```(?:{code-cell} ipython3\n(?::tags:[^\n]*\n\n)?|python\n)"
    blocks = re.findall(rf"{opening}(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks[:3]:  # the file, NumPy, torch
        exec(block, names)
    (shown,) = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert capsys.readouterr().out.endswith(shown)
