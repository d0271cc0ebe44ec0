"""Pages about the stores of other programs: their code runs, and what they say about these stores is right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cellstamp import HDF5CellExtraction, Project, read_h5sc

pytest.importorskip("skimage")
pytest.importorskip("matplotlib")

# spatialdata warns about stores of other programs, and the pages hide warnings
pytestmark = pytest.mark.filterwarnings("ignore")

DOCS = Path(__file__).parents[1] / "docs"
CELL = re.compile(r"^```{code-cell} ipython3\n(?::tags:[^\n]*\n\n)?(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(DOCS)


def run_page(name: str) -> dict[str, Any]:
    """The names that the code of a page defines."""
    names: dict[str, Any] = {}
    for block in CELL.findall((DOCS / f"{name}.md").read_text(encoding="utf-8")):
        exec(compile(block, f"{name}.md", "exec"), names)
    return names


def extracted(store: str, **config: Any) -> Any:
    keys = {"threads": 1, "image_size": 56, "border": "pad", "progress": False, **config}
    step = HDF5CellExtraction(keys, "own", filehandler=store, overwrite=True)
    step()
    return read_h5sc(step.output_path)


def chosen_rows(sdata: Any, table: str = "table", key: str = "cell_id") -> list[Any]:
    obs = sdata[table].obs
    return sorted(obs.loc[obs["passes_qc"], key])


def test_xenium() -> None:
    page = run_page("xenium")
    cells, joined = page["cells"], page["cells"].join(page["counts"], on="instance_id")
    assert len(cells) > 100
    assert joined["transcript_counts"].notna().all()
    with_he = read_h5sc(page["both"].output_path)
    assert with_he.var["channels"].tolist()[2:] == ["DAPI", "18S", "r", "g", "b"]
    # the same tissue: nuclei are dark in the H&E image
    images = with_he.obsm["single_cell_images"][:].astype(float)
    assert np.median([np.corrcoef(image[2].ravel(), image[4].ravel())[0, 1] for image in images]) < -0.5
    polygons = {"nucleus_shapes": "nucleus_boundaries", "cytosol_shapes": "cell_boundaries"}
    choice = {"table": "table", "column": "passes_qc"}
    focus = {"image": "morphology_focus", "cells": choice}
    wanted = chosen_rows(page["sdata"])
    assert extracted("xenium.zarr", **focus, **polygons).obs["instance_id"].tolist() == wanted
    assert len(extracted("xenium.zarr", **focus | {"image": "he_image"}, **polygons)) == len(wanted)
    of_labels = extracted("xenium.zarr", **focus, cytosol_labels="cell_labels").obs["scportrait_cell_id"].tolist()
    assert of_labels == chosen_rows(page["sdata"], key="cell_labels")
    size = {"image_pixel_size": 0.2125, "image_size": "12 um"}
    assert extracted("xenium.zarr", **focus, **polygons, **size).obsm["single_cell_images"].shape[-1] == 58


def test_merscope() -> None:
    page = run_page("merscope")
    assert page["cells"].join(page["volumes"], on="instance_id")["volume"].notna().all()
    names = {"image": "liver_region_0_z3", "cytosol_shapes": "liver_region_0_polygons"}
    wanted = chosen_rows(page["sdata"], key="EntityID")
    chosen = extracted("liver_region_0.zarr", **names, cells={"table": "table", "column": "passes_qc"})
    assert chosen.obs["instance_id"].tolist() == wanted


def test_cosmx() -> None:
    page = run_page("cosmx")
    cells, obs = page["cells"], page["sdata"]["table"].obs
    assert len(cells) == len(obs)
    assert cells.obs["Area"].tolist() == obs["Area"].tolist()
    assert cells.obsm["single_cell_images"].shape[1:] == (4, 56, 56)
    for fov in page["fovs"]:
        names = {"image": f"{fov}_image", "cytosol_labels": f"{fov}_labels", "channels": ["2"]}
        chosen = extracted("cosmx.zarr", **names, cells={"table": "table", "column": "passes_qc"})
        assert chosen.obs["scportrait_cell_id"].tolist() == obs.query("fov == @fov and passes_qc")["cell_ID"].tolist()


def test_visium_hd() -> None:
    page = run_page("visium-hd")
    assert page["cells"].join(page["counts"], on="instance_id")["transcript_counts"].notna().all()
    both = {"nucleus_shapes": "colon_nucleus_segmentations", "cytosol_shapes": "colon_cell_segmentations"}
    choice = {"cells": {"table": "cell_segmentations", "column": "passes_qc"}}
    wanted = chosen_rows(page["sdata"], "cell_segmentations")
    for image in ("colon_full_image", "colon_hires_image"):
        assert extracted("visium_hd.zarr", image=image, **both, **choice).obs["instance_id"].tolist() == wanted


def test_sopa() -> None:
    page = run_page("sopa")
    assert page["cells"].join(page["areas"], on="instance_id")["area"].notna().all()
    assert len(read_h5sc(page["baysor"].output_path)) > 50
    names = {"image": "image", "cytosol_shapes": "cellpose_boundaries"}
    chosen = extracted("sopa.zarr", **names, cells={"table": "table", "column": "passes_qc"})
    assert chosen.obs["instance_id"].tolist() == chosen_rows(page["sdata"])


def test_proseg() -> None:
    page = run_page("proseg")
    cells = page["cells"]
    assert cells["volume"].notna().all()
    assert (cells["scportrait_cell_id"] == cells["instance_id"] + 1).all()
    assert read_h5sc(page["extraction"].output_path).obs["instance_id"].tolist() == cells["instance_id"].tolist()
    by_matrix = Project("matrix", {"threads": 1, "image_size": 56, "cells": ["0", "11"], "border": "pad"})
    by_matrix.load_input_from_tif_files("morphology_focus.ome.tif")
    polygons = page["proseg"]["cell_boundaries"]
    by_matrix.load_segmentation(cytosol=polygons, transform=np.diag([1 / 0.2125, 1 / 0.2125, 1]))
    by_matrix.extract()
    assert by_matrix.h5sc.obs["instance_id"].tolist() == [0, 11]


def test_qupath_and_cellvit() -> None:
    page = run_page("qupath-cellvit")
    measured = page["measured"]
    assert page["cells"].join(measured, on="instance_id")["Cell: Area"].notna().all()
    found = page["project"].h5sc
    types = page["types"].loc[found.obs["instance_id"]]
    assert set(types) == {"Neoplastic", "Inflammatory", "Connective"}
    chosen = measured.iloc[[20, 30]]
    chosen.to_csv("chosen.tsv", sep="\t")
    config = {"threads": 1, "image_size": 56, "border": "pad", "cells": {"path": "chosen.tsv", "ids": "Object ID"}}
    project = Project("chosen", config)
    project.load_input_from_tif_files("slide.ome.tif")
    project.load_segmentation(nucleus="cells.geojson", cytosol="cells.geojson")
    project.extract()
    assert project.h5sc.obs["instance_id"].tolist() == chosen.index.tolist()
    # the outlines fit: QuPath's areas are those of the masks
    mask = project.h5sc.obsm["single_cell_images"][:][:, 1].astype(float) > 0.5
    np.testing.assert_allclose(mask.sum(axis=(1, 2)), chosen["Cell: Area"], rtol=0.05)


def test_mcmicro_and_steinbock() -> None:
    page = run_page("mcmicro-steinbock")
    assert len(read_h5sc(page["extraction"].output_path)) > 30
    table = page["table"].reset_index()
    h5sc = page["project"].h5sc
    assert h5sc.obs["scportrait_cell_id"].tolist() == table["Object"].tolist()
    assert h5sc.var["channels"].tolist()[1:] == ["DNA1", "pan-CK"]
    quantified = pd.read_csv("mcmicro/quantification/exemplar-001--unmicst_cell.csv")
    quantified.iloc[[20, 30]].to_csv("chosen.csv", index=False)
    project = Project("cells/exemplar-001", {"threads": 1, "image_size": 56, "cells": "chosen.csv", "border": "pad"})
    project.extract(overwrite=True)
    assert project.h5sc.obs["scportrait_cell_id"].tolist() == quantified["CellID"].iloc[[20, 30]].tolist()
