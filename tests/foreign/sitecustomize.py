"""Python runs this at its start, in child processes too, if this folder is in PYTHONPATH."""

import foreign_system

foreign_system.install()
