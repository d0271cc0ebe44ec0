"""Read the size of pixels in micrometres from the metadata of TIFF files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import tifffile

from cellstamp.lengths import PixelSize, is_same, size_in_words
from cellstamp.source.library_messages import quiet
from cellstamp.source.load.image_files import is_picture
from cellstamp.source.load.ome_tiff import ome_xml, open_tiff
from cellstamp.source.pixel_size import imagej_size, ome_xml_size
from cellstamp.warnings import warn


def tiff_pixel_size(paths: Sequence[str], series: int | None, shape: Sequence[int]) -> PixelSize | None:
    """Return the size of the pixels of an image that was opened from files; None if no file says it.

    Parameters
    ----------
    paths
        The files; those that are not TIFF say nothing.
    series
        Index of the image in each file; None: the only one.
    shape
        Height and width of the image, by which thumbnails are left out.

    Warns
    -----
    UserWarning
        If files say different sizes; none is then returned.
    """
    found = list(_sizes([Path(path) for path in paths], series, shape))
    if all(is_same(size, found[0]) for size in found):
        return found[0] if found else None
    shown = ", ".join(dict.fromkeys(map(size_in_words, found)))
    warn(f"file_paths: their metadata has different pixel sizes ({shown}). None is kept; set image_pixel_size")
    return None


def _sizes(paths: Sequence[Path], series: int | None, shape: Sequence[int]) -> Iterator[PixelSize]:
    for path in paths:
        if is_picture(path):
            continue
        with ExitStack() as files, quiet():
            file, _ = open_tiff(path, files)
            yield from _sizes_in(file, series, shape)


def _sizes_in(file: tifffile.TiffFile, series: int | None, shape: Sequence[int]) -> Iterator[PixelSize]:
    root = ome_xml(file)
    if root is None:
        size = imagej_size(file)
        yield from [] if size is None else [size]
        return
    images = root.findall("{*}Image")
    if series is not None and len(images) == len(file.series):
        images = [images[series]]
    wanted = {("SizeY", str(shape[0])), ("SizeX", str(shape[1]))}
    found = (pixels for image in images for pixels in image.iterfind("{*}Pixels") if wanted <= {*pixels.items()})
    yield from filter(None, map(ome_xml_size, found))
