"""Show a gallery in a notebook."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, ClassVar

import anywidget
import numpy as np
import traitlets
from numpy.typing import NDArray

from cellstamp.gallery.messages import Messages
from cellstamp.gallery.opening import Found
from cellstamp.gallery.session import GallerySession

_ASSETS = files("cellstamp.gallery") / "assets"


class GalleryWidget(anywidget.AnyWidget):
    """A gallery of single-cell images.

    Attributes
    ----------
    selected : numpy.ndarray
        uint64 (n,): ids of the selected cells, always current. ``widget.observe(f, "selected")`` calls a function after
        each change.
    """

    _esm: ClassVar[str] = (_ASSETS / "gallery.js").read_text(encoding="utf-8")
    _css: ClassVar[str] = (_ASSETS / "gallery.css").read_text(encoding="utf-8")
    selected = traitlets.Instance(np.ndarray, read_only=True)

    def __init__(self, found: Found, folder: Any = None) -> None:
        self._session = GallerySession(found, folder, self._publish)
        self._messages = Messages(self._session)
        super().__init__()
        self._publish()
        self.on_msg(self._answer)

    def _publish(self) -> None:
        self.set_trait("selected", self._session.selected_ids)

    def _answer(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """Answer a message of the front end: ``{"number": ..., "request": ...}``."""
        reply = self._messages.answer(content.get("request"))
        buffers: list[NDArray[np.uint8]] = reply.buffers
        self.send({"number": content.get("number"), "reply": reply.content}, [each.tobytes() for each in buffers])
