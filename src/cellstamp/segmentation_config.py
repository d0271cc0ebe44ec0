"""Every configuration key of the segmentation, with its default and its rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from cellstamp import rules
from cellstamp.config import StepConfig


class SegmentationConfig(StepConfig):
    """The configuration of a `ThresholdSegmentation`, checked and resolved; the attributes are its keys."""

    STEP: ClassVar[str] = "ThresholdSegmentation"

    threads: rules.Count
    """Worker processes; 1 runs in the calling process."""
    cache: rules.Folder
    """Where temporary files go; made when missing, a relative one is seen from the current directory."""

    image: rules.ImageName = rules.DEFAULT_IMAGE
    """The image to segment."""
    nucleus_channel: rules.Channel = None
    """The channel in which nuclei are bright; ``None``: the first."""

    method: rules.Method = "local"
    """What is nucleus: ``"local"``, what is brighter than its surroundings and than ``floor``; ``"otsu"``, what is
    brighter than Otsu's threshold of the whole image."""
    smoothing: rules.Length = 1.5
    """Sigma, in pixels, of the Gaussian that the image is smoothed with before."""
    window: rules.Odd = 101
    """Side, in pixels, of the surroundings that ``"local"`` looks at: about three times the diameter of a nucleus is
    good. No nucleus may be larger, with ``"otsu"`` neither."""
    floor: rules.Length = 0.6
    """For ``"local"``: what is darker than so many times Otsu's threshold is no nucleus."""
    min_distance: rules.Count = 5
    """Pixels between the middles of two nuclei that touch, at least; larger values divide less."""
    min_area: rules.Count = 40
    """Pixels of the smallest nucleus; smaller ones are left out, and smaller holes filled."""
    expansion: rules.Whole = 20
    """Pixels that a cell reaches beyond its nucleus, at most; where two meet, they share what is between them."""

    block_size: rules.Count = 1500
    """Side, in pixels, of the blocks that are worked on one by one. Smaller ones take less memory and more time."""
    engine: rules.LocalEngine = "processes"
    """Where blocks are worked on; ``"serial"`` is the calling process, whatever ``threads`` says."""
    progress: rules.Progress = "auto"
    """Progress bar; ``"auto"`` shows it where someone can see it."""

    def contradictions(self) -> Iterator[str]:
        """What is wrong between keys that are fine by themselves."""
        if self.window <= 2 * self.min_distance:
            yield f"min_distance = {self.min_distance}: must be less than half of window = {self.window}"
