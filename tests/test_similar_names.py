"""Messages suggest a similar name, and none if no name is similar."""

from __future__ import annotations

import pytest

from cellstamp.similar_names import did_you_mean, misspelt_section, similar_name

KNOWN = ["nucleus", "cytosol", "DAPI", "Alexa 488", 405]


@pytest.mark.parametrize(
    ("name", "meant"),
    [("dapi", "DAPI"), ("nuclei", "nucleus"), ("Alexa488", "Alexa 488"), ("406", "405"), (405, "405"), ("actin", None)],
)
def test_the_most_similar_name(name: object, meant: str | None) -> None:
    assert similar_name(name, KNOWN) == meant
    assert did_you_mean(name, KNOWN) == ("" if meant is None else f"; did you mean {meant!r}?")


@pytest.mark.parametrize("name", ["DAPI", "dapi"])
def test_channels_that_have_the_name_of_their_image(name: str) -> None:
    """Joined images have such names; a similar name is another channel, as 'he:APIs' is."""
    known = ["scan:DAPI", "scan:18S", "he:DAPI", "he:APIs"]
    assert did_you_mean(name, known) == "; did you mean 'scan:DAPI' or 'he:DAPI'?"
    assert did_you_mean("he:DAPy", known) == "; did you mean 'he:DAPI'?"


def test_nothing_is_known() -> None:
    assert did_you_mean("dapi", []) == ""


@pytest.mark.parametrize(
    ("section", "wanted"),
    [
        ("HDF5CellExtracton", "HDF5CellExtraction"),
        ("hdf5cellextraction", "HDF5CellExtraction"),
        ("HDF5CellExtractions", "HDF5CellExtraction"),
        ("HDFCellExtraction", "HDF5CellExtraction"),
        ("ThresholdSegmentaion", "ThresholdSegmentation"),
    ],
)
def test_misspelt_sections(section: str, wanted: str) -> None:
    assert misspelt_section(section, wanted)


@pytest.mark.parametrize(
    ("section", "wanted"),
    [
        ("HDF5CellExtraction", "HDF5CellExtraction"),
        ("HDF5CellExtraction", "MyHDF5CellExtraction"),
        ("HDF5CellExtraction", "HDF5CellExtraction2"),
        ("Featurizer1", "Featurizer2"),
        ("CellFeaturizer", "HDF5CellExtraction"),
        ("CytosolOnlySegmentationCellpose", "CytosolSegmentationCellpose"),
        ("DAPISegmentationCellpose", "CytosolSegmentationCellpose"),
        ("ShardedDAPISegmentation", "DAPISegmentation"),
        (405, "HDF5CellExtraction"),
    ],
)
def test_sections_of_other_steps(section: object, wanted: str) -> None:
    assert not misspelt_section(section, wanted)
