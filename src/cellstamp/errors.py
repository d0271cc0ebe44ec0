"""Every error cellstamp raises on purpose. Each kind is also the builtin kind a caller would expect."""


class CellstampError(Exception):
    """Base class: catch this to catch all of cellstamp's own errors."""


class ConfigError(CellstampError, ValueError):
    """A configuration, or an argument of a call, that cannot be used."""


class InputError(CellstampError, ValueError):
    """An image, a mask, a table of centres or a store that cannot be used."""


class OutputError(CellstampError, ValueError):
    """A result that is in the way, or that cannot be written."""


class WorkerError(CellstampError, RuntimeError):
    """A batch that failed in a worker, or a worker that died."""
