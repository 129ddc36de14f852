"""Which files a detector reads of an image or a scan: what it reads is what it knows it by."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..core.spec import Reads
from .decoding.xyz import CLOUD_SUFFIX

#: Where a scan's calibration lies, from its category's folder.
CALIBRATION = Path("calibration") / "camera_parameters.json"
_IMAGE_SUFFIX = ".png"


def scan_files(path: Path) -> tuple[Path, Path]:
    """Cloud and image of a scan, named by either; neither need be there. See ``data.inputs.scan``."""
    if path.parent.name in ("rgb", "xyz"):
        above = path.parent.parent
        return above / "xyz" / f"{path.stem}{CLOUD_SUFFIX}", above / "rgb" / f"{path.stem}{_IMAGE_SUFFIX}"
    if path.suffix == _IMAGE_SUFFIX:
        return path.with_suffix(CLOUD_SUFFIX), path
    return path, path.with_suffix(_IMAGE_SUFFIX)


def files_read(path: Path, reads: Reads) -> tuple[Path, ...]:
    """The files that are read of an image, or of a scan named by its cloud or its image; the cloud first."""
    if reads == "image":
        return (path,)
    files = scan_files(path)
    return files if reads == "cloud+rgb" else files[:1]


def each_once(paths: Iterable[Path], reads: Reads) -> tuple[Path, ...]:
    """The paths without those that name what another before them names: a scan by its cloud and by its image."""
    first = dict[Path, Path]()
    for path in paths:
        first.setdefault(files_read(path, reads)[0], path)
    return tuple(first.values())
