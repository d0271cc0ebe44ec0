"""Tests beside the published scportrait, in an environment of their own: ``make scportrait``."""

from __future__ import annotations

import torch


def _let_torchvision_be_imported() -> torch.library.Library | None:
    """Declare what torchvision's compiled part would bring, where that does not fit torch.

    The registry's torchvision is built for torch with CUDA. Beside a torch for CPUs only, it cannot be imported, and so
    scportrait can't. scportrait's featuriser needs nothing but the transforms, which are plain Python.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library
    return None


# The declarations hold as long as the library object lives.
_TORCHVISION = _let_torchvision_be_imported()
