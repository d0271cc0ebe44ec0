"""Projects and servers for tests of the gallery. Not a test module."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from cellstamp import Project
from cellstamp.gallery.messages import Messages
from cellstamp.gallery.tabs import Tabs
from conftest import make_cells

CHANNELS = ["DAPI", "actin", "tubulin"]
N_CELLS = 100


def make_project(folder: Path, **config: Any) -> Path:
    """A project of 100 cells of 32 x 32 pixels with features; their ids are 3, 6, 9, ..."""
    image, nucleus, cytosol = make_cells(300, N_CELLS)
    keys = {"threads": 1, "image_size": 32, "border": "pad", "features": True, "progress": False, **config}
    project = Project(folder, {"HDF5CellExtraction": {"cache": str(folder.parent), **keys}})
    project.load_input_from_array(image, channel_names=CHANNELS)
    project.load_segmentation(nucleus=nucleus, cytosol=cytosol)
    project.extract()
    return folder


@dataclass(frozen=True)
class Answer:
    """Status, headers and body of an HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def unpacked(self) -> tuple[dict[str, Any], list[NDArray[np.uint8]]]:
        """The JSON and the buffers of a reply."""
        length = int.from_bytes(self.body[:4], "little")
        head = json.loads(self.body[4 : 4 + length])
        buffers, start = [], 4 + length
        for size in head.pop("buffers"):
            buffers.append(np.frombuffer(self.body[start : start + size], np.uint8))
            start += size
        assert start == len(self.body)
        return head, buffers


def request(address: str, name: str = "", *, body: Any = None, **headers: str) -> Answer:
    """Send an HTTP request to a page: POST with a body, else GET; headers have _ for -."""
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
    content = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    try:
        connection.request("GET" if content is None else "POST", place.path + name, content, named)
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


@contextmanager
def open_tab(address: str, tab: str = "1") -> Iterator[None]:
    """Keep a tab of a page open, as its script does."""
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
    connection.request("GET", f"{place.path}open?tab={tab}")
    answer = connection.getresponse()
    assert answer.read(1) == b"."
    try:
        yield
    finally:
        answer.close()
        connection.close()


@contextmanager
def served(messages: Messages, **tabs: float) -> Iterator[tuple[str, threading.Thread]]:
    """Serve a gallery in a thread; yields its address and the thread."""
    from cellstamp.gallery.server import GalleryServer

    server = GalleryServer(messages, tabs=Tabs(time.monotonic, **tabs))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server.address, thread
    finally:
        server.stop()
        thread.join()
