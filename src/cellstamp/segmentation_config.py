"""Define every configuration key of the segmentation, with its default and rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from cellstamp import config_rules as rules
from cellstamp.config import StepConfig, temporary_folder, usable_threads
from cellstamp.source.names import IMAGE_NAME


class SegmentationConfig(StepConfig):
    """Validated configuration of a `ThresholdSegmentation`; the attributes are its keys."""

    STEP: ClassVar[str] = "ThresholdSegmentation"

    threads: rules.Count = usable_threads()
    """Number of worker processes; 1 runs in the calling process. By default one for each core that this process may
    use, or fewer if memory is short."""
    cache: rules.Folder = temporary_folder()
    """Folder for temporary files, created if missing. A relative path starts at the current directory."""

    image: rules.ImageName = IMAGE_NAME
    """Name of the image to segment."""
    nucleus_channel: rules.Channel = None
    """Channel with bright nuclei; ``None``: the first."""

    method: rules.Method = "local"
    """Threshold for nuclei. ``"local"``: brighter than the surroundings, and than ``floor``. ``"otsu"``: brighter than
    Otsu's threshold of the whole image."""
    smoothing: rules.Length = 1.5
    """Sigma, in pixels, of the Gaussian that smooths the image before thresholding."""
    window: rules.Odd = 101
    """Side, in pixels, of the surroundings that ``"local"`` compares with. Use about three times the diameter of a
    nucleus. Nuclei must be smaller than this, also with ``"otsu"``."""
    floor: rules.Length = 0.6
    """For ``"local"``: pixels darker than ``floor`` times Otsu's threshold are background."""
    min_distance: rules.Count = 5
    """Minimum distance, in pixels, between the centres of touching nuclei. Larger values split fewer nuclei."""
    min_area: rules.Count = 40
    """Minimum area of a nucleus, in pixels. Smaller nuclei are removed, and smaller holes are filled."""
    expansion: rules.Whole = 20
    """Maximum distance, in pixels, of a cell's pixels from its nucleus. Each pixel goes to the nearest nucleus."""

    block_size: rules.Count = 1500
    """Side of a block, in pixels. Smaller blocks need less memory and more time."""
    engine: rules.LocalEngine = "processes"
    """Where blocks run. ``"serial"`` is the calling process; ``threads`` is then ignored."""
    progress: rules.Progress = "auto"
    """Progress bar; ``"auto"`` shows it in terminals and notebooks."""

    def contradictions(self) -> Iterator[str]:
        """Yield an error for each combination of valid keys that is invalid."""
        if self.window <= 2 * self.min_distance:
            yield f"min_distance = {self.min_distance}: must be less than half of window = {self.window}"
