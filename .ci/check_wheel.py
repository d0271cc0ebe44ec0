"""Tell whether a wheel holds all of the package, its licence and its type marker, and nothing else."""

import sys
import zipfile
from pathlib import Path, PurePosixPath

SOURCE = Path(__file__).parents[1] / "src"
METADATA = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


def expected(info: str) -> set[str]:
    """What must be in the wheel: every file of the package, and the metadata."""
    package = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*") if path.is_file()}
    return {name for name in package if "__pycache__" not in name} | {f"{info}/{name}" for name in METADATA}


def main(wheel: Path) -> None:
    """Compare, and end with an error that names what differs."""
    names = set(zipfile.ZipFile(wheel).namelist())
    (info,) = {top for name in names if (top := PurePosixPath(name).parts[0]).endswith(".dist-info")}
    wanted = expected(info)
    if names != wanted or "cellstamp/py.typed" not in names:
        sys.exit(f"{wheel}: missing {sorted(wanted - names)}, too much {sorted(names - wanted)}")
    sys.stdout.write(f"{wheel}: {len(names)} files, as it should be\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
