"""Which files a detector reads of an image or a scan: what it reads is what it knows it by."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..core.spec import Reads
from .decoding.xyz import CLOUD_SUFFIX

#: Where a scan's calibration lies, from its category's folder.
CALIBRATION = Path("calibration") / "camera_parameters.json"
#: How the names of clouds and of images beside them end, in any case; the first is expected where none lies there.
CLOUD_SUFFIXES = (CLOUD_SUFFIX, ".tif")
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def is_cloud_name(path: Path) -> bool:
    """Whether a file's name ends as that of a cloud."""
    return path.suffix.lower() in CLOUD_SUFFIXES


def scan_files(path: Path) -> tuple[Path, Path]:
    """Cloud and image of a scan, named by either; neither need be there. See ``data.inputs.scan``.

    Returns:
        The file that was named, and the one that lies where the other is expected: the first by the order of the
        suffixes, or, where none lies there, the name with ``.tiff`` or ``.png``.
    """
    folder = path.parent
    if folder.name == "rgb":
        return _beside(folder.parent / "xyz", path.stem, CLOUD_SUFFIXES), path
    if folder.name == "xyz":
        # A preview among clouds names the cloud beside it.
        cloud = path if is_cloud_name(path) else _beside(folder, path.stem, CLOUD_SUFFIXES)
        return cloud, _beside(folder.parent / "rgb", path.stem, (*_IMAGES, *CLOUD_SUFFIXES))
    if path.suffix.lower() in _IMAGES:
        return _beside(folder, path.stem, CLOUD_SUFFIXES), path
    return path, _beside(folder, path.stem, _IMAGES)


def _beside(folder: Path, stem: str, suffixes: tuple[str, ...]) -> Path:
    # Names are asked for one by one: listing the folder for each of its files would take its square.
    names = (f"{stem}{cased}" for suffix in suffixes for cased in (suffix, suffix.upper(), suffix.title()))
    found = (folder / name for name in names if (folder / name).is_file())
    return next(found, folder / f"{stem}{suffixes[0]}")


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
