"""The result of a batch: its encoded single-cell images, and the seconds they took."""

from __future__ import annotations

from dataclasses import dataclass

from cellstamp.encoded_cells import EncodedCells


@dataclass(frozen=True)
class FinishedBatch(EncodedCells):
    """Finished single-cell images of one batch, and the time they took.

    Attributes
    ----------
    read_s, cut_s
        Seconds for reading pixels, and for cutting and encoding.
    """

    read_s: float
    cut_s: float

    @property
    def nbytes(self) -> int:
        """Bytes of the result."""
        measured = 0 if self.features is None else self.features.nbytes
        return self.payload.nbytes + self.sizes.nbytes + self.rows.nbytes + measured

    @property
    def stored_bytes(self) -> int:
        """Bytes that its images take in the file."""
        return self.payload.nbytes

    @property
    def n_cells(self) -> int:
        """Number of its cells."""
        return self.rows.size
