"""Test cellstamp with the published scportrait, in a separate environment: ``make scportrait``."""

from __future__ import annotations

import torch


def _let_torchvision_be_imported() -> torch.library.Library | None:
    """Declare the operators of torchvision's compiled part, if that doesn't match torch.

    The published torchvision is built for torch with CUDA. With a torch for CPUs only, importing it fails, and so does
    importing scportrait. scportrait's featuriser needs only the transforms, which are plain Python.
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
