"""Stamps encoded into memory of exactly the size that is asked for."""

from __future__ import annotations

import numpy as np

from cellstamp.encoding import StampEncoder

_GUARD = 64


def encoded(encoder: StampEncoder, stamps: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Encode stamps; return the payload, and the bytes of each chunk. What lies behind the room must stay untouched."""
    room = encoder.room(*stamps.shape[:2], stamps[0, 0].nbytes)
    out = np.full(room + _GUARD, 0xA5, np.uint8)
    sizes = encoder.encode(stamps, boxes, out[:room])
    assert (out[room:] == 0xA5).all()
    return out[: sizes.sum()], sizes
